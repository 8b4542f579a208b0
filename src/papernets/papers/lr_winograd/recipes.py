"""The full-size runs of LR-Winograd on the real data."""

import functools
from collections.abc import Callable

from torch import nn

from papernets.data import clip_folders
from papernets.papers.lr_winograd.layers import LowRankWinograd, compact, prune_, transform_
from papernets.papers.lr_winograd.method import removed_at
from papernets.papers.lr_winograd.networks import C3D
from papernets.training import Recipe, steps, trained


def _recipe(config: LowRankWinograd | None, removed: float = 0.0, epochs: int = 40) -> Recipe:
    """The spatial network, or a transformed one that starts from it and loses its columns over the first half of the run."""
    def build() -> nn.Module:
        model = C3D()
        if config is not None:
            trained(model, "lr-winograd", "c3d-spatial-ucf101", "the transform starts from a trained network")
            transform_(model, config)
        return model

    def before(model: nn.Module, epoch: int) -> None:
        if removed:
            prune_(model, removed_at(epoch, epochs / 2, removed), config)

    lr = steps(0.01 if config is None else 0.001, (epochs // 2, 3 * epochs // 4))
    return Recipe(data="ucf101", build=build, epochs=epochs, batch=16, lr=lr, weight_decay=5e-4 if config is None else 0.0,
                  read=clip_folders, test_batch=16, before_epoch=before, export=None if config is None else compact)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "c3d-spatial-ucf101": functools.partial(_recipe, None),
    "c3d-ucf101": functools.partial(_recipe, LowRankWinograd()),
    "c3d-vanilla-ucf101": functools.partial(_recipe, LowRankWinograd(mode="vanilla")),
    "c3d-half-ucf101": functools.partial(_recipe, LowRankWinograd(), 0.5),
    "c3d-vanilla-half-ucf101": functools.partial(_recipe, LowRankWinograd(mode="vanilla"), 0.5),
}
