"""The full-size runs of LAPP on the real data."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import nn

from papernets.nn import Network
from papernets.papers.lapp.compaction import compact
from papernets.papers.lapp.layers import LAPP, attach_, objective, optimiser, pace
from papernets.papers.lapp.learning import finish_
from papernets.papers.lapp.method import Flops
from papernets.papers.lapp.networks import NETWORKS
from papernets.training import Recipe, cosine, steps


@dataclass
class _Pruning:
    """What a run does beyond that of the plain network. ``config`` and ``flops`` are those of the network once it is built.

    The thresholds have the rate that ``pace`` gives for ``steps``, half of the progressive phase. It has not been tried at this
    size.
    """

    made: Network
    steps: int
    weight_decay: float
    model: nn.Module | None = None
    flops: Flops | None = None
    config: LAPP | None = None

    def build(self) -> nn.Module:
        self.model = self.made.build()
        self.flops = attach_(self.model, self.made.config, self.made.example)
        self.config = replace(self.made.config, lr=pace(self.flops, self.made.config, self.steps))
        return self.model

    def before_epoch(self, model: nn.Module, epoch: int) -> None:
        if epoch >= self.config.progressive:
            finish_(model, self.flops, self.config)

    def optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        return optimiser(model, self.flops, self.config, weight_decay=self.weight_decay)

    def make_loss(self) -> Callable:
        return objective(self.model, self.flops, self.config)


def _data(name: str) -> str:
    return "cifar10" if NETWORKS[name].shape == (3, 32, 32) else "imagenet"


def _recipe(name: str, pruned: bool) -> Recipe:
    """SGD as is usual for these networks; the abstract gives no recipe."""
    made = NETWORKS[name]
    if _data(name) == "cifar10":
        options, images = dict(data="cifar10", epochs=200, batch=128, lr=cosine(0.1, 200), weight_decay=5e-4), 50_000
    else:
        options, images = dict(data="imagenet", epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4), 1_281_167
    if not pruned:
        return Recipe(build=made.build, **options)
    run = _Pruning(made, made.config.progressive * -(-images // options["batch"]) // 2, options["weight_decay"])
    return Recipe(build=run.build, before_epoch=run.before_epoch, export=compact, optimizer=run.optimizer,
                  make_loss=run.make_loss, **options)


RECIPES: dict[str, Callable[[], Recipe]] = {f"{name}{'' if pruned else '-dense'}-{_data(name)}": partial(_recipe, name, pruned)
                                            for name in NETWORKS for pruned in (True, False)}
