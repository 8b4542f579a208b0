"""The full-size runs of WE on the real data."""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn
from torch.nn import functional as F

from papernets.data import image_folders
from papernets.papers.we.method import WE, WE_IMAGENET, Evolution
from papernets.papers.we.networks import CIFAR_NETWORKS, IMAGENET_NETWORKS
from papernets.training import Recipe, steps


def smoothed(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with labels smoothed by 0.1: another training method that plugs in."""
    return F.cross_entropy(outputs, labels, label_smoothing=0.1)


#: What is compared at full size: the method, the released code's mix, and what each claim sets it against.
VARIANTS = {"": "dominant", "-official": "official", "-plain": None, "-grafting": "copy", "-renewal": "renew",
            "-smoothing": None}


def _recipe(data: str, build: Callable[[], nn.Module], config: WE, variant: str, side: int = 32) -> Recipe:
    mix = VARIANTS[variant]
    plugin = None if mix is None else functools.partial(Evolution, replace(config, mix=mix))
    loss = (lambda: smoothed) if variant == "-smoothing" else None
    if side == 32:
        return Recipe(data=data, build=build, epochs=200, batch=128, lr=steps(0.1, (60, 120, 180)), weight_decay=5e-4,
                      plugin=plugin, loss=loss)
    return Recipe(data=data, build=build, epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4, plugin=plugin,
                  loss=loss, read=lambda path: image_folders(path, data, side))


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found = {}
    for variant in VARIANTS:
        for name, build in CIFAR_NETWORKS.items():
            for data, classes in (("cifar10", 10), ("cifar100", 100)):
                made = functools.partial(build, classes=classes)
                found[f"{name}-{data}{variant}"] = functools.partial(_recipe, data, made, WE(), variant)
        for name, (build, side) in IMAGENET_NETWORKS.items():
            found[f"{name}-imagenet{variant}"] = functools.partial(_recipe, "imagenet", build, WE_IMAGENET, variant, side)
    return found


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
