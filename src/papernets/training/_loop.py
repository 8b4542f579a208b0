"""The one training loop: cross-entropy, SGD with momentum, on Lightning Fabric.

The same loop serves a chapter's small experiment on one core and a full run on several machines: Fabric places the model,
shares out the batches and chooses the precision. Every epoch starts from its own seed, so a run that was killed and
resumed gives the same numbers as one that was not.
"""

import functools
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler, SequentialSampler

from papernets.measure import evaluating
from papernets.tools.quick_imports import lightning_fabric
from papernets.training._augment import RepeatedSampler
from papernets.training._schedules import Schedule
from papernets.training._seed import seed_everything

if TYPE_CHECKING:  # importing it takes seconds
    from lightning_fabric import Fabric


@functools.cache
def one_cpu() -> "Fabric":
    """Lightning's Fabric on one CPU: what is trained on if nothing else is said."""
    return lightning_fabric().Fabric(accelerator="cpu", devices=1)


@dataclass
class History:
    """What a run left, one entry an epoch: mean training ``loss``, ``scores`` on the test set, ``lr`` at its start.

    A score is a share: the accuracy, or what the run is judged by instead, such as a mean average precision. Where a run is not
    judged after every epoch, there is one score for each time that it was.
    """

    loss: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    lr: list[float] = field(default_factory=list)


class Carried(Protocol):
    """What a method carries from one epoch to the next besides the network, and a checkpoint must hold."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> object: ...


def loader(data: Dataset, batch: int, shuffle: bool, workers: int = 0, repeats: int = 1) -> DataLoader:
    """Batches of ``data``. A set held in memory is indexed once a batch; files are read one by one by ``workers``, and put
    together by the set's own ``collate`` if it has one. With ``repeats`` an epoch has each of its data so many times in a row.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}; the smallest is 1")
    order = RepeatedSampler(data, repeats) if repeats > 1 else None
    if hasattr(data, "images"):
        order = order or (RandomSampler(data) if shuffle else SequentialSampler(data))
        return DataLoader(data, batch_size=None, sampler=BatchSampler(order, batch, drop_last=False))
    return DataLoader(data, batch, shuffle=shuffle and order is None, sampler=order, num_workers=workers,
                      pin_memory=workers > 0, collate_fn=getattr(data, "collate", None))


def logits(model: nn.Module, images: torch.Tensor, batch: int = 500) -> torch.Tensor:
    """Outputs for all ``images`` (N, …) in evaluation mode, without gradients."""
    with evaluating(model):
        return torch.cat([model(part) for part in images.split(batch)])


def accuracy(model: nn.Module, batches, fabric: "Fabric | None" = None) -> float:
    """Share of right answers in evaluation mode."""
    right = total = 0
    with evaluating(model):
        for images, labels in batches:
            right += (model(images).argmax(1) == labels).sum()
            total += len(labels)
    counts = torch.stack([torch.as_tensor(right), torch.as_tensor(total, device=torch.as_tensor(right).device)])
    if fabric is not None and fabric.world_size > 1:
        counts = fabric.all_reduce(counts, reduce_op="sum")
    return float(counts[0] / counts[1])


def evaluated(epoch: int, epochs: int, every: int) -> bool:
    """Whether ``epoch`` of ``epochs`` is followed by an evaluation, of which there is one ``every`` so many."""
    return (epoch + 1) % every == 0 or epoch + 1 == epochs


def fit(model: nn.Module, train: DataLoader, test: DataLoader | None, *, epochs: int, lr: Schedule,
        momentum: float = 0.9, weight_decay: float = 5e-4, seed: int = 0, fabric: "Fabric | None" = None,
        augment: Callable[[torch.Tensor], torch.Tensor] | None = None,
        before_epoch: Callable[[nn.Module, int], None] | None = None,
        after_epoch: Callable[[nn.Module, int, History], None] | None = None,
        optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None,
        loss: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        step: Callable[[nn.Module, Any, Any], torch.Tensor] | None = None,
        evaluate: Callable[[nn.Module, Iterable, "Fabric"], float] | None = None, every: int = 1, score: str = "accuracy",
        carried: Mapping[str, Carried] | None = None,
        checkpoint: str | Path | None = None, log: str | Path | None = None) -> History:
    """Train ``model`` in place for ``epochs``; ``lr`` is followed batch by batch.

    ``before_epoch(model, epoch)`` and ``after_epoch(model, epoch, history)`` are where a method does its own work.
    With ``checkpoint`` the state is saved after every epoch (written beside, then renamed) and a run that finds one goes
    on from there. ``log`` is a file of one JSON line an epoch. A loss that is not finite stops the run. ``carried`` are further
    objects whose state is saved and loaded with it, by name.

    ``optimizer(model)`` makes another one than SGD, and ``momentum`` and ``weight_decay`` are then its own affair; a group of
    its parameters may hold a ``scale``, by which its learning rate is multiplied. ``loss(outputs, images, labels)`` takes the
    place of the cross-entropy. ``step(model, images, labels)`` takes the place of both the forward pass and the loss, and
    ``evaluate(model, batches, fabric)`` that of the accuracy, under the name ``score`` in the log. ``every`` is the number of
    epochs between two evaluations; the last epoch is always followed by one.
    """
    if epochs < 0:
        raise ValueError(f"epochs is {epochs}; the smallest is 0")
    if every < 1:
        raise ValueError(f"every is {every}; the smallest number of epochs between two evaluations is 1")
    if fabric is None:
        fabric = one_cpu()
    plain = model
    if optimizer is None:
        optimizer = torch.optim.SGD(plain.parameters(), lr(0.0) or 1e-12, momentum=momentum, weight_decay=weight_decay)
    else:
        optimizer = optimizer(plain)
    model, optimizer = fabric.setup(plain, optimizer)
    train = fabric.setup_dataloaders(train)
    test = None if test is None else fabric.setup_dataloaders(test)
    history, first, carried = History(), 0, dict(carried or {})
    checkpoint = None if checkpoint is None else Path(checkpoint)
    if checkpoint is not None and checkpoint.exists():
        # what is carried comes first: it may refuse, and then nothing else is loaded
        state = {**{f"carried.{name}": one for name, one in carried.items()}, "model": model, "optimizer": optimizer}
        try:
            rest = fabric.load(checkpoint, state)
            first, history = rest["epoch"] + 1, History(**rest["history"])
        except (EOFError, OSError, RuntimeError, KeyError, TypeError, pickle.UnpicklingError) as error:
            what = " ".join(str(error).split())[:300] or type(error).__name__
            raise ValueError(f"{checkpoint} is damaged or of another network ({what}); "
                             "delete it to start anew") from None
        if first > epochs:
            raise ValueError(f"{checkpoint} is from epoch {first}, past the {epochs} asked for; ask for at least {first}")
    for epoch in range(first, epochs):
        seed_everything((seed * 100_003 + epoch) % 2**32)
        if before_epoch is not None:
            before_epoch(plain, epoch)
        model.train()
        total = seen = 0
        for index, (images, labels) in enumerate(train):
            for group in optimizer.param_groups:
                group["lr"] = lr(epoch + index / len(train)) * group.get("scale", 1.0)
            if augment is not None:
                images = augment(images)
            optimizer.zero_grad()
            if step is not None:
                value = step(model, images, labels)
            else:
                outputs = model(images)
                value = F.cross_entropy(outputs, labels) if loss is None else loss(outputs, images, labels)
            fabric.backward(value)
            optimizer.step()
            total, seen = total + value.detach() * len(labels), seen + len(labels)
        mean = float(total / seen)
        if not mean < float("inf"):
            raise ValueError(f"the loss of epoch {epoch} is {mean}; a smaller learning rate than {lr(epoch):g} may help")
        history.loss.append(mean)
        history.lr.append(lr(epoch))
        judged = test is not None and evaluated(epoch, epochs, every)
        if judged:
            history.scores.append(evaluate(plain, test, fabric) if evaluate else accuracy(model, test, fabric))
        if after_epoch is not None:
            after_epoch(plain, epoch, history)
        if checkpoint is not None:
            _save(fabric, checkpoint, {"model": model, "optimizer": optimizer, "epoch": epoch, "history": asdict(history),
                                       **{f"carried.{name}": one.state_dict() for name, one in carried.items()}})
        if log is not None and fabric.is_global_zero:
            entry = {"epoch": epoch, "loss": mean, "lr": lr(epoch)}
            if judged:
                entry[score] = history.scores[-1]
            with Path(log).open("a") as file:
                file.write(json.dumps(entry) + "\n")
    return history


def _save(fabric: "Fabric", path: Path, state: dict) -> None:
    """Never a half-written checkpoint: the file appears under its name only when it is whole."""
    part = path.with_name(path.name + ".part")
    fabric.save(part, state)
    if fabric.is_global_zero:
        os.replace(part, path)
    fabric.barrier()
