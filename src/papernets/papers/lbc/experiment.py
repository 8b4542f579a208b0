"""The experiments of the chapter on LBC."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from papernets_kernels import n_of_m as kernel
from papernets_kernels import one_by_n
from torch import nn

from papernets.data import digits
from papernets.measure import fastest, products, sparse_products, take_turns
from papernets.nn import SmallMLP
from papernets.papers.lbc.layers import LBC, compact, density, refresh_, sparse_layers, sparsify_, violations
from papernets.papers.lbc.method import largest, to_groups
from papernets.training import Task, logits, row, single_thread


def observed(seed: int = 0) -> dict[str, float]:
    """What a short training of a small network shows: the share of weights (%) that count in epoch 0, the number of groups that
    are not N:M at the end, and the largest gradient that a removed weight gets.
    """
    at_start, at_end, gradient = set(), 0, 0.0
    with single_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for N, M in ((2, 4), (1, 4), (2, 8)):
            model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16))
            sparsify_(model, LBC(N, M, t_f=4))
            optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
            for epoch in range(6):
                refresh_(model, epoch)
                if not epoch:
                    at_start.add(100 * density(model))
                optimizer.zero_grad()
                model(torch.randn(16, 8, 5, 5)).square().mean().backward()
                for layer in sparse_layers(model).values():
                    removed = layer.weight.grad[~layer.mask]
                    gradient = max(gradient, float(removed.abs().max()) if len(removed) else 0.0)
                optimizer.step()
            at_end += violations(model)
    return {"sparsity.start": min(at_start), "sparsity.end": at_end, "nodense.gradient": gradient}


@torch.no_grad()
def rescale_(model: nn.Module) -> None:
    """Scale the weight of each N:M layer so that the part that counts has the norm of the whole."""
    for layer in sparse_layers(model).values():
        layer.weight *= layer.weight.norm() / (layer.weight * layer.mask).norm()


#: The arms of the comparison, by name, and the patterns at which they are compared.
ARMS = {"lbc": LBC(), "random": LBC(rule="random"), "magnitude": LBC(rule="magnitude"), "ste": LBC(rule="ste")}
PATTERNS = ((2, 4), (1, 4), (1, 8), (1, 16))


def compare(seed: int, *, train: int = 1000, epochs: int = 40, patterns: Sequence[tuple[int, int]] = PATTERNS,
            lr: float = 0.05) -> list[dict]:
    """All arms on the digits for one seed: same first weights, order of the data and epochs; removal over the first half.

    The first weights of each N:M layer are scaled so that those that count have the norm of the dense layer. Without it a
    sparse arm would begin with weak signals, and LBC, which begins dense, would gain from that alone.

    The ``score`` of a row is the test accuracy (a share). The row of ``dense`` stands at None, those of ``ARMS`` at (N, M);
    these have the ``density`` in each epoch, which is the share of weights that count, and the ``gap``: the largest difference
    between the outputs of the network and of its packed form.
    """
    task = Task(*digits(train, seed), epochs, seed, lr, weight_decay=1e-4)
    with single_thread():
        plain = task.start(SmallMLP)
        task.learn(plain)
        rows = [row(seed, "dense", task.accuracy(plain, 1000))]
        rows += [_learned(task, arm, pattern) for pattern in patterns for arm in ARMS]
    return rows


def _learned(task: Task, arm: str, pattern: tuple[int, int]) -> dict:
    """The row of one arm at one pattern (N, M)."""
    (N, M), model, shares = pattern, task.start(SmallMLP), []
    config = replace(ARMS[arm], N=N, M=M, t_f=max(1, task.epochs // 2), seed=task.seed, ignore=("classifier",))
    sparsify_(model, config)
    rescale_(model)
    task.learn(model, before_epoch=refresh_, after_epoch=lambda model, epoch, history: shares.append(density(model)))
    score = task.accuracy(model, 1000)
    refresh_(model, task.epochs)  # of a run of one epoch the last removal is still to come
    gap = logits(model, task.test.images) - logits(compact(model), task.test.images)
    return row(task.seed, arm, score, pattern, density=shares, gap=float(gap.abs().max()))


def race(seed: int, *, channels: int = 256, side: int = 14, N: int = 2, M: int = 4, repeats: int = 15) -> dict[str, float]:
    """Seconds of one 1×1 layer on one thread: our kernel, the dense product, and the same weights in compressed rows.

    Medians over ``repeats`` turns, in which all take part in turn. ``dense`` is the fastest of numpy's product, torch's, and
    the dense product of this package's own (the 1×N kernel with nothing removed); ``csr`` the faster of scipy's and torch's.
    Results are compared first.
    """
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((channels, channels)).astype(np.float32)
    W = full * largest(to_groups(torch.from_numpy(full), M), N).reshape(full.shape).numpy()
    x = rng.standard_normal((channels, side * side)).astype(np.float32)
    packed, whole = kernel.pack(W, N, M), one_by_n.pack(full[:, :, None, None], 8)
    every = {"ours": {"ours": lambda: kernel.matmul(packed, x)},
             "dense": {**products(W, x), "nothing removed": lambda: one_by_n.matmul(whole, x)}, "csr": sparse_products(W, x)}
    calls = {name: call for group in every.values() for name, call in group.items()}
    taken = take_turns(calls, {**dict.fromkeys(calls, W @ x), "nothing removed": full @ x}, repeats=repeats)
    return {group: fastest(taken, names) for group, names in every.items()}


#: The patterns whose time is measured, from the densest to the sparsest.
RACED = ((7, 8), (3, 4), (2, 4), (1, 4), (1, 8), (1, 16))


def speed_by_pattern(seed: int = 0, repeats: int = 5) -> dict[str, list[float]]:
    """Seconds of a layer of 256 to 256 channels at 14×14, of the kernel and its peers, by pattern of ``RACED``."""
    times: dict[str, list[float]] = {}
    for N, M in RACED:
        for name, seconds in race(seed, N=N, M=M, repeats=repeats).items():
            times.setdefault(name, []).append(seconds)
    return times
