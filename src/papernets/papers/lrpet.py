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
import functools
import math
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from scipy.stats import norm
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Matern, WhiteKernel
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from papernets.data import (
    CIFAR10,
    CIFAR100,
    VOID,
    Split,
    VOCDetection,
    VOCSegmentation,
    digits,
    fetch,
    fetch_unpacked,
    read_cifar,
)
from papernets.measure import count, median_seconds
from papernets.nn import (
    DeiT,
    FasterRCNN,
    GoogLeNet,
    PSPNet,
    ResNetBasic,
    ResNetCIFAR,
    ResNetImageNet,
    chosen,
    flow,
    load_published,
)
from papernets.training import (
    Pictures,
    Recipe,
    accuracy,
    cosine,
    crop_and_flip,
    detection_score,
    erase,
    fit,
    loader,
    logits,
    mixing,
    seed_everything,
    segmentation_score,
    single_thread,
    steps,
    with_warmup,
)

# ---------------------------------------------------------------------------------------------------------------------
# 1. Functions on tensors
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
# 2. The layer that is left of one that has died
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
# 3. The verbs
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
# 4. The search for ranks
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


# ---------------------------------------------------------------------------------------------------------------------
# 5. The paper's networks
# ---------------------------------------------------------------------------------------------------------------------

#: The searched ranks of ResNet-56-S and ResNet-50-S, in the order of the network (code).
RANKS_56 = (6, 6, 3, 5, 2, 3, 4, 4, 2, 3, 6, 1, 2, 4, 4, 5, 2, 1, 2, 10, 6, 2, 6, 6, 7, 9, 1, 5, 4, 11, 6, 2, 2, 12, 12, 5, 4,
            16, 6, 17, 23, 11, 3, 11, 17, 4, 12, 15, 16, 6, 7, 6, 24, 18, 15)
RANKS_50 = (23, 16, 24, 29, 30, 6, 18, 27, 17, 4, 26, 33, 38, 61, 78, 63, 55, 23, 48, 51, 45, 35, 36, 55, 118, 50, 42, 80, 14,
            45, 44, 30, 33, 89, 100, 15, 36, 44, 58, 45, 99, 49, 115, 145, 213, 95, 155, 238, 129, 170, 52, 94, 191)


@dataclass(frozen=True)
class Network:
    """A network of the paper, the side of its images, and the configurations that the code names, by name."""

    build: Callable[[], nn.Module]
    side: int
    configs: Mapping[str, LRPET]

    @property
    def example(self) -> torch.Tensor:
        return torch.zeros(1, 3, self.side, self.side)


def _shares(*per_cent: int) -> dict[str, LRPET]:
    return {f"q{value}": LRPET(share=value / 100) for value in per_cent}


NETWORKS = {
    "resnet56": Network(lambda: ResNetCIFAR(56), 32, _shares(80, 54) | {"s": LRPET(ranks=RANKS_56)}),
    "resnet110": Network(lambda: ResNetCIFAR(110), 32, _shares(62, 70, 79, 65)),
    "googlenet": Network(GoogLeNet, 32, _shares(65, 76, 68, 60)),
    "resnet34": Network(lambda: ResNetBasic(34), 224, _shares(58)),
    "resnet50": Network(ResNetImageNet, 224, _shares(62, 80) | {"s": LRPET(ranks=RANKS_50)}),
}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


@functools.cache
def _dense(name: str) -> tuple[dict[str, int], dict[str, int], nn.Module]:
    """MACs and parameters of every layer of a network but its batch norms, and the network itself, without weights."""
    made = network(name)
    with torch.device("meta"):
        model = made.build().eval()
        costs = count(model, torch.empty(made.example.shape))
    kept = {layer: cost for layer, cost in costs.items() if not isinstance(model.get_submodule(layer), nn.BatchNorm2d)}
    return {layer: cost.macs for layer, cost in kept.items()}, {layer: cost.parameters for layer, cost in kept.items()}, model


def counts(name: str, config: LRPET, dead: Sequence[str] = ()) -> dict[str, float]:
    """MACs and parameters of a network of the paper, dense and as pairs of layers, and the shares removed in per cent.

    ``dead`` names layers that training left without any weight.
    """
    macs, parameters, model = _dense(name)
    found = {"base.macs": sum(macs.values()), "base.params": sum(parameters.values())}
    found |= {"macs": found["base.macs"], "params": found["base.params"]}
    for layer, r in ranks(model, config).items():
        W = model.get_submodule(layer).weight
        m, d = len(W), W[0].numel()
        pair = 0 if layer in dead else r * (m + d)
        found["macs"] += macs[layer] // (m * d) * (pair - m * d)
        found["params"] += pair - m * d
    return found | {"flops": 100 * (1 - found["macs"] / found["base.macs"]),
                    "params_cut": 100 * (1 - found["params"] / found["base.params"])}


def counts_after(name: str, config: LRPET, state: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """``counts`` of a trained network from the ``state`` that its recipe left: layers that have died are not in it."""
    _, _, model = _dense(name)
    return counts(name, config, [layer for layer in ranks(model, config) if f"{layer}.0.weight" not in state])


#: The small vision transformer: width, depth, heads, pixels and patch.
VIT = (192, 9, 12, 32, 4)
#: Its projection: the two linear layers of each MLP, as they are. The share is that at which the printed counts come out.
VIT_CONFIG = LRPET(share=0.7, linear=True, bn_rectify=False, filter_fn=lambda name, module: name.endswith(("fc1", "fc2")))
#: Faster R-CNN: the convolutions of the features, as they are.
FRCNN_CONFIG = LRPET(share=0.55, bn_rectify=False, filter_fn=lambda name, module: name.startswith("features."))
#: PSPNet: the convolutions of the backbone but the last one, as they are.
PSP_CONFIG = LRPET(share=0.43, bn_rectify=False, filter_fn=lambda name, module: name.startswith("backbone.")
                   and name != "backbone.blocks.15.conv3")


def vit(classes: int, drop: float = 0.1) -> DeiT:
    """The small vision transformer, with the first weights of the code."""
    model = DeiT(*VIT, classes, ratio=2, bias=False, drop=drop)
    for module in model.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_normal_(module.weight.view(len(module.weight), -1))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for tensor in (model.token, model.places):
        nn.init.normal_(tensor)
    return model


def vit_counts(classes: int, config: LRPET | None = None) -> dict[str, int]:
    """Multiply-adds and parameters of the small vision transformer, full or as pairs, by the rules of the code's profiler.

    The profiler, ptflops, counts a multiply-add as one, a bias once however often it is added, two for an output of a layer
    norm, and one for an output of a GELU or a softmax. The two products of the attention are not counted at all.
    """
    with torch.device("meta"):
        model = vit(classes).eval()
        if config is not None:
            for name, r in ranks(model, config).items():
                d, m = (layer := model.get_submodule(name)).in_features, layer.out_features
                model.set_submodule(name, nn.Sequential(nn.Linear(d, r, bias=False), nn.Linear(r, m)))
    width, depth, heads, pixels, patch = VIT
    tokens = (pixels // patch) ** 2 + 1
    layers = count(model, torch.empty(1, 3, pixels, pixels, device="meta"))
    found = sum(cost.macs for cost in layers.values())
    found += sum(len(b) for name, b in model.named_parameters() if name.endswith("bias") and "norm" not in name)
    found += 2 * width * (2 * depth * tokens + 1)  # layer norms; the last one reads a single token
    found += depth * (2 * width * tokens + heads * tokens**2)  # GELU and softmax
    return {"macs": found, "params": sum(p.numel() for p in model.parameters())}


@functools.cache
def backbone_cut(name: str) -> float:
    """Per cent of the multiply-adds of a backbone that its pairs save: ``frcnn`` at 600 × 600, ``psp`` at 473 × 473."""
    build, side, config, part = {"frcnn": (FasterRCNN, 600, FRCNN_CONFIG, "features"),
                                 "psp": (PSPNet, 473, PSP_CONFIG, "backbone")}[name]
    with torch.device("meta"):
        model = build().eval()
        costs = count(model.get_submodule(part), torch.empty(1, 3, side, side))
    saved = 0
    for layer, r in ranks(model, config).items():
        m, d = len(W := model.get_submodule(layer).weight), W[0].numel()
        saved += costs[layer.removeprefix(f"{part}.")].macs // (m * d) * (m * d - r * (m + d))
    return 100 * saved / sum(cost.macs for cost in costs.values())


_SHORT = {"resnet56": "r56", "resnet110": "r110", "googlenet": "googlenet", "resnet34": "r34", "resnet50": "r50"}


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found = {}
    for name, made in NETWORKS.items():
        for which, config in made.configs.items():
            every, short = counts(name, config), _SHORT[name]
            found |= {f"{short}.{key}": every[key] for key in ("base.macs", "base.params")}
            prefix = f"{short}s" if which == "s" else f"{short}.{which}"
            found |= {f"{prefix}.{key}": every[key] for key in ("macs", "params", "flops", "params_cut")}
    full, pairs, wide = vit_counts(10), vit_counts(10, VIT_CONFIG), vit_counts(100, VIT_CONFIG)
    found |= {"vit.base.flops": full["macs"], "vit.base.params": full["params"], "vit.flops": wide["macs"],
              "vit.params": wide["params"], "vit.flops_cut": 100 * (1 - pairs["macs"] / full["macs"]),
              "vit.params_cut": 100 * (1 - pairs["params"] / full["params"])}
    found |= {f"{name}.flops": backbone_cut(name) for name in ("frcnn", "psp")}
    return found | {"breakeven": break_even(64, 9 * 64) / 64}


# ---------------------------------------------------------------------------------------------------------------------
# 6. The experiments of the chapter, and the recipes of the paper
# ---------------------------------------------------------------------------------------------------------------------


class PlainNet(nn.Module):
    """``depth`` 3×3 convolutions with batch norm and ReLU, 16 then 32 channels, without shortcuts, for 8×8 digits."""

    def __init__(self, depth: int = 8, classes: int = 10):
        super().__init__()
        if depth < 2 or depth % 2:
            raise ValueError(f"depth is {depth}; it is an even number of at least 2")
        widths = [1, *[16] * (depth // 2), *[32] * (depth // 2)]
        layers = []
        for index, (before, after) in enumerate(pairwise(widths)):
            conv = nn.Conv2d(before, after, 3, 2 if index == depth // 2 else 1, 1, bias=False)
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(after), nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


#: The arms that train with the projection, by name; "lrpet" is the whole method.
PROJECTED = {"projection": LRPET(energy=False, bn_rectify=False), "energy": LRPET(bn_rectify=False), "lrpet": LRPET()}
#: All arms of the comparison at one share.
ARMS = ("truncate", "retrain", "factor", *PROJECTED)
_EXAMPLE = torch.zeros(1, 1, 8, 8)


def _accuracy(model: nn.Module, data) -> float:
    return float((logits(model, data.images).argmax(1) == data.labels).float().mean())


def compare(seed: int, *, train: int = 600, epochs: int = 30, shares: Sequence[float] = (0.8, 0.9), depth: int = 8,
            lr: float = 0.1) -> dict:
    """All arms on the digits for one seed: same first weights, same order of the data, same number of epochs.

    ``full``: test accuracy (a share) of the full network. ``arms[q][name]``: that of the network of rank int(p − p q), as
    pairs of layers. ``curves[q]``: of ``lrpet``, ``before`` and ``after`` the projection of every epoch. ``gap``: the largest
    difference between the outputs of a projected network and of its pairs.

    The learning rate falls to a tenth after half of a run, and again after three quarters. ``retrain`` is two runs, of half
    the epochs each. ``factor`` starts from the first weights, projected with their energy.
    """
    data = digits(train, seed)
    batches, test = loader(data[0], 64, True), loader(data[1], 2000, False)

    def learn(model: nn.Module, epochs: int, after=None, test=None, seed: int = seed) -> list[float]:
        return fit(model, batches, test, epochs=epochs, lr=steps(lr, (epochs / 2, 3 * epochs / 4)), weight_decay=1e-4,
                   seed=seed, after_epoch=after).accuracy

    with single_thread():
        seed_everything(seed)
        first = PlainNet(depth)
        full, half = copy.deepcopy(first), copy.deepcopy(first)
        learn(full, epochs)
        learn(half, epochs // 2)
        found = {"seed": seed, "full": _accuracy(full, data[1]), "arms": {}, "curves": {}, "gap": 0.0}
        for q in shares:
            arms = found["arms"][q] = {}
            cut = LRPET(share=q, energy=False, bn_rectify=False)
            for name, start in {"truncate": full, "retrain": half, "factor": first}.items():
                model = copy.deepcopy(start)
                project_(model, replace(cut, energy=name == "factor"))
                model = compact(model, cut)
                if name != "truncate":
                    learn(model, epochs if name == "factor" else epochs - epochs // 2, seed=seed + (name == "retrain"))
                arms[name] = _accuracy(model, data[1])
            for name, config in PROJECTED.items():
                config, model, after, watched = replace(config, share=q), copy.deepcopy(first), [], name == "lrpet"

                def project_now(model, epoch, history, config=config, after=after, watched=watched):
                    project_(model, config, _EXAMPLE)
                    if watched:
                        after.append(_accuracy(model, data[1]))

                before = learn(model, epochs, project_now, test if watched else None)
                pairs = compact(model, config)
                gap = logits(model, data[1].images) - logits(pairs, data[1].images)
                found["gap"] = max(found["gap"], float(gap.abs().max()))
                arms[name] = _accuracy(pairs, data[1])
                if watched:
                    found["curves"][q] = {"before": before, "after": after}
    return found


def gradient_logs(seed: int, *, layers: int = 20, size: int = 64, q: float = 0.8) -> dict[str, list[float]]:
    """The log of the gradient's norm after 1 to ``layers`` random linear layers, projected minus original.

    ``with`` energy transfer and ``without``: W is normal of variance 1 / size, and the gradient at the top is normal.
    """
    draw = torch.Generator().manual_seed(seed)
    stack = [torch.randn(size, size, generator=draw, dtype=torch.float64) / size**0.5 for _ in range(layers)]
    top = torch.randn(size, generator=draw, dtype=torch.float64)

    def logs(change: Callable[[torch.Tensor], torch.Tensor]) -> list[float]:
        g, found = top, []
        for W in stack:
            g = change(W).T @ g
            found.append(float(g.norm().log()))
        return found

    original, r = logs(lambda W: W), rank(size, q)
    made = {"with": logs(lambda W: project(W, r)), "without": logs(lambda W: project(W, r, energy=False))}
    return {name: [one - other for one, other in zip(values, original)] for name, values in made.items()}


def layer_times(inputs: int, outputs: int, side: int, at: Sequence[int], *, kernel: int = 3, seed: int = 0,
                at_least: float = 0.05) -> dict[str, list[float]]:
    """Milliseconds of a convolution on one image and one thread, and of its pair at every rank of ``at``; also their MACs.

    ``dense`` and ``dense.macs`` are single numbers in a list.
    """
    seed_everything(seed)
    with single_thread(), torch.inference_mode():
        conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False).eval()
        x, positions = torch.randn(1, inputs, side, side), side * side
        m, d = outputs, inputs * kernel**2
        found = {"dense": [1e3 * median_seconds(lambda: conv(x), at_least=at_least)], "dense.macs": [m * d * positions],
                 "pair": [], "pair.macs": []}
        for r in at:
            pair = _pair(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False), r).eval()
            found["pair"].append(1e3 * median_seconds(functools.partial(pair, x), at_least=at_least))
            found["pair.macs"].append(r * (m + d) * positions)
    return found


def _hooks(config: LRPET | None, example: torch.Tensor | None = None) -> dict[str, Callable]:
    """Of a recipe: a projection after every epoch, and as its result the pairs of a copy that is projected once more.

    The projection comes before the next epoch, so that an epoch is judged as it was trained. Without ``config`` there is none.
    """
    def before(model: nn.Module, epoch: int, epochs: int) -> None:
        if epoch:
            project_(model, config, example)

    def export(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model).cpu()
        project_(model, config, example)
        return compact(model, config)

    return {} if config is None else {"before_epoch": before, "export": export}


def _recipe(config: LRPET, build: Callable[[], nn.Module], side: int) -> Recipe:
    """CIFAR: a projection after every epoch; ImageNet: one after every 250 steps."""
    example = torch.zeros(1, 3, side, side)
    hooks = _hooks(config, example)
    if side == 32:
        return Recipe(data="cifar10", build=build, epochs=400, batch=128, lr=steps(0.1, (200, 300)), weight_decay=1e-4,
                      test_batch=100, **hooks)
    return Recipe(data="imagenet", build=build, epochs=120, batch=256, lr=steps(0.1, (30, 60, 90)), weight_decay=1e-4,
                  optimizer=lambda model: projecting(model, config, example, every=250), export=hooks["export"])


def _vit_recipe(data: str, classes: int, config: LRPET | None) -> Recipe:
    """The vision transformer on CIFAR, with a projection after every epoch; with no configuration the full one.

    Every image is cropped, mirrored, changed by AutoAugment and erased in part, comes three times in a row, and is, with
    probability one half, mixed with another.
    """
    def read(path) -> tuple[Pictures, Split]:
        train, test = read_cifar(data, path)
        statistics = CIFAR10 if classes == 10 else CIFAR100
        return Pictures(train, statistics.mean, statistics.std), test

    return Recipe(data=data, build=lambda: vit(classes), epochs=100, batch=128, weight_decay=0.05, repeats=3, read=read,
                  augment=lambda images: erase(crop_and_flip(images)), test_batch=100,
                  step=mixing(functools.partial(F.cross_entropy, label_smoothing=0.1)),
                  lr=with_warmup(cosine(1e-3, 100), 10), **_hooks(config),
                  optimizer=lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05))


def warm_cosine(lr: float, epochs: int) -> Callable[[float], float]:
    """The learning rate of detection and segmentation, one for each epoch: up in 3 epochs, down, and the last 10 at the least.

    It rises from a tenth of ``lr`` like a square, and falls like half a cosine to a hundredth.
    """
    rise, rest, least = min(max(0.05 * epochs, 1), 3), min(max(0.05 * epochs, 1), 15), 0.01 * lr

    def at(epoch: float) -> float:
        epoch = math.floor(epoch)
        if epoch <= rise:
            return 0.9 * lr * (epoch / rise) ** 2 + 0.1 * lr
        if epoch >= epochs - rest:
            return least
        return least + 0.5 * (lr - least) * (1 + math.cos(math.pi * (epoch - rise) / (epochs - rise - rest)))

    return at


def _nesterov(weight_decay: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9, weight_decay=weight_decay, nesterov=True)


def _judged(score: Callable, config: LRPET | None) -> Callable:
    """``score``, of a network that is projected first."""
    def evaluate(model: nn.Module, batches, fabric) -> float:
        if config is not None:
            project_(model, config)
        return score(model, batches, fabric)

    return evaluate


def _detection_recipe(config: LRPET | None) -> Recipe:
    """Faster R-CNN on VOC 2007 and 2012, from features and wide layers that know ImageNet; judged on the test set of 2007."""
    def read(data) -> tuple[VOCDetection, VOCDetection]:
        root = data or fetch_unpacked("voc2007-trainval", "voc2007-test", "voc2012-trainval")
        return (VOCDetection(root, (("2007", "trainval"), ("2012", "trainval")), True),
                VOCDetection(root, (("2007", "test"),), False))

    def build() -> FasterRCNN:
        def ours(name: str) -> str | None:
            wide, layer, what = name.split(".")
            return name if wide == "features" else {"0": f"head.0.{what}", "3": f"head.2.{what}"}.get(layer)

        return load_published(FasterRCNN(), fetch("vgg16"), ours, ("features.", "head."))

    return Recipe(data="voc07+12", build=build, epochs=200, batch=16, weight_decay=0.0, lr=warm_cosine(1e-2, 200), read=read,
                  optimizer=_nesterov(0.0), step=lambda model, images, truth: model(images, truth), test_batch=1, every=10,
                  evaluate=_judged(functools.partial(detection_score, classes=20), config), score="mAP", **_hooks(config))


def _segmentation_recipe(config: LRPET | None) -> Recipe:
    """PSPNet on VOC 2012 and SBD, from a backbone that knows ImageNet; judged on the validation set of VOC 2012."""
    def read(data) -> tuple[VOCSegmentation, VOCSegmentation]:
        root = data or fetch_unpacked("voc2012-trainval", "sbd")
        return VOCSegmentation(root, True), VOCSegmentation(root, False)

    def build() -> PSPNet:
        def ours(name: str) -> str | None:
            stage = re.match(r"layer(\d)\.(\d)\.", name)
            if stage:
                block = sum(ResNetImageNet.BLOCKS[:int(stage[1]) - 1]) + int(stage[2])
                name = f"blocks.{block}.{name[stage.end():].replace('downsample', 'shortcut')}"
            return None if name.startswith("fc.") else f"backbone.{name}"

        return load_published(PSPNet(), fetch("resnet50-deep"), ours, ("backbone.",))

    def step(model: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), masks, ignore_index=VOID)

    return Recipe(data="voc12+sbd", build=build, epochs=200, batch=16, weight_decay=1e-4, lr=warm_cosine(1e-2, 200), read=read,
                  optimizer=_nesterov(1e-4), step=step, test_batch=8, every=5, score="mIoU",
                  evaluate=_judged(functools.partial(segmentation_score, classes=21), config), **_hooks(config))


def projecting(model: nn.Module, config: LRPET, example: torch.Tensor, every: int, lr: float = 0.1,
               weight_decay: float = 1e-4) -> torch.optim.SGD:
    """SGD with momentum 0.9 after whose every ``every``-th step the network is projected."""
    if every < 1:
        raise ValueError(f"every is {every}; the smallest number of steps is 1")
    optimizer, done = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=weight_decay), [0]

    def hook(optimizer, args, kwargs) -> None:
        done[0] += 1
        if done[0] % every == 0:
            project_(model, config, example)

    optimizer.register_step_post_hook(hook)
    return optimizer


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found = {}
    for name, made in NETWORKS.items():
        for which, config in made.configs.items():
            data = "cifar10" if made.side == 32 else "imagenet"
            found[f"{name}-{which}-{data}"] = functools.partial(_recipe, config, made.build, made.side)
    for data, classes in (("cifar10", 10), ("cifar100", 100)):
        found[f"vit-{data}"] = functools.partial(_vit_recipe, data, classes, VIT_CONFIG)
        found[f"vit-full-{data}"] = functools.partial(_vit_recipe, data, classes, None)
    for name, make, config in (("frcnn", _detection_recipe, FRCNN_CONFIG), ("psp", _segmentation_recipe, PSP_CONFIG)):
        found[f"{name}-voc"], found[f"{name}-full-voc"] = functools.partial(make, config), functools.partial(make, None)
    return found


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()

__all__ = ["ARMS", "DAMPING", "DEAD", "FRCNN_CONFIG", "GONE", "LRPET", "NETWORKS", "PROJECTED", "PSP_CONFIG", "RANKS_50",
           "RANKS_56", "RECIPES", "VIT", "VIT_CONFIG", "Network", "PlainNet", "Silent", "backbone_cut", "break_even", "compact",
           "compare", "counts", "counts_after", "expected_improvement", "factorise", "facts", "gradient_logs", "layer_times",
           "network", "norms", "project", "project_", "projecting", "rank", "ranks", "scale", "search", "short_training",
           "transfer", "vit", "vit_counts", "warm_cosine"]
