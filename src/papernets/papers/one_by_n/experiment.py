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
from papernets.papers.one_by_n.method import MaskedConv2d, OneByN, compact, kept_norm, mask, prune_
from papernets.papers.one_by_n.networks import SmallMobileNet
from papernets.training import cosine, fit, loader, logits, seed_everything, single_thread


def _random_weights(seed: int, number: int = 20) -> list[torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return [torch.randn(32, 16, 1, 1, generator=draw) * torch.rand(32, 1, 1, 1, generator=draw) for _ in range(number)]


def rising_pairs(seed: int = 0) -> int:
    """In how many of the pairs N | N' do the larger blocks keep more norm of random matrices, at equal numbers of weights?"""
    found = 0
    for W in _random_weights(seed):
        for p in (0.25, 0.5, 0.75):  # multiples of 1/16: the same number of weights at every N
            kept = {N: kept_norm(W, mask(W, p, N)) for N in (1, 2, 4, 8, 16)}
            found += sum(kept[b] > kept[a] + 1e-6 for a in kept for b in kept if a < b)
    return found


def above_unstructured(seed: int = 0) -> int:
    """In how many cases do blocks of random matrices, rearranged or not, keep more norm than the best single weights?"""
    found = 0
    for W in _random_weights(seed):
        for p in (0.25, 0.5, 0.75):
            best = kept_norm(W, mask(W, p, pattern="weight"))
            found += sum(kept_norm(W, mask(W, p, N, rearrange=r)) > best + 1e-6 for N in (2, 4, 8, 16) for r in (False, True))
    return found


#: The arms of the comparison, by name.
ARMS = {"weight": OneByN(pattern="weight"), **{f"1x{N}": OneByN(N=N, rearrange=False) for N in (2, 4, 16)},
        **{f"1x{N} rearranged": OneByN(N=N) for N in (4, 16)}, "filter": OneByN(pattern="filter")}


def compare(seed: int, *, train: int = 1000, test: int | None = None, epochs: int = 15, tuning: int = 3,
            rates: Sequence[float] = (0.5, 0.8, 0.9), lr: float = 0.05) -> dict:
    """All arms on the digits for one seed: one dense network, pruned in every way and fine-tuned for ``tuning`` epochs.

    Without ``test`` all digits that are not trained on are tested.

    ``dense``: its test accuracy (a share). ``arms[p][name]``: accuracy ``before`` and ``after`` the fine-tuning, and the share
    of the ``norm`` kept. ``packed``: the largest difference between a fine-tuned network and its encoded form.
    """
    data = digits(train, seed)
    data = data[0], Split(*data[1][:test], data[1].classes)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    with single_thread():
        seed_everything(seed)
        model = SmallMobileNet()
        found = {"seed": seed, "dense": fit(model, *loaders, epochs=epochs, lr=cosine(lr, epochs), weight_decay=4e-5,
                                            seed=seed).accuracy[-1], "arms": {}, "packed": 0.0}
        for p in rates:
            found["arms"][p] = {}
            for name, config in ARMS.items():
                arm = copy.deepcopy(model)
                prune_(arm, replace(config, rate=p, kernel=(1,)))
                layers = [(model.get_submodule(at).weight.detach(), module.mask) for at, module in arm.named_modules()
                          if isinstance(module, MaskedConv2d)]
                whole = sum(float(W.abs().sum()) for W, _ in layers)
                kept = sum(float((W.abs() * M).sum()) for W, M in layers) / whole
                before = _accuracy(arm, data[1])
                after = fit(arm, *loaders, epochs=tuning, lr=cosine(lr / 5, tuning), weight_decay=4e-5, seed=seed + 1).accuracy
                found["arms"][p][name] = {"before": before, "after": after[-1], "norm": kept}
                if config.pattern == "block":
                    gap = logits(arm.eval(), data[1].images) - logits(compact(arm, data[1].images[:1]), data[1].images)
                    found["packed"] = max(found["packed"], float(gap.abs().max()))
    return found


def _accuracy(model: nn.Module, data) -> float:
    return float((logits(model, data.images).argmax(1) == data.labels).float().mean())


def race(seed: int, *, channels: int = 256, side: int = 14, N: int = 8, rate: float = 0.5, repeats: int = 15,
         peers: Sequence[str] = ("dense", "csr")) -> dict[str, float]:
    """Milliseconds of one 1×1 layer on one thread: our kernel, the dense product and a product with zeros without order.

    Medians over ``repeats`` turns, in which all take part in turn. ``dense`` is the fastest of numpy's product, torch's, and
    this kernel with nothing removed; ``csr`` the faster of scipy's and torch's compressed rows with as many single weights.
    Results are compared first.
    """
    rng = np.random.default_rng(seed)
    W = torch.from_numpy(rng.standard_normal((channels, channels, 1, 1)).astype(np.float32))
    x = rng.standard_normal((channels, side * side)).astype(np.float32)
    ours, single = ((W * mask(W, rate, **how)).numpy() for how in (dict(N=N), dict(pattern="weight")))
    packed, whole = kernel.pack(ours, N), kernel.pack(W.numpy(), N)
    every = {"ours": {"ours": lambda: kernel.matmul(packed, x)},
             "dense": {**products(ours[:, :, 0, 0], x), "nothing removed": lambda: kernel.matmul(whole, x)},
             "csr": sparse_products(single[:, :, 0, 0], x)}
    every = {group: calls for group, calls in every.items() if group == "ours" or group in peers}
    weights = {"scipy": single, "torch csr": single, "nothing removed": W.numpy()}
    calls = {name: call for group in every.values() for name, call in group.items()}
    taken = take_turns(calls, {name: weights.get(name, ours)[:, :, 0, 0] @ x for name in calls}, repeats=repeats)
    return {group: fastest(taken, names) for group, names in every.items()}
