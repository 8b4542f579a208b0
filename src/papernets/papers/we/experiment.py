"""The experiments of the chapter on WE."""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.data import Split, digits, photograph_patches
from papernets.measure import take_turns
from papernets.nn import ConvNet, SmallMobileNet
from papernets.papers.we.method import MIXES, REFILLS, WE, Change, Evolution, Falling, evolve_, relative_importance, weak
from papernets.papers.we.networks import NETWORKS
from papernets.training import Schedule, Task, fit, loader, row, seed_everything, single_thread, steps

#: The arms of the comparison, by name: plain training, the method with both mixes, two simpler ways to refill the same
#: filters, and two settings with which more filters evolve.
ARMS = {"plain": None, **{mix: WE(mix=mix) for mix in MIXES + REFILLS}, "wide": WE(local=0.5),
        "falling": WE(weak=0.6, schedule=Falling())}


def _patches(train: int, seed: int) -> tuple[Split, Split]:
    return photograph_patches(train, 1000, seed)


def _conv_net(channels: int = 1, stride: int = 1) -> ConvNet:
    return ConvNet((16, 32, 32), channels=channels)


#: Readers of the small data sets, by name, and what a network for them is built with.
READERS = {"digits": digits, "patches": _patches}
OPTIONS = {"digits": {}, "patches": dict(channels=3, stride=2)}
#: Networks for them, by name: 160 filters of which 96 are pointwise, and 80 filters that are all 3×3.
SMALL = {"mobile": SmallMobileNet, "conv": _conv_net}
#: How a run may start: as usual; with three quarters of all filters scaled down; or with their batch norm's scales, too.
STARTS = ("healthy", "scaled", "dead")


@torch.no_grad()
def damage_(model: nn.Module, share: float = 0.75, factor: float = 1e-3, seed: int = 0, scales: bool = False) -> None:
    """Multiply ``share`` of the filters of every convolution by ``factor``, in place; which ones is drawn by ``seed``.

    With ``scales`` the batch norm registered next after the convolution gets the same factor in the same places.
    """
    draw, last = torch.Generator().manual_seed(seed), None
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            last = torch.randperm(len(module.weight), generator=draw)[: int(len(module.weight) * share)]
            module.weight[last] *= factor
        elif isinstance(module, nn.BatchNorm2d) and scales and last is not None:
            module.weight[last] *= factor
            last = None


def _cut(lr: float, epochs: int, drops: Sequence[float]) -> Schedule:
    return steps(lr, [drop * epochs for drop in drops])


def _learn(task: Task, model: nn.Module, config: WE | None) -> list[list[Change]]:
    """Train ``model`` in place; the changes of filters after every epoch, if it evolves."""
    if config is None:
        task.learn(model)
        return []
    evolution = Evolution(replace(config, schedule=config.schedule.scaled(task.epochs / 200), until=task.epochs - 1))
    changes = []

    def evolve(model: nn.Module, epoch: int, history) -> None:
        changes.append([change for change in evolution.step(model, epoch) if change.kind == "conv"])

    task.learn(model, after_epoch=evolve)
    return changes


def compare(seed: int, *, at: str | None = None, data: str = "digits", net: str = "mobile", start: str = "healthy",
            train: int = 300, epochs: int = 30, arms: Sequence[str] = ("plain", "dominant"), lr: float = 0.05,
            drops: Sequence[float] = (0.3, 0.6, 0.9)) -> list[dict]:
    """A row for each of ``arms`` for one seed: same first weights, same order of the data, same number of epochs.

    The recipe in small: the learning rate falls to a tenth after 30, 60 and 90 % of the epochs, and the schedule of ρ is
    shortened alike. Nothing evolves after the last epoch, so what is evaluated has been trained. ``start``: one of ``STARTS``.

    The score is the test accuracy (a share). Further: the number of ``weak`` filters at the end, the ``relative`` importances
    at the end and at the ``start``, how many filters ``evolved`` after every epoch, and how many of all were ``pointwise``.
    """
    for name, value, options in (("start", start, STARTS), ("data", data, READERS), ("net", net, SMALL)):
        check.one_of(name, value, options)
    task, rows = Task(*READERS[data](train, seed), epochs, seed, lr, batch=32, schedule=partial(_cut, drops=drops)), []
    with single_thread():
        first = task.start(SMALL[net], **OPTIONS[data])
        if start != "healthy":
            damage_(first, seed=seed, scales=start == "dead")
        begin = relative_importance(first).tolist()
        for arm in arms:
            model = copy.deepcopy(first)
            changes = _learn(task, model, ARMS[arm])
            pointwise = sum(len(change.inferior) for done in changes for change in done
                            if model.get_parameter(change.parameter)[0, 0].numel() == 1)
            rows.append(row(seed, arm, task.accuracy(model), at, weak=weak(model), pointwise=pointwise,
                            evolved=[sum(len(change.inferior) for change in done) for done in changes],
                            relative=relative_importance(model).tolist(), start=begin))
    return rows


#: The comparisons of the chapter, by name: settings of ``compare``.
EXPERIMENTS: dict[str, dict] = {
    "healthy": dict(epochs=30, arms=("plain", "dominant", "wide", "falling")),
    "long": dict(epochs=90),
    "patches": dict(data="patches", net="conv", train=500, epochs=12, arms=("plain", "dominant", "official")),
    "scaled": dict(start="scaled", epochs=15),
    "dead": dict(start="dead", net="conv", epochs=15, arms=("plain", "dominant", "official", "copy", "renew")),
    "dead mobile": dict(start="dead", epochs=15)}


def experiments(seed: int, share: float = 1.0, names: Sequence[str] = tuple(EXPERIMENTS)) -> list[dict]:
    """The rows of those of ``EXPERIMENTS`` called ``names``, for one seed, each with its name in ``at``.

    A ``share`` below 1 takes fewer epochs and training images; ``ValueError`` if it is not above 0 and at most 1.
    """
    check.share("share", share, "(]")
    rows = []
    for name in names:
        options = EXPERIMENTS[name]
        shorter = {"epochs": max(2, round(share * options["epochs"])),
                   "train": max(50, 10 * round(share * options.get("train", 300) / 10))}
        rows += compare(seed, at=name, **options | shorter)
    return rows


def _kept(model: nn.Module) -> Callable[[], None]:
    """A call that gives ``model`` back all that it holds now."""
    first = [value.detach().clone() for value in model.state_dict().values()]

    def restore() -> None:
        for value, old in zip(model.state_dict().values(), first):
            value.copy_(old)

    return restore


def training_cost(seed: int = 0, repeats: int = 5) -> dict[str, dict[str, float]]:
    """Seconds of one evolution beside training, on one thread, medians over turns; by network.

    "small": an ``epoch`` of the small MobileNet on 300 digits. "mobilenetv2": a ``step`` of the one for CIFAR-100, on two
    images only. Every call starts from the same weights, and the time to put them there is in it.
    """
    with single_thread():
        seed_everything(seed)
        small, large = SmallMobileNet(), NETWORKS["mobilenetv2-cifar100"].build()
        for model in (small, large):
            damage_(model, seed=seed, scales=True)
        train, image = loader(digits(300, seed)[0], 32, True), torch.randn(2, 3, 32, 32)
        optimizer = torch.optim.SGD(large.parameters(), 1e-6, momentum=0.9)
        restore = {small: _kept(small), large: _kept(large)}

    def evolve(model: nn.Module) -> None:
        restore[model]()
        evolve_(model, Evolution(), 0)

    def epoch() -> None:
        restore[small]()
        with torch.enable_grad():
            fit(small, train, None, epochs=1, lr=steps(0.01, ()), seed=seed)

    def step() -> None:
        restore[large]()
        with torch.enable_grad():
            optimizer.zero_grad()
            functional.cross_entropy(large.train()(image), torch.zeros(len(image), dtype=torch.long)).backward()
            optimizer.step()

    calls = {("small", "evolution"): partial(evolve, small), ("small", "epoch"): epoch,
             ("mobilenetv2", "evolution"): partial(evolve, large), ("mobilenetv2", "step"): step}
    seconds: dict[str, dict[str, float]] = {"small": {}, "mobilenetv2": {}}
    for (network, what), times in take_turns(calls, repeats=repeats, inner=1).items():
        seconds[network][what] = statistics.median(times)
    return seconds
