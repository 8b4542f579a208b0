"""Which one should I use? Eight ways to a smaller network, on one network and one data set, for the same training time.

The network is small: four 3×3 convolutions for patches of ten photographs. Two budgets are given, one of multiply-accumulates
and one of parameters. They are what 1:4 sparsity leaves in all convolutions but the first, since that is the only method here
whose rate cannot be chosen freely; every other method is set to come as close from below as it can.

Weight Evolution removes nothing. It takes part with the narrow network, trained with it. Methods that start from a trained
network get half of the epochs to train it and half to fine-tune. Nobody's learning rate is tuned.
"""

import copy
import functools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from papernets.data import photograph_patches
from papernets.measure import cost, macs, parameters, take_turns
from papernets.nn import ConvNet
from papernets.papers import cc, dcff, lapp, lbc, lr_winograd, lrpet, one_by_n, we
from papernets.training import Task, clipped_sgd, cosine, reestimate_, row, single_thread

WIDTHS = (16, 32, 48, 64)
EXAMPLE = torch.zeros(1, 3, 32, 32)
BUDGETS = ("macs", "params")
#: The first convolution stays whole where a method can leave layers out.
STEM = ("features.0",)


def network(widths=WIDTHS) -> ConvNet:
    """The dense network of the comparison, or one of other widths."""
    return ConvNet(widths)


def size(model: nn.Module) -> dict[str, int]:
    """Multiply-accumulates of one image, and parameters."""
    return {"macs": macs(model, EXAMPLE), "params": parameters(model)}


def inner(name: str, module: nn.Module) -> bool:
    """Every convolution but the first."""
    return isinstance(module, nn.Conv2d) and name not in STEM


@functools.cache
def budgets() -> dict[str, int]:
    """What is left of the network when three of four weights go in all convolutions but the first."""
    model = network()
    pruned = copy.deepcopy(model)
    one_by_n.prune_(pruned, blocks())
    whole = size(model)
    gone = sum(3 * module.weight.numel() // 4 for name, module in model.named_modules() if inner(name, module))
    return {"macs": macs(pruned, EXAMPLE), "params": whole["params"] - gone}


@functools.cache
def narrow_widths(budget: str) -> tuple[int, ...]:
    """The largest widths, all scaled by one number, with which the network keeps to a budget."""
    for step in range(4 * max(WIDTHS), 0, -1):
        widths = tuple(max(1, int(width * step / (4 * max(WIDTHS)))) for width in WIDTHS)
        if size(network(widths))[budget] <= budgets()[budget]:
            return widths
    raise ValueError(f"no widths keep to the budget of {budgets()[budget]} {budget}")


def start(task: Task, widths=WIDTHS) -> ConvNet:
    """A network with first weights: at each width the same for every method."""
    return task.start(network, widths)


def learned(task: Task, model: nn.Module, epochs: int | None = None, share: float = 1.0, **options) -> nn.Module:
    """``model`` after a training that begins with ``share`` of the learning rate."""
    task.learn(model, epochs, share=share, **options)
    return model


def half(task: Task) -> tuple[nn.Module, float]:
    """The dense network after half of the epochs, and the seconds that took."""
    begin = time.perf_counter()
    model = learned(task, start(task), task.epochs // 2)
    return model, time.perf_counter() - begin


def _dense(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    return learned(task, start(task))


def _narrow(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    return learned(task, start(task, narrow_widths(budget)))


def _lapp(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    whole, left = size(network()), budgets()
    norms = 10 + 2 * WIDTHS[0] + 4 * sum(WIDTHS[1:])  # at most: those behind filters and bypasses, which LAPP does not count
    share = {"macs": left["macs"] / whole["macs"],
             "params": (left["params"] - norms) / (whole["params"] - 10 - 2 * sum(WIDTHS))}
    config = lapp.LAPP(removed=1 - share[budget], budget=budget, ignore=STEM, progressive=max(1, task.epochs // 2))
    return lapp.train(start(task), (task.batches(), None), config, epochs=task.epochs, lr=cosine(task.lr, task.epochs),
                      seed=task.seed, example=EXAMPLE)[0].eval()


def _dcff(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    model = start(task, narrow_widths(budget))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    dcff.fuse_narrow_(model, dict(zip(names, WIDTHS)))
    learned(task, model, before_epoch=lambda model, epoch: dcff.refresh_(model, epoch, task.epochs))
    return dcff.compact(model)


def _we(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    evolution = we.Evolution(we.WE(schedule=we.CIFAR.scaled(task.epochs / 200), until=task.epochs - 1))
    return learned(task, start(task, narrow_widths(budget)),
                   after_epoch=lambda model, epoch, history: evolution.step(model, epoch))


def blocks() -> one_by_n.OneByN:
    return one_by_n.OneByN(removed=0.75, N=4, ignore=STEM)


def _one_by_n(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    one_by_n.prune_(trained, blocks())
    return one_by_n.compact(learned(task, trained, task.epochs - task.epochs // 2, 0.4), EXAMPLE)


def sparse(task_epochs: int) -> lbc.LBC:
    return lbc.LBC(N=1, M=4, t_f=max(1, task_epochs // 2), filter_fn=inner)


def _lbc(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    model = start(task)
    lbc.sparsify_(model, sparse(task.epochs))
    learned(task, model, before_epoch=lbc.refresh_)
    lbc.refresh_(model, task.epochs)
    return lbc.compact(model)


def columns(budget: str) -> float:
    """The share that leaves as many of 16 columns as the budget allows: each costs 1/36 of the products, 1/9 of the weights."""
    return 1 - {"macs": 9, "params": 2}[budget] / 16


def _winograd(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    model, removed, rising = start(task), columns(budget), max(1, 3 * task.epochs // 4)
    lr_winograd.transform_(model, lr_winograd.LowRankWinograd(ignore=STEM))
    learned(task, model, before_epoch=lambda model, epoch: lr_winograd.prune_(
        model, lr_winograd.removed_at(min(epoch, rising), rising, removed)))
    lr_winograd.prune_(model, removed)
    return lr_winograd.compact(model)


@functools.cache
def projection() -> lrpet.LRPET:
    """In each layer the largest rank whose pair has at most a quarter of the weights."""
    found = {}
    for name, module in network().named_modules():
        if inner(name, module):
            m, d = len(module.weight), module.weight[0].numel()
            found[name] = m * d // (4 * (m + d))
    return lrpet.LRPET(ranks=found, ignore=STEM)


def _lrpet(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    model = learned(task, start(task),
                    after_epoch=lambda model, epoch, history: lrpet.project_(model, projection(), EXAMPLE))
    return lrpet.compact(model)


def _cc(task: Task, budget: str, trained: nn.Module) -> nn.Module:
    config = cc.CC(removed=1 - budgets()[budget] / size(network())[budget], budget=budget)
    small = cc.compress(trained, task.batches(False), config)
    reestimate_(small, task.batches(False))
    epochs = task.epochs - task.epochs // 2
    return learned(task, small, epochs, 0.4, optimizer=lambda model: clipped_sgd(model, 0.4 * task.lr, weight_decay=5e-4))


@dataclass(frozen=True)
class Method:
    """How a method takes part: what it is called, what makes the network, and what kind of layers are left.

    ``both``: one network serves both budgets. ``halves``: it begins with a network trained for half of the epochs.
    """

    name: str
    make: Callable[[Task, str, nn.Module], nn.Module]
    layers: str
    both: bool = False
    halves: bool = False


METHODS: Mapping[str, Method] = {
    "dense": Method("dense", _dense, "ordinary", both=True),
    "narrow": Method("narrow", _narrow, "ordinary"),
    "lapp": Method("LAPP", _lapp, "ordinary, with bypasses"),
    "dcff": Method("DCFF", _dcff, "ordinary"),
    "we": Method("WE", _we, "ordinary"),
    "1xn": Method("1×N", _one_by_n, "kernel for blocks", both=True, halves=True),
    "lbc": Method("LBC", _lbc, "kernel for N:M", both=True),
    "lr-winograd": Method("LR-Winograd", _winograd, "Winograd's transforms"),
    "lrpet": Method("LRPET", _lrpet, "ordinary, in pairs", both=True),
    "cc": Method("CC", _cc, "ordinary, in pairs", halves=True),
}
#: The eight methods of the papers, without the two networks they are compared with.
PAPERS = tuple(slug for slug in METHODS if slug not in ("dense", "narrow"))


def arms() -> list[tuple[str, str]]:
    """(method, budget) of every network that is trained; the budget of one that serves both is ``macs``."""
    return [(slug, budget) for slug, method in METHODS.items() for budget in BUDGETS if budget == "macs" or not method.both]


def compare(seed: int, *, train: int = 800, test: int = 800, epochs: int = 10, pixels: int = 128,
            turns: int = 7) -> list[dict]:
    """All methods for one seed, a row for each at each budget; a network that serves both budgets stands at both.

    ``score`` is the test accuracy (a share), ``macs`` are those of an image, ``seconds`` those of the training, ``time`` the
    seconds for one larger image of ``pixels`` × ``pixels``, taken in turns. All on one thread.
    """
    task = Task(*photograph_patches(train, test, seed), epochs=epochs, seed=seed)
    rows, made = [], {}
    with single_thread():
        trained, first = half(task)
        for slug, budget in arms():
            method, begin = METHODS[slug], time.perf_counter()
            model = method.make(task, budget, copy.deepcopy(trained)).eval()
            seconds = time.perf_counter() - begin + first * method.halves
            spent = cost(model, EXAMPLE, timed=False)
            made[slug, budget] = model
            rows.append(row(seed, slug, task.accuracy(model), budget, macs=spent.macs, params=spent.parameters,
                            bytes=spent.bytes, seconds=seconds))
        image = torch.rand(1, 3, pixels, pixels, generator=torch.Generator().manual_seed(seed))
        taken = take_turns({arm: functools.partial(model, image) for arm, model in made.items()}, repeats=turns, inner=3)
    for one in rows:
        one["time"] = statistics.median(taken[one["arm"], one["at"]])
    return rows + [{**one, "at": "params"} for one in rows if METHODS[one["arm"]].both]
