"""The networks of 1×N, and what they cost."""

import functools
import math

from torch import nn

from papernets.measure import count_of
from papernets.nn import MobileNetV1, MobileNetV2, MobileNetV3, Network, Networks, ResNetImageNet
from papernets.papers.one_by_n.method import OneByN, groups, prunable

_IMAGE = (3, 224, 224)
#: Of MobileNets the 1×1 convolutions are pruned, of ResNet-50 all but the stem.
NETWORKS = Networks({
    "mobilenetv1": Network(MobileNetV1, _IMAGE, OneByN(kernel=(1,))),
    "mobilenetv2": Network(MobileNetV2, _IMAGE, OneByN(kernel=(1,))),
    "mobilenetv3s": Network(functools.partial(MobileNetV3, "small"), _IMAGE, OneByN(kernel=(1,))),
    "mobilenetv3l": Network(functools.partial(MobileNetV3, "large"), _IMAGE, OneByN(kernel=(1,))),
    "resnet50": Network(ResNetImageNet, _IMAGE, OneByN(ignore=("conv1",))),
})


@functools.cache
def _shapes(name: str) -> tuple[dict[str, tuple[int, ...]], int]:
    """The shapes (Co, Ci, k, k) of the layers that are pruned, by name, and the number of linear layers."""
    network = NETWORKS[name]
    outline = network.outline
    shapes = {layer: tuple(conv.weight.shape) for layer, conv in prunable(outline, network.config).items()}
    return shapes, sum(isinstance(module, nn.Linear) for module in outline.modules())


def counts(name: str, p: float = 0.5, N: int = 4, excite: bool = True) -> dict[str, float]:
    """What pruning at rate ``p`` leaves of a network of the paper: ``layers`` masked by the code, the linear ones of its
    classifier included, which stay dense; ``dense.macs``, ``macs``, ``macs_left`` in per cent, and ``removed`` weights.

    Without ``excite`` the squeeze-and-excitation layers stay dense, too; ``se`` counts them.
    """
    (shapes, linear), network = _shapes(name), NETWORKS[name]
    costs = count_of(network.build, network.shape)
    whole, removed, saved = sum(cost.macs for cost in costs.values()), 0, 0
    excites = [layer for layer in shapes if layer.endswith((".fc1", ".fc2"))]
    for layer, (Co, Ci, *window) in shapes.items():
        if excite or layer not in excites:
            gone = N * math.prod(window) * int(groups(Co, N) * Ci * p)
            positions = costs[layer].macs // (Co * Ci * math.prod(window))
            removed, saved = removed + gone, saved + positions * gone
    return {"layers": len(shapes) + linear, "dense.macs": whole, "macs": whole - saved,
            "macs_left": 100 * (whole - saved) / whole, "removed": removed, "se": len(excites)}
