"""A network is trained under LAPP, and becomes compact on the way."""

import copy
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.utils.data import DataLoader

from papernets import check
from papernets.papers.lapp.compaction import momenta_of, slim
from papernets.papers.lapp.layers import (
    LAPP,
    attach_,
    kept,
    objective,
    optimiser,
    remaining,
    settle_,
    settled,
    uniform_,
    uniform_to_,
    units_of,
)
from papernets.papers.lapp.method import Flops
from papernets.training import History, Schedule, accuracy, cosine, fit, seed_everything

#: How filters are chosen: by learned thresholds, or, for comparison, the same share of every layer, step by step or at once.
RULES = ("learned", "uniform", "one-shot")


@dataclass
class Progress:
    """What a training left. ``loss`` and ``scores`` (test accuracy, a share) after every epoch; ``remaining`` (r) and ``kept``,
    the filters of each pruned layer, before the first epoch and after every one; ``thresholds``, ``z`` (the standardised
    scores) and ``masks`` likewise, of the progressive phase.
    """

    loss: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    kept: list[dict[str, int]] = field(default_factory=list)
    thresholds: list[dict[str, float]] = field(default_factory=list)
    z: list[dict[str, list[float]]] = field(default_factory=list)
    masks: list[dict[str, list[float]]] = field(default_factory=list)

    @property
    def steepest(self) -> float:
        """The largest fall of r within one epoch."""
        return max((before - after for before, after in pairwise(self.remaining)), default=0.0)

    def note(self, model: nn.Module, flops: Flops) -> None:
        """Add what the layers of ``model`` keep now."""
        units = units_of(model)
        self.remaining.append(remaining(model, flops))
        self.kept.append(kept(model))
        self.thresholds.append({name: float(unit.threshold.detach()) for name, unit in units.items()})
        self.z.append({name: unit.z().tolist() for name, unit in units.items()})
        self.masks.append({name: unit.gate().tolist() for name, unit in units.items()})


@dataclass
class Phase:
    """The progressive phase of one training: what is done before and after each of its epochs, and what is noted."""

    flops: Flops
    config: LAPP
    rule: str
    test: DataLoader | None
    progress: Progress = field(default_factory=Progress)

    def start(self, model: nn.Module) -> None:
        """Note where ``model`` begins. A baseline has final masks from the first epoch on, at first with all filters."""
        if self.rule != "learned":
            for unit in units_of(model).values():
                unit.settle(torch.ones_like(unit.mask))
        self.progress.note(model, self.flops)

    def before(self, model: nn.Module, epoch: int) -> None:
        """``before_epoch`` of ``fit``."""
        if self.rule == "uniform":  # the same fall in every epoch
            start, rho, P = self.flops.start, self.config.rho, self.config.progressive
            uniform_to_(model, self.flops, start + (rho - start) * (epoch + 1) / P)

    def after(self, model: nn.Module, epoch: int, history: History) -> None:
        """``after_epoch`` of ``fit``."""
        if epoch == self.config.progressive - 1:
            finish_(model, self.flops, self.config, self.rule)
            if history.scores:  # of what is left
                history.scores[-1] = accuracy(model, self.test)
        self.progress.note(model, self.flops)


def train(model: nn.Module, loaders: tuple, config: LAPP = LAPP(), *, epochs: int, lr: Schedule | None = None,
          momentum: float = 0.9, weight_decay: float = 5e-4, seed: int = 0, example: torch.Tensor | None = None,
          rule: str = "learned", **options) -> tuple[nn.Module, Progress]:
    """Train a plain, fresh ``model`` and make it compact on the way. Returns the compact network and what happened.

    ``loaders`` are those of the training and the test images; the second may be None. After ``config.progressive`` of the
    ``epochs`` the masks are final and the masked filters are removed; training goes on with the rest, momentum included.
    ``model`` stays as it is. ``lr`` is a schedule over all epochs, a cosine from 0.05 if left out. ``options`` are those of
    ``fit``, such as ``augment`` and ``fabric``. The ``rule`` is one of ``RULES``; all but the first are baselines.
    ``ValueError`` for another rule, for fewer epochs than the progressive phase has, and for what ``attach_`` refuses.

    ``config.lr`` belongs to the number of steps and of layers. For other networks than small ones ask ``pace``:
    ``pace(attach_(copy.deepcopy(model), config, example), config, steps)``, with half the steps of the progressive phase.

    >>> small, progress = train(ResNetCIFAR(20), loaders, LAPP(removed=0.6), epochs=200)
    """
    check.one_of("rule", rule, RULES)
    P = config.progressive
    if epochs < P:
        raise ValueError(f"{epochs} epochs are fewer than the {P} of the progressive phase; the nearest is {P}")
    lr, sgd = lr or cosine(0.05, epochs), dict(momentum=momentum, weight_decay=weight_decay)
    seed_everything(seed)
    example = next(iter(loaders[0]))[0][:1] if example is None else example
    model = copy.deepcopy(model)
    flops = attach_(model, config, example)
    phase, optimizer = Phase(flops, config, rule, loaders[1]), optimiser(model, flops, config, lr(0.0) or 1e-12, **sgd)
    phase.start(model)
    history = fit(model, *loaders, epochs=P, lr=lr, seed=seed, optimizer=lambda model: optimizer,
                  loss=objective(model, flops, config), before_epoch=phase.before, after_epoch=phase.after, **options)
    small, momenta = model, momenta_of(model, optimizer)
    if units_of(model):
        small, momenta = slim(model, optimizer, example.to(next(model.parameters()).device))
    rest = fit(small, *loaders, epochs=epochs - P, lr=lambda epoch: lr(epoch + P), seed=seed,
               optimizer=partial(_going_on, momenta=momenta, lr=lr(P) or 1e-12, **sgd),
               before_epoch=partial(_reseed, seed=seed, done=P), **options)
    progress = phase.progress
    progress.loss, progress.scores = history.loss + rest.loss, history.scores + rest.scores
    progress.remaining += [progress.remaining[-1]] * (epochs - P)
    progress.kept += [progress.kept[-1]] * (epochs - P)
    return small, progress


def _going_on(model: nn.Module, momenta: dict[str, torch.Tensor], **options) -> torch.optim.SGD:
    """SGD with the momenta of a training that was interrupted, by the name of the parameter."""
    sgd = torch.optim.SGD(model.parameters(), **options)
    for name, p in model.named_parameters():
        if name in momenta:
            sgd.state[p]["momentum_buffer"] = momenta[name].clone()
    return sgd


def _reseed(model: nn.Module, epoch: int, seed: int, done: int) -> None:
    """The order of the data that a single run would have had after the epochs that are ``done``."""
    seed_everything((seed * 100_003 + epoch + done) % 2**32)


def finish_(model: nn.Module, flops: Flops, config: LAPP, rule: str = "learned") -> None:
    """The end of the progressive phase: final masks whose r is at most ρ. A network without thresholds stays as it is."""
    if not units_of(model):
        return
    if rule != "learned":
        uniform_(model, flops, config.removed)
    elif not settled(model):
        settle_(model, flops, config.removed)
