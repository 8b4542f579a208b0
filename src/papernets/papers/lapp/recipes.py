"""The full-size runs of LAPP on the real data."""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from papernets.papers.lapp.compaction import compact, finish_
from papernets.papers.lapp.layers import LAPP, attach_, objective, optimiser, pace
from papernets.papers.lapp.networks import NETWORKS, network
from papernets.training import Recipe, cosine, steps


def _recipe(name: str, pruned: bool) -> Recipe:
    """SGD as is usual for these networks; the abstract gives no recipe.

    The thresholds have the rate that ``pace`` gives for half of the progressive phase. It has not been tried at this size.
    """
    made = network(name)
    if made.side == 32:
        options = dict(data="cifar10", epochs=200, batch=128, lr=cosine(0.1, 200), weight_decay=5e-4)
        config, images = LAPP(target=made.target, progressive=25), 50_000
    else:
        options = dict(data="imagenet", epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4)
        config, images = LAPP(target=made.target, progressive=12), 1_281_167
    if not pruned:
        return Recipe(build=made.build, **options)
    held: dict = {}

    def build() -> nn.Module:
        held["model"] = made.build()
        held["flops"] = attach_(held["model"], config, torch.zeros(1, 3, made.side, made.side))
        steps_ahead = config.progressive * -(-images // options["batch"]) // 2
        held["config"] = replace(config, rate=pace(held["flops"], config, steps_ahead))
        return held["model"]

    def before(model: nn.Module, epoch: int, epochs: int) -> None:
        if epoch >= config.progressive:
            finish_(model, held["flops"], held["config"])

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return optimiser(model, held["flops"], held["config"], weight_decay=options["weight_decay"])

    return Recipe(build=build, before_epoch=before, export=compact, optimizer=optimizer,
                  loss=lambda: objective(held["model"], held["flops"], held["config"]), **options)


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{name}{'' if pruned else '-dense'}-{'cifar10' if made.side == 32 else 'imagenet'}":
        functools.partial(_recipe, name, pruned) for name, made in NETWORKS.items() for pruned in (True, False)}
