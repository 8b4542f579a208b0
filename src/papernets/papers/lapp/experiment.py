"""The experiments of the chapter on LAPP."""

import copy
import functools
import math
import statistics
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from papernets.data import digits
from papernets.measure import macs, take_turns
from papernets.nn import ConvNet, ResNetCIFAR
from papernets.papers.lapp.compaction import compact, with_filters
from papernets.papers.lapp.layers import BYPASSES, LAPP, CompactConv2d, attach_, bypass_of, units_of
from papernets.papers.lapp.learning import Progress, train
from papernets.papers.lapp.method import rho_of, runs
from papernets.papers.lapp.networks import DIGIT, narrow_widths, small_net
from papernets.training import Task, row, seed_everything, single_thread


def model_against_count(seed: int = 0, draws: int = 4) -> int:
    """The largest difference between F(m) and the count of the compact network, over random numbers of kept filters."""
    seed_everything(seed)
    largest = 0
    for build, example in ((lambda: ConvNet((8, 16, 24)), torch.zeros(1, 3, 16, 16)),
                           (lambda: ResNetCIFAR(8, (8, 8, 16), (8, 8, 16)), torch.zeros(1, 3, 16, 16))):
        for bypass in BYPASSES:
            model = build()
            flops = attach_(model, LAPP(bypass=bypass, removed=0.01), example)
            for _ in range(draws):
                left = {}
                for name, unit in units_of(model).items():
                    left[name] = int(torch.randint(1, len(unit.mask) + 1, ()))
                    unit.settle(torch.randperm(len(unit.mask)) < left[name])
                largest = max(largest, abs(flops.count(left) - macs(compact(model, example), example)))
    return largest


#: The arms that are pruned, by name: the rule by which filters are chosen, and the bypass.
ARMS = {"lapp": ("learned", "grouped"), "plain": ("learned", None), "uniform": ("uniform", "grouped"),
        "one-shot": ("one-shot", None)}


def compare(seed: int, *, images: int = 600, epochs: int = 24, progressive: int = 12, lr: float = 0.05,
            targets: Sequence[float] = (0.4, 0.2, 0.1)) -> list[dict]:
    """A row for each arm at each target ρ, on the digits for one seed: test accuracy (a share).

    All have the same first weights, the same order of the data and the same number of epochs. ``full`` is the network that is
    never pruned, the same at every target, and ``narrow`` a plain one that is narrow from the first epoch on. The pruned arms
    also have r before the first epoch and after every one (``remaining``), the filters ``kept`` likewise, the largest fall of r
    within an epoch (``steepest``), and how much the shares of the kept filters differ in the end (``spread``). Those that learn
    their thresholds say whether r ends ``above`` the target, or ``below`` it by the dearest filter or more.
    """
    task, rows = Task(*digits(images, seed), epochs=epochs, seed=seed, lr=lr), []
    with single_thread():
        first = task.start(small_net)
        full = copy.deepcopy(first)
        task.learn(full)
        whole = task.accuracy(full, 2000)
        for rho in targets:
            rows += [_pruned(task, first, arm, rho, progressive) for arm in ARMS]
            narrow = task.start(_narrow, rho)
            task.learn(narrow)
            rows += [row(seed, "narrow", task.accuracy(narrow, 2000), rho), row(seed, "full", whole, rho)]
    return rows


def _narrow(rho: float) -> ConvNet:
    return small_net(narrow_widths(rho_of(rho)))


def _pruned(task: Task, first: nn.Module, arm: str, rho: float, progressive: int) -> dict:
    rule, bypass = ARMS[arm]
    config = LAPP(removed=rho_of(rho), bypass=bypass, progressive=progressive)
    small, progress = train(first, (task.batches(), None), config, epochs=task.epochs, seed=task.seed, rule=rule, example=DIGIT,
                            lr=task.schedule(task.lr, task.epochs))
    kept = [list(left.values()) for left in progress.kept]
    more = {"remaining": progress.remaining, "kept": kept, "steepest": progress.steepest,
            "spread": float(np.std(np.divide(kept[-1], kept[0])))}
    if rule == "learned":
        flops = attach_(copy.deepcopy(first), config, DIGIT)
        r = macs(small, DIGIT) / flops.whole
        more |= {"above": r > rho, "below": r <= rho - flops.dearest}
    return row(task.seed, arm, task.accuracy(small, 2000), rho, **more)


def snapshots(seed: int = 0, *, targets: Sequence[float] = (0.2, 0.3, 0.4, 0.6, 0.8), epochs: int = 24, images: int = 600,
              widths: Sequence[int] = (16, 32, 32, 32)) -> dict[float, Progress]:
    """What happens to a narrower network in trainings with every target ρ that are progressive to the end, by target."""
    task, by_target = Task(*digits(images, seed), epochs=epochs, seed=seed), {}
    with single_thread():
        for rho in targets:
            config = LAPP(removed=rho_of(rho), progressive=epochs)
            _, by_target[rho] = train(task.start(small_net, widths), (task.batches(), None), config, epochs=epochs, seed=seed,
                                      example=DIGIT)
    return by_target


def layer_times(channels: int, side: int, left: Sequence[int], *, groups: int = 8, bypass: str = "grouped", seed: int = 0,
                repeats: int = 5) -> dict:
    """Seconds and MACs of a 3×3 layer of ``channels`` inputs and outputs on one image, by the filters that are ``left``.

    ``full``: the plain layer. ``conv``, ``bypass`` and ``scatter``: the parts of the compact layer, each on its own. ``index``
    and ``slice``: the compact layer with an index, and with one slice. ``narrow``: a plain layer of fewer inputs and outputs
    with as many multiply-accumulates. Batch norms are folded. The compact layer's result is compared with that of its parts.
    """
    seed_everything(seed)
    config = LAPP(bypass=bypass, groups=groups)
    conv = nn.Conv2d(channels, channels, 3, padding=1).eval()
    x = torch.randn(1, channels, side, side)
    side_path = bypass_of(conv, config)
    side_path.bias = nn.Parameter(torch.zeros(channels))
    calls, expected = {"full": functools.partial(conv, x), "bypass": functools.partial(side_path, x)}, {}
    times = {"left": list(left), "full.macs": macs(conv, x), "bypass.macs": macs(side_path, x), "macs": [], "narrow.macs": [],
             "narrow.width": []}
    with torch.no_grad():
        y = side_path(x)
        for number in left:
            index = torch.linspace(0, channels - 1, number).round().long()
            small = with_filters(conv, index)
            z = small(x)
            scattered = CompactConv2d(small, nn.Identity(), side_path, nn.Identity(), index, channels)
            sliced = CompactConv2d(small, nn.Identity(), side_path, nn.Identity(), torch.arange(number), channels)
            sliced.slices = runs(sliced.index)
            cost = macs(scattered, x)
            width = max(1, round(math.sqrt(cost / (9 * side * side))))
            narrow, thin = nn.Conv2d(width, width, 3, padding=1).eval(), torch.randn(1, width, side, side)
            target = torch.zeros_like(y)
            calls |= {("conv", number): functools.partial(small, x), ("scatter", number): functools.partial(
                target.index_add_, 1, index, z), ("index", number): functools.partial(scattered, x),
                ("slice", number): functools.partial(sliced, x), ("narrow", number): functools.partial(narrow, thin)}
            expected |= {("index", number): y.index_add(1, index, z),
                         ("slice", number): torch.cat([y[:, :number] + z, y[:, number:]], 1)}
            times["macs"].append(cost)
            times["narrow.macs"].append(macs(narrow, thin))
            times["narrow.width"].append(width)
    taken = {name: statistics.median(values) for name, values in take_turns(calls, expected, repeats=repeats).items()}
    times |= {name: taken[name] for name in ("full", "bypass")}
    return times | {part: [taken[part, number] for number in left] for part in ("conv", "scatter", "index", "slice", "narrow")}
