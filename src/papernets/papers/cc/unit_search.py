"""Stage two of CC: which units of a layer go."""

from dataclasses import dataclass, field

import torch

from papernets import check
from papernets.nn import rounded
from papernets.papers.cc.method import Layer, check_weight, cost, directions, information_loss, ranks, reachable, score


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
    """The ``layer`` that ``search`` left, and how it came there. ``unit``: the last removal's worth, as a share of the work."""

    layer: Layer
    steps: list[Step] = field(default_factory=list)
    unit: float = 0.0


class _Way:
    """A layer (Co, Ci, k, k) while its units go, as a matrix (Co, Ci k²) in double precision.

    ``alive`` (Ci,) is true for channels that are left, ``left`` is the number of ranks, ``gone`` lists the channels in the
    order in which they went. ``work`` is that of the layer as it is now and of the layer without its channels alone, and
    ``before`` what it was one removal earlier.
    """

    def __init__(self, W: torch.Tensor, G: torch.Tensor):
        (self.Co, self.Ci), self.area = W.shape[:2], W[0, 0].numel()
        self.W, self.G = W.double().reshape(self.Co, -1), G.double().reshape(self.Co, -1)
        self.now, self.alive = self.W.clone(), torch.ones(self.Ci, dtype=torch.bool, device=W.device)
        self.R = self.left = ranks(self.Co, self.Ci, self.area)
        self.dense = cost(self.Co, self.Ci, self.area)
        self.work = self.before = (self.dense, self.dense)
        self.gone: list[int] = []
        self.steps: list[Step] = []

    def remove_channel(self, c: int) -> bool:
        """Whether channel ``c`` went: it stays if it is the last one, and may have gone before."""
        if int(self.alive.sum()) == 1 or not self.alive[c]:
            return False
        self.now[:, c * self.area:(c + 1) * self.area] = 0
        self.alive[c] = False
        self.gone.append(c)
        self._note("channel", c)
        return True

    def remove_rank(self, r: int) -> bool:
        """Whether the ``r``-th singular direction of what is left went: the last one stays."""
        if self.left == 1:
            return False
        P, Q = directions(self.now)
        self.now = self.now - P[:, r:r + 1] * Q[r:r + 1]
        self.left -= 1
        self._note("rank", r)
        return True

    def _note(self, kind: str, index: int) -> None:
        kept = int(self.alive.sum())
        self.before = self.work
        self.work = (cost(self.Co, self.Ci, self.area, self.Ci - kept, self.R - self.left), self.Co * kept * self.area)
        self.steps.append(Step(kind, index, kept, self.left, self.work[0], information_loss(self.W, self.G, self.now)))

    def reached(self, goal: float) -> Search | None:
        """What is left, if ``goal`` of the work is gone; first of the layer as it is, then of its channels alone."""
        for before, now, rank in zip(self.before, self.work, (None if self.left == self.R else self.left, None)):
            if self.dense - now >= goal:
                return Search(Layer(self.alive.nonzero()[:, 0].tolist(), rank), self.steps, (before - now) / self.dense)
        return None

    def go_on(self, order: list[int], channels: int, size: int, goal: float) -> Search | None:
        """Remove ``size`` units in ``order``, of which the first ``channels`` numbers are channels, or stop at the ``goal``."""
        done, removed = 0, []
        for unit in order:
            if unit < channels:
                went = self.remove_channel(unit)
            else:
                r = unit - channels
                went = self.remove_rank(r - sum(other < r for other in removed))
                removed += [r] if went else []
            if went:
                done += 1
                path = self.reached(goal)
                if path is not None or done == size:
                    return path
        if done == 0:
            raise AssertionError("no unit is left to remove, though the share can be reached")
        return None


@torch.no_grad()
def search(W: torch.Tensor, G: torch.Tensor, removed: float, *, gamma: float = 0.9, units: str = "joint", step: float = 0.01,
           generator: torch.Generator | None = None, round_to: int = 1) -> Search:
    """Remove units of ``W`` (Co, Ci, k, k) until the share ``removed`` of its work is gone; the best by the metric first.

    In a step the metric of all units is computed and max(1, int(step (Ci + R))) of them go. If the removed channels alone
    reach the share, the removed ranks are forgotten and the layer stays one. One channel and one rank are always left.
    With ``generator`` the units go in random order. ``round_to`` rounds what is left, and the share is then met about.
    ``G`` is the gradient of the loss at ``W``. ``ValueError`` if the layer cannot give so much.
    """
    check_weight(W, G)
    Co, Ci = W.shape[:2]
    most = reachable(Co, Ci, W[0, 0].numel(), units)
    if not 0 <= removed <= most + 1e-12:
        raise ValueError(f"share {removed:g} is unreachable for {Ci} to {Co} channels; it must be from 0 to {most:g}")
    if not gamma >= 0:
        raise ValueError(f"gamma is {gamma}; the nearest is 0")
    check.share("step", step, "[]")
    rounded(Ci, round_to, Ci)  # refuses a wrong round_to
    way = _Way(W, G)
    goal, size = removed * way.dense * (1 - 1e-12), max(1, int(step * (Ci + way.R)))  # a share that is exactly met is met
    path = None if removed > 0 else Search(Layer(range(Ci)))
    while path is None:
        scores = score(W, G, way.now, way.alive, way.left, units=units, forward=gamma > 0 and generator is None)
        channels, directions_left = scores.metric(gamma)
        every = torch.cat([channels, directions_left])
        if generator is not None:
            every = torch.rand(len(every), generator=generator).to(every).masked_fill(torch.isinf(every), torch.inf)
        path = way.go_on(torch.argsort(every, stable=True).tolist(), len(channels), size, goal)
    return path if round_to == 1 else _rounded(path, W, G, way, round_to)


def _rounded(path: Search, W: torch.Tensor, G: torch.Tensor, way: _Way, round_to: int) -> Search:
    """The last removed channels come back, or the ones with the smallest loss go too, until a multiple is left."""
    kept, rank = path.layer.kept, path.layer.rank
    wanted = rounded(len(kept), round_to, way.Ci)
    alone = (G.double() * W.double()).square().sum((0, 2, 3))
    order = [*way.gone, *sorted(kept, key=lambda c: (float(alone[c]), c))]
    path.layer = Layer(sorted(order[len(order) - wanted:]), None if rank is None else rounded(rank, round_to, way.R))
    return path
