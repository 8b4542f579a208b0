"""The experiments of the chapter on LAPP."""

import copy
import functools
import math
import statistics
from collections.abc import Sequence

import torch
from torch import nn

from papernets.data import digits
from papernets.measure import macs, take_turns
from papernets.nn import ConvNet, ResNetCIFAR
from papernets.papers.lapp.compaction import Progress, _narrow, compact, train
from papernets.papers.lapp.layers import BYPASSES, LAPP, CompactConv2d, _units, attach_, bypass_of
from papernets.papers.lapp.method import runs
from papernets.papers.lapp.networks import _EXAMPLE, narrow_widths, small_net
from papernets.training import accuracy, cosine, fit, loader, seed_everything, single_thread


def model_against_count(seed: int = 0, draws: int = 4) -> int:
    """The largest difference between F(m) and the count of the compact network, over random numbers of kept filters."""
    seed_everything(seed)
    largest = 0
    for build, example in ((lambda: ConvNet((8, 16, 24)), torch.zeros(1, 3, 16, 16)),
                           (lambda: ResNetCIFAR(8, (8, 8, 16), (8, 8, 16)), torch.zeros(1, 3, 16, 16))):
        for bypass in BYPASSES:
            model = build()
            flops = attach_(model, LAPP(bypass=bypass, target=0.99), example)
            for _ in range(draws):
                left = {}
                for name, unit in _units(model).items():
                    left[name] = int(torch.randint(1, len(unit.mask) + 1, ()))
                    unit.settle(torch.randperm(len(unit.mask)) < left[name])
                largest = max(largest, abs(flops.count(left) - macs(compact(model, example), example)))
    return largest


#: The arms of the comparison, by name: the rule by which filters are chosen, and the bypass.
ARMS = {"lapp": ("learned", "grouped"), "plain": ("learned", None), "uniform": ("uniform", "grouped"),
        "one-shot": ("one-shot", None)}


def compare(seed: int, *, images: int = 600, epochs: int = 24, progressive: int = 12, lr: float = 0.05,
            targets: Sequence[float] = (0.4, 0.2, 0.1)) -> dict:
    """All arms on the digits for one seed: same first weights, same order of the data, same number of epochs.

    ``full``: test accuracy (a share) of the network that is never pruned. ``arms[ρ][name]``: ``accuracy``, r before the first
    epoch and after every one (``remaining``), and the filters ``kept`` likewise. ``narrow`` is a plain network that is narrow
    from the first epoch on. ``control[ρ]``: of both arms that learn their thresholds, whether r ends ``above`` the target, or
    ``below`` it by the dearest filter or more.
    """
    data = digits(images, seed)
    batches, test = loader(data[0], 64, True), loader(data[1], 2000, False)
    options = dict(epochs=epochs, lr=cosine(lr, epochs), seed=seed)
    with single_thread():
        seed_everything(seed)
        first = small_net()
        full = copy.deepcopy(first)
        fit(full, batches, None, **options)
        found = {"seed": seed, "full": accuracy(full, test), "arms": {}, "control": {}}
        for rho in targets:
            arms = found["arms"][rho] = {}
            for name, (rule, bypass) in ARMS.items():
                config = LAPP(target=rho, bypass=bypass, progressive=progressive)
                small, progress = train(first, (batches, None), config, rule=rule, example=_EXAMPLE, **options)
                arms[name] = {"accuracy": accuracy(small, test), "remaining": progress.remaining,
                              "kept": [list(left.values()) for left in progress.kept]}
                if rule == "learned":
                    flops = attach_(copy.deepcopy(first), config, _EXAMPLE)
                    r = macs(small, _EXAMPLE) / flops.whole
                    found["control"].setdefault(rho, []).append({"above": r > rho, "below": r <= rho - flops.dearest})
            seed_everything(seed)
            narrow = small_net(narrow_widths(rho))
            fit(narrow, batches, None, **options)
            arms["narrow"] = {"accuracy": accuracy(narrow, test)}
    return found


def snapshots(seed: int = 0, *, targets: Sequence[float] = (0.2, 0.3, 0.4, 0.6, 0.8), epochs: int = 24, images: int = 600,
              widths: Sequence[int] = (16, 32, 32, 32)) -> dict[float, Progress]:
    """What happens to a narrower network in trainings with every target that are progressive to the end, for the explorer."""
    data = digits(images, seed)
    batches, found = loader(data[0], 64, True), {}
    with single_thread():
        for rho in targets:
            seed_everything(seed)
            config = LAPP(target=rho, progressive=epochs)
            _, found[rho] = train(small_net(widths), (batches, None), config, epochs=epochs, seed=seed, example=_EXAMPLE)
    return found


def layer_times(channels: int, side: int, left: Sequence[int], *, groups: int = 8, bypass: str = "grouped", seed: int = 0,
                repeats: int = 5) -> dict:
    """Milliseconds and MACs of a 3×3 layer of ``channels`` inputs and outputs on one image, by the filters that are ``left``.

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
    found = {"left": list(left), "full.macs": macs(conv, x), "bypass.macs": macs(side_path, x), "macs": [], "narrow.macs": [],
             "narrow.width": []}
    with torch.no_grad():
        y = side_path(x)
        for number in left:
            index = torch.linspace(0, channels - 1, number).round().long()
            small = _narrow(conv, index)
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
            found["macs"].append(cost)
            found["narrow.macs"].append(macs(narrow, thin))
            found["narrow.width"].append(width)
    taken = {name: statistics.median(values) for name, values in take_turns(calls, expected, repeats=repeats).items()}
    found |= {name: taken[name] for name in ("full", "bypass")}
    return found | {part: [taken[part, number] for number in left] for part in ("conv", "scatter", "index", "slice", "narrow")}
