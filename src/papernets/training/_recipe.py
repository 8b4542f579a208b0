"""Full runs on the real data sets: what a paper's recipe is, and how one is started."""

import contextlib
import os
import pickle
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.utils.data import Dataset

from papernets import check
from papernets.data import image_folders, read_cifar
from papernets.measure import parameters
from papernets.training._augment import crop_and_flip
from papernets.training._loop import Carried, History, evaluated, fit, loader, one_cpu
from papernets.training._schedules import Schedule
from papernets.training._seed import seed_everything

if TYPE_CHECKING:  # importing it takes seconds
    from filelock import FileLock
    from lightning_fabric import Fabric

#: Where ``papernets train`` writes by itself: a folder for each paper, and in it one for each recipe.
RUNS = Path("runs")


class Plugin(Carried, Protocol):
    """A method that acts between two epochs and remembers something from one to the next."""

    def step(self, model: nn.Module, epoch: int) -> object: ...


@check.renamed(loss="make_loss: it makes the loss when the run begins")
@dataclass(frozen=True)
class Recipe:
    """A paper's recipe. ``before_epoch(model, epoch)`` is the method's; ``export`` makes the final network.

    ``read(data)`` gives the training and the test set of a recipe whose data are neither CIFAR nor a folder of images. With
    ``repeats`` an epoch holds fewer training images, each so many times in a row. ``augment`` changes a batch of training
    images, after what the reader of the data does.

    ``optimizer``, ``step``, ``evaluate``, ``every`` and ``score`` are those of ``fit``; ``make_loss()`` makes its loss when the
    run begins. ``plugin()`` makes, when the run begins, an object whose ``step(model, epoch)`` follows every epoch and
    its evaluation, and whose state is in the checkpoint.
    """

    data: str
    build: Callable[[], nn.Module]
    epochs: int
    batch: int
    lr: Schedule
    weight_decay: float
    momentum: float = 0.9
    before_epoch: Callable[[nn.Module, int], object] | None = None
    export: Callable[[nn.Module], nn.Module] | None = None
    read: Callable[[Path | None], tuple[Dataset, Dataset]] | None = None
    test_batch: int = 500
    repeats: int = 1
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    make_loss: Callable[[], Callable] | None = None
    step: Callable[[nn.Module, Any, Any], torch.Tensor] | None = None
    evaluate: Callable[[nn.Module, Iterable, "Fabric"], float] | None = None
    every: int = 1
    score: str = "accuracy"
    augment: Callable[[torch.Tensor], torch.Tensor] | None = None
    plugin: Callable[[], Plugin] | None = None


def run_recipe(recipe: Recipe, folder: str | Path, *, fabric: "Fabric | None" = None, seed: int = 0,
               data: str | Path | None = None, epochs: int | None = None, workers: int = 4,
               report: Callable[[int, int, History], None] | None = None) -> History:
    """Run a recipe to its end, or go on where it was killed. ``folder`` gets the checkpoint, the log and the best network.

    ``data`` is the archive (CIFAR) or the folder with ``train`` and ``val`` (ImageNet); CIFAR is fetched if it is left
    out. ``epochs`` shortens the run for a test of the machinery: the schedule stays the paper's.

    ``ValueError`` if ``epochs`` is more than the recipe has, if the checkpoint in ``folder`` is of another seed or recipe, or
    if another training is going on there.
    """
    folder = Path(folder)
    if epochs is not None and epochs > recipe.epochs:
        raise ValueError(f"epochs is {epochs}; the recipe has {recipe.epochs}, and its learning rate is not defined beyond")
    augment = recipe.augment
    if recipe.read is not None:
        first, second = recipe.read(data)
    elif recipe.data.startswith("cifar"):
        first, second = read_cifar(recipe.data, None if data is None else Path(data))
        augment = augment or crop_and_flip
    else:
        first, second = image_folders(data, recipe.data)
    if fabric is None:
        fabric = one_cpu()
    folder.mkdir(parents=True, exist_ok=True)
    with _alone(folder) if fabric.is_global_zero else contextlib.nullcontext():
        return _run(recipe, folder, fabric, seed, epochs, first, second, augment, workers, report)


def _alone(folder: Path) -> "FileLock":
    """Held while a training writes to ``folder``; the system lets go of it if the training is killed."""
    from filelock import FileLock, Timeout
    lock = FileLock(folder / "run.lock")
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another training is going on in {folder}; wait for its end, or name another folder") from None


@dataclass
class _Identity:
    """Of whom a checkpoint is: the seed and the numbers of the recipe."""

    folder: Path
    numbers: dict[str, Any]

    def state_dict(self) -> dict[str, Any]:
        return self.numbers

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name, value in self.numbers.items():
            if state_dict.get(name) != value:
                raise ValueError(f"{self.folder} holds a training with {name} = {state_dict.get(name)}, and {name} is {value} "
                                 "now; name another folder, or delete this one to start anew")


def _run(recipe: Recipe, folder: Path, fabric: "Fabric", seed: int, epochs: int | None, first: Dataset, second: Dataset,
         augment: Callable | None, workers: int, report: Callable | None) -> History:
    total = recipe.epochs if epochs is None else epochs
    seed_everything(seed)
    model, loss = recipe.build(), recipe.make_loss() if recipe.make_loss else None
    plugin = recipe.plugin() if recipe.plugin else None
    numbers = {name: getattr(recipe, name) for name in ("data", "epochs", "batch", "weight_decay", "momentum", "repeats")}
    identity = _Identity(folder, {"seed": seed, "parameters": parameters(model), **numbers})

    def after(model: nn.Module, epoch: int, history: History) -> None:
        if fabric.is_global_zero and evaluated(epoch, total, recipe.every) and history.scores[-1] == max(history.scores):
            best = recipe.export(model) if recipe.export else model
            part = folder / "best.pt.part"
            torch.save(best.state_dict(), part)
            os.replace(part, folder / "best.pt")
        if plugin is not None:
            plugin.step(model, epoch)
        if report is not None:
            report(epoch, total, history)

    train, test = loader(first, recipe.batch, True, workers, recipe.repeats), loader(second, recipe.test_batch, False, workers)
    return fit(model, train, test, epochs=total, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay,
               seed=seed, fabric=fabric, augment=augment, before_epoch=recipe.before_epoch, after_epoch=after,
               optimizer=recipe.optimizer, loss=loss, step=recipe.step, evaluate=recipe.evaluate, every=recipe.every,
               score=recipe.score, carried={"identity": identity, **({"plugin": plugin} if plugin else {})},
               checkpoint=folder / "last.ckpt", log=folder / "log.jsonl")


def trained(model: nn.Module, slug: str, recipe: str, why: str) -> nn.Module:
    """Give ``model`` the weights that an earlier recipe of the paper ``slug`` left in ``RUNS``, and return it.

    ``ValueError``, with ``why`` they are needed and the command that makes them, if they are not there or do not fit.
    """
    path = RUNS / slug / recipe / "best.pt"
    command = f"papernets train {slug} --config {recipe}"
    if not path.exists():
        raise ValueError(f"{path} is not there; {why}. It is made by: {command}")
    try:
        model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    except (EOFError, OSError, RuntimeError, KeyError, pickle.UnpicklingError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is damaged or of another network ({what}). It is made by: {command}") from None
    return model
