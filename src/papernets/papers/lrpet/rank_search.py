"""The search for ranks: Bayesian optimisation of the pruned shares of the layers."""

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from papernets.measure import macs
from papernets.papers.lrpet.method import LRPET, compact, project_, ranks
from papernets.training import accuracy, fit, seed_everything, steps


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """By how much values that are guessed as normal are expected to fall below ``best``, one for each of ``mean`` (N,)."""
    from scipy.stats import norm  # importing it takes a second
    deviation = np.maximum(deviation, 1e-12)
    z = (best - mean) / deviation
    return (best - mean) * norm.cdf(z) + deviation * norm.pdf(z)


def _promising(points: Sequence[np.ndarray], values: Sequence[float], draw: np.random.Generator, seed: int) -> np.ndarray:
    """Of 2000 points, a quarter of them near the best of ``points`` (each (L,)), the one that promises the most."""
    from sklearn.exceptions import ConvergenceWarning  # importing them takes seconds
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import Matern, WhiteKernel
    layers = len(points[0])
    alike = Matern(np.full(layers, 0.5), (0.05, 20), nu=2.5) + WhiteKernel(1e-3, (1e-8, 1))
    guess = GaussianProcessRegressor(alike, normalize_y=True, n_restarts_optimizer=1, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is a layer that does not matter
        guess.fit(np.array(points), np.array(values))
    near = points[int(np.argmin(values))] + draw.normal(0, 0.1, (500, layers))
    candidates = np.concatenate([draw.random((1500, layers)), near.clip(0, 1)])
    return candidates[np.argmax(expected_improvement(*guess.predict(candidates, return_std=True), min(values)))]


def search(model: nn.Module, objective: Callable[[LRPET], float], config: LRPET = LRPET(), *, start: float = 0.3,
           end: float = 0.999, calls: int = 40, first: int = 10, seed: int = 0) -> tuple[LRPET, list[tuple[LRPET, float]]]:
    """Pruned shares for the layers of ``model`` with a small ``objective``, by Bayesian optimisation.

    The logarithm of each layer's share lies between those of ``start`` and ``end``. The ``first`` of the ``calls`` are drawn at
    random; each further one is where a Gaussian process expects the most improvement. Returns ``config`` with the best
    shares, and all that was tried with its value. ``ValueError`` if a value is not finite.
    """
    if not 0 < start < end < 1:
        raise ValueError(f"shares from {start} to {end}; they must rise, between 0 and 1, such as from 0.3 to 0.999")
    if not 1 <= first <= calls:
        raise ValueError(f"{first} of {calls} calls are drawn at random; at least 1 must be, and at most all")
    names, draw = list(ranks(model, config)), np.random.default_rng(seed)
    points, values, tried = [], [], []
    for number in range(calls):
        point = draw.random(len(names)) if number < first else _promising(points, values, draw, seed)
        shares = dict(zip(names, map(float, start * (end / start) ** point)))
        candidate = replace(config, removed=shares, ranks=None)
        value = float(objective(candidate))
        if not math.isfinite(value):
            raise ValueError(f"the objective is {value} for the shares {shares}; it must be a finite number")
        points.append(point)
        values.append(value)
        tried.append((candidate, value))
    return tried[int(np.argmin(values))][0], tried


def short_training(build: Callable[[], nn.Module], batches: tuple[DataLoader, DataLoader], example: torch.Tensor, *,
                   epochs: int, lr: float = 0.1, weight: float = 1.0, seed: int = 0) -> Callable[[LRPET], float]:
    """An objective for ``search``: train for ``epochs``, then error before the last projection, plus error after it, plus
    ``weight`` times the share of multiply-adds that the pairs of layers leave. ``batches`` are for training and validation.
    """
    whole = macs(build(), example)

    def objective(config: LRPET) -> float:
        seed_everything(seed)
        model = build()
        fit(model, batches[0], None, epochs=epochs, lr=steps(lr, (epochs / 2, 3 * epochs / 4)), weight_decay=1e-4, seed=seed,
            before_epoch=lambda model, epoch: project_(model, config, example) if epoch else None)
        before = 1 - accuracy(model, batches[1])
        project_(model, config, example)
        pairs = compact(model.eval())
        return before + 1 - accuracy(pairs, batches[1]) + weight * macs(pairs, example) / whole

    return objective
