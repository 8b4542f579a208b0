"""The experiments of the chapter on LBC."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from papernets_kernels import n_of_m as kernel
from papernets_kernels import one_by_n
from torch import nn

from papernets.data import digits
from papernets.measure import fastest, products, sparse_products, take_turns
from papernets.papers.lbc.layers import LBC, _layers, compact, density, refresh_, sparsify_, violations
from papernets.papers.lbc.method import largest, to_groups
from papernets.papers.lbc.networks import SmallMLP
from papernets.training import cosine, fit, loader, logits, seed_everything, single_thread


def _observed(seed: int) -> dict[str, float]:
    """What a short training of a small network shows of the mask and of its gradients."""
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
                for layer in _layers(model).values():
                    pruned = layer.weight.grad[~layer.mask]
                    gradient = max(gradient, float(pruned.abs().max()) if len(pruned) else 0.0)
                optimizer.step()
            at_end += violations(model)
    return {"sparsity.start": min(at_start), "sparsity.end": at_end, "nodense.gradient": gradient}


@torch.no_grad()
def rescale_(model: nn.Module) -> None:
    """Scale the weight of each N:M layer so that the part that counts has the norm of the whole."""
    for layer in _layers(model).values():
        layer.weight *= layer.weight.norm() / (layer.weight * layer.mask).norm()


#: The arms of the comparison, by name.
ARMS = {"lbc": LBC(), "random": LBC(rule="random"), "magnitude": LBC(rule="magnitude"), "ste": LBC(rule="ste")}
PATTERNS = ((2, 4), (1, 4), (1, 8), (1, 16))


def compare(seed: int, *, train: int = 1000, epochs: int = 40, patterns: Sequence[tuple[int, int]] = PATTERNS,
            lr: float = 0.05) -> dict:
    """All arms on the digits for one seed: same first weights, order of the data and epochs; removal over the first half.

    The first weights of each N:M layer are scaled so that those that count have the norm of the dense layer. Without it a
    sparse arm would begin with weak signals, and LBC, which begins dense, would gain from that alone.

    ``dense``: the test accuracy of the dense network (a share). ``arms[N, M][name]``: that of an arm. ``density[N, M]``: the
    share of weights that count in each epoch of LBC. ``packed``: the largest difference between a network and its packed form.
    """
    data = digits(train, seed)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    options = dict(epochs=epochs, lr=cosine(lr, epochs), weight_decay=1e-4, seed=seed)
    with single_thread():
        seed_everything(seed)
        first = SmallMLP()
        found = {"seed": seed, "dense": fit(copy.deepcopy(first), *loaders, **options).accuracy[-1], "arms": {}, "density": {},
                 "packed": 0.0}
        for N, M in patterns:
            found["arms"][N, M] = {}
            for name, config in ARMS.items():
                model, seen = copy.deepcopy(first), []
                sparsify_(model, replace(config, N=N, M=M, t_f=max(1, epochs // 2), seed=seed, ignore=("classifier",)))
                rescale_(model)
                after = (lambda model, epoch, history, seen=seen: seen.append(density(model))) if name == "lbc" else None
                history = fit(model, *loaders, before_epoch=refresh_, after_epoch=after, **options)
                found["arms"][N, M][name] = history.accuracy[-1]
                if name == "lbc":
                    refresh_(model, epochs)  # of a run of one epoch the last removal is still to come
                    found["density"][N, M] = seen
                    gap = logits(model, data[1].images) - logits(compact(model), data[1].images)
                    found["packed"] = max(found["packed"], float(gap.abs().max()))
    return found


def race(seed: int, *, channels: int = 256, side: int = 14, N: int = 2, M: int = 4, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of one 1×1 layer on one thread: our kernel, the dense product, and the same weights in compressed rows.

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
