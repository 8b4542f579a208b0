"""The experiments of the chapter on LRPET."""

import copy
import functools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from papernets.data import digits
from papernets.measure import median_seconds
from papernets.papers.lrpet.method import LRPET, compact, pair_of, project, project_, rank
from papernets.papers.lrpet.networks import PlainNet
from papernets.training import Schedule, Task, loader, logits, row, seed_everything, single_thread, steps

#: The arms that train with the projection, by name; "lrpet" is the whole method.
PROJECTED = {"projection": LRPET(energy=False, bn_rectify=False), "energy": LRPET(bn_rectify=False), "lrpet": LRPET()}
#: All arms of the comparison at one share.
ARMS = ("truncate", "retrain", "factor", *PROJECTED)
_EXAMPLE = torch.zeros(1, 1, 8, 8)


def _falling(lr: float, epochs: int) -> Schedule:
    """To a tenth after half of a run, and again after three quarters."""
    return steps(lr, (epochs / 2, 3 * epochs / 4))


def compare(seed: int, *, train: int = 600, epochs: int = 30, shares: Sequence[float] = (0.8, 0.9), depth: int = 8,
            lr: float = 0.1) -> list[dict]:
    """All arms on the digits for one seed: same first weights, same order of the data, same number of epochs.

    A score is a test accuracy, as a share, ``at`` the share q that is pruned, or None for the full network, ``full``. The
    others are of rank int(p − p q), as pairs of layers. Of those that train with the projection, ``gap`` is the largest
    difference between the outputs of the projected network and of its pairs; ``lrpet`` has lists of the accuracy ``before``
    and ``after`` the projection of every epoch.

    ``retrain`` is two runs, of half the epochs each. ``factor`` starts from the first weights, projected with their energy.
    """
    task = Task(*digits(train, seed), epochs, seed, lr, weight_decay=1e-4, schedule=_falling)
    with single_thread():
        first = task.start(PlainNet, depth)
        full, half = copy.deepcopy(first), copy.deepcopy(first)
        task.learn(full)
        task.learn(half, epochs // 2)
        rows = [row(seed, "full", task.accuracy(full))]
        for q in shares:
            starts = {"truncate": full, "retrain": half, "factor": first}
            rows += [row(seed, name, task.accuracy(_cut(task, name, start, q)), q) for name, start in starts.items()]
            rows += [_projected(task, name, first, q) for name in PROJECTED]
    return rows


def _cut(task: Task, name: str, start: nn.Module, q: float) -> nn.Module:
    """A copy of ``start``, cut to its ranks, as pairs that are trained for as long as the arm ``name`` says."""
    model = copy.deepcopy(start)
    project_(model, LRPET(removed=q, energy=name == "factor", bn_rectify=False))
    model = compact(model)
    if name == "retrain":
        task.learn(model, task.epochs - task.epochs // 2, again=1)
    elif name == "factor":
        task.learn(model)
    return model


def _projected(task: Task, name: str, first: nn.Module, q: float) -> dict:
    """The row of an arm that trains with the projection."""
    config, model, after, watched = replace(PROJECTED[name], removed=q), copy.deepcopy(first), [], name == "lrpet"

    def project_now(model: nn.Module, epoch: int, history) -> None:
        project_(model, config, _EXAMPLE)
        if watched:
            after.append(task.accuracy(model))

    history = task.learn(model, after_epoch=project_now, test=loader(task.test, 2000, False) if watched else None)
    pairs, images = compact(model), task.test.images
    gap = float((logits(model, images) - logits(pairs, images)).abs().max())
    curves = {"before": history.scores, "after": after} if watched else {}
    return row(task.seed, name, task.accuracy(pairs), q, gap=gap, **curves)


def gradient_logs(seed: int, *, layers: int = 20, size: int = 64, q: float = 0.8) -> list[dict]:
    """Of the arms ``with`` energy transfer and ``without``, what becomes of a gradient in random linear layers.

    ``logs`` is the log of its norm after 1 to ``layers`` of them, projected minus original; the score is how far the last is
    from 0. W is normal of variance 1 / size, and the gradient at the top is normal.
    """
    draw = torch.Generator().manual_seed(seed)
    stack = [torch.randn(size, size, generator=draw, dtype=torch.float64) / size**0.5 for _ in range(layers)]
    top = torch.randn(size, generator=draw, dtype=torch.float64)

    def logs(change: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
        g, norms = top, []
        for W in stack:
            g = change(W).T @ g
            norms.append(float(g.norm().log()))
        return norms

    original, r, rows = logs(lambda W: W), rank(size, q), []
    for name, energy in (("with", True), ("without", False)):
        ratios = [one - other for one, other in zip(logs(functools.partial(project, r=r, energy=energy)), original)]
        rows.append(row(seed, name, abs(ratios[-1]), logs=ratios))
    return rows


def layer_times(inputs: int, outputs: int, side: int, at: Sequence[int], *, kernel: int = 3, seed: int = 0,
                at_least: float = 0.05) -> dict[str, list[float]]:
    """Seconds of a convolution on one image and one thread, and of its pair at every rank of ``at``; also their MACs.

    ``dense`` and ``dense.macs`` are single numbers in a list.
    """
    seed_everything(seed)
    with single_thread(), torch.inference_mode():
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False).eval()
        x, positions = torch.randn(1, inputs, side, side), side * side
        m, d = outputs, inputs * kernel**2
        times = {"dense": [median_seconds(lambda: conv(x), at_least=at_least)], "dense.macs": [m * d * positions],
                 "pair": [], "pair.macs": []}
        for r in at:
            pair = pair_of(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), r).eval()
            times["pair"].append(median_seconds(functools.partial(pair, x), at_least=at_least))
            times["pair.macs"].append(r * (m + d) * positions)
    return times
