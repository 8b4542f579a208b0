"""The networks of 1×N, and what they cost."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from papernets.measure import count
from papernets.nn import MobileNetV1, MobileNetV2, MobileNetV3, ResNetImageNet
from papernets.papers.one_by_n.method import groups


@dataclass(frozen=True)
class Network:
    """A network of the paper: which layers the code masks, which of these it leaves dense, and which it rearranges."""

    build: Callable[[], nn.Module]
    masked: Callable[[str, nn.Module], bool]
    spared: int
    rearranged: Callable[[str], bool]


def _pointwise(name: str, module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.groups == 1
                                             and module.kernel_size == (1, 1))


def _inner(name: str) -> bool:
    """The expansions of inverted residuals, and the last 1×1 convolution: those whose outputs are added to nothing."""
    return name.endswith(".block.0") or name.count(".") == 1


NETWORKS = {
    "mobilenetv1": Network(MobileNetV1, _pointwise, 1, lambda name: True),
    "mobilenetv2": Network(MobileNetV2, _pointwise, 1, _inner),
    "mobilenetv3s": Network(lambda: MobileNetV3("small"), _pointwise, 2, _inner),
    "mobilenetv3l": Network(lambda: MobileNetV3("large"), _pointwise, 2, _inner),
    "resnet50": Network(ResNetImageNet, lambda name, module: isinstance(module, nn.Linear) or (
        isinstance(module, nn.Conv2d) and name != "conv1"), 1, lambda name: name.endswith((".conv1", ".conv2"))),
}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _excites(name: str) -> bool:
    return name.endswith((".fc1", ".fc2"))


@functools.cache
def _layers(name: str) -> tuple[dict[str, tuple[int, int, tuple[int, ...]]], int]:
    """(MACs, weights, shape) of the layers that the code masks, in order, and the MACs of the whole network."""
    chosen = network(name)
    with torch.device("meta"):
        model = chosen.build()
        costs = count(model, torch.empty(1, 3, 224, 224))
    found = {layer: (costs[layer].macs, module.weight.numel(), tuple(module.weight.shape))
             for layer, module in model.named_modules() if chosen.masked(layer, module)}
    return found, sum(cost.macs for cost in costs.values())


def counts(name: str, p: float = 0.5, N: int = 4, excite: bool = True) -> dict[str, float]:
    """What pruning at rate ``p`` leaves of a network of the paper: ``layers`` masked by the code, those of its classifier
    included, which stay dense; ``dense.macs``, ``macs``, ``macs_left`` in per cent, and ``removed`` weights.

    Without ``excite`` the squeeze-and-excitation layers stay dense, too; ``se`` counts them.
    """
    layers, whole = _layers(name)
    pruned = list(layers)[: len(layers) - network(name).spared]
    removed, saved = 0, 0
    for layer in pruned:
        macs, weights, (Co, Ci, *window) = layers[layer]
        if excite or not _excites(layer):
            gone = N * math.prod(window) * int(groups(Co, N) * Ci * p)
            removed, saved = removed + gone, saved + macs // weights * gone
    return {"layers": len(layers), "dense.macs": whole, "macs": whole - saved, "macs_left": 100 * (whole - saved) / whole,
            "removed": removed, "se": sum(map(_excites, layers))}


class SmallMobileNet(nn.Module):
    """A 3×3 stem and three pairs of a depthwise 3×3 and a 1×1 convolution, for 8×8 digits."""

    def __init__(self, widths: Sequence[int] = (32, 64, 64, 64), classes: int = 10, channels: int = 1):
        super().__init__()
        layers = [nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, before, 3, 2 if index else 1, 1, groups=before, bias=False), nn.BatchNorm2d(before),
                       nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))
