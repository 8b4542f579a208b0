"""The full-size runs of SNN on the real data."""

import functools
from collections.abc import Callable

from torch import nn

from papernets.papers.snn.layers import SNN, adam, compact, subbit_
from papernets.papers.snn.networks import NETWORKS, teacher
from papernets.training import Recipe, lighting, steps, taught_by, trained

_TEACHER, _STEP1 = "resnet34-teacher-imagenet", "resnet18-step1-imagenet"


def _taught() -> Callable:
    why = "the student learns from a real ResNet-34; torchvision's state of it (resnet34) may be put there, too"
    return taught_by(trained(teacher(), "snn", _TEACHER, why))


def _teacher() -> Recipe:
    return Recipe(data="imagenet", build=teacher, epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4)


def _student(tau: int | None = None) -> Recipe:
    """The second stage at τ; the first, with real weights, where τ is None."""
    def build() -> nn.Module:
        model = NETWORKS["resnet18"].build()
        if tau is not None:
            trained(model, "snn", _STEP1, "the second stage starts from the network of the first")
            subbit_(model, SNN(tau=tau))
        return model

    decay = 1e-5 if tau is None else 0.0
    return Recipe(data="imagenet", build=build, epochs=256, batch=512, lr=lambda epoch: 1e-3 * (1 - epoch / 256),
                  weight_decay=decay, optimizer=functools.partial(adam, weight_decay=decay), make_loss=_taught,
                  augment=lighting, export=None if tau is None else compact)


RECIPES: dict[str, Callable[[], Recipe]] = {
    _TEACHER: _teacher, _STEP1: _student, "resnet18-1bit-imagenet": functools.partial(_student, 9),
    **{f"resnet18-tau{tau}-imagenet": functools.partial(_student, tau) for tau in (6, 5, 4)},
}
