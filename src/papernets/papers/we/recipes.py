"""The full-size runs of WE on the real data."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from papernets.data import image_folders
from papernets.papers.we.method import Evolution
from papernets.papers.we.networks import NETWORKS
from papernets.training import Recipe, smoothed, steps

#: What is compared at full size: the method, the released code's mix, and what each claim sets it against. Smoothed labels are
#: another training method that plugs in.
VARIANTS = {"": "dominant", "-official": "official", "-plain": None, "-grafting": "copy", "-renewal": "renew",
            "-smoothing": None}


def _recipe(name: str, variant: str) -> Recipe:
    made, mix, data = NETWORKS[name], VARIANTS[variant], name.rpartition("-")[2]
    plugin = None if mix is None else partial(Evolution, replace(made.config, mix=mix))
    make_loss = smoothed if variant == "-smoothing" else None
    if data != "imagenet":
        return Recipe(data=data, build=made.build, epochs=200, batch=128, lr=steps(0.1, (60, 120, 180)), weight_decay=5e-4,
                      plugin=plugin, make_loss=make_loss)
    return Recipe(data=data, build=made.build, epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4, plugin=plugin,
                  make_loss=make_loss, read=partial(image_folders, name=data, size=made.shape[1]))


RECIPES: dict[str, Callable[[], Recipe]] = {f"{name}{variant}": partial(_recipe, name, variant)
                                            for variant in VARIANTS for name in NETWORKS}
