"""The full-size runs of DCFF on the real data."""

from collections.abc import Callable

from papernets.papers.dcff.method import compact, refresh_
from papernets.papers.dcff.networks import _R50_RATES, network
from papernets.training import Recipe, cosine, steps, with_warmup


def _recipe(name: str, data: str) -> Recipe:
    made = network(name)
    if data == "cifar10":
        options = dict(epochs=300, batch=256, lr=steps(0.1, (150, 225)), weight_decay=5e-4)
    elif name[-1] in "abc":  # "step" of the paper
        options = dict(epochs=90, batch=256, lr=with_warmup(steps(0.1, (30, 60, 80)), 5), weight_decay=1e-4)
    else:  # "cos" of the paper
        options = dict(epochs=180, batch=256, lr=with_warmup(cosine(0.01, 180, 5), 5), weight_decay=1e-4, momentum=0.99)
    return Recipe(data=data, build=made.build, before_epoch=refresh_, export=compact, **options)


RECIPES: dict[str, Callable[[], Recipe]] = {
    **{f"{name}-cifar10": lambda name=name: _recipe(name, "cifar10")
       for name in ("vgg16", "resnet56", "resnet110", "googlenet")},
    **{f"resnet50-{key}-imagenet": lambda key=key: _recipe(f"resnet50-{key}", "imagenet") for key in _R50_RATES},
}
