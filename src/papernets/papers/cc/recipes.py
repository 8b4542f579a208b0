"""The full-size runs of CC on the real data."""

import copy
import functools
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from papernets.data import ImageFolder, image_folders, read_cifar
from papernets.papers.cc.layers import CC, narrowed, plan
from papernets.papers.cc.networks import NETWORKS
from papernets.tools.files import write_json
from papernets.training import RUNS, Recipe, clipped_sgd, crop_and_flip, loader, steps, trained


def _read(data: str, kept: dict) -> Callable:
    """The reader of a recipe; it also puts the training images without augmentation into ``kept``."""
    def read(folder: str | Path | None):
        if data.startswith("cifar"):
            first, second = read_cifar(data, None if folder is None else Path(folder))
            kept["plain"] = first
            return first, second
        train, test = image_folders(folder, data)
        kept["plain"] = ImageFolder(train.root, False)
        return train, test

    return read


def _compressed(name: str, data: str, config: CC, kept: dict) -> nn.Module:
    """The compact network of a recipe. Its plan is made once, from the trained dense network, and kept beside the log."""
    why = "compression starts from a trained dense network"
    model = trained(NETWORKS[name].build(), "cc", f"{name}-dense-{data}", why)
    written = RUNS / "cc" / f"{name}-{data}" / "plan.json"
    if written.exists():
        made = json.loads(written.read_text(encoding="utf-8"))
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        batches = loader(kept["plain"], 128 if data.startswith("cifar") else 256, False, 4)
        made = {layer: asdict(left) for layer, left in plan(copy.deepcopy(model).to(device), batches, config).items()}
        write_json(written, made)
    return narrowed(model, made)


def _recipe(name: str, data: str, dense: bool) -> Recipe:
    cifar, kept = data.startswith("cifar"), {}
    epochs, lr = (300, 0.1) if cifar else (90, 0.1 if dense else 0.01)
    build = NETWORKS[name].build if dense else functools.partial(_compressed, name, data, CC(), kept)
    return Recipe(data=data, build=build, epochs=epochs, batch=128 if cifar else 256, weight_decay=1e-4,
                  lr=steps(lr, (150, 225) if cifar else (30, 60)), read=_read(data, kept),
                  augment=functools.partial(crop_and_flip, pad=8) if cifar else None, optimizer=None if dense else clipped_sgd)


#: Training of the dense networks, and compression with fine-tuning. Schedules of ImageNet are ours; the code states none.
RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{name}-{which}{data}": functools.partial(_recipe, name, data, which == "dense-")
    for name, made in NETWORKS.items() for data in ["cifar10" if made.shape[1] == 32 else "imagenet"]
    for which in ("dense-", "")}
