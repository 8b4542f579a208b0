"""The experiments of the chapter on 1×N."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from papernets_kernels import one_by_n as kernel
from torch import nn

from papernets.data import Split, digits
from papernets.measure import fastest, products, sparse_products, take_turns
from papernets.nn import SmallMobileNet
from papernets.papers.one_by_n.method import MaskedConv2d, OneByN, compact, kept_norm, mask, prune_
from papernets.training import Task, cosine, logits, row, single_thread


def _random_weights(seed: int, number: int = 20) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(32, 16, 1, 1, generator=draw) * torch.rand(32, 1, 1, 1, generator=draw) for _ in range(number)]


def rising_pairs(seed: int = 0) -> int:
    """In how many of the pairs N | N' do the larger blocks keep more norm of random matrices, at equal numbers of weights?"""
    rising = 0
    for W in _random_weights(seed):
        for p in (0.25, 0.5, 0.75):  # multiples of 1/16: the same number of weights at every N
            kept = {N: kept_norm(W, mask(W, p, N)) for N in (1, 2, 4, 8, 16)}
            rising += sum(kept[b] > kept[a] + 1e-6 for a in kept for b in kept if a < b)
    return rising


def above_unstructured(seed: int = 0) -> int:
    """In how many cases do blocks of random matrices, rearranged or not, keep more norm than the best single weights?"""
    above = 0
    for W in _random_weights(seed):
        for p in (0.25, 0.5, 0.75):
            best = kept_norm(W, mask(W, p, pattern="weight"))
            above += sum(kept_norm(W, mask(W, p, N, rearrange=r)) > best + 1e-6 for N in (2, 4, 8, 16) for r in (False, True))
    return above


#: The arms of the comparison, by name.
ARMS = {"weight": OneByN(pattern="weight"), **{f"1x{N}": OneByN(N=N, rearrange=False) for N in (2, 4, 16)},
        **{f"1x{N} rearranged": OneByN(N=N) for N in (4, 16)}, "filter": OneByN(pattern="filter")}


#: Widths of the network of the comparison: a stem, and three pairs of a depthwise and a 1×1 convolution.
WIDTHS = (32, 64, 64, 64)


def compare(seed: int, *, train: int = 1000, test: int | None = None, epochs: int = 15, tuning: int = 3,
            removed: Sequence[float] = (0.5, 0.8, 0.9), lr: float = 0.05) -> list[dict]:
    """All arms on the digits for one seed: one dense network, pruned in every way and fine-tuned for ``tuning`` epochs.

    Without ``test`` all digits that are not trained on are tested.

    The ``score`` of a row is the test accuracy (a share) at the end. The row of ``dense`` stands at None, those of ``ARMS`` at
    the share ``removed``; these have the accuracy ``before`` the fine-tuning and the share of the ``norm`` that is kept, and
    those of blocks the ``gap``: the largest difference between the outputs of the network and of its encoded form.
    """
    images, rest = digits(train, seed)
    task = Task(images, Split(*rest[:test], rest.classes), epochs, seed, lr, weight_decay=4e-5)
    with single_thread():
        dense = task.start(SmallMobileNet, WIDTHS)
        task.learn(dense)
        rows = [row(seed, "dense", task.accuracy(dense, 1000))]
        rows += [_tuned(task, dense, arm, share, tuning) for share in removed for arm in ARMS]
    return rows


def _tuned(task: Task, dense: nn.Module, arm: str, removed: float, tuning: int) -> dict:
    """The row of one arm at one share."""
    model = copy.deepcopy(dense)
    prune_(model, replace(ARMS[arm], removed=removed, kernel=(1,)))
    layers = [(dense.get_submodule(name).weight.detach(), module.mask) for name, module in model.named_modules()
              if isinstance(module, MaskedConv2d)]
    whole = sum(float(W.abs().sum()) for W, _ in layers)
    more = {"norm": sum(float((W.abs() * M).sum()) for W, M in layers) / whole, "before": task.accuracy(model)}
    task.learn(model, tuning, again=1, lr=cosine(task.lr / 5, tuning))
    if ARMS[arm].pattern == "block":
        images = task.test.images
        more["gap"] = float((logits(model, images) - logits(compact(model, images[:1]), images)).abs().max())
    return row(task.seed, arm, task.accuracy(model, 1000), removed, **more)


def race(seed: int, *, channels: int = 256, side: int = 14, N: int = 8, removed: float = 0.5, repeats: int = 15,
         peers: Sequence[str] = ("dense", "csr")) -> dict[str, float]:
    """Seconds of one 1×1 layer on one thread: our kernel, the dense product and a product with zeros without order.

    Medians over ``repeats`` turns, in which all take part in turn. ``dense`` is the fastest of numpy's product, torch's, and
    this kernel with nothing removed; ``csr`` the faster of scipy's and torch's compressed rows with as many single weights.
    Results are compared first.
    """
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.standard_normal((channels, channels, 1, 1)).astype(np.float32))
    x = rng.standard_normal((channels, side * side)).astype(np.float32)
    ours, single = ((W * mask(W, removed, **how)).numpy() for how in (dict(N=N), dict(pattern="weight")))
    packed, whole = kernel.pack(ours, N), kernel.pack(W.numpy(), N)
    every = {"ours": {"ours": lambda: kernel.matmul(packed, x)},
             "dense": {**products(ours[:, :, 0, 0], x), "nothing removed": lambda: kernel.matmul(whole, x)},
             "csr": sparse_products(single[:, :, 0, 0], x)}
    every = {group: calls for group, calls in every.items() if group == "ours" or group in peers}
    weights = {"scipy": single, "torch csr": single, "nothing removed": W.numpy()}
    calls = {name: call for group in every.values() for name, call in group.items()}
    taken = take_turns(calls, {name: weights.get(name, ours)[:, :, 0, 0] @ x for name in calls}, repeats=repeats)
    return {group: fastest(taken, names) for group, names in every.items()}


def speed_by_share(seed: int = 0, removed: Sequence[float] = (0.0, 0.25, 0.5, 0.625, 0.75, 0.875, 0.95), N: int = 8,
                   repeats: int = 5) -> dict[str, list[float]]:
    """Seconds of one layer of 256 to 256 channels at 14×14, of the kernel and its peers, by the share ``removed``."""
    times = {"removed": list(removed)}
    for share in removed:
        for name, seconds in race(seed, N=N, removed=share, repeats=repeats).items():
            times.setdefault(name, []).append(seconds)
    return times
