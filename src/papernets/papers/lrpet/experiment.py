"""The experiments of the chapter on LRPET."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from papernets.data import digits
from papernets.measure import median_seconds
from papernets.papers.lrpet.method import LRPET, _pair, compact, project, project_, rank
from papernets.papers.lrpet.networks import PlainNet
from papernets.training import fit, loader, logits, seed_everything, single_thread, steps

#: The arms that train with the projection, by name; "lrpet" is the whole method.
PROJECTED = {"projection": LRPET(energy=False, bn_rectify=False), "energy": LRPET(bn_rectify=False), "lrpet": LRPET()}
#: All arms of the comparison at one share.
ARMS = ("truncate", "retrain", "factor", *PROJECTED)
_EXAMPLE = torch.zeros(1, 1, 8, 8)


def _accuracy(model: nn.Module, data) -> float:
    return float((logits(model, data.images).argmax(1) == data.labels).float().mean())


def compare(seed: int, *, train: int = 600, epochs: int = 30, shares: Sequence[float] = (0.8, 0.9), depth: int = 8,
            lr: float = 0.1) -> dict:
    """All arms on the digits for one seed: same first weights, same order of the data, same number of epochs.

    ``full``: test accuracy (a share) of the full network. ``arms[q][name]``: that of the network of rank int(p − p q), as
    pairs of layers. ``curves[q]``: of ``lrpet``, ``before`` and ``after`` the projection of every epoch. ``gap``: the largest
    difference between the outputs of a projected network and of its pairs.

    The learning rate falls to a tenth after half of a run, and again after three quarters. ``retrain`` is two runs, of half
    the epochs each. ``factor`` starts from the first weights, projected with their energy.
    """
    data = digits(train, seed)
    batches, test = loader(data[0], 64, True), loader(data[1], 2000, False)

    def learn(model: nn.Module, epochs: int, after=None, test=None, seed: int = seed) -> list[float]:
        return fit(model, batches, test, epochs=epochs, lr=steps(lr, (epochs / 2, 3 * epochs / 4)), weight_decay=1e-4,
                   seed=seed, after_epoch=after).accuracy

    with single_thread():
        seed_everything(seed)
        first = PlainNet(depth)
        full, half = copy.deepcopy(first), copy.deepcopy(first)
        learn(full, epochs)
        learn(half, epochs // 2)
        found = {"seed": seed, "full": _accuracy(full, data[1]), "arms": {}, "curves": {}, "gap": 0.0}
        for q in shares:
            arms = found["arms"][q] = {}
            cut = LRPET(share=q, energy=False, bn_rectify=False)
            for name, start in {"truncate": full, "retrain": half, "factor": first}.items():
                model = copy.deepcopy(start)
                project_(model, replace(cut, energy=name == "factor"))
                model = compact(model, cut)
                if name != "truncate":
                    learn(model, epochs if name == "factor" else epochs - epochs // 2, seed=seed + (name == "retrain"))
                arms[name] = _accuracy(model, data[1])
            for name, config in PROJECTED.items():
                config, model, after, watched = replace(config, share=q), copy.deepcopy(first), [], name == "lrpet"

                def project_now(model, epoch, history, config=config, after=after, watched=watched):
                    project_(model, config, _EXAMPLE)
                    if watched:
                        after.append(_accuracy(model, data[1]))

                before = learn(model, epochs, project_now, test if watched else None)
                pairs = compact(model, config)
                gap = logits(model, data[1].images) - logits(pairs, data[1].images)
                found["gap"] = max(found["gap"], float(gap.abs().max()))
                arms[name] = _accuracy(pairs, data[1])
                if watched:
                    found["curves"][q] = {"before": before, "after": after}
    return found


def gradient_logs(seed: int, *, layers: int = 20, size: int = 64, q: float = 0.8) -> dict[str, list[float]]:
    """The log of the gradient's norm after 1 to ``layers`` random linear layers, projected minus original.

    ``with`` energy transfer and ``without``: W is normal of variance 1 / size, and the gradient at the top is normal.
    """
    draw = torch.Generator().manual_seed(seed)
    stack = [torch.randn(size, size, generator=draw, dtype=torch.float64) / size**0.5 for _ in range(layers)]
    top = torch.randn(size, generator=draw, dtype=torch.float64)

    def logs(change: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
        g, found = top, []
        for W in stack:
            g = change(W).T @ g
            found.append(float(g.norm().log()))
        return found

    original, r = logs(lambda W: W), rank(size, q)
    made = {"with": logs(lambda W: project(W, r)), "without": logs(lambda W: project(W, r, energy=False))}
    return {name: [one - other for one, other in zip(values, original)] for name, values in made.items()}


def layer_times(inputs: int, outputs: int, side: int, at: Sequence[int], *, kernel: int = 3, seed: int = 0,
                at_least: float = 0.05) -> dict[str, list[float]]:
    """Milliseconds of a convolution on one image and one thread, and of its pair at every rank of ``at``; also their MACs.

    ``dense`` and ``dense.macs`` are single numbers in a list.
    """
    seed_everything(seed)
    with single_thread(), torch.inference_mode():
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False).eval()
        x, positions = torch.randn(1, inputs, side, side), side * side
        m, d = outputs, inputs * kernel**2
        found = {"dense": [1e3 * median_seconds(lambda: conv(x), at_least=at_least)], "dense.macs": [m * d * positions],
                 "pair": [], "pair.macs": []}
        for r in at:
            pair = _pair(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), r).eval()
            found["pair"].append(1e3 * median_seconds(functools.partial(pair, x), at_least=at_least))
            found["pair.macs"].append(r * (m + d) * positions)
    return found
