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
from dataclasses import dataclass, field

import torch

from papernets.nn import rounded

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors: units, cost, metric
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
# Stage one: how much each layer gives
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
# Stage two: which units go
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
