"""The frame of an experiment: what every arm of a comparison is given, and the rows in which it answers.

A comparison is a function ``compare(seed, …) -> list[row]``. A row is a plain dict: ``seed``, ``arm``, ``at`` (the setting at
which arms are compared, such as a rate), ``score`` (what is judged), and whatever else a figure shows.
"""

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass

from torch import nn
from torch.utils.data import DataLoader

from papernets import check
from papernets.data import Split
from papernets.training._loop import History, fit, loader, logits
from papernets.training._schedules import Schedule, cosine
from papernets.training._seed import seed_everything


@dataclass(frozen=True)
class Task:
    """The same data, number of epochs, seed and rate for every arm. Work on it inside of ``single_thread()``."""

    train: Split
    test: Split
    epochs: int
    seed: int = 0
    lr: float = 0.05
    batch: int = 64
    weight_decay: float = 5e-4
    schedule: Callable[[float, int], Schedule] = cosine

    def start(self, build: Callable[..., nn.Module], *args, **options) -> nn.Module:
        """``build(…)`` with first weights that the seed alone decides: the same for every arm that builds the same."""
        seed_everything(self.seed)
        return build(*args, **options)

    def batches(self, shuffle: bool = True, batch: int | None = None) -> DataLoader:
        """The training set."""
        return loader(self.train, batch or self.batch, shuffle)

    def learn(self, model: nn.Module, epochs: int | None = None, *, share: float = 1.0, again: int = 0,
              test: DataLoader | None = None, **options) -> History:
        """Train ``model`` in place and leave it in evaluation mode; ``options`` go to ``fit``.

        ``epochs`` are those of the task unless given, ``share`` is the part of the learning rate to begin with, and ``again``
        numbers a second training of the same arm, which has another order of the data.
        """
        epochs = self.epochs if epochs is None else epochs
        options = {"lr": self.schedule(share * self.lr, epochs), "weight_decay": self.weight_decay} | options
        history = fit(model, self.batches(), test, epochs=epochs, seed=self.seed + again, **options)
        model.eval()
        return history

    def accuracy(self, model: nn.Module, batch: int = 500) -> float:
        """Share of right answers on the test set."""
        return float((logits(model, self.test.images, batch).argmax(1) == self.test.labels).float().mean())


def row(seed: int, arm: str, score: float, at: Hashable = None, **more) -> dict:
    """One arm of one seed."""
    return {"seed": seed, "arm": arm, "at": at, "score": score, **more}


def scores(rows: Iterable[Mapping], arm: str, at: Hashable = None, key: str = "score") -> list:
    """What ``arm`` has under ``key`` at this setting, by rising seed. ``ValueError`` names what there is instead.

    >>> scores([row(1, "ours", 0.8), row(0, "ours", 0.7)], "ours")
    [0.7, 0.8]
    """
    rows = list(rows)
    found = sorted((one for one in rows if one["arm"] == arm and one["at"] == at), key=lambda one: one["seed"])
    if not found:
        check.one_of("arm and setting", (arm, at), dict.fromkeys((one["arm"], one["at"]) for one in rows))
    if len({one["seed"] for one in found}) < len(found):
        raise ValueError(f"two rows of {arm} at {at} have one seed; an arm answers once a seed")
    return [one[key] for one in found]


def pair(rows: Iterable[Mapping], ours: str, baseline: str, at: Hashable = None, key: str = "score",
         scale: float = 1.0) -> tuple[list[float], list[float]]:
    """(ours, baseline) over the same seeds, each times ``scale``, as a miniature is recorded.

    ``ValueError`` if one of the two lacks a seed that the other has: differences are then not paired.
    """
    rows = list(rows)
    seeds = [sorted(one["seed"] for one in rows if (one["arm"], one["at"]) == (arm, at)) for arm in (ours, baseline)]
    first, second = ([scale * value for value in scores(rows, arm, at, key)] for arm in (ours, baseline))
    if seeds[0] != seeds[1]:
        raise ValueError(f"{ours} has the seeds {seeds[0]} and {baseline} {seeds[1]}; paired runs share their seeds")
    return first, second
