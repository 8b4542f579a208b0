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

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from papernets import check

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors: units, cost, metric
# ---------------------------------------------------------------------------------------------------------------------

#: What may be removed: channels and ranks, channels only (pruning), ranks only (decomposition).
UNITS = ("joint", "channels", "ranks")
#: How the work is shared out: as the code does, as the Lagrange condition of the budget says, or one share for all layers.
RULES = ("equal_marginal", "lagrange", "uniform")


def ranks(Co: int, Ci: int, area: int) -> int:
    """R: singular values of a weight of ``Co`` × ``Ci`` kernels of ``area`` = k² numbers."""
    return min(Co, Ci * area)


def cost(Co: int, Ci: int, area: int, p: int = 0, z: int = 0) -> int:
    """Multiply-accumulates of an output position with ``p`` channels and ``z`` ranks removed; also the number of weights.

    ``ValueError`` if there are not so many.
    """
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
    check.one_of("units", units, UNITS)
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


def check_weight(W: torch.Tensor, G: torch.Tensor) -> None:
    """``ValueError`` unless ``W`` and its gradient ``G`` are both (Co, Ci, k, k), and finite."""
    if W.dim() != 4:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci, k, k), of a linear layer (Co, Ci, 1, 1)")
    if G.shape != W.shape:
        raise ValueError(f"the gradient has shape {tuple(G.shape)}, and the weight {tuple(W.shape)}; they must be equal")
    check.finite("the weight", W, "it has no singular values")
    check.finite("the gradient", G, "it tells no loss")


def directions(K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """P (Co, R) and Q (R, d) of a matrix K (Co, d), so that T_r = P[:, r] Q[r], the largest singular value first."""
    U, S, Vt = torch.linalg.svd(K, full_matrices=False)
    return U, S[:, None] * Vt


def _squares(K: torch.Tensor, G2: torch.Tensor, channels: torch.Tensor, area: int, budget: int = 1 << 24) -> torch.Tensor:
    """Σ G² Σ_r T_r² of K (Co, d) without each of ``channels`` (C,) in turn, T_r its rank-one parts: (C,).

    With the eigenvectors of K Kᵀ, or of Kᵀ K where that is smaller, no singular value is divided by.
    """
    Co, d = K.shape
    sums = []
    for some in channels.split(max(1, budget // (Co * d))):
        without = K.expand(len(some), Co, d).clone()  # a copy: candidates share no memory
        columns = some[:, None] * area + torch.arange(area, device=K.device)  # (C, k²)
        without.scatter_(2, columns[:, None].expand(-1, Co, -1), 0)
        if Co <= d:
            gone = K[:, columns].permute(1, 0, 2)  # (C, Co, k²)
            U = torch.linalg.eigh(K @ K.T - gone @ gone.mT)[1]  # (C, Co, Co)
            sums.append(((U.mT @ without).square() * (U.mT.square() @ G2)).sum((1, 2)))
        else:
            V = torch.linalg.eigh(without.mT @ without)[1]  # (C, d, d)
            sums.append(((without @ V).square() * (G2 @ V.square())).sum((1, 2)))
    return torch.cat(sums)


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


@dataclass(frozen=True)
class _Sums:
    """G² (Co, d), the original and the current weight (Co, d), what the sums over them need, and how they are weighed."""

    G2: torch.Tensor
    W: torch.Tensor
    now: torch.Tensor
    area: int
    kinds: int
    N: int

    def each(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """Σ G² ⊙ a ⊙ b of every channel (Ci,)."""
        return (self.G2 * a * b).reshape(len(a), -1, self.area).sum((0, 2))

    def forward(self, loss: torch.Tensor, cross: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        """Fwd of units: their loss now, Σ G² ⊙ (K − W) ⊙ K, and the sum of the squares of all units of K."""
        return loss - 2 * self.kinds / self.N * cross + squares / self.N


def _of_ranks(sums: _Sums, left: int, forward: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """B and Fwd (left,) of the ranks."""
    G2, now, D = sums.G2, sums.now, sums.now - sums.W
    P, Q = directions(now)
    P, Q = P[:, :left], Q[:left]
    TT, TD, TK = (P.square() * (G2 @ Q.square().T)).sum(0), (P * ((G2 * D) @ Q.T)).sum(0), (P * ((G2 * now) @ Q.T)).sum(0)
    B = (sums.each(D, D).sum() - 2 * TD + TT).clamp(min=0)
    if not forward:
        return B, torch.zeros_like(B)
    squares = TT.sum() - TT
    if sums.kinds == 2:
        squares = squares + sums.each(now, now).sum() - 2 * TK + TT
    return B, sums.forward(B, sums.each(D, now).sum() - TD - TK + TT, squares)


def _of_channels(sums: _Sums, alive: torch.Tensor, forward: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """B and Fwd (Ci,) of the channels; B is infinite where one is gone."""
    now, D = sums.now, sums.now - sums.W
    DD, DK, KK, WW = sums.each(D, D), sums.each(D, now), sums.each(now, now), sums.each(sums.W, sums.W)
    B = (DD.sum() - DD + WW).clamp(min=0)
    if not forward:
        return torch.where(alive, B, torch.inf), torch.zeros_like(B)
    squares = KK.sum() - KK
    if sums.kinds == 2:
        at = alive.nonzero()[:, 0]
        squares[at] = squares[at] + _squares(now, sums.G2, at, sums.area)
    return torch.where(alive, B, torch.inf), sums.forward(B, DK.sum() - DK, squares)


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
    check_weight(W, G)
    check.one_of("units", units, UNITS)
    Co, Ci = W.shape[:2]
    area = W[0, 0].numel()
    W0, G2 = (tensor.double().reshape(Co, -1) for tensor in (W, G.double().square()))  # (Co, Ci k²)
    now = W0 if now is None else now.double().reshape(Co, -1)
    alive = torch.ones(Ci, dtype=torch.bool, device=W.device) if alive is None else alive
    left = ranks(Co, Ci, area) if left is None else left
    by_channel, by_rank = units != "ranks", units != "channels"
    n = by_channel * int(alive.sum()) + by_rank * left
    sums = _Sums(G2, W0, now, area, by_channel + by_rank, max(1, n - 1))
    none = (W0.new_zeros(0), W0.new_zeros(0))
    of_ranks = _of_ranks(sums, left, forward) if by_rank else none
    of_channels = _of_channels(sums, alive, forward) if by_channel else none
    return Scores(of_channels[0], of_ranks[0], of_channels[1], of_ranks[1])

# ---------------------------------------------------------------------------------------------------------------------
# Stage one: how much each layer gives
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def curve(W: torch.Tensor, G: torch.Tensor, units: str = "joint") -> tuple[list[float], list[float]]:
    """c_t and I_t: the share of work removed and the loss, while all units go in the order of their loss alone.

    ``W`` and its gradient ``G`` are (Co, Ci, k, k); there is a point for each unit.
    """
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
    ``ValueError`` if so much cannot be removed.
    """
    check.one_of("rule", rule, RULES)
    caps = [caps] * len(work) if isinstance(caps, int | float) else list(caps)
    most = sum(cap * F for cap, F in zip(caps, work))
    if removed < 0 or removed > most * (1 + 1e-12):
        raise ValueError(f"to remove {removed:g} is unreachable; it must be from 0 to {most:g}, what the layers can give")
    if removed == 0:
        return [0.0] * len(work), 0.0
    fits = [None if rule == "uniform" else fit for fit in fits]
    prices = [math.log(F) if rule == "lagrange" else 0.0 for F in work]
    flat = all(fit is None for fit in fits)

    def shares(level: float) -> list[float]:
        at_level = []
        for fit, price, cap in zip(fits, prices, caps):
            if fit is None:
                share = level if flat else removed / sum(work)  # one level for all, if no layer has a fit
            else:
                share = (level + price - math.log(fit[0]) - math.log(fit[1])) / fit[1]
            at_level.append(min(max(share, 0.0), cap))
        return at_level

    def given(level: float) -> float:
        return sum(c * F for c, F in zip(shares(level), work))

    low, high = (0.0, max(caps)) if flat else _levels(fits, prices, caps)
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if given(middle) < removed else (low, middle)
    if given(high) < removed * (1 - 1e-9):
        raise ValueError(f"to remove {removed:g} is unreachable: layers without a fit stay at the share of all")
    return shares(high), high if flat else math.exp(high)


def _levels(fits: Sequence[tuple[float, float] | None], prices: Sequence[float], caps: Sequence[float]) -> tuple[float, float]:
    """The logarithms of two levels: one at which no layer with a fit gives anything, one at which each gives its cap."""
    edges = [math.log(fit[0]) + math.log(fit[1]) - price + slope for fit, price, cap in zip(fits, prices, caps)
             if fit is not None for slope in (0.0, fit[1] * cap)]
    return min(edges) - 1, max(edges) + 1

# ---------------------------------------------------------------------------------------------------------------------
# The layer that is left
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
        if self.rank is not None:
            check.whole("the rank", self.rank)


@torch.no_grad()
def rebuild(W: torch.Tensor, layer: Layer) -> tuple[torch.Tensor, ...]:
    """The new weights: (W[:, kept],), or W₁ = S^½ Vᵀ (r, kept, k, k) and W₂ = U S^½ (Co, r, 1, 1), of the original weight.

    ``ValueError`` if a channel is kept that the weight (Co, Ci, k, k) does not have.
    """
    if max(layer.kept) >= W.shape[1]:
        raise ValueError(f"channel {max(layer.kept)} is kept, and the layer has {W.shape[1]}")
    part = W[:, list(layer.kept)]
    if layer.rank is None:
        return (part.clone(),)
    U, S, Vt = torch.linalg.svd(part.double().flatten(1), full_matrices=False)
    r = min(layer.rank, len(S))
    root = S[:r].sqrt()
    first = (root[:, None] * Vt[:r]).view(r, *part.shape[1:])
    return first.to(W.dtype), (U[:, :r] * root)[:, :, None, None].to(W.dtype)


@torch.no_grad()
def restored(W: torch.Tensor, layer: Layer) -> torch.Tensor:
    """The weight (Co, Ci, k, k) that computes what the rebuilt layer does: 0 at the channels that are gone."""
    parts, whole = rebuild(W, layer), torch.zeros_like(W)
    product = parts[0] if len(parts) == 1 else torch.einsum("or,rcij->ocij", parts[1][:, :, 0, 0], parts[0])
    whole[:, list(layer.kept)] = product
    return whole
