"""The full-size runs of LBC on the real data."""

import functools
from collections.abc import Callable
from dataclasses import replace

import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from papernets.data import ImageFolder, image_folders
from papernets.nn import DeiT
from papernets.papers.lbc.experiment import ARMS, PATTERNS
from papernets.papers.lbc.layers import EPOCHS, LBC, dense, refresh_, sparsify_
from papernets.papers.lbc.networks import NETWORKS
from papernets.training import Recipe, cosine, decay_groups, erase, mixing, rand_augment, smoothed, with_warmup


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(decay_groups(model), 0.1, momentum=0.9, weight_decay=1e-4)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(decay_groups(model), 1e-3, weight_decay=0.05)


def _transformer() -> Recipe:
    """DeiT-small as in table 9 of its paper; the script that was released with LBC trains it so, too."""
    def read(path) -> tuple[ImageFolder, ImageFolder]:
        return image_folders(path, "imagenet", change=rand_augment, resampling=Image.Resampling.BICUBIC)

    loss = functools.partial(functional.cross_entropy, label_smoothing=0.1)
    return Recipe(data="imagenet", build=lambda: DeiT(drop=[0.1 * block / 11 for block in range(12)]), epochs=300, batch=1024,
                  lr=with_warmup(cosine(1e-3, 300, 5), 5), weight_decay=0.05, optimizer=_adamw, read=read, repeats=3,
                  augment=functools.partial(erase, areas=(0.02, 1 / 3), noise=True),
                  step=mixing(loss, chance=1.0, alpha=(0.8, 1.0)))


def _convolutional(name: str) -> Recipe:
    return Recipe(data="imagenet", build=NETWORKS[name].build, epochs=EPOCHS, batch=256,
                  lr=with_warmup(cosine(0.1, EPOCHS, 5), 5), weight_decay=1e-4, optimizer=_sgd, make_loss=smoothed)


def _recipe(name: str, config: LBC | None) -> Recipe:
    """The run of a network under ``config``, or of the dense network where it is None."""
    recipe = _transformer() if name == "deitsmall" else _convolutional(name)
    if config is None:
        return recipe

    def build() -> nn.Module:
        model = recipe.build()
        sparsify_(model, config)
        return model

    return replace(recipe, build=build, before_epoch=refresh_, export=dense)


def _recipes() -> dict[str, Callable[[], Recipe]]:
    runs: dict[str, tuple[str, LBC | None]] = {}
    for name, network in NETWORKS.items():
        runs[f"{name}-dense"] = name, None
        for N, M in (*PATTERNS, (2, 8), (4, 8)):
            for arm, config in ARMS.items():
                key = "-".join([name, *([] if arm == "lbc" else [arm]), *([] if (N, M) == (2, 4) else [f"{N}of{M}"])])
                runs[key] = name, replace(network.config, N=N, M=M, rule=config.rule)
    return {f"{key}-imagenet": functools.partial(_recipe, *run) for key, run in runs.items()}


#: By network, rule and pattern: ``resnet50-imagenet`` is LBC at 2:4, ``resnet50-ste-1of4-imagenet`` its peer at 1:4. The best
#: network of a run may be of an epoch before the last removal, and then it is not yet N:M; the last one always is.
RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
