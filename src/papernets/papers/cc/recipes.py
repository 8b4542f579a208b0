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
from papernets.papers.cc.layers import CC, clipped, compact, plan
from papernets.papers.cc.networks import NETWORKS
from papernets.tools.files import write_json
from papernets.training import Recipe, crop_and_flip, loader, steps

#: Where a recipe finds the trained dense network and keeps its plan: the folder that ``papernets train`` writes to by itself.
RUNS = Path("runs") / "cc"


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
    path = RUNS / f"{name}-dense-{data}" / "best.pt"
    if not path.exists():
        raise ValueError(f"{path} is not there; compression starts from a trained dense network. It is made by: "
                         f"papernets train cc --config {name}-dense-{data}")
    model = NETWORKS[name][0]()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    made, written = None, RUNS / f"{name}-{data}" / "plan.json"
    if written.exists():
        made = json.loads(written.read_text(encoding="utf-8"))
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        batches = loader(kept["plain"], 128 if data.startswith("cifar") else 256, False, 4)
        made = {layer: asdict(left) for layer, left in plan(copy.deepcopy(model).to(device), batches, config).items()}
        write_json(written, made)
    return compact(model, made)


def _recipe(name: str, data: str, dense: bool) -> Recipe:
    cifar, kept = data.startswith("cifar"), {}
    epochs, rate = (300, 0.1) if cifar else (90, 0.1 if dense else 0.01)
    build = NETWORKS[name][0] if dense else functools.partial(_compressed, name, data, CC(), kept)
    return Recipe(data=data, build=build, epochs=epochs, batch=128 if cifar else 256, weight_decay=1e-4,
                  lr=steps(rate, (150, 225) if cifar else (30, 60)), read=_read(data, kept),
                  augment=functools.partial(crop_and_flip, pad=8) if cifar else None, optimizer=None if dense else clipped)


#: Training of the dense networks, and compression with fine-tuning. Schedules of ImageNet are ours; the code states none.
RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{name}-{which}{data}": functools.partial(_recipe, name, data, which == "dense-")
    for name, (_, side) in NETWORKS.items() for data in ["cifar10" if side == 32 else "imagenet"] for which in ("dense-", "")}
