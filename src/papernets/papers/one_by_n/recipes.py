"""The full-size runs of 1×N on the real data."""

import functools
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from papernets.papers.one_by_n.method import OneByN, dense, prunable, prune_
from papernets.papers.one_by_n.networks import NETWORKS
from papernets.training import Recipe, cosine, trained, with_warmup


def _free(name: str, layer: str) -> bool:
    """Whether the outputs of a layer are added to nothing, so that its filters can have an order of their own."""
    if name == "mobilenetv1":
        return True
    if name == "resnet50":
        return layer.endswith((".conv1", ".conv2"))
    return layer.endswith(".block.0") or layer.count(".") == 1  # expansions of inverted residuals, the last 1×1 convolution


def config_of(name: str, pattern: str, removed: float = 0.5, rearrange: bool = True) -> OneByN:
    """The configuration of a recipe: ``pattern`` is 1xN, weight, filter, kernel-l1 or kernel-random."""
    network = NETWORKS[name]
    config = replace(network.config, removed=removed, rearrange=False)
    if not pattern.startswith("1x"):
        return replace(config, pattern={"kernel-l1": "kernel", "kernel-random": "random"}.get(pattern, pattern),
                       N=1 if pattern == "kernel-random" else 4)
    first = tuple(layer for layer in prunable(network.outline, config) if _free(name, layer)) if rearrange else False
    return replace(config, N=int(pattern[2:]), rearrange=first, pad=True)


def _dense(name: str) -> Recipe:
    return Recipe(data="imagenet", build=NETWORKS[name].build, epochs=180, batch=256, lr=with_warmup(cosine(0.05, 180, 5), 5),
                  weight_decay=4e-5)


def _pruned(name: str, pattern: str, removed: float = 0.5, rearrange: bool = True) -> Recipe:
    """Fine-tuning of the trained dense network after ``pattern`` was removed from it."""
    def build() -> nn.Module:
        model = trained(NETWORKS[name].build(), "1xn", f"{name}-dense-imagenet", "pruning starts from a trained dense network")
        prune_(model, config_of(name, pattern, removed, rearrange))
        return model

    return replace(_dense(name), build=build, lr=with_warmup(cosine(0.01, 180, 5), 5), export=dense)


def _recipes() -> dict[str, Callable[[], Recipe]]:
    runs: dict[str, Callable[[], Recipe]] = {}
    for name in NETWORKS:
        runs[f"{name}-dense-imagenet"] = functools.partial(_dense, name)
        for pattern in ("weight", "filter", "1x2", "1x4", "1x8", "1x16", "1x32", "kernel-l1", "kernel-random"):
            run = functools.partial(_pruned, name, pattern)
            runs[f"{name}-{pattern}-imagenet"] = run
            if pattern.startswith("1x"):
                runs[f"{name}-{pattern}-plain-imagenet"] = functools.partial(run, rearrange=False)
            if pattern in ("weight", "filter", "1x4"):
                runs |= {f"{name}-{pattern}-p{tenth}0-imagenet": functools.partial(run, tenth / 10) for tenth in range(1, 10)}
    return runs


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
