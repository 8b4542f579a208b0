"""The answers to the card of WE."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from papernets.data import digits
from papernets.measure import macs, parameters
from papernets.nn import SmallMobileNet
from papernets.papers.we.method import (
    CIFAR,
    MIXES,
    WE,
    WE_IMAGENET,
    Evolution,
    cross_kernels,
    cross_pointwise,
    importance,
    populations,
    threshold,
)
from papernets.training import fit, loader, pair, seed_everything, single_thread, steps


def _with_norms(*rows: Sequence[float]) -> nn.Sequential:
    """1×1 convolutions whose filters have these importances."""
    model, before = nn.Sequential(), 2
    for row in rows:
        conv = nn.Conv2d(before, len(row), 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(row).view(-1, 1, 1, 1).expand_as(conv.weight))
        model.append(conv)
        before = len(row)
    return model


def _added(seed: int) -> tuple[int, int]:
    """Parameters and MACs after an epoch of training with evolution, minus those before."""
    data, example = digits(200, seed), torch.zeros(1, 1, 8, 8)
    with single_thread():
        seed_everything(seed)
        model = SmallMobileNet()
        before = parameters(model), macs(model, example)
        evolution = Evolution(WE(weak=0.6, local=0.5))
        changed = []
        fit(model, loader(data[0], 64, True), None, epochs=2, lr=steps(0.05, ()), seed=seed,
            after_epoch=lambda model, epoch, history: changed.extend(evolution.step(model, epoch)))
    if not changed:
        raise AssertionError("nothing evolved, so nothing was counted")
    return parameters(model) - before[0], macs(model, example) - before[1]


def _touched(seed: int) -> tuple[int, int]:
    """Over all layers of a network: elements of superior filters that changed; most changed elements of one 3×3 kernel."""
    seed_everything(seed)
    model = SmallMobileNet()
    for value in model.parameters():
        if value.dim() == 1:
            nn.init.normal_(value)
    before = copy.deepcopy(model)
    strong, most = 0, 0
    for change in Evolution(WE(weak=0.9, gamma=0.9, beta=0.9, local=0.9, schedule=lambda epoch: 1.0)).step(model, 0):
        moved = model.get_parameter(change.parameter) != before.get_parameter(change.parameter)
        strong += int(moved[list(change.superior)].sum())
        if moved.dim() == 4 and moved[0, 0].numel() > 1:
            per = moved[list(change.inferior)].flatten(2).sum(2)
            if per.min() != per.max():
                raise AssertionError("kernels of one filter have unequal numbers of changed elements")
            most = max(most, int(per.max()))
    return strong, most


def _crossed() -> dict[str, float]:
    """The crossovers that are done by hand."""
    weak_row, strong_row = torch.tensor([[0.1, -0.05]], dtype=torch.float64), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    first, second = cross_pointwise(weak_row, strong_row)[0].tolist()
    inferior, superior = (torch.tensor(row, dtype=torch.float64).view(1, 1, 3, 1)
                          for row in ((0.1, 0.2, -0.05), (3.0, -1.0, 2.0)))
    return {"cross.point.alpha": (first - 1.0) / (0.1 - 1.0), "cross.point.first": first, "cross.point.second": second,
            **{f"cross.kernel.{mix}": float(cross_kernels(inferior, superior, mix)[0, 0, 2]) for mix in MIXES}}


def _selected(seed: int) -> dict[str, float]:
    """Who evolves: in two layers, in seven where no filter is weak in its layer, and at most in a small network."""
    two = _with_norms((10.0, 9.0, 0.5, 0.4), (0.01, 0.02, 0.03, 0.001, 0.9, 0.8))
    changes = Evolution(WE(weak=0.8)).step(two, 0)
    if not changes:
        raise AssertionError("the layer of tiny filters did not evolve either")
    none = sum(len(change.inferior) for change in changes if change.parameter == "0.weight")
    seven = _with_norms(*[(1.0, 0.9, 0.8, 0.5)] * 7)
    forced = 1 + int(Evolution(WE(weak=0.9)).step(seven, 0)[0].parameter.split(".")[0])
    seed_everything(seed)
    every = torch.cat([importance(W) for W in populations(SmallMobileNet())["conv"].values()])
    most = {f"select.{name}": int((every < threshold(every, WE().weak * CIFAR(epoch))).sum())
            for name, epoch in {"first": 0, "last": 59}.items()}
    return {"select.none": none, "select.forced": forced, **most}


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    same = {WE_IMAGENET.weak, WE_IMAGENET.gamma, WE_IMAGENET.beta}
    return {**dict(zip(("plugin.params", "plugin.macs"), _added(seed))),
            "rates.conv": WE().weak, "rates.gamma": WE().gamma, "rates.beta": WE().beta, "rates.local": WE().local,
            "rates.imagenet.local": WE_IMAGENET.local, "rates.imagenet": same.pop() if len(same) == 1 else math.nan,
            **{f"schedule.e{epoch}": WE().weak * CIFAR(epoch) for epoch in (0, 1, 5, 15, 30, 59, 60, 75, 119, 120, 150, 199)},
            **_crossed(), **dict(zip(("cross.superior", "cross.touched"), _touched(seed))), **_selected(seed)}


#: What each claim compares: experiment, ours, baseline, and the quantity.
PAIRS = {"better.plain": ("healthy", "dominant", "plain", "score"),
         "better.wide": ("healthy", "wide", "plain", "score"),
         "better.falling": ("healthy", "falling", "plain", "score"),
         "better.long": ("long", "dominant", "plain", "score"),
         "better.patches": ("patches", "dominant", "plain", "score"),
         "better.patches.official": ("patches", "official", "plain", "score"),
         "reactivation": ("scaled", "dominant", "plain", "weak"), "reactivation.dead": ("dead", "dominant", "plain", "weak"),
         "reactivation.official": ("dead", "official", "plain", "weak"),
         "reactivation.mobile": ("dead mobile", "dominant", "plain", "weak"),
         "dead.plain": ("dead", "dominant", "plain", "score"), "dead.official": ("dead", "official", "plain", "score"),
         "dead.mobile": ("dead mobile", "dominant", "plain", "score"), "dead.copy": ("dead", "dominant", "copy", "score"),
         "dead.renew": ("dead", "dominant", "renew", "score")}
#: The claims that compare accuracies; the others compare numbers of filters.
GAINS = tuple(claim for claim, (*_, key) in PAIRS.items() if key == "score")


def records(rows: Sequence[Mapping]) -> dict[str, tuple[list[float], list[float]]]:
    """(ours, baseline) of every miniature, over the seeds: per cent of right answers, or filters."""
    return {claim: pair(rows, one, other, experiment, key, 100 if key == "score" else 1)
            for claim, (experiment, one, other, key) in PAIRS.items()}
