"""The networks of CC, and what they cost."""

import functools
from collections.abc import Callable

import torch
from torch import nn

from papernets.measure import count, parameters
from papernets.nn import VGG, DenseNetCIFAR, GoogLeNet, ResNetCIFAR, ResNetImageNet

#: The networks of the released code: how each is built, and the side of its images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet56": (lambda: ResNetCIFAR(56), 32), "densenet40": (DenseNetCIFAR, 32), "googlenet": (GoogLeNet, 32),
    "vgg16": (VGG, 32), "resnet50": (ResNetImageNet, 224)}


@functools.cache
def counts(name: str) -> dict[str, int]:
    """MACs and parameters of a dense network of the paper, and of MACs those of convolutions and of the classifier."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    build, side = NETWORKS[name]
    with torch.device("meta"):
        model = build().eval()
        costs = count(model, torch.empty(1, 3, side, side))
        linear = sum(cost.macs for layer, cost in costs.items() if isinstance(model.get_submodule(layer), nn.Linear))
        total = sum(cost.macs for cost in costs.values())
        return {"macs": total, "macs.conv": total - linear, "macs.fc": linear, "params": parameters(model)}
