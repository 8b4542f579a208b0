"""Towards Compact CNNs via Collaborative Compression.

Yuchao Li, Shaohui Lin, Jianzhuang Liu, Qixiang Ye, Mengdi Wang, Fei Chao, Fan Yang, Jincheng Ma, Qi Tian, Rongrong Ji;
CVPR 2021, arXiv 2105.11228. Code: https://github.com/liuguoyou/Towards-Compact-CNNs-via-Collaborative-Compression (a mirror)

Pruning removes input channels of a layer, decomposition removes singular directions of its weight. Done one after the other,
each ignores what the other still takes. CC calls both compression units, scores them on one scale, a first-order estimate of
the change of the loss, and removes one at a time. What each layer must give is decided beforehand: the loss of a layer is
fitted by an exponential of the share that is removed, and one global problem is solved for the whole network's budget.

Symbols: W (Co, Ci, k, k), as a matrix Co × Ci k²; G the gradient of the loss there; R the number of singular values, T_r the
part σ_r u_r v_rᵀ; p and z the channels and ranks removed, n what is left of both; B, Fwd and M = B + γ Fwd the backward term,
the forward term and the metric of a unit; c the share of a layer's work that is removed, a e^{bc} its fitted loss; F the work
of a layer, Φ what is removed of it.

Differs: R is the rank bound min(Co, Ci k²). The code has min(Co, Ci k), the same for every layer of its networks.
Differs: the root of the global problem is found by bisection. The code takes up to a million gradient steps, with a step size
    that suits networks of one size.
Differs: a layer gives at most 95 % of its work, or what can be had of it with a channel and a rank left. The code's solver
    books 90 % where a layer then gives 95 %.
Differs: a layer without gradient, or whose fit falls, gets the share of the whole network. The code divides by 0.
Differs: where a step removes several units, the index of a rank falls by one for each smaller one that went before it.
Differs: every candidate is made without touching the current weight. The code zeroes channels through a view, which on a CPU
    zeroes all of them.
Differs: ties go to channels before ranks, and to the lower index.
Differs: the forward term is computed in closed form, with the eigenvectors of the smaller Gram matrix for the channels. The
    code decomposes every candidate, and sums over what is left.
Differs: the metric of pruning only, or of decomposition only, averages the forward term over the units of that kind.
"""

import copy
import functools
import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from papernets.data import ImageFolder, digits, image_folders, read_cifar
from papernets.tools.files import write_json
from papernets.measure import count, macs, parameters, take_turns
from papernets.nn import VGG, ConvNet, DenseNetCIFAR, GoogLeNet, ResNetCIFAR, ResNetImageNet, chosen, rounded
from papernets.training import (
    Recipe,
    cosine,
    crop_and_flip,
    fit,
    loader,
    logits,
    seed_everything,
    single_thread,
    steps,
)

# ---------------------------------------------------------------------------------------------------------------------
# 1. Functions on tensors: units, cost, metric
# ---------------------------------------------------------------------------------------------------------------------

#: What may be removed: channels and ranks, channels only (pruning), ranks only (decomposition).
UNITS = ("joint", "channels", "ranks")
#: How the work is shared out: as the code does, as the Lagrange condition of the budget says, or one share for all layers.
RULES = ("equal_marginal", "lagrange", "uniform")


def _check_units(units: str) -> None:
    if units not in UNITS:
        raise ValueError(f"units is {units!r}; choose from {', '.join(UNITS)}")


def ranks(Co: int, Ci: int, area: int) -> int:
    """R: singular values of a weight of ``Co`` × ``Ci`` kernels of ``area`` = k² numbers."""
    return min(Co, Ci * area)


def cost(Co: int, Ci: int, area: int, p: int = 0, z: int = 0) -> int:
    """Multiply-accumulates of an output position with ``p`` channels and ``z`` ranks removed; also the number of weights."""
    R = ranks(Co, Ci, area)
    if not (0 <= p <= Ci and 0 <= z <= R):
        raise ValueError(f"p = {p} channels of {Ci} and z = {z} ranks of {R} cannot be removed")
    left = Ci - p
    return Co * left * area if z == 0 else (R - z) * (left * area + Co)


def break_even(Co: int, Ci: int, area: int) -> float:
    """The rank at which two layers cost as much as one."""
    return Co * Ci * area / (Ci * area + Co)


def reachable(Co: int, Ci: int, area: int, units: str = "joint") -> float:
    """The largest share of the work that can be removed with at least one channel and one rank left."""
    _check_units(units)
    dense, R = cost(Co, Ci, area), ranks(Co, Ci, area)
    least = [dense]
    if units != "ranks":
        least.append(cost(Co, Ci, area, Ci - 1, 0))
    if units != "channels" and R > 1:
        least.append(cost(Co, Ci, area, Ci - 1 if units == "joint" else 0, R - 1))
    return 1 - min(least) / dense


def information_loss(W: torch.Tensor, G: torch.Tensor, changed: torch.Tensor) -> float:
    """I = ‖G ⊙ (changed − W)‖²: the squared first-order terms of the loss, all of one shape."""
    return float((G.double() * (changed.double() - W.double())).square().sum())


def _check_weight(W: torch.Tensor, G: torch.Tensor) -> None:
    if W.dim() != 4:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci, k, k), of a linear layer (Co, Ci, 1, 1)")
    if G.shape != W.shape:
        raise ValueError(f"the gradient has shape {tuple(G.shape)}, and the weight {tuple(W.shape)}; they must be equal")
    if not (torch.isfinite(W).all() and torch.isfinite(G).all()):
        raise ValueError("the weight or its gradient holds a value that is not finite; it has no singular values, no loss")


def directions(K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """P (Co, R) and Q (R, d) of a matrix K (Co, d), so that T_r = P[:, r] Q[r], the largest singular value first."""
    U, S, Vt = torch.linalg.svd(K, full_matrices=False)
    return U, S[:, None] * Vt


def _squares(K: torch.Tensor, G2: torch.Tensor, channels: torch.Tensor, area: int, budget: int = 1 << 24) -> torch.Tensor:
    """Σ G² Σ_r T_r² of K (Co, d) without each of ``channels`` in turn, T_r its rank-one parts.

    With the eigenvectors of K Kᵀ, or of Kᵀ K where that is smaller, no singular value is divided by.
    """
    Co, d = K.shape
    found = []
    for some in channels.split(max(1, budget // (Co * d))):
        without = K.expand(len(some), Co, d).clone()  # a copy: candidates share no memory
        columns = some[:, None] * area + torch.arange(area, device=K.device)  # (C, k²)
        without.scatter_(2, columns[:, None].expand(-1, Co, -1), 0)
        if Co <= d:
            gone = K[:, columns].permute(1, 0, 2)  # (C, Co, k²)
            U = torch.linalg.eigh(K @ K.T - gone @ gone.mT)[1]  # (C, Co, Co)
            found.append(((U.mT @ without).square() * (U.mT.square() @ G2)).sum((1, 2)))
        else:
            V = torch.linalg.eigh(without.mT @ without)[1]  # (C, d, d)
            found.append(((without @ V).square() * (G2 @ V.square())).sum((1, 2)))
    return torch.cat(found)


@dataclass(frozen=True)
class Scores:
    """B and Fwd of the channels (Ci,), not finite where a channel is gone, and of the ranks (R − z,), largest σ first."""

    channels: torch.Tensor
    ranks: torch.Tensor
    channels_forward: torch.Tensor
    ranks_forward: torch.Tensor

    def metric(self, gamma: float) -> tuple[torch.Tensor, torch.Tensor]:
        """M = B + γ Fwd of the channels and of the ranks."""
        if gamma == 0:
            return self.channels, self.ranks
        return self.channels + gamma * self.channels_forward, self.ranks + gamma * self.ranks_forward


@torch.no_grad()
def score(W: torch.Tensor, G: torch.Tensor, now: torch.Tensor | None = None, alive: torch.Tensor | None = None,
          left: int | None = None, *, units: str = "joint", forward: bool = True) -> Scores:
    """Backward and forward term of every unit that could go next.

    ``W`` and ``G`` (Co, Ci, k, k) are the original weight and gradient, ``now`` the current weight, ``alive`` (Ci,) is true
    for channels that are left, ``left`` the number of ranks. Without ``forward`` that term is left at 0.

    With K the weight without the unit, the mean loss after removing one more of the N = n − 1 units left has the closed form
    Σ (G ⊙ (K − W))² − (2 s / N) Σ G² ⊙ (K − W) ⊙ K + (1 / N) Σ G² ⊙ Σ_u u², as the channels add up to K and so do the ranks;
    s is the number of kinds.
    """
    _check_weight(W, G)
    _check_units(units)
    Co, Ci = W.shape[:2]
    area = W[0, 0].numel()
    W0, G2 = (tensor.double().reshape(Co, -1) for tensor in (W, G.double().square()))
    now = W0 if now is None else now.double().reshape(Co, -1)
    alive = torch.ones(Ci, dtype=torch.bool, device=W.device) if alive is None else alive
    left = ranks(Co, Ci, area) if left is None else left
    by_channel, by_rank = units != "ranks", units != "channels"
    n = by_channel * int(alive.sum()) + by_rank * left
    N, kinds = max(1, n - 1), by_channel + by_rank
    D = now - W0  # (Co, Ci k²)
    sums = {"DD": G2 * D * D, "DK": G2 * D * now, "KK": G2 * now * now, "WW": G2 * W0 * W0}
    each = {key: value.reshape(Co, Ci, area).sum((0, 2)) for key, value in sums.items()}  # (Ci,)
    whole = {key: value.sum() for key, value in each.items()}
    nothing = W0.new_zeros(0)
    channels = channels_forward = nothing
    rank_scores = ranks_forward = nothing
    if by_rank:
        P, Q = directions(now)
        P, Q = P[:, :left], Q[:left]
        parts = {"TT": (P.square() * (G2 @ Q.square().T)).sum(0), "TD": (P * ((G2 * D) @ Q.T)).sum(0),
                 "TK": (P * ((G2 * now) @ Q.T)).sum(0)}  # (R − z,)
        rank_scores = (whole["DD"] - 2 * parts["TD"] + parts["TT"]).clamp(min=0)
        if forward:
            cross = whole["DK"] - parts["TD"] - parts["TK"] + parts["TT"]
            squares = parts["TT"].sum() - parts["TT"]
            if by_channel:
                squares = squares + whole["KK"] - 2 * parts["TK"] + parts["TT"]
            ranks_forward = rank_scores - 2 * kinds / N * cross + squares / N
    if by_channel:
        channels = (whole["DD"] - each["DD"] + each["WW"]).clamp(min=0)
        if forward:
            squares = whole["KK"] - each["KK"]
            if by_rank:
                at = alive.nonzero()[:, 0]
                squares[at] = squares[at] + _squares(now, G2, at, area)
            channels_forward = channels - 2 * kinds / N * (whole["DK"] - each["DK"]) + squares / N
        channels = torch.where(alive, channels, torch.inf)
    if not forward:
        channels_forward, ranks_forward = torch.zeros_like(channels), torch.zeros_like(rank_scores)
    return Scores(channels, rank_scores, channels_forward, ranks_forward)


# ---------------------------------------------------------------------------------------------------------------------
# 2. Stage one: how much each layer gives
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def curve(W: torch.Tensor, G: torch.Tensor, units: str = "joint") -> tuple[list[float], list[float]]:
    """c_t and I_t: the share of work removed and the loss, while all units go in the order of their loss alone."""
    scores = score(W, G, units=units, forward=False)
    Co, Ci = W.shape[:2]
    area = W[0, 0].numel()
    W0, G0 = W.double().reshape(Co, -1), G.double().reshape(Co, -1)
    now, dense = W0.clone(), cost(Co, Ci, area)
    order = torch.argsort(torch.cat([scores.channels, scores.ranks]), stable=True).tolist()
    channels, gone, p, removed = len(scores.channels), [], [], []
    for unit in order:
        if unit < channels:
            now[:, unit * area:(unit + 1) * area] = 0
            p.append(unit)
        else:
            r = unit - channels
            P, Q = directions(now)
            at = r - sum(other < r for other in gone)
            now = now - P[:, at:at + 1] * Q[at:at + 1]
            gone.append(r)
        removed.append((1 - cost(Co, Ci, area, len(p), len(gone)) / dense, information_loss(W0, G0, now)))
    return [c for c, _ in removed], [loss for _, loss in removed]


def fit_curve(c: Sequence[float], loss: Sequence[float]) -> tuple[float, float] | None:
    """a and b of a e^{bc}, fitted to the loss as a share of its maximum, with weights √I; only where c > 0.

    None if there is nothing to fit: no loss, fewer than two points, or a fit that does not rise.
    """
    top = max(loss)
    points = [(x, value / top) for x, value in zip(c, loss) if x > 0] if top > 0 else []
    weights = [math.sqrt(max(0.0, value)) for _, value in points]
    total = sum(weights)
    if len(points) < 2 or total <= 0:
        return None
    ys = [math.log(max(0.0, value) + 1e-10) for _, value in points]
    mean_x = sum(w * x for w, (x, _) in zip(weights, points)) / total
    mean_y = sum(w * y for w, y in zip(weights, ys)) / total
    spread = sum(w * (x - mean_x) ** 2 for w, (x, _) in zip(weights, points))
    if spread <= 1e-12 * total:
        return None
    b = sum(w * (x - mean_x) * (y - mean_y) for w, (x, _), y in zip(weights, points, ys)) / spread
    return (math.exp(mean_y - b * mean_x), b) if b > 1e-9 else None


def allocate(fits: Sequence[tuple[float, float] | None], work: Sequence[float], removed: float, *,
             caps: float | Sequence[float] = 0.95, rule: str = "equal_marginal") -> tuple[list[float], float]:
    """The share c_i of each layer's ``work`` F_i, so that Σ c_i F_i = ``removed``, and the level x at which that is so.

    With ``fits`` (a_i, b_i), "equal_marginal" makes a_i b_i e^{b_i c_i} = x in all layers, "lagrange" = x F_i, which minimises
    Σ a_i e^{b_i c_i}; each share stays from 0 to its cap. A layer without fit gets the share of all; "uniform" gives all that.
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; choose from {', '.join(RULES)}")
    caps = [caps] * len(work) if isinstance(caps, int | float) else list(caps)
    most = sum(cap * F for cap, F in zip(caps, work))
    if removed < 0 or removed > most * (1 + 1e-12):
        raise ValueError(f"to remove {removed:g} is unreachable; it must be from 0 to {most:g}, what the layers can give")
    if removed == 0:
        return [0.0] * len(work), 0.0
    fixed = [rule == "uniform" or found is None for found in fits]

    def shares(level: float) -> list[float]:
        found = []
        for pair, F, cap, flat in zip(fits, work, caps, fixed):
            if flat:
                share = level if all(fixed) else removed / sum(work)  # one level for all, if no layer has a fit
            else:
                a, b = pair
                share = (level + (math.log(F) if rule == "lagrange" else 0.0) - math.log(a) - math.log(b)) / b
            found.append(min(max(share, 0.0), cap))
        return found

    if all(fixed):
        low, high = 0.0, max(caps)
    else:
        edges = [math.log(pair[0]) + math.log(pair[1]) - (math.log(F) if rule == "lagrange" else 0.0) + b_c
                 for pair, F, cap, flat in zip(fits, work, caps, fixed) if not flat for b_c in (0.0, pair[1] * cap)]
        low, high = min(edges) - 1, max(edges) + 1
    for _ in range(200):
        middle = (low + high) / 2
        if sum(c * F for c, F in zip(shares(middle), work)) < removed:
            low = middle
        else:
            high = middle
    found = shares(high)
    if sum(c * F for c, F in zip(found, work)) < removed * (1 - 1e-9):
        raise ValueError(f"to remove {removed:g} is unreachable: layers without a fit stay at the share of all")
    return found, high if all(fixed) else math.exp(high)


# ---------------------------------------------------------------------------------------------------------------------
# 3. Stage two: which units go
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Layer:
    """What is left of a layer: the input channels ``kept``, and the ``rank`` of its two factors, or None for one layer."""

    kept: tuple[int, ...]
    rank: int | None = None

    def __post_init__(self):
        object.__setattr__(self, "kept", tuple(int(c) for c in self.kept))
        if not self.kept or len(set(self.kept)) < len(self.kept) or min(self.kept) < 0:
            raise ValueError("the kept channels must be distinct, from 0 on, and at least one")
        if self.rank is not None and self.rank < 1:
            raise ValueError(f"rank {self.rank} is too small; the smallest is 1")


@dataclass(frozen=True)
class Step:
    """One removal: "channel" or "rank", its index, what is left of both kinds, the cost a position, and the loss so far."""

    kind: str
    index: int
    channels: int
    ranks: int
    cost: int
    loss: float


@dataclass
class Search:
    """What ``search`` found, and how it came there. ``unit`` is what the last removal was worth, as a share of the work."""

    layer: Layer
    steps: list[Step] = field(default_factory=list)
    unit: float = 0.0


@torch.no_grad()
def search(W: torch.Tensor, G: torch.Tensor, target: float, *, gamma: float = 0.9, units: str = "joint", step: float = 0.01,
           generator: torch.Generator | None = None, round_to: int = 1) -> Search:
    """Remove units of ``W`` (Co, Ci, k, k) until the share ``target`` of its work is gone; the best by the metric first.

    In a step the metric of all units is computed and max(1, int(step (Ci + R))) of them go. If the removed channels alone
    reach the target, the removed ranks are forgotten and the layer stays one. One channel and one rank are always left.
    With ``generator`` the units go in random order. ``round_to`` rounds what is left, and the target is then met about.
    """
    _check_weight(W, G)
    Co, Ci = W.shape[:2]
    area = W[0, 0].numel()
    most = reachable(Co, Ci, area, units)
    if not 0 <= target <= most + 1e-12:
        raise ValueError(f"share {target:g} is unreachable for {Ci} to {Co} channels; it must be from 0 to {most:g}")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; the nearest is 0")
    if not 0 <= step <= 1:
        raise ValueError(f"step is {step}; it is a share from 0 to 1")
    rounded(Ci, round_to, Ci)  # refuses a wrong round_to
    W0, G0 = W.double().reshape(Co, -1), G.double().reshape(Co, -1)
    now, alive, R = W0.clone(), torch.ones(Ci, dtype=torch.bool, device=W.device), ranks(Co, Ci, area)
    dense, left, taken = cost(Co, Ci, area), R, []
    goal = target * dense * (1 - 1e-12)  # a share that is exactly met is met
    found, size, gone = None if target > 0 else Search(Layer(range(Ci))), max(1, int(step * (Ci + R))), []
    before = {"now": dense, "channels": dense}
    while found is None:
        scores = score(W, G, now, alive, left, units=units, forward=gamma > 0 and generator is None)
        channels, by_rank = scores.metric(gamma)
        every = torch.cat([channels, by_rank])
        if generator is not None:
            every = torch.rand(len(every), generator=generator).to(every).masked_fill(torch.isinf(every), torch.inf)
        order, removed = torch.argsort(every, stable=True).tolist(), []
        done = 0
        for unit in order:
            if done == size or found is not None:
                break
            if unit < len(channels):
                if int(alive.sum()) == 1 or not alive[unit]:
                    continue
                now[:, unit * area:(unit + 1) * area] = 0
                alive[unit] = False
                gone.append(unit)
                kind, index = "channel", unit
            else:
                if left == 1:
                    continue
                r = unit - len(channels)
                index = r - sum(other < r for other in removed)
                P, Q = directions(now)
                now = now - P[:, index:index + 1] * Q[index:index + 1]
                removed.append(r)
                left -= 1
                kind = "rank"
            done += 1
            kept = int(alive.sum())
            after = {"now": cost(Co, Ci, area, Ci - kept, R - left), "channels": Co * kept * area}
            taken.append(Step(kind, index, kept, left, after["now"], information_loss(W0, G0, now)))
            indices = alive.nonzero()[:, 0].tolist()
            for form, rank in (("now", None if left == R else left), ("channels", None)):
                if found is None and dense - after[form] >= goal:
                    found = Search(Layer(indices, rank), taken, (before[form] - after[form]) / dense)
            before = after
        if done == 0:
            raise AssertionError("no unit is left to remove, though the target is reachable")
    return found if round_to == 1 else _rounded(found, W, G, gone, R, round_to)


def _rounded(path: Search, W: torch.Tensor, G: torch.Tensor, gone: list[int], R: int, round_to: int) -> Search:
    """The last removed channels come back, or the ones with the smallest loss go too, until a multiple is left."""
    kept, rank = path.layer.kept, path.layer.rank
    wanted = rounded(len(kept), round_to, W.shape[1])
    alone = (G.double() * W.double()).square().sum((0, 2, 3))
    order = [*gone, *sorted(kept, key=lambda c: (float(alone[c]), c))]
    path.layer = Layer(sorted(order[len(order) - wanted:]), None if rank is None else rounded(rank, round_to, R))
    return path


@torch.no_grad()
def rebuild(W: torch.Tensor, layer: Layer) -> tuple[torch.Tensor, ...]:
    """The new weights: (W[:, kept],), or W₁ = S^½ Vᵀ (r, kept, k, k) and W₂ = U S^½ (Co, r, 1, 1), of the original weight."""
    if max(layer.kept) >= W.shape[1]:
        raise ValueError(f"channel {max(layer.kept)} is kept, and the layer has {W.shape[1]}")
    slice_ = W[:, list(layer.kept)]
    if layer.rank is None:
        return (slice_.clone(),)
    U, S, Vt = torch.linalg.svd(slice_.double().flatten(1), full_matrices=False)
    r = min(layer.rank, len(S))
    root = S[:r].sqrt()
    first = (root[:, None] * Vt[:r]).view(r, *slice_.shape[1:])
    return first.to(W.dtype), (U[:, :r] * root)[:, :, None, None].to(W.dtype)


@torch.no_grad()
def restored(W: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The weight (Co, Ci, k, k) that computes what the rebuilt layer does: 0 at the channels that are gone."""
    parts, found = rebuild(W, layer), torch.zeros_like(W)
    product = parts[0] if len(parts) == 1 else torch.einsum("or,rcij->ocij", parts[1][:, :, 0, 0], parts[0])
    found[:, list(layer.kept)] = product
    return found


# ---------------------------------------------------------------------------------------------------------------------
# 4. The layers and the verbs
# ---------------------------------------------------------------------------------------------------------------------


class Select(nn.Module):
    """The input channels that a layer still reads, in dimension ``dim``."""

    def __init__(self, kept: Sequence[int], dim: int = 1):
        super().__init__()
        self.dim = dim
        self.register_buffer("kept", torch.as_tensor(kept, dtype=torch.long))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.index_select(self.dim, self.kept)

    def extra_repr(self) -> str:
        return f"{len(self.kept)}"


@dataclass(frozen=True)
class CC:
    """How a network is compressed; the defaults are those of the released code.

    ``target`` is the share of the whole network's work that goes, in multiply-accumulates or, with ``budget`` "params", in
    parameters. ``gamma`` weighs the forward term, ``step`` is the share of a layer's units that go between two computations
    of the metric, ``cap`` the largest share of a layer. ``rule`` and ``units``: see ``RULES`` and ``UNITS``. ``rates``, shares
    by layer name, take the place of ``target``. The first convolution takes part with ``stem``, linear layers with ``linear``.
    ``round_to`` rounds the numbers of channels and ranks that are left; the target is then met about.
    """

    target: float = 0.5
    gamma: float = 0.9
    budget: str = "macs"
    rule: str = "equal_marginal"
    units: str = "joint"
    cap: float = 0.95
    step: float = 0.01
    rates: Mapping[str, float] | None = None
    stem: bool = False
    linear: bool = False
    round_to: int = 1
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for what, share in (("target", self.target), *((f"rate of {name}", rate) for name, rate in (self.rates or {}).items())):
            if not 0 <= share < 1:
                raise ValueError(f"{what} {share} is outside [0, 1); the nearest is {0 if share < 0 else 0.95}")
        if not 0 < self.cap < 1:
            raise ValueError(f"cap {self.cap} is outside (0, 1); the code's is 0.95")
        if not self.gamma >= 0:
            raise ValueError(f"gamma is {self.gamma}; the nearest is 0")
        if not 0 <= self.step <= 1:
            raise ValueError(f"step is {self.step}; it is a share from 0 to 1")
        if self.budget not in ("macs", "params"):
            raise ValueError(f"budget is {self.budget!r}; choose from macs, params")
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; choose from {', '.join(RULES)}")
        _check_units(self.units)
        rounded(1, self.round_to, 1)


def compressible(model: nn.Module, example: torch.Tensor, config: CC = CC()) -> dict[str, nn.Module]:
    """The layers that take part, by name: convolutions of one group but the first to run, and linear layers if asked."""
    first = next((name for name in count(model, example) if isinstance(model.get_submodule(name), nn.Conv2d)), None)

    def fits(name: str, module: nn.Module) -> bool:
        if getattr(module, "groups", 1) != 1 or (name == first and not config.stem):
            return False
        return config.filter_fn is None or config.filter_fn(name, module)

    return chosen(model, (nn.Conv2d, nn.Linear) if config.linear else nn.Conv2d, ignore=config.ignore, filter_fn=fits)


def _weight(module: nn.Module) -> torch.Tensor:
    W = module.weight.detach()
    return W if W.dim() == 4 else W[:, :, None, None]


def gradients(model: nn.Module, batches: Iterable, names: Sequence[str]) -> dict[str, torch.Tensor]:
    """G of the weights of the layers ``names``: the mean over ``batches`` (images, labels) of that of the cross-entropy.

    The network is in evaluation mode, so the batch norms use their running statistics. It is left as it was.
    """
    weights = [model.get_submodule(name).weight for name in names]
    wanted, modes = [W.requires_grad for W in weights], {module: module.training for module in model.modules()}
    total, number = [torch.zeros_like(W) for W in weights], 0
    try:
        model.eval()
        for W in weights:
            W.requires_grad_(True)
        for images, labels in batches:
            with torch.enable_grad():
                loss = functional.cross_entropy(model(images.to(weights[0].device)), labels.to(weights[0].device))
                for part, G in zip(total, torch.autograd.grad(loss, weights)):
                    part += G
            number += 1
    finally:
        for W, value in zip(weights, wanted):
            W.requires_grad_(value)
        for module, mode in modes.items():
            module.training = mode
    if not number:
        raise ValueError("there is no batch; gradients need at least one of (images, labels)")
    return {name: part / number for name, part in zip(names, total)}


@dataclass(frozen=True)
class Shares:
    """Stage one for a network: by layer the work F, the share c, the curve (c_t, I_t) and its fit; and the level x."""

    work: dict[str, float]
    share: dict[str, float]
    curves: dict[str, tuple[list[float], list[float]]]
    fits: dict[str, tuple[float, float] | None]
    x: float


def _caps(layers: Mapping[str, nn.Module], config: CC) -> dict[str, float]:
    shapes = {name: _weight(module).shape for name, module in layers.items()}
    return {name: min(config.cap, reachable(Co, Ci, k1 * k2, config.units)) for name, (Co, Ci, k1, k2) in shapes.items()}


def share_out(model: nn.Module, G: Mapping[str, torch.Tensor], example: torch.Tensor, config: CC = CC()) -> Shares:
    """Stage one: the share of its work that each layer gives, so that the network as a whole gives ``config.target``."""
    layers = compressible(model, example, config)
    costs = count(model, example)
    if config.budget == "macs":
        work, whole = {name: costs[name].macs for name in layers}, sum(cost.macs for cost in costs.values())
    else:
        work, whole = {name: module.weight.numel() for name, module in layers.items()}, parameters(model)
    caps = _caps(layers, config)
    if config.rates is not None:
        for name, rate in config.rates.items():
            if name not in layers:
                raise ValueError(f"{name!r} is no layer to compress; choose from {', '.join(layers)}")
            if rate > caps[name]:
                raise ValueError(f"{name}: share {rate:g} is unreachable; the largest is {caps[name]:g}")
        return Shares(work, {name: config.rates.get(name, 0.0) for name in layers}, {}, {}, 0.0)
    most = sum(caps[name] * work[name] for name in layers) / whole
    if config.target > most:
        raise ValueError(f"target {config.target} is unreachable: the layers that take part can give {most:.3g} of the whole")
    curves = {name: curve(_weight(module), G[name].reshape(_weight(module).shape), config.units)
              for name, module in layers.items()} if config.rule != "uniform" else {}
    fits = {name: fit_curve(*curves[name]) if name in curves else None for name in layers}
    shares, x = allocate(list(fits.values()), list(work.values()), config.target * whole, caps=list(caps.values()),
                         rule=config.rule)
    return Shares(work, dict(zip(layers, shares)), curves, fits, x)


def search_all(model: nn.Module, G: Mapping[str, torch.Tensor], shares: Mapping[str, float],
               config: CC = CC()) -> dict[str, Search]:
    """Stage two for every layer that gives something, by name."""
    found = {}
    for name, share in shares.items():
        if share > 0:
            W = _weight(model.get_submodule(name))
            try:
                found[name] = search(W, G[name].reshape(W.shape), share, gamma=config.gamma, units=config.units,
                                     step=config.step, round_to=config.round_to)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
    return found


def plan(model: nn.Module, batches: Iterable, config: CC = CC()) -> dict[str, Layer]:
    """What is left of each layer. ``batches`` of (images, labels) are all of the training data, without augmentation: a list
    or a loader, not a generator, as they are gone through twice.

    A plan is small and plain: ``{name: asdict(layer)}`` is JSON, and ``compact`` takes it back in that form.
    """
    if iter(batches) is batches:
        raise ValueError("batches is an iterator, of which the first would be lost; give a list or a loader")
    images, _ = next(iter(batches), (None, None))
    if images is None:
        raise ValueError("there is no batch; gradients need at least one of (images, labels)")
    example = images[:1].to(next(model.parameters()).device)
    G = gradients(model, batches, list(compressible(model, example, config)))
    paths = search_all(model, G, share_out(model, G, example, config).share, config)
    return {name: path.layer for name, path in paths.items()}


def _new_layer(module: nn.Conv2d | nn.Linear, layer: Layer) -> nn.Module:
    """A layer, or two, behind the selection of channels where some are gone; the bias goes with the last."""
    W = _weight(module)
    parts = rebuild(W, layer)
    how = dict(device=W.device, dtype=W.dtype)
    bias, linear = module.bias is not None, isinstance(module, nn.Linear)
    made: list[nn.Module] = []
    if len(layer.kept) < W.shape[1]:
        made.append(Select(layer.kept, -1 if linear else 1).to(W.device))
    for at, part in enumerate(parts):
        last = at == len(parts) - 1
        if linear:
            made.append(nn.Linear(part.shape[1], len(part), bias=bias and last, **how))
        elif at == 0:
            made.append(nn.Conv2d(part.shape[1], len(part), module.kernel_size, module.stride, module.padding, module.dilation,
                                  bias=bias and last, padding_mode=module.padding_mode, **how))
        else:
            made.append(nn.Conv2d(part.shape[1], len(part), 1, bias=bias, **how))
        with torch.no_grad():
            made[-1].weight.copy_(part.reshape(made[-1].weight.shape))
    if bias:
        with torch.no_grad():
            made[-1].bias.copy_(module.bias)
    return (made[0] if len(made) == 1 else nn.Sequential(*made)).train(module.training)


def compact(model: nn.Module, plan: Mapping[str, Layer | Mapping]) -> nn.Module:
    """A new, ordinary, smaller network: each layer named in ``plan`` is rebuilt from its original weights.

    The structure depends on the plan alone. So a saved network is loaded into ``compact`` of an untrained one:

    >>> small = compact(ResNetCIFAR(56), json.loads(text))
    >>> small.load_state_dict(state)
    """
    modules, found = dict(model.named_modules()), copy.deepcopy(model)
    made = {}
    for name, layer in plan.items():
        module = modules.get(name)
        if not name or not isinstance(module, nn.Conv2d | nn.Linear):
            raise ValueError(f"{name!r} is no convolution or linear layer inside this network")
        if getattr(module, "groups", 1) != 1:
            raise ValueError(f"{name} has {module.groups} groups; the method is defined for 1")
        try:
            made[name] = _new_layer(module, layer if isinstance(layer, Layer) else Layer(**layer))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, module in made.items():
        found.set_submodule(name, module)
    return found


def compress(model: nn.Module, batches: Iterable, config: CC = CC()) -> nn.Module:
    """The whole method but the fine-tuning: gradients, shares, search and the compact network. ``model`` is left as it was.

    >>> small = compress(model, loader(train, 128, False), CC(target=0.5))
    >>> reestimate_(small, batches)
    """
    return compact(model, plan(model, batches, config))


@torch.no_grad()
def reestimate_(model: nn.Module, batches: Iterable) -> None:
    """Measure the statistics of all batch norms anew, in one pass over ``batches`` (images, labels); no weight moves."""
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
             and module.track_running_stats]
    modes, momenta = {module: module.training for module in model.modules()}, [module.momentum for module in norms]
    device = next(model.parameters()).device
    try:
        model.eval()
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
            module.train()
        for images, _ in batches:
            model(images.to(device))
    finally:
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def clipped(model: nn.Module, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 1e-4,
            norm: float = 1.0) -> torch.optim.SGD:
    """SGD before whose every step the gradient of all parameters is cut to length ``norm``, for the fine-tuning."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)

    def clip(optimizer, args, kwargs) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer


# ---------------------------------------------------------------------------------------------------------------------
# 5. The paper's networks
# ---------------------------------------------------------------------------------------------------------------------

#: The networks of the released code: how each is built, and the side of its images.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet56": (lambda: ResNetCIFAR(56), 32), "densenet40": (DenseNetCIFAR, 32), "googlenet": (GoogLeNet, 32),
    "vgg16": (VGG, 32), "resnet50": (ResNetImageNet, 224)}


@functools.cache
def counts(name: str) -> dict[str, int]:
    """MACs and parameters of a dense network of the paper, and of MACs those of convolutions and of the classifier."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    build, side = NETWORKS[name]
    with torch.device("meta"):
        model = build().eval()
        costs = count(model, torch.empty(1, 3, side, side))
        linear = sum(cost.macs for layer, cost in costs.items() if isinstance(model.get_submodule(layer), nn.Linear))
        total = sum(cost.macs for cost in costs.values())
        return {"macs": total, "macs.conv": total - linear, "macs.fc": linear, "params": parameters(model)}


#: What the abstract says was removed of ResNet-50: of the multiply-accumulates and of the parameters.
REMOVED = {"macs": 0.529, "params": 0.484}

#: Three layers whose global problem was solved by the authors' code: a, b and millions of multiply-accumulates.
THREE = {"a": (0.05381017, 0.01935493, 0.04952079), "b": (2.8821138, 4.0135887, 3.2393183),
         "F": (117.0505728, 234.1011456, 43.352064)}


def cost_difference(sizes: Sequence[tuple[int, int, int]] = ((7, 5, 3), (5, 11, 1), (4, 2, 3))) -> int:
    """The largest difference between ``cost`` and the count of the rebuilt layer, over all numbers of units removed."""
    worst = 0
    for Co, Ci, k in sizes:
        model, example = nn.Sequential(nn.Conv2d(Ci, Co, k, padding=k // 2, bias=False)), torch.zeros(1, Ci, 4, 5)
        R = ranks(Co, Ci, k * k)
        for p in range(Ci):
            for z in range(R):
                if z and R - z > ranks(Co, Ci - p, k * k):
                    continue  # fewer channels have fewer singular values than are left
                small = compact(model, {"0": Layer(range(p, Ci), R - z if z else None)})
                for found in (macs(small, example) // 20, parameters(small)):
                    worst = max(worst, abs(found - cost(Co, Ci, k * k, p, z)))
    return worst


def forward_difference(draws: int = 5) -> float:
    """The largest relative difference between the closed forward term and removing every unit that is left in turn."""
    worst = 0.0
    for seed in range(draws):
        draw = torch.Generator().manual_seed(seed)
        W, G = (torch.randn(6, 4, 3, 3, generator=draw, dtype=torch.float64) for _ in range(2))
        found = score(W, G)
        for closed, slow in zip((found.channels_forward, found.ranks_forward), slow_forward(W, G)):
            worst = max(worst, float(((closed - slow) / slow).abs().max()))
    return worst


def slow_forward(W: torch.Tensor, G: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Fwd of every unit as it is defined: the mean loss after each of the other units went as well."""
    Co, Ci = W.shape[:2]

    def without(K: torch.Tensor, kind: str, index: int) -> torch.Tensor:
        K = K.clone()
        if kind == "channel":
            K[:, index] = 0
            return K
        P, Q = directions(K.reshape(Co, -1))
        return K - (P[:, index:index + 1] * Q[index:index + 1]).view_as(K)

    R, found = ranks(Co, Ci, W[0, 0].numel()), []
    for kind, number in (("channel", Ci), ("rank", R)):
        values = []
        for index in range(number):
            K = without(W, kind, index)
            losses = [information_loss(W, G, without(K, "channel", c)) for c in range(Ci) if (kind, index) != ("channel", c)]
            losses += [information_loss(W, G, without(K, "rank", r)) for r in range(R - (kind == "rank"))]
            values.append(sum(losses) / len(losses))
        found.append(torch.tensor(values, dtype=W.dtype))
    return found[0], found[1]


def outside(seed: int = 0, target: float = 0.5) -> tuple[int, list[dict]]:
    """Layers of a ResNet-14 with its first weights that give less than their share, or more by a unit or more.

    The whole pipeline runs for both kinds of units and for each alone; a row a layer says what it should give and gives.
    """
    seed_everything(seed)
    draw = torch.Generator().manual_seed(seed)
    model, example = ResNetCIFAR(14, stages=(8, 12, 16)).eval(), torch.zeros(1, 3, 16, 16)
    batches = [(torch.randn(16, 3, 16, 16, generator=draw), torch.randint(0, 10, (16,), generator=draw)) for _ in range(2)]
    dense, rows = count(model, example), []
    for units in UNITS:
        config = CC(target=target, units=units)
        G = gradients(model, batches, list(compressible(model, example, config)))
        shares = share_out(model, G, example, config)
        paths = search_all(model, G, shares.share, config)
        left = count(compact(model, {name: path.layer for name, path in paths.items()}), example)
        for name, path in paths.items():
            now = sum(cost.macs for layer, cost in left.items() if f"{layer}.".startswith(f"{name}."))
            rows.append({"units": units, "layer": name, "goal": shares.share[name], "gives": 1 - now / dense[name].macs,
                         "unit": path.unit, "F": dense[name].macs,
                         "whole": 1 - sum(cost.macs for cost in left.values()) / sum(cost.macs for cost in dense.values())})
    wrong = [row for row in rows if not row["goal"] - 1e-9 <= row["gives"] < row["goal"] + row["unit"]]
    return len(wrong), rows


def facts() -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found: dict[str, float] = {"target.ratio": CC().target, "target.gamma": CC().gamma}
    for name, short in (("resnet56", "r56"), ("densenet40", "d40"), ("googlenet", "googlenet")):
        found |= {f"{short}.{key}": counts(name)[key] for key in ("macs", "params")}
    found |= {f"r50.dense.{key}": value for key, value in counts("resnet50").items()}
    found |= {f"r50.left.{key}": round((1 - share) * counts("resnet50")[key]) for key, share in REMOVED.items()}
    found |= {"breakeven.c64": break_even(64, 64, 9), "breakeven.c256": break_even(64, 256, 1),
              "breakeven.c512": break_even(512, 512, 9), "cost.difference": cost_difference(),
              "unit.forward.difference": forward_difference(), "pipeline.outside": outside()[0]}
    first = score(torch.tensor([[2.0, 0], [0, 1]])[:, :, None, None], torch.tensor([[0.5, 0.1], [0.2, 1]])[:, :, None, None])
    for key, values in (("backward", (first.channels, first.ranks)), ("metric", first.metric(0.9)),
                        ("forward", (first.channels_forward, first.ranks_forward))):
        every = torch.cat(values)
        found[f"unit.{key}"] = float(max(every, key=lambda value: abs(value - every.mean())))  # all four are alike
    second = score(torch.tensor([[2.0, 1], [1, 2]])[:, :, None, None], torch.ones(2, 2, 1, 1)).metric(0.9)
    found |= {"unit.channel": float(second[0].max()), "unit.rank_large": float(second[1][0]),
              "unit.rank_small": float(second[1][1])}
    fits, work = list(zip(THREE["a"], THREE["b"])), THREE["F"]

    def total(shares: Sequence[float]) -> float:
        return sum(a * math.exp(b * c) for (a, b), c in zip(fits, shares))

    half, x = allocate(fits, work, 0.5 * sum(work))
    found |= {f"root.half.layer{i}": c * F for i, (c, F) in enumerate(zip(half, work), 1)} | {"root.half.x": x}
    for rule, key in (("equal_marginal", "marginal"), ("lagrange", "lagrange")):
        shares, _ = allocate(fits, work, 0.3 * sum(work), rule=rule)
        found |= {f"root.{key}.layer{i}": c for i, c in enumerate(shares, 1)} | {f"root.{key}.loss": total(shares)}
    return found | {"root.uniform.loss": total(allocate(fits, work, 0.3 * sum(work), rule="uniform")[0])}


# ---------------------------------------------------------------------------------------------------------------------
# 6. The experiments of the chapter, and the recipes of the paper
# ---------------------------------------------------------------------------------------------------------------------

#: The arms of the comparison: what may be removed.
ARMS = {"pruning": "channels", "decomposition": "ranks", "joint": "joint"}


def small_network() -> nn.Module:
    """Three 3×3 convolutions of 32, 32 and 48 filters, for 8×8 digits; the second and third are compressed."""
    return ConvNet((32, 32, 48), channels=1, pool=(1,))


def _accuracy(model: nn.Module, data) -> float:
    return float((logits(model, data.images).argmax(1) == data.labels).float().mean())


def trained(seed: int, *, train: int = 1000, epochs: int = 12) -> tuple[nn.Module, tuple, dict[str, torch.Tensor]]:
    """The small network trained on the digits, the data, and the gradients of its inner convolutions."""
    data = digits(train, seed)
    seed_everything(seed)
    model = small_network()
    fit(model, loader(data[0], 64, True), None, epochs=epochs, lr=cosine(0.05, epochs), weight_decay=1e-4, seed=seed)
    model.eval()
    names = list(compressible(model, data[0].images[:1]))
    return model, data, gradients(model, loader(data[0], 100, False), names)


def _lost(W: torch.Tensor, G: torch.Tensor, layer: Layer, flat: bool = False) -> float:
    """The loss of a rebuilt layer in per cent of that of removing it; with ``flat`` the squared distance instead."""
    G = torch.ones_like(W) if flat else G
    return 100 * information_loss(W, G, restored(W, layer)) / information_loss(W, G, torch.zeros_like(W))


def compare(seed: int, *, train: int = 1000, epochs: int = 12, tuning: int = 3, cuts: Sequence[float] = (0.5, 0.7)) -> dict:
    """All arms on the digits for one seed: one trained network, its two inner convolutions cut by the same share.

    ``dense``: test accuracy (a share). ``arms[cut][name]``: ``before`` and ``after`` the fine-tuning, ``macs`` left of the two
    layers as a share; and how much the weights changed, by the ``estimate`` of the loss and as a squared ``distance``, in per
    cent of what removing a layer does. Batch norms are measured anew before either accuracy. ``order``: the estimate for the
    second convolution at the first cut, by the metric, without its forward term, and in random order.
    """
    with single_thread():
        model, data, G = trained(seed, train=train, epochs=epochs)
        batches = loader(data[0], 100, False)
        found = {"seed": seed, "dense": _accuracy(model, data[1]), "arms": {}, "order": {}}
        example = data[1].images[:1]
        dense = count(model, example)
        work = sum(dense[name].macs for name in G)
        for cut in cuts:
            arms = found["arms"][cut] = {}
            for name, units in ARMS.items():
                paths = search_all(model, G, dict.fromkeys(G, cut), CC(units=units))
                small = compact(model, {layer: path.layer for layer, path in paths.items()})
                reestimate_(small, batches)
                arms[name] = {"before": _accuracy(small, data[1]),
                              "macs": 1 - (macs(model, example) - macs(small, example)) / work}
                for key, flat in (("estimate", False), ("distance", True)):
                    arms[name][key] = statistics.fmean(_lost(_weight(model.get_submodule(layer)), G[layer], path.layer, flat)
                                                       for layer, path in paths.items())
                fit(small, loader(data[0], 64, True), None, epochs=tuning, lr=cosine(0.01, tuning), seed=seed + 1,
                    optimizer=clipped)
                arms[name]["after"] = _accuracy(small, data[1])
        name = next(iter(G))
        W = _weight(model.get_submodule(name))
        for order, how in (("metric", {}), ("one step", {"gamma": 0.0}),
                           ("random", {"generator": torch.Generator().manual_seed(seed)})):
            found["order"][order] = _lost(W, G[name], search(W, G[name], cuts[0], **how).layer)
        return found


def forms(channels: int, share: float, units: str, k: int = 3) -> Layer:
    """A layer of ``channels`` to as many with about ``share`` of its work left, evenly cut: for time, not for accuracy."""
    if units == "channels":
        return Layer(range(round(channels * share)))
    kept = channels if units == "ranks" else round(channels * (1 + share) / 2)
    return Layer(range(kept), max(1, round(share * channels**2 * k * k / (kept * k * k + channels))))


def layer_times(channels: int = 64, side: int = 28, share: float = 0.5, *, seed: int = 0, repeats: int = 15,
                inner: int = 9) -> dict[str, dict[str, float]]:
    """Milliseconds of a 3×3 convolution on one image and one thread, dense and in three forms of about ``share`` of its work.

    ``ms`` and ``macs``; of the pairs also the time of the ``first`` layer alone, with the selection, of the ``second``, 1×1,
    and of a plain ``copy`` that reads and writes as many numbers as the second does.
    """
    seed_everything(seed)
    with single_thread(), torch.inference_mode():
        model = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False)).eval()
        x = torch.randn(1, channels, side, side)
        built = {"dense": model} | {name: compact(model, {"0": forms(channels, share, units)}).eval()
                                    for name, units in ARMS.items()}
        calls, found = {}, {}
        for name, module in built.items():
            found[name] = {"macs": macs(module, x)}
            calls[name, "ms"] = functools.partial(module, x)
            pair = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
            if len(pair) == 2:
                seen = module[0][:-1](x)
                calls[name, "first"], calls[name, "second"] = (functools.partial(module[0][:-1], x),
                                                               functools.partial(pair[1], seen))
                source = torch.randn((pair[1].in_channels + channels) // 2 * side * side)
                calls[name, "copy"] = functools.partial(torch.empty_like(source).copy_, source)
                found[name] |= {"second.macs": macs(pair[1], seen), "rank": pair[1].in_channels}
        for (name, what), taken in take_turns(calls, repeats=repeats, inner=inner).items():
            found[name][what] = statistics.median(taken)
    return found


#: Where a recipe finds the trained dense network and keeps its plan: the folder that ``papernets train`` writes to by itself.
RUNS = Path("runs") / "cc"


def _read(data: str, kept: dict) -> Callable:
    """The reader of a recipe; it also puts the training images without augmentation into ``kept``."""
    def read(folder: str | Path | None):
        if data.startswith("cifar"):
            first, second = read_cifar(data, None if folder is None else Path(folder))
            kept["plain"] = first
            return first, second
        train, test = image_folders(folder, data)
        kept["plain"] = ImageFolder(train.root, False)
        return train, test

    return read


def _compressed(name: str, data: str, config: CC, kept: dict) -> nn.Module:
    """The compact network of a recipe. Its plan is made once, from the trained dense network, and kept beside the log."""
    path = RUNS / f"{name}-dense-{data}" / "best.pt"
    if not path.exists():
        raise ValueError(f"{path} is not there; compression starts from a trained dense network. It is made by: "
                         f"papernets train cc --config {name}-dense-{data}")
    model = NETWORKS[name][0]()
    model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    made, written = None, RUNS / f"{name}-{data}" / "plan.json"
    if written.exists():
        made = json.loads(written.read_text(encoding="utf-8"))
    else:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        batches = loader(kept["plain"], 128 if data.startswith("cifar") else 256, False, 4)
        made = {layer: asdict(left) for layer, left in plan(copy.deepcopy(model).to(device), batches, config).items()}
        write_json(written, made)
    return compact(model, made)


def _recipe(name: str, data: str, dense: bool) -> Recipe:
    cifar, kept = data.startswith("cifar"), {}
    epochs, rate = (300, 0.1) if cifar else (90, 0.1 if dense else 0.01)
    build = NETWORKS[name][0] if dense else functools.partial(_compressed, name, data, CC(), kept)
    return Recipe(data=data, build=build, epochs=epochs, batch=128 if cifar else 256, weight_decay=1e-4,
                  lr=steps(rate, (150, 225) if cifar else (30, 60)), read=_read(data, kept),
                  augment=functools.partial(crop_and_flip, pad=8) if cifar else None, optimizer=None if dense else clipped)


#: Training of the dense networks, and compression with fine-tuning. Schedules of ImageNet are ours; the code states none.
RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{name}-{which}{data}": functools.partial(_recipe, name, data, which == "dense-")
    for name, (_, side) in NETWORKS.items() for data in ["cifar10" if side == 32 else "imagenet"] for which in ("dense-", "")}

__all__ = ["ARMS", "CC", "NETWORKS", "RECIPES", "REMOVED", "RULES", "THREE", "UNITS", "Layer", "Scores", "Search", "Select",
           "Shares", "Step", "allocate", "break_even", "clipped", "compact", "compare", "compress", "compressible", "cost",
           "cost_difference", "counts", "curve", "directions", "facts", "fit_curve", "forms", "forward_difference", "gradients",
           "information_loss", "layer_times", "outside", "plan", "ranks", "reachable", "rebuild", "reestimate_", "restored",
           "score", "search", "search_all", "share_out", "slow_forward", "small_network", "trained"]
