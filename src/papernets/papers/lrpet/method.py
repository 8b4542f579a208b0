"""Compact Model Training by Low-Rank Projection with Energy Transfer.

Kailing Guo, Zhenquan Lin, Canyang Chen, Xiaofen Xing, Fang Liu, Xiangmin Xu; IEEE TNNLS 2024, arXiv 2204.05566.
Code: https://github.com/BZQLin/LRPET

A layer whose weight matrix has rank r is two small layers. To truncate trained weights to rank r destroys the network, and to
train the two small layers keeps the optimiser in a small space. LRPET trains the full matrices and projects them at regular
intervals onto those of rank r; in between they may leave that set. What the projection takes away of the sum of squared
singular values, the energy, is given back to the values that are kept. Where a batch norm follows, the matrix that inference
uses is projected: the weight with the batch norm folded in.

Symbols: W (m, d) with m outputs and d = inputs · k²; p = min(m, d); s the singular values, largest first; r the rank that is
kept, q the pruned share; E the energy; ρ what is left of the values beyond r; a = γ / sqrt(v + ε), the scale of the batch norm.

Differs: a rank is at least 1. The code's int(p − p q) can be 0, and then divides by 0.
Differs: at r ≥ p the weight stays as it is. The code folds the batch norm in and out again, which the damping does not undo.
Differs: a batch norm belongs to the convolution whose output it reads, found with an example. The code pairs them by their
    order, which goes wrong where a convolution has none; such a layer is projected without.
Differs: a layer that has died gives 0, as it did. The code puts an empty module in its place, which hands its input on.
Differs: convolutions in groups are left alone. The code has none.
Differs: the search for ranks calls the objective 40 times; the released file is a stub with two calls, and the weight of the
    multiply-adds is not in it either.
Differs: Faster R-CNN has the features of VGG-16, as the logs of the printed numbers do; the authors' page says ResNet-50.
Differs: a decomposition that fails raises. The code falls back to numpy on a transposed matrix.
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from torch import nn
from torch.utils.data import DataLoader

from papernets.measure import count
from papernets.nn import chosen, flow
from papernets.training import accuracy, fit, seed_everything, steps

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: Added to a² where a batch norm is folded out again, so that a weight stays finite where a is near 0.
DAMPING = 1e-5
#: A matrix whose largest singular value is below this has died, and is not projected.
DEAD = 1e-4
#: A layer whose largest singular value is below this is left out of the compact network.
GONE = 1e-5


def rank(p: int, q: float, least: int = 1) -> int:
    """r: what the pruned share ``q`` leaves of ``p`` singular values, cut down to a whole number and at least ``least``."""
    if not 0 <= q <= 1:
        raise ValueError(f"share {q} is outside [0, 1]; the nearest is {0 if q < 0 else 1}")
    return min(p, max(least, int(p - p * q)))


def break_even(m: int, d: int) -> float:
    """The rank at which two layers of r (m + d) weights cost as much as one of m d."""
    return m * d / (m + d)


def transfer(s: torch.Tensor, r: int, *, energy: bool = True, rho: float = 0.0) -> torch.Tensor:
    """s' (p,): of the values ``s`` those beyond ``r`` are multiplied by ``rho``, and the others by one factor, so that the
    energy is what it was. Without ``energy`` the factor is 1.
    """
    kept, rest = s[:r], s[r:]
    scale = torch.sqrt((s.square().sum() - rho**2 * rest.square().sum()) / kept.square().sum()) if energy else 1.0
    return torch.cat([kept * scale, rest * rho])


def _decompose(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (m, p), s (p,), Vᵀ (p, d)."""
    if not torch.isfinite(W).all():
        raise ValueError("the weight holds a value that is not finite; it has no singular values")
    return torch.linalg.svd(W, full_matrices=False)


def _check_projection(W: torch.Tensor, r: int, rho: float) -> None:
    if W.dim() < 2:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is a matrix, or that of a convolution")
    if not isinstance(r, int) or isinstance(r, bool) or r < 1:
        raise ValueError(f"rank {r} is not a whole number of at least 1")
    if not 0 <= rho <= 1:
        raise ValueError(f"rho {rho} is outside [0, 1]; the nearest is {0 if rho < 0 else 1}")


@torch.no_grad()
def project(W: torch.Tensor, r: int, a: torch.Tensor | None = None, *, energy: bool = True, rho: float = 0.0) -> torch.Tensor:
    """W' of the shape of ``W`` (m, …): rank ``r`` as a matrix (m, d), with the energy that it had.

    With ``a`` (m,), the scale of the batch norm behind, diag(a) W is projected, and a folded out again.
    """
    _check_projection(W, r, rho)
    if a is not None and a.shape != (len(W),):
        raise ValueError(f"a has shape {tuple(a.shape)}; it is one scale for each of {len(W)} outputs")
    if a is not None and not torch.isfinite(a).all():
        raise ValueError("the batch norm's scale holds a value that is not finite")
    flat = W.reshape(len(W), -1)  # (m, d)
    if r >= min(flat.shape):
        return W.clone()
    U, s, Vt = _decompose(flat if a is None else a[:, None] * flat)
    if s[0] < DEAD:
        return W.clone()
    found = (U * transfer(s, r, energy=energy, rho=rho)) @ Vt
    if a is not None:
        found = (a / (a.square() + DAMPING))[:, None] * found
    return found.view_as(W)


@torch.no_grad()
def factorise(W: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """C (r, d) and N (m, r) with N C the best matrix of rank ``r`` for ``W`` (m, …); both take a square root of s."""
    _check_projection(W, r, 0.0)
    U, s, Vt = _decompose(W.reshape(len(W), -1).double())
    root = s[:r].sqrt()
    return (root[:, None] * Vt[:r]).to(W.dtype), (U[:, :r] * root).to(W.dtype)

# ---------------------------------------------------------------------------------------------------------------------
# The layer that is left of one that has died
# ---------------------------------------------------------------------------------------------------------------------


class Silent(nn.Module):
    """A convolution or linear layer whose weights are all 0: its output is its bias, without a multiplication."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.outputs = len(layer.weight)
        self.window = None if isinstance(layer, nn.Linear) else (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.window is None:
            y = x.new_zeros(*x.shape[:-1], self.outputs)
            return y if self.bias is None else y + self.bias
        sides = [(side + 2 * pad - far * (k - 1) - 1) // step + 1 for side, k, step, pad, far in zip(x.shape[2:], *self.window)]
        y = x.new_zeros(len(x), self.outputs, *sides)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return 0

    def extra_repr(self) -> str:
        return f"{self.outputs}"

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LRPET:
    """How the layers of a network are projected; the defaults are those of the released code.

    ``share`` is the pruned share q, one or one per layer name; ``ranks``, if given, are the ranks themselves, in the order of
    the layers or by name. No rank falls below ``least``. ``energy`` switches the transfer and ``bn_rectify`` the folding of
    the batch norm; ``rho`` is what is left of the values beyond the rank. With ``linear`` linear layers take part, too.
    """

    share: float | Mapping[str, float] = 0.8
    ranks: Sequence[int] | Mapping[str, int] | None = None
    least: int = 1
    energy: bool = True
    bn_rectify: bool = True
    rho: float = 0.0
    linear: bool = False
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for share in self.share.values() if isinstance(self.share, Mapping) else [self.share]:
            rank(1, share)
        if not isinstance(self.least, int) or self.least < 1:
            raise ValueError(f"least is {self.least!r}; the smallest rank is 1")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho {self.rho} is outside [0, 1]; the nearest is {0 if self.rho < 0 else 1}")


def ranks(model: nn.Module, config: LRPET = LRPET()) -> dict[str, int]:
    """The rank of every layer that is projected, by name: convolutions of one group, and linear ones if asked."""
    def fits(name: str, module: nn.Module) -> bool:
        return getattr(module, "groups", 1) == 1 and (config.filter_fn is None or config.filter_fn(name, module))

    found = chosen(model, (nn.Conv2d, nn.Linear) if config.linear else nn.Conv2d, ignore=config.ignore, filter_fn=fits)
    sides = {name: min(len(module.weight), module.weight[0].numel()) for name, module in found.items()}
    given = config.share if config.ranks is None else config.ranks
    if isinstance(given, Mapping):
        for name in given:
            if name not in found:
                raise ValueError(f"{name!r} is no layer to project; choose from {', '.join(found)}")
        sides = {name: p for name, p in sides.items() if name in given}
    if config.ranks is None:
        return {name: rank(p, given[name] if isinstance(given, Mapping) else given, config.least) for name, p in sides.items()}
    if not isinstance(given, Mapping):
        if len(given) != len(sides):
            raise ValueError(f"{len(given)} ranks are given, and {len(sides)} layers are projected; give one for each")
        given = dict(zip(sides, given))
    for name, r in given.items():
        if not isinstance(r, int) or isinstance(r, bool) or not 1 <= r <= sides[name]:
            raise ValueError(f"{name}: rank {r} is outside 1 to {sides[name]}")
    return {name: given[name] for name in sides}


def norms(model: nn.Module, example: torch.Tensor) -> dict[str, str]:
    """Which batch norm reads the output of which convolution or linear layer, by name; found by running ``example``."""
    return {name: behind[-1] for name, behind in flow(model, example).norms.items()}


def scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> torch.Tensor:
    """a (m,): by what a batch norm multiplies at inference."""
    if norm.running_var is None:
        raise ValueError("a batch norm without running statistics has no fixed scale; set bn_rectify to False")
    gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    return gain / torch.sqrt(norm.running_var + norm.eps)


@torch.no_grad()
def project_(model: nn.Module, config: LRPET = LRPET(), example: torch.Tensor | None = None) -> None:
    """Project the weights of ``model`` onto their ranks, in place: after every epoch, and once more at the end.

    With ``bn_rectify`` an ``example`` input tells which batch norm follows which layer. Batch norms and the optimiser's state
    are left alone, so the next step goes partly back; that is intended.

    >>> project_(model, LRPET(share=0.8), torch.zeros(1, 3, 32, 32))
    """
    wanted = ranks(model, config)
    if config.bn_rectify and example is None:
        raise ValueError("bn_rectify needs an example input, to find the batch norm behind each layer; or set it to False")
    pairs = norms(model, example.to(next(model.parameters()).device)) if config.bn_rectify else {}
    made = {}
    for name, r in wanted.items():
        a = scale(model.get_submodule(pairs[name])) if name in pairs else None
        try:
            made[name] = project(model.get_submodule(name).weight, r, a, energy=config.energy, rho=config.rho)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, W in made.items():
        model.get_submodule(name).weight.copy_(W)


def _pair(layer: nn.Conv2d | nn.Linear, r: int) -> nn.Sequential:
    """The two layers that are left of one: d to r with the window, stride and padding, then r to m with the bias."""
    C, N = factorise(layer.weight, r)
    how = dict(device=layer.weight.device, dtype=layer.weight.dtype)
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        pair = nn.Sequential(nn.Linear(layer.in_features, r, bias=False, **how), nn.Linear(r, len(N), bias=bias, **how))
    else:
        first = nn.Conv2d(layer.in_channels, r, layer.kernel_size, layer.stride, layer.padding, layer.dilation, bias=False,
                          padding_mode=layer.padding_mode, **how)
        pair = nn.Sequential(first, nn.Conv2d(r, len(N), 1, bias=bias, **how))
    with torch.no_grad():
        pair[0].weight.copy_(C.view_as(pair[0].weight))
        pair[1].weight.copy_(N.view_as(pair[1].weight))
        if bias:
            pair[1].bias.copy_(layer.bias)
    return pair.train(layer.training)


def compact(model: nn.Module, config: LRPET = LRPET(), *, only_cheaper: bool = False, tolerance: float = 1e-4) -> nn.Module:
    """A new, ordinary network with the same outputs: every projected layer is a pair of layers, a dead one is ``Silent``.

    ``only_cheaper`` leaves a layer whole where a pair has at least as many weights. ``ValueError`` if a layer has not been
    projected: the singular values beyond its rank hold more than ``tolerance`` of its norm.
    """
    wanted = ranks(model, config)
    made: dict[str, nn.Module] = {}
    for name, r in wanted.items():
        layer = model.get_submodule(name)
        if not name:
            raise ValueError("the network is itself a layer; put it into an nn.Sequential")
        flat = layer.weight.detach().reshape(len(layer.weight), -1).double()
        if not torch.isfinite(flat).all():
            raise ValueError(f"{name}: the weight holds a value that is not finite")
        s = torch.linalg.svdvals(flat)
        if s[0] < GONE and not (isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)):
            made[name] = Silent(layer)
            continue
        left = float(s[r:].norm() / s.norm())
        if left > tolerance:
            raise ValueError(f"{name} keeps {left:.2g} of its norm beyond rank {r}; call project_ with rho 0 first")
        if not (only_cheaper and r >= break_even(*flat.shape)):
            made[name] = _pair(layer, r)
    found = copy.deepcopy(model)
    for name, module in made.items():
        found.set_submodule(name, module)
    return found

# ---------------------------------------------------------------------------------------------------------------------
# The search for ranks
# ---------------------------------------------------------------------------------------------------------------------


def expected_improvement(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """By how much values that are guessed as normal are expected to fall below ``best``."""
    deviation = np.maximum(deviation, 1e-12)
    z = (best - mean) / deviation
    return (best - mean) * norm.cdf(z) + deviation * norm.pdf(z)


def search(model: nn.Module, objective: Callable[[LRPET], float], config: LRPET = LRPET(), *, start: float = 0.3,
           end: float = 0.999, calls: int = 40, first: int = 10, seed: int = 0) -> tuple[LRPET, list[tuple[LRPET, float]]]:
    """Pruned shares for the layers of ``model`` with a small ``objective``, by Bayesian optimisation.

    The logarithm of each layer's share lies between those of ``start`` and ``end``. The ``first`` of the ``calls`` are drawn at
    random; each further one is where a Gaussian process expects the most improvement. Returns ``config`` with the best
    shares, and all that was tried with its value.
    """
    if not 0 < start < end < 1:
        raise ValueError(f"shares from {start} to {end}; they must rise, between 0 and 1, such as from 0.3 to 0.999")
    if not 1 <= first <= calls:
        raise ValueError(f"{first} of {calls} calls are drawn at random; at least 1 must be, and at most all")
    names, draw = list(ranks(model, config)), np.random.default_rng(seed)
    points, values, tried = [], [], []
    for number in range(calls):
        if number < first:
            point = draw.random(len(names))
        else:
            alike = Matern(np.full(len(names), 0.5), (0.05, 20), nu=2.5) + WhiteKernel(1e-3, (1e-8, 1))
            guess = GaussianProcessRegressor(alike, normalize_y=True, n_restarts_optimizer=1, random_state=seed)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is a layer that does not matter
                guess.fit(np.array(points), np.array(values))
            near = points[int(np.argmin(values))] + draw.normal(0, 0.1, (500, len(names)))
            candidates = np.concatenate([draw.random((1500, len(names))), near.clip(0, 1)])
            point = candidates[np.argmax(expected_improvement(*guess.predict(candidates, return_std=True), min(values)))]
        shares = start * (end / start) ** point
        tried.append((replace(config, share=dict(zip(names, map(float, shares))), ranks=None), 0.0))
        value = float(objective(tried[-1][0]))
        if not math.isfinite(value):
            raise ValueError(f"the objective is {value} for the shares {tried[-1][0].share}; it must be a finite number")
        tried[-1] = tried[-1][0], value
        points.append(point)
        values.append(value)
    return tried[int(np.argmin(values))][0], tried


def short_training(build: Callable[[], nn.Module], batches: tuple[DataLoader, DataLoader], example: torch.Tensor, *,
                   epochs: int, lr: float = 0.1, weight: float = 1.0, seed: int = 0) -> Callable[[LRPET], float]:
    """An objective for ``search``: train for ``epochs``, then error before the last projection, plus error after it, plus
    ``weight`` times the share of multiply-adds that the pairs of layers leave. ``batches`` are for training and validation.
    """
    whole = sum(cost.macs for cost in count(build().eval(), example).values())

    def objective(config: LRPET) -> float:
        seed_everything(seed)
        model = build()
        fit(model, batches[0], None, epochs=epochs, lr=steps(lr, (epochs / 2, 3 * epochs / 4)), weight_decay=1e-4, seed=seed,
            before_epoch=lambda model, epoch: project_(model, config, example) if epoch else None)
        before = 1 - accuracy(model, batches[1])
        project_(model, config, example)
        pairs = compact(model.eval(), config)
        left = sum(cost.macs for cost in count(pairs, example).values())
        return before + 1 - accuracy(pairs, batches[1]) + weight * left / whole

    return objective
