"""Weight Evolution: Improving Deep Neural Networks Training through Evolving Inferior Weight Values.

Zhenquan Lin, Kailing Guo, Xiaofen Xing, Xiangmin Xu; ACM Multimedia 2021, arXiv 2110.04492.
Code: https://github.com/BZQLin/Weight-evolution

Pruning removes filters that hardly contribute. This method repairs them: after every epoch of ordinary training the filters
that are weak in the whole network and weak in their layer are each paired with a strong filter of the same layer, and take
over a part of its weights. The network keeps its shape, so inference costs what it cost before.

Symbols: w_o (Ci, k, k) is filter o of a convolution, a_o its importance, ρ the share of filters that count as weak in the
whole network, θ the importance at that share, λ the share of the layer's largest importance below which a filter is weak in
its layer, g and l how many are weak by either test, q how many evolve; p and q, in a kernel, the strongest and the weakest
element. The formulas are those of the released code; those of the paper were not available to us.

Differs: k×k kernels are mixed by ``mix="dominant"`` unless told otherwise: the stronger element has the larger weight, as in
    the code's own rule for 1×1 kernels. The code has the weights of p and q exchanged, which is ``mix="official"``.
Differs: where a mixture would be 0/0 the inferior value stays. The code gives NaN. With ``mix="official"`` it also stays where
    |p + q| < 1e-12, near the pole of 2 p q / (p + q).
Differs: a kernel is pointwise if it has one element. The code tests the height only, so 1×k kernels count as pointwise.
Differs: a parameter that two layers share evolves once, and one that does not require a gradient never does.
Differs: ``until`` may end the evolution. The code's last one changes a network that is neither trained nor evaluated again.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.utils import parametrize

from papernets import check
from papernets.nn import chosen

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: How an inferior k×k kernel takes over its element: the rule we use, and that of the released code.
MIXES = ("dominant", "official")
#: Two simpler ways to refill the same filters, to compare with: the whole partner, or new random weights.
REFILLS = ("copy", "renew")
_POLE = 1e-12


def importance(W: torch.Tensor) -> torch.Tensor:
    """a (Co,): the L1 norm of every filter of ``W`` (Co, Ci, kh, kw) divided by Ci, not by the size of the kernel."""
    return W.detach().abs().flatten(1).sum(1) / W.shape[1]


def threshold(population: torch.Tensor, rho: float) -> float:
    """θ: the value at place int(n ρ) of the n importances (n,), sorted. Those strictly below are weak in the whole network.

    ``ValueError`` if ρ is outside [0, 1).
    """
    check.share("rho", rho)
    return float(population.sort().values[int(len(population) * rho)])


def select(a: torch.Tensor, theta: float, local: float = 0.1, counter: int = 0, limit: float = math.inf) -> tuple[int, int]:
    """q, the number of filters of a layer that evolve, and the new ``counter``.

    q = min(g, l): both tests must agree. Where g ≥ 1 and l = 0 the counter rises, and at ``limit`` one filter evolves all the
    same. A layer with g = 0 leaves the counter as it is.
    """
    g, l = int((a < theta).sum()), int((a <= local * a.max()).sum())
    if g == 0:
        return 0, counter
    if l > 0:
        return min(g, l), 0
    return (1, 0) if counter + 1 >= limit else (0, counter + 1)


def match(a: torch.Tensor, q: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Superior and inferior filters, a pair a place: the best of all with the best of the q weakest, and so on down.

    Only filters that are not among the q weakest are superior; if there are too few, the weakest stay without a partner.
    """
    order = torch.argsort(a, descending=True, stable=True)
    pairs = min(q, len(a) - q)
    return order[:pairs], order[len(a) - q : len(a) - q + pairs]


def cross_pointwise(inferior: torch.Tensor, superior: torch.Tensor) -> torch.Tensor:
    """α w_j + (1 − α) w_i for rows of weights (n, m), with α the share of w_j in the sum of both L1 norms.

    The inferior one has the small share, so the result is close to the superior one. Rows that are both 0 stay.
    """
    own, other = inferior.abs().sum(1, keepdim=True), superior.abs().sum(1, keepdim=True)
    alpha = own / (own + other).where(own + other > 0, torch.ones_like(own))
    return torch.where(own + other > 0, alpha * inferior + (1 - alpha) * superior, inferior)


def mixture(q: torch.Tensor, p: torch.Tensor, mix: str = "dominant") -> torch.Tensor:
    """What replaces the weak element q, given the strong element p: elementwise, and q itself where there is no answer.

    "dominant": α q + (1 − α) p with α = |q| / (|q| + |p|), so the strong one prevails. "official": α p + (1 − α) q with the
    signed α = q / (q + p), which is 2 p q / (p + q): for |q| ≪ |p| twice q. ``ValueError`` for another ``mix``.
    """
    check.one_of("mix", mix, MIXES)
    if mix == "official":
        safe = (p + q).abs() >= _POLE
        return torch.where(safe, 2 * p * q / (p + q).where(safe, torch.ones_like(p)), q)
    total = q.abs() + p.abs()
    alpha = q.abs() / total.where(total > 0, torch.ones_like(total))
    return torch.where(total > 0, alpha * q + (1 - alpha) * p, q)


def cross_kernels(inferior: torch.Tensor, superior: torch.Tensor, mix: str = "dominant") -> torch.Tensor:
    """Kernel by kernel for filters (n, Ci, kh, kw): the weakest element of the inferior kernel becomes its mixture with the
    strongest element of the superior kernel. Elements equal to the weakest one change with it."""
    own, other = inferior.flatten(2), superior.flatten(2)  # (n, Ci, k²)
    p = other.gather(2, other.abs().argmax(2, keepdim=True))  # (n, Ci, 1)
    q = own.gather(2, own.abs().argmin(2, keepdim=True))
    return torch.where(own == q, mixture(q, p, mix), own).view_as(inferior)

# ---------------------------------------------------------------------------------------------------------------------
# When, and how much
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stages:
    """Factors of ρ over the epochs: in every stage a logistic function rises from ½ to 1, times the stage's factor.

    A stage begins at each epoch of ``drops``, where the learning rate falls; ``width`` is the logistic function's, in epochs.
    ``ValueError`` if the factors are not one more than the drops, or if the width is not above 0.
    """

    drops: tuple[float, ...]
    width: float
    factors: tuple[float, ...]

    def __post_init__(self):
        if len(self.factors) != len(self.drops) + 1:
            raise ValueError(f"{len(self.drops)} drops make {len(self.drops) + 1} stages, and {len(self.factors)} factors are "
                             "given; give one a stage")
        check.above("width", self.width, 15)

    def __call__(self, epoch: float) -> float:
        stage = sum(epoch >= drop for drop in self.drops)
        begin = self.drops[stage - 1] if stage else 0
        return self.factors[stage] / (1 + math.exp(-(epoch - begin) / self.width))

    def scaled(self, share: float) -> "Stages":
        """The same curve over ``share`` of the epochs."""
        return Stages(tuple(drop * share for drop in self.drops), self.width * share, self.factors)


@dataclass(frozen=True)
class Falling:
    """A factor that falls in a straight line from 1 to 0 over ``epochs``: a schedule of ours, to compare with."""

    epochs: float = 200

    def __call__(self, epoch: float) -> float:
        return max(0.0, 1 - epoch / self.epochs)

    def scaled(self, share: float) -> "Falling":
        return Falling(self.epochs * share)


#: 200 epochs, learning rate cut at 60, 120 and 180; the last cut begins no stage of its own.
CIFAR = Stages((60, 120), 15, (1, 1 / 2.5, 1 / 5))
#: 90 epochs, learning rate cut at 30 and 60.
IMAGENET = Stages((30, 60), 8, (1, 1 / 2, 1 / 4))


@check.renamed(rate="weak: the share of filters that count as weak in the whole network")
@dataclass(frozen=True)
class WE:
    """How a network evolves; the defaults are those of the released code for CIFAR, but for ``mix``.

    ``weak``, ``gamma`` and ``beta`` are the shares of filters, and of scales and offsets of batch norms, that count as weak in
    the whole network; ``schedule(epoch)`` multiplies them, and the product is ρ. ``local`` is λ. ``mix`` is one of ``MIXES``,
    or of ``REFILLS`` to compare with. From the epoch ``until`` on nothing evolves. ``ignore`` and ``filter_fn(name, module)``
    leave layers out. ``ValueError`` for a share outside [0, 1), another mix, or an epoch that is none.
    """

    weak: float = 0.2
    gamma: float = 0.05
    beta: float = 0.05
    local: float = 0.1
    mix: str = "dominant"
    schedule: Callable[[int], float] = CIFAR
    until: int | None = None
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for name in ("weak", "gamma", "beta", "local"):
            check.share(name, getattr(self, name))
        check.one_of("mix", self.mix, MIXES + REFILLS)
        if self.until is not None:
            check.whole("until", self.until, 0)


#: The shares of the released ImageNet script. Its share for offsets is that of the scales.
WE_IMAGENET = WE(weak=0.02, gamma=0.02, beta=0.02, schedule=IMAGENET)

# ---------------------------------------------------------------------------------------------------------------------
# The verb
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """What one evolution did to one parameter: filter, or number, ``inferior[i]`` took over from ``superior[i]``."""

    parameter: str
    kind: str
    superior: tuple[int, ...]
    inferior: tuple[int, ...]


#: The three populations, each with thresholds and a counter of its own.
KINDS = ("conv", "gamma", "beta")


class Evolution:
    """A configuration and the three counters that carry over from epoch to epoch.

    >>> evolution = Evolution(WE(until=epochs - 1))
    >>> evolution.step(model, epoch)  # after every epoch of training

    ``state_dict`` and ``load_state_dict`` keep the counters, so that a resumed run ends as if it had never stopped.
    """

    def __init__(self, config: WE = WE()):
        self.config = config
        self.counters = dict.fromkeys(KINDS, 0)

    def step(self, model: nn.Module, epoch: int) -> list[Change]:
        """``evolve_`` with this object."""
        return evolve_(model, self, epoch)

    def state_dict(self) -> dict[str, dict[str, int]]:
        return {"counters": dict(self.counters)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, int]]) -> None:
        counters = dict(state.get("counters", {}))
        if sorted(counters) != sorted(KINDS):
            raise ValueError(f"the state has counters of {', '.join(counters) or 'nothing'}; it must have {', '.join(KINDS)}")
        self.counters = {kind: int(counters[kind]) for kind in KINDS}


def populations(model: nn.Module, config: WE = WE()) -> dict[str, dict[str, nn.Parameter]]:
    """What evolves, by kind and name: weights of convolutions, and the scales and offsets of batch norms.

    ``ValueError`` if there is none, or if a weight is computed (parametrised) or not finite.
    """
    values: dict[str, dict[str, nn.Parameter]] = {kind: {} for kind in KINDS}
    seen: set[int] = set()
    layers = chosen(model, (nn.Conv2d, nn.BatchNorm2d), ignore=config.ignore, filter_fn=config.filter_fn)
    for name, module in layers.items():
        parts = {"conv": "weight"} if isinstance(module, nn.Conv2d) else {"gamma": "weight", "beta": "bias"}
        for kind, part in parts.items():
            full = f"{name}.{part}" if name else part
            if parametrize.is_parametrized(module, part):
                raise ValueError(f"{full} is parametrised; evolution changes stored weights: remove the parametrisation, or "
                                 f"ignore {name!r}")
            value = getattr(module, part)
            if value is None or not value.requires_grad or id(value) in seen:
                continue
            check.finite(full, value, "importances are finite norms")
            seen.add(id(value))
            values[kind][full] = value
    return values


def _importance(kind: str, value: torch.Tensor) -> torch.Tensor:
    return importance(value) if kind == "conv" else value.detach().abs()


def _crossed(kind: str, inferior: torch.Tensor, superior: torch.Tensor, mix: str, draw: torch.Generator) -> torch.Tensor:
    """New values for ``inferior``; rows of both belong together."""
    if mix == "copy":
        return superior.clone()
    if mix == "renew":
        if kind != "conv":
            return torch.full_like(inferior, float(kind == "gamma"))
        fresh = torch.randn(inferior.shape, generator=draw).to(inferior)
        return fresh * superior.flatten(1).square().mean(1).sqrt().view(-1, 1, 1, 1)
    if kind == "conv" and inferior[0, 0].numel() > 1:
        return cross_kernels(inferior, superior, mix)
    return cross_pointwise(inferior.flatten(1) if kind == "conv" else inferior[:, None],
                           superior.flatten(1) if kind == "conv" else superior[:, None]).view_as(inferior)


@torch.no_grad()
def evolve_(model: nn.Module, evolution: Evolution, epoch: int) -> list[Change]:
    """Evolve ``model`` once, in place, after the training of ``epoch`` (counted from 0); what was changed, in layer order.

    Everything is computed before anything is changed. Only parameters change: the running statistics of batch norms, the
    momentum of an optimiser and averaged copies of the weights keep what they had. Do not call it between a forward and its
    backward pass. ``ValueError``, with the network unchanged, if the epoch is none, for what ``populations`` refuses, and if ρ
    is outside [0, 1).

    >>> evolve_(model, Evolution(), epoch=0)
    """
    check.whole("epoch", epoch, 0)
    config = evolution.config
    values = populations(model, config)
    if config.until is not None and epoch >= config.until:
        return []
    factor, counters = config.schedule(epoch), dict(evolution.counters)
    limit = len(values["conv"]) / 2
    draw = torch.Generator().manual_seed(epoch)
    planned: list[tuple[Change, nn.Parameter, torch.Tensor, torch.Tensor]] = []
    for kind, base in zip(KINDS, (config.weak, config.gamma, config.beta)):
        every = {name: _importance(kind, value) for name, value in values[kind].items()}
        if not every:
            continue
        theta = threshold(torch.cat([a.double().cpu() for a in every.values()]), base * factor)
        for name, a in every.items():
            value = values[kind][name]
            q, counters[kind] = select(a, theta, config.local, counters[kind], limit)
            superior, inferior = match(a, q)
            if len(inferior):
                new = _crossed(kind, value[inferior], value[superior], config.mix, draw)
                change = Change(name, kind, tuple(superior.tolist()), tuple(inferior.tolist()))
                planned.append((change, value, inferior, new))
    for _, value, inferior, new in planned:
        value[inferior] = new
    evolution.counters = counters
    return [change for change, *_ in planned]


def relative_importance(model: nn.Module, config: WE = WE()) -> torch.Tensor:
    """a_o / max a of every filter of every convolution, in one row."""
    every = [importance(W) for W in populations(model, config)["conv"].values()]
    return torch.cat([a / a.max().clamp_min(torch.finfo(a.dtype).tiny) for a in every])


def weak(model: nn.Module, config: WE = WE()) -> int:
    """How many filters have at most λ of the largest importance of their layer."""
    return int((relative_importance(model, config) <= config.local).sum())
