"""The experiments of the chapter on WE."""

import copy
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from papernets.data import digits, photograph_patches
from papernets.measure import take_turns
from papernets.nn import ConvNet
from papernets.papers.we.method import MIXES, REFILLS, WE, Evolution, Falling, evolve_, relative_importance, weak
from papernets.papers.we.networks import CIFAR_NETWORKS, TinyMobileNet
from papernets.training import fit, loader, logits, seed_everything, single_thread, steps

#: The arms of the comparison, by name: plain training, the method with both mixes, two simpler ways to refill the same
#: filters, and two settings with which more filters evolve.
ARMS = {"plain": None, **{mix: WE(mix=mix) for mix in MIXES + REFILLS}, "wide": WE(local=0.5),
        "falling": WE(rate=0.6, schedule=Falling())}
#: Readers of the small tasks, by name.
TASKS = {"digits": lambda train, seed: digits(train, seed),
         "patches": lambda train, seed: photograph_patches(train, 1000, seed)}
#: Networks for them, by name: 160 filters of which 96 are pointwise, and 80 filters that are all 3×3.
SMALL = {"mobile": TinyMobileNet, "conv": lambda channels=1, stride=1: ConvNet((16, 32, 32), channels=channels)}
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


def compare(seed: int, *, task: str = "digits", net: str = "mobile", start: str = "healthy", train: int = 300,
            epochs: int = 30, arms: Sequence[str] = ("plain", "dominant"), lr: float = 0.05,
            drops: Sequence[float] = (0.3, 0.6, 0.9)) -> dict:
    """Several arms for one seed: same first weights, same order of the data, same number of epochs.

    The recipe in small: the learning rate falls to a tenth after 30, 60 and 90 % of the epochs, and the schedule of ρ is
    shortened alike. Nothing evolves after the last epoch, so what is evaluated has been trained. ``start``: one of ``STARTS``.

    By arm: test ``accuracy`` (a share), the number of ``weak`` filters at the end, the ``relative`` importances, and how many
    filters ``evolved`` after every epoch, and how many of all were ``pointwise``. ``start`` are the importances at first.
    """
    if start not in STARTS:
        raise ValueError(f"start is {start!r}; choose from {', '.join(STARTS)}")
    data = TASKS[task](train, seed)
    batches = loader(data[0], 32, True)
    options = dict(channels=3, stride=2) if task == "patches" else {}
    with single_thread():
        seed_everything(seed)
        first = SMALL[net](**options)
        if start != "healthy":
            damage_(first, seed=seed, scales=start == "dead")
        found: dict = {"seed": seed, "start": relative_importance(first).tolist(), "arms": {}}
        for name in arms:
            model, steps_done, config = copy.deepcopy(first), [], ARMS[name]
            after = None
            if config is not None:
                evolution = Evolution(replace(config, schedule=config.schedule.scaled(epochs / 200), until=epochs - 1))

                def after(model: nn.Module, epoch: int, history, evolution=evolution, done=steps_done) -> None:
                    done.append([change for change in evolution.step(model, epoch) if change.kind == "conv"])

            fit(model, batches, None, epochs=epochs, lr=steps(lr, [drop * epochs for drop in drops]), seed=seed,
                after_epoch=after)
            right = logits(model, data[1].images).argmax(1) == data[1].labels
            pointwise = sum(len(change.inferior) for changes in steps_done for change in changes
                            if model.get_parameter(change.parameter)[0, 0].numel() == 1)
            found["arms"][name] = {"accuracy": float(right.float().mean()), "weak": weak(model), "pointwise": pointwise,
                                   "evolved": [sum(len(change.inferior) for change in changes) for changes in steps_done],
                                   "relative": relative_importance(model).tolist()}
    return found


#: The comparisons of the chapter, by name: settings of ``compare``.
EXPERIMENTS: dict[str, dict] = {
    "healthy": dict(epochs=30, arms=("plain", "dominant", "wide", "falling")),
    "long": dict(epochs=90),
    "patches": dict(task="patches", net="conv", train=500, epochs=12, arms=("plain", "dominant", "official")),
    "scaled": dict(start="scaled", epochs=15),
    "dead": dict(start="dead", net="conv", epochs=15, arms=("plain", "dominant", "official", "copy", "renew")),
    "dead mobile": dict(start="dead", epochs=15)}


def experiments(seed: int, share: float = 1.0, names: Sequence[str] = tuple(EXPERIMENTS)) -> dict[str, dict]:
    """Those of ``EXPERIMENTS`` called ``names``, for one seed; a ``share`` below 1 takes fewer epochs and training images."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; it is above 0 and at most 1")
    found = {}
    for name in names:
        options = EXPERIMENTS[name]
        shorter = {"epochs": max(2, round(share * options["epochs"])),
                   "train": max(50, 10 * round(share * options.get("train", 300) / 10))}
        found[name] = compare(seed, **options | shorter)
    return found


def training_cost(seed: int = 0, repeats: int = 5) -> dict[str, dict[str, float]]:
    """Milliseconds of one evolution beside training, on one thread, medians over turns; by network.

    "tiny": an ``epoch`` of the small MobileNet on 300 digits. "mobilenetv2": a ``step`` of the one for CIFAR-100, on two images
    only. Every call starts from the same weights, and the time to put them there is in it.
    """
    def fresh(model: nn.Module) -> Callable[[], None]:
        first = [value.detach().clone() for value in model.state_dict().values()]

        def restore() -> None:
            for value, old in zip(model.state_dict().values(), first):
                value.copy_(old)
        return restore

    def evolve(model: nn.Module, restore: Callable[[], None]) -> None:
        restore()
        evolve_(model, Evolution(), 0)

    with single_thread():
        seed_everything(seed)
        tiny, large = TinyMobileNet(), CIFAR_NETWORKS["mobilenetv2"](100)
        for model in (tiny, large):
            damage_(model, seed=seed, scales=True)
        train, image = loader(digits(300, seed)[0], 32, True), torch.randn(2, 3, 32, 32)
        optimizer = torch.optim.SGD(large.parameters(), 1e-6, momentum=0.9)
        back = {"tiny": fresh(tiny), "mobilenetv2": fresh(large)}

    def epoch() -> None:
        back["tiny"]()
        with torch.enable_grad():
            fit(tiny, train, None, epochs=1, lr=steps(0.01, ()), seed=seed)

    def step() -> None:
        back["mobilenetv2"]()
        with torch.enable_grad():
            optimizer.zero_grad()
            F.cross_entropy(large.train()(image), torch.zeros(len(image), dtype=torch.long)).backward()
            optimizer.step()

    calls = {("tiny", "evolution"): lambda: evolve(tiny, back["tiny"]), ("tiny", "epoch"): epoch,
             ("mobilenetv2", "evolution"): lambda: evolve(large, back["mobilenetv2"]), ("mobilenetv2", "step"): step}
    found: dict[str, dict[str, float]] = {"tiny": {}, "mobilenetv2": {}}
    for (network, what), times in take_turns(calls, repeats=repeats, inner=1).items():
        found[network][what] = statistics.median(times)
    return found
