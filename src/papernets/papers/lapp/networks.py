"""The networks of LAPP, and what they cost."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from papernets.measure import macs, parameters
from papernets.nn import ConvNet, PadShortcut, ResNetBasic, ResNetCIFAR


def projected_resnet(depth: int = 20) -> nn.Module:
    """The CIFAR residual network with 1×1 convolutions on the shortcuts that change the width."""
    model = ResNetCIFAR(depth)
    for name, block in model.named_modules():
        if isinstance(getattr(block, "shortcut", None), PadShortcut):
            conv = block.conv1
            model.set_submodule(f"{name}.shortcut", nn.Sequential(
                nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=False), nn.BatchNorm2d(conv.out_channels)))
    return model


@dataclass(frozen=True)
class Network:
    """A network of the paper, the side of its images, and the share of multiply-accumulates that is to be left."""

    build: Callable[[], nn.Module]
    side: int
    target: float


#: The abstract says that ResNet-20 is compressed "to 40.3 %", and not of what; ResNet-18 loses 55.6 % of its FLOPs.
NETWORKS = {"resnet20": Network(lambda: ResNetCIFAR(20), 32, 0.403),
            "resnet20-projected": Network(projected_resnet, 32, 0.403),
            "resnet18": Network(ResNetBasic, 224, 0.444)}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


@functools.cache
def counts(name: str) -> dict[str, int]:
    """Multiply-accumulates and parameters of a plain network of the paper."""
    made = network(name)
    with torch.device("meta"):
        model = made.build()
        return {"macs": macs(model, torch.empty(1, 3, made.side, made.side)), "params": parameters(model)}


_EXAMPLE = torch.zeros(1, 1, 8, 8)


def small_net(widths: Sequence[int] = (32, 64, 64, 64)) -> ConvNet:
    """The network of the experiments: 3×3 convolutions on 8×8 digits, with one pooling after the first."""
    return ConvNet(widths, channels=1, pool=(0,))


def narrow_widths(share: float, widths: Sequence[int] = (32, 64, 64, 64)) -> tuple[int, ...]:
    """The widths of the plain network whose pruned layers are all narrower by one factor, at most at ``share`` of the MACs."""
    whole = macs(small_net(widths), _EXAMPLE)
    for width in range(max(widths), 0, -1):
        tried = (widths[0], *(max(1, round(C * width / max(widths))) for C in widths[1:]))
        if macs(small_net(tried), _EXAMPLE) <= share * whole:
            return tried
    raise ValueError(f"share {share} is below that of one filter a layer")
