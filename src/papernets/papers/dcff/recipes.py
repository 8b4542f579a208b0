"""The full-size runs of DCFF on the real data."""

from collections.abc import Callable
from functools import partial

from papernets.papers.dcff.method import compact, refresh_
from papernets.papers.dcff.networks import NETWORKS, fused
from papernets.training import Recipe, cosine, steps, with_warmup


def _recipe(name: str, data: str) -> Recipe:
    if data == "cifar10":
        options = dict(epochs=300, batch=256, lr=steps(0.1, (150, 225)), weight_decay=5e-4)
    elif name[-1] in "abc":  # "step" of the paper
        options = dict(epochs=90, batch=256, lr=with_warmup(steps(0.1, (30, 60, 80)), 5), weight_decay=1e-4)
    else:  # "cos" of the paper
        options = dict(epochs=180, batch=256, lr=with_warmup(cosine(0.01, 180, 5), 5), weight_decay=1e-4, momentum=0.99)
    return Recipe(data=data, build=partial(fused, name), before_epoch=partial(refresh_, epochs=options["epochs"]),
                  export=compact, **options)


def _data(name: str) -> str:
    return "imagenet" if name.startswith("resnet50-") else "cifar10"


RECIPES: dict[str, Callable[[], Recipe]] = {f"{name}-{_data(name)}": partial(_recipe, name, _data(name)) for name in NETWORKS}
