"""The networks of LRPET, and what they cost."""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from papernets.measure import count
from papernets.nn import DeiT, FasterRCNN, GoogLeNet, PSPNet, ResNetBasic, ResNetCIFAR, ResNetImageNet
from papernets.papers.lrpet.method import LRPET, compact, project_, ranks

#: The searched ranks of ResNet-56-S and ResNet-50-S, in the order of the network (code).
RANKS_56 = (6, 6, 3, 5, 2, 3, 4, 4, 2, 3, 6, 1, 2, 4, 4, 5, 2, 1, 2, 10, 6, 2, 6, 6, 7, 9, 1, 5, 4, 11, 6, 2, 2, 12, 12, 5, 4,
            16, 6, 17, 23, 11, 3, 11, 17, 4, 12, 15, 16, 6, 7, 6, 24, 18, 15)
RANKS_50 = (23, 16, 24, 29, 30, 6, 18, 27, 17, 4, 26, 33, 38, 61, 78, 63, 55, 23, 48, 51, 45, 35, 36, 55, 118, 50, 42, 80, 14,
            45, 44, 30, 33, 89, 100, 15, 36, 44, 58, 45, 99, 49, 115, 145, 213, 95, 155, 238, 129, 170, 52, 94, 191)


@dataclass(frozen=True)
class Network:
    """A network of the paper, the side of its images, and the configurations that the code names, by name."""

    build: Callable[[], nn.Module]
    side: int
    configs: Mapping[str, LRPET]

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.side, self.side)


def _shares(*per_cent: int) -> dict[str, LRPET]:
    return {f"q{value}": LRPET(share=value / 100) for value in per_cent}


NETWORKS = {
    "resnet56": Network(lambda: ResNetCIFAR(56), 32, _shares(80, 54) | {"s": LRPET(ranks=RANKS_56)}),
    "resnet110": Network(lambda: ResNetCIFAR(110), 32, _shares(62, 70, 79, 65)),
    "googlenet": Network(GoogLeNet, 32, _shares(65, 76, 68, 60)),
    "resnet34": Network(lambda: ResNetBasic(34), 224, _shares(58)),
    "resnet50": Network(ResNetImageNet, 224, _shares(62, 80) | {"s": LRPET(ranks=RANKS_50)}),
}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


@functools.cache
def _dense(name: str) -> tuple[dict[str, int], dict[str, int], nn.Module]:
    """MACs and parameters of every layer of a network but its batch norms, and the network itself, without weights."""
    made = network(name)
    with torch.device("meta"):
        model = made.build().eval()
        costs = count(model, torch.empty(made.example.shape))
    kept = {layer: cost for layer, cost in costs.items() if not isinstance(model.get_submodule(layer), nn.BatchNorm2d)}
    return {layer: cost.macs for layer, cost in kept.items()}, {layer: cost.parameters for layer, cost in kept.items()}, model


def counts(name: str, config: LRPET, dead: Sequence[str] = ()) -> dict[str, float]:
    """MACs and parameters of a network of the paper, dense and as pairs of layers, and the shares removed in per cent.

    ``dead`` names layers that training left without any weight.
    """
    macs, parameters, model = _dense(name)
    found = {"base.macs": sum(macs.values()), "base.params": sum(parameters.values())}
    found |= {"macs": found["base.macs"], "params": found["base.params"]}
    for layer, r in ranks(model, config).items():
        W = model.get_submodule(layer).weight
        m, d = len(W), W[0].numel()
        pair = 0 if layer in dead else r * (m + d)
        found["macs"] += macs[layer] // (m * d) * (pair - m * d)
        found["params"] += pair - m * d
    return found | {"flops": 100 * (1 - found["macs"] / found["base.macs"]),
                    "params_cut": 100 * (1 - found["params"] / found["base.params"])}


def counts_after(name: str, config: LRPET, state: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """``counts`` of a trained network from the ``state`` that its recipe left: layers that have died are not in it."""
    _, _, model = _dense(name)
    return counts(name, config, [layer for layer in ranks(model, config) if f"{layer}.0.weight" not in state])


#: The small vision transformer: width, depth, heads, pixels and patch.
VIT = (192, 9, 12, 32, 4)
#: Its projection: the two linear layers of each MLP, as they are. The share is that at which the printed counts come out.
VIT_CONFIG = LRPET(share=0.7, linear=True, bn_rectify=False, filter_fn=lambda name, module: name.endswith(("fc1", "fc2")))
#: Faster R-CNN: the convolutions of the features, as they are.
FRCNN_CONFIG = LRPET(share=0.55, bn_rectify=False, filter_fn=lambda name, module: name.startswith("features."))
#: PSPNet: the convolutions of the backbone but the last one, as they are.
PSP_CONFIG = LRPET(share=0.43, bn_rectify=False, filter_fn=lambda name, module: name.startswith("backbone.")
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


def vit_counts(classes: int, config: LRPET | None = None) -> dict[str, int]:
    """Multiply-adds and parameters of the small vision transformer, full or as pairs, by the rules of the code's profiler.

    The profiler, ptflops, counts a multiply-add as one, a bias once however often it is added, two for an output of a layer
    norm, and one for an output of a GELU or a softmax. The two products of the attention are not counted at all.
    """
    with torch.device("meta"):
        model = vit(classes).eval()
        if config is not None:
            for name, r in ranks(model, config).items():
                d, m = (layer := model.get_submodule(name)).in_features, layer.out_features
                model.set_submodule(name, nn.Sequential(nn.Linear(d, r, bias=False), nn.Linear(r, m)))
    width, depth, heads, pixels, patch = VIT
    tokens = (pixels // patch) ** 2 + 1
    layers = count(model, torch.empty(1, 3, pixels, pixels, device="meta"))
    found = sum(cost.macs for cost in layers.values())
    found += sum(len(b) for name, b in model.named_parameters() if name.endswith("bias") and "norm" not in name)
    found += 2 * width * (2 * depth * tokens + 1)  # layer norms; the last one reads a single token
    found += depth * (2 * width * tokens + heads * tokens**2)  # GELU and softmax
    return {"macs": found, "params": sum(p.numel() for p in model.parameters())}


@functools.cache
def backbone_cut(name: str) -> float:
    """Per cent of the multiply-adds of a backbone that its pairs save: ``frcnn`` at 600 × 600, ``psp`` at 473 × 473."""
    build, side, config, part = {"frcnn": (FasterRCNN, 600, FRCNN_CONFIG, "features"),
                                 "psp": (PSPNet, 473, PSP_CONFIG, "backbone")}[name]
    with torch.device("meta"):
        model = build().eval()
        costs = count(model.get_submodule(part), torch.empty(1, 3, side, side))
    saved = 0
    for layer, r in ranks(model, config).items():
        m, d = len(W := model.get_submodule(layer).weight), W[0].numel()
        saved += costs[layer.removeprefix(f"{part}.")].macs // (m * d) * (m * d - r * (m + d))
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
        return self.classifier(self.features(x).mean((2, 3)))


def _hooks(config: LRPET | None, example: torch.Tensor | None = None) -> dict[str, Callable]:
    """Of a recipe: a projection after every epoch, and as its result the pairs of a copy that is projected once more.

    The projection comes before the next epoch, so that an epoch is judged as it was trained. Without ``config`` there is none.
    """
    def before(model: nn.Module, epoch: int, epochs: int) -> None:
        if epoch:
            project_(model, config, example)

    def export(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model).cpu()
        project_(model, config, example)
        return compact(model, config)

    return {} if config is None else {"before_epoch": before, "export": export}
