"""The networks of LRPET, and what they cost."""

import functools
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from papernets.measure import count_of, outline, size_of
from papernets.nn import (
    DeiT,
    FasterRCNN,
    GoogLeNet,
    Network,
    Networks,
    PSPNet,
    ResNetBasic,
    ResNetCIFAR,
    ResNetImageNet,
    replace_,
)
from papernets.papers.lrpet.method import LRPET, ranks

#: The searched ranks of ResNet-56-S and ResNet-50-S, in the order of the network (code).
RANKS_56 = (6, 6, 3, 5, 2, 3, 4, 4, 2, 3, 6, 1, 2, 4, 4, 5, 2, 1, 2, 10, 6, 2, 6, 6, 7, 9, 1, 5, 4, 11, 6, 2, 2, 12, 12, 5, 4,
            16, 6, 17, 23, 11, 3, 11, 17, 4, 12, 15, 16, 6, 7, 6, 24, 18, 15)
RANKS_50 = (23, 16, 24, 29, 30, 6, 18, 27, 17, 4, 26, 33, 38, 61, 78, 63, 55, 23, 48, 51, 45, 35, 36, 55, 118, 50, 42, 80, 14,
            45, 44, 30, 33, 89, 100, 15, 36, 44, 58, 45, 99, 49, 115, 145, 213, 95, 155, 238, 129, 170, 52, 94, 191)


def _shares(*per_cent: int) -> dict[str, LRPET]:
    return {f"q{value}": LRPET(removed=value / 100) for value in per_cent}


NETWORKS = Networks({
    "resnet56": Network(functools.partial(ResNetCIFAR, 56)),
    "resnet110": Network(functools.partial(ResNetCIFAR, 110)),
    "googlenet": Network(GoogLeNet),
    "resnet34": Network(functools.partial(ResNetBasic, 34), (3, 224, 224)),
    "resnet50": Network(ResNetImageNet, (3, 224, 224)),
})
#: The configurations that the code names for each network, by name.
CONFIGS = {
    "resnet56": _shares(80, 54) | {"s": LRPET(ranks=RANKS_56)},
    "resnet110": _shares(62, 70, 79, 65),
    "googlenet": _shares(65, 76, 68, 60),
    "resnet34": _shares(58),
    "resnet50": _shares(62, 80) | {"s": LRPET(ranks=RANKS_50)},
}


_outline = functools.cache(outline)


def _saved(layer: nn.Module, r: int) -> int:
    """How many weights fewer the pair of rank ``r`` has than ``layer``."""
    m, d = len(layer.weight), layer.weight[0].numel()
    return m * d - r * (m + d)


def counts(name: str, config: LRPET) -> dict[str, float]:
    """MACs and parameters of a network of the paper, dense and as pairs of layers, and the shares removed in per cent.

    Batch norms are not counted. ``ValueError`` lists the networks.
    """
    made = NETWORKS[name]
    model = _outline(made.build)
    layers = {layer: cost for layer, cost in count_of(made.build, made.shape).items()
              if not isinstance(model.get_submodule(layer), nn.BatchNorm2d)}
    macs, params = sum(cost.macs for cost in layers.values()), sum(cost.parameters for cost in layers.values())
    left = {"macs": macs, "params": params}
    for layer, r in ranks(model, config).items():
        module = model.get_submodule(layer)
        saved = _saved(module, r)
        left["macs"] -= layers[layer].macs // module.weight.numel() * saved
        left["params"] -= saved
    return {"base.macs": macs, "base.params": params, **left, "flops": 100 * (1 - left["macs"] / macs),
            "params_cut": 100 * (1 - left["params"] / params)}


#: The small vision transformer: width, depth, heads, pixels and patch.
VIT = (192, 9, 12, 32, 4)
#: Its projection: the two linear layers of each MLP, as they are. The share is that at which the printed counts come out.
VIT_CONFIG = LRPET(removed=0.7, linear=True, bn_rectify=False, filter_fn=lambda name, module: name.endswith(("fc1", "fc2")))
#: Faster R-CNN: the convolutions of the features, as they are.
FRCNN_CONFIG = LRPET(removed=0.55, bn_rectify=False, filter_fn=lambda name, module: name.startswith("features."))
#: PSPNet: the convolutions of the backbone but the last one, as they are.
PSP_CONFIG = LRPET(removed=0.43, bn_rectify=False, filter_fn=lambda name, module: name.startswith("backbone.")
                   and name != "backbone.blocks.15.conv3")


def vit(classes: int, drop: float = 0.1) -> DeiT:
    """The small vision transformer, with the first weights of the code."""
    model = DeiT(*VIT, classes, ratio=2, bias=False, drop=drop)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(module.weight.view(len(module.weight), -1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for tensor in (model.token, model.places):
        nn.init.normal_(tensor)
    return model


def _vit_of_pairs(classes: int, config: LRPET | None) -> DeiT:
    """The small vision transformer with pairs of new weights in the place of what ``config`` projects, if it is given."""
    model = vit(classes)
    if config is not None:
        layers = {name: (model.get_submodule(name), r) for name, r in ranks(model, config).items()}
        replace_(model, {name: nn.Sequential(nn.Linear(layer.in_features, r, bias=False), nn.Linear(r, layer.out_features))
                         for name, (layer, r) in layers.items()})
    return model


def vit_counts(classes: int, config: LRPET | None = None) -> dict[str, int]:
    """Multiply-adds and parameters of the small vision transformer, full or as pairs, by the rules of the code's profiler.

    The profiler, ptflops, counts a multiply-add as one, a bias once however often it is added, two for an output of a layer
    norm, and one for an output of a GELU or a softmax. The two products of the attention are not counted at all.
    """
    width, depth, heads, pixels, patch = VIT
    build = functools.partial(_vit_of_pairs, classes, config)
    size, tokens = size_of(build, (3, pixels, pixels)), (pixels // patch) ** 2 + 1
    parameters = _outline(build).named_parameters()
    macs = size["macs"] + sum(len(b) for name, b in parameters if name.endswith("bias") and "norm" not in name)
    macs += 2 * width * (2 * depth * tokens + 1)  # layer norms; the last one reads a single token
    macs += depth * (2 * width * tokens + heads * tokens**2)  # GELU and softmax
    return {"macs": macs, "params": size["params"]}


def _part(build: Callable[[], nn.Module], part: str) -> nn.Module:
    return build().get_submodule(part)


@functools.cache
def backbone_cut(name: str) -> float:
    """Per cent of the multiply-adds of a backbone that its pairs save: ``frcnn`` at 600 × 600, ``psp`` at 473 × 473."""
    build, side, config, part = {"frcnn": (FasterRCNN, 600, FRCNN_CONFIG, "features"),
                                 "psp": (PSPNet, 473, PSP_CONFIG, "backbone")}[name]
    model, costs = _outline(build), count_of(functools.partial(_part, build, part), (3, side, side))
    saved = 0
    for layer, r in ranks(model, config).items():
        module = model.get_submodule(layer)
        saved += costs[layer.removeprefix(f"{part}.")].macs // module.weight.numel() * _saved(module, r)
    return 100 * saved / sum(cost.macs for cost in costs.values())


class PlainNet(nn.Module):
    """``depth`` 3×3 convolutions with batch norm and ReLU, 16 then 32 channels, without shortcuts, for 8×8 digits."""

    def __init__(self, depth: int = 8, classes: int = 10):
        super().__init__()
        if depth < 2 or depth % 2:
            raise ValueError(f"depth is {depth}; it is an even number of at least 2")
        widths = [1, *[16] * (depth // 2), *[32] * (depth // 2)]
        layers = []
        for index, (before, after) in enumerate(pairwise(widths)):
            conv = nn.Conv2d(before, after, 3, 2 if index == depth // 2 else 1, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))  # (B, classes)
