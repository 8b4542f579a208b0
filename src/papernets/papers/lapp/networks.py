"""The networks of LAPP, and what they cost."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from papernets import check
from papernets.measure import macs, size_of
from papernets.nn import ConvNet, Network, Networks, PadShortcut, ResNetBasic, ResNetCIFAR
from papernets.papers.lapp.layers import LAPP
from papernets.papers.lapp.method import rho_of

#: One image of the experiments.
DIGIT = torch.zeros(1, 1, 8, 8)


def projected_resnet(depth: int = 20) -> nn.Module:
    """The CIFAR residual network with 1×1 convolutions on the shortcuts that change the width."""
    model = ResNetCIFAR(depth)
    for name, block in model.named_modules():
        if isinstance(getattr(block, "shortcut", None), PadShortcut):
            conv = block.conv1
            model.set_submodule(f"{name}.shortcut", nn.Sequential(
                nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=False), nn.BatchNorm2d(conv.out_channels)))
    return model


#: The abstract says that ResNet-20 is compressed "to 40.3 %", and not of what; ResNet-18 loses 55.6 % of its FLOPs.
NETWORKS = Networks({"resnet20": Network(partial(ResNetCIFAR, 20), config=LAPP(removed=0.597, progressive=25)),
                     "resnet20-projected": Network(projected_resnet, config=LAPP(removed=0.597, progressive=25)),
                     "resnet18": Network(ResNetBasic, (3, 224, 224), LAPP(removed=0.556, progressive=12))})


def counts(name: str) -> dict[str, int]:
    """Multiply-accumulates and parameters of a plain network of the paper. ``ValueError`` lists the names."""
    return size_of(NETWORKS[name].build, NETWORKS[name].shape)


def small_net(widths: Sequence[int] = (32, 64, 64, 64)) -> ConvNet:
    """The network of the experiments: 3×3 convolutions on 8×8 digits, with one pooling after the first."""
    return ConvNet(widths, channels=1, pool=(0,))


@check.renamed(share="removed: the share that goes, 1 - share")
def narrow_widths(removed: float, widths: Sequence[int] = (32, 64, 64, 64)) -> tuple[int, ...]:
    """The widths of the plain network whose pruned layers are all narrower by one factor, without that share of the MACs.

    ``ValueError`` if less than one filter a layer would be left.
    """
    whole, rho = macs(small_net(widths), DIGIT), rho_of(removed)
    for width in range(max(widths), 0, -1):
        tried = (widths[0], *(max(1, round(C * width / max(widths))) for C in widths[1:]))
        if macs(small_net(tried), DIGIT) <= rho * whole:
            return tried
    raise ValueError(f"removed {removed} leaves less than one filter a layer; choose a smaller share")
