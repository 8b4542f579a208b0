"""The full-size runs of 1×N on the real data."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from papernets.papers.one_by_n.method import OneByN, dense, prune_
from papernets.papers.one_by_n.networks import NETWORKS, network
from papernets.training import Recipe, cosine, with_warmup

#: Where a recipe finds the trained dense network: the folder that ``papernets train`` writes to by itself.
RUNS = Path("runs") / "1xn"


def _pretrained(name: str) -> nn.Module:
    path = RUNS / f"{name}-dense-imagenet" / "best.pt"
    if not path.exists():
        raise ValueError(f"{path} is not there; pruning starts from a trained dense network. It is made by: "
                         f"papernets train 1xn --config {name}-dense-imagenet")
    model = NETWORKS[name].build()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def config_of(name: str, pattern: str, p: float = 0.5, rearrange: bool = True) -> OneByN:
    """The configuration of a recipe: ``pattern`` is 1xN, weight, filter, kernel-l1 or kernel-random."""
    made, found = network(name), OneByN(rate=p, rearrange=False)
    with torch.device("meta"):
        layers = [(layer, module) for layer, module in made.build().named_modules() if made.masked(layer, module)]
    names = tuple(layer for layer, module in layers if isinstance(module, nn.Conv2d))
    if pattern.startswith("1x"):
        first = tuple(layer for layer in names if made.rearranged(layer)) if rearrange else False
        found = replace(found, N=int(pattern[2:]), rearrange=first, pad=True)
    else:
        found = replace(found, pattern={"kernel-l1": "kernel", "kernel-random": "random"}.get(pattern, pattern),
                        N=1 if pattern == "kernel-random" else 4)
    return replace(found, filter_fn=lambda layer, module: layer in names)


def _recipe(name: str, config: OneByN | None) -> Recipe:
    def build() -> nn.Module:
        if config is None:
            return NETWORKS[name].build()
        model = _pretrained(name)
        prune_(model, config)
        return model

    rate = 0.05 if config is None else 0.01
    return Recipe(data="imagenet", build=build, epochs=180, batch=256, lr=with_warmup(cosine(rate, 180, 5), 5),
                  weight_decay=4e-5, export=None if config is None else dense)


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, tuple] = {}
    for name in NETWORKS:
        found[f"{name}-dense"] = (name, None)
        for pattern in ("weight", "filter", "1x2", "1x4", "1x8", "1x16", "1x32", "kernel-l1", "kernel-random"):
            found[f"{name}-{pattern}"] = (name, pattern)
            if pattern.startswith("1x"):
                found[f"{name}-{pattern}-plain"] = (name, pattern, 0.5, False)
            if pattern in ("weight", "filter", "1x4"):
                found |= {f"{name}-{pattern}-p{tenth}0": (name, pattern, tenth / 10) for tenth in range(1, 10)}
    return {f"{key}-imagenet": lambda a=arguments: _recipe(a[0], None if a[1] is None else config_of(*a))
            for key, arguments in found.items()}


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
