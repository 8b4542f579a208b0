"""The full-size runs of SNN on the real data."""

import functools
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from papernets.papers.snn.layers import SNN, adam, export, subbit_
from papernets.papers.snn.networks import NETWORKS, BinaryResNet, Teacher
from papernets.training import Recipe, steps

#: Where a recipe finds what an earlier one left: the folder that the command ``papernets train`` writes to by itself.
RUNS = Path("runs") / "snn"
_TEACHER, _STEP1 = "resnet34-teacher-imagenet", "resnet18-step1-imagenet"


def _load(model: nn.Module, recipe: str, what: str) -> nn.Module:
    path = RUNS / recipe / "best.pt"
    if not path.exists():
        raise ValueError(f"{path} is not there; {what}. It is made by: papernets train snn --config {recipe}")
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return model


def teacher_loss(teacher: nn.Module) -> Callable:
    """Cross-entropy of the student's log-softmax against the softmax of ``teacher``; the labels are not used."""
    teacher.eval().requires_grad_(False)

    def loss(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher.to(images.device)(images).softmax(1)
        return -(wanted * outputs.log_softmax(1)).sum(1).mean()

    return loss


def _imagenet_teacher() -> Callable:
    note = "the student learns from a real ResNet-34; torchvision's state of it (resnet34) may be put there, too"
    return teacher_loss(_load(Teacher(), _TEACHER, note))


_COLOURS = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_SPREAD, _STD = torch.tensor([0.2175, 0.0188, 0.0045]), torch.tensor([0.229, 0.224, 0.225])


def lighting(images: torch.Tensor, strength: float = 0.1) -> torch.Tensor:
    """A random constant colour added to each standardised image, along the principal colours of ImageNet."""
    draw = torch.randn(len(images), 3) * strength  # (B, 3)
    colour = (draw * _SPREAD) @ _COLOURS.T / _STD
    return images + colour.to(images)[:, :, None, None]


def _recipe(tau: int | None) -> Recipe:
    """The second stage at τ; the first, with real weights, where τ is None."""
    def build() -> nn.Module:
        model = BinaryResNet(NETWORKS["resnet18"])
        if tau is not None:
            _load(model, _STEP1, "the second stage starts from the network of the first")
            subbit_(model, SNN(tau=tau))
        return model

    decay = 1e-5 if tau is None else 0.0
    return Recipe(data="imagenet", build=build, epochs=256, batch=512, lr=lambda epoch: 1e-3 * (1 - epoch / 256),
                  weight_decay=decay, optimizer=functools.partial(adam, weight_decay=decay), loss=_imagenet_teacher,
                  augment=lighting, export=None if tau is None else export)


RECIPES: dict[str, Callable[[], Recipe]] = {
    _TEACHER: lambda: Recipe(data="imagenet", build=Teacher, epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4),
    _STEP1: lambda: _recipe(None),
    "resnet18-1bit-imagenet": lambda: _recipe(9),
    **{f"resnet18-tau{tau}-imagenet": lambda tau=tau: _recipe(tau) for tau in (6, 5, 4)},
}
