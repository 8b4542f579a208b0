"""The layers of LAPP, and the verbs that apply it to a network."""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.measure import count, macs
from papernets.nn import chosen, flow, replace_, surgery
from papernets.papers.lapp.method import Flops, Term, bell, gate, kept_by, push, rho_of, scores, standardise

# ---------------------------------------------------------------------------------------------------------------------
# The layers
# ---------------------------------------------------------------------------------------------------------------------

BYPASSES = ("grouped", "depthwise", None)
SCORES = ("l1", "bn")


@check.renamed(target="removed: the share that goes, 1 - target", rate="lr")
@dataclass(frozen=True)
class LAPP:
    """How a network is pruned. ``removed`` is the share of multiply-accumulates that goes, and ρ what is left of them; with
    ``budget`` "params" it is a share of the weights of convolutions and linear layers.

    ``bypass`` is a grouped 1×1 convolution, a depthwise one, or None. ``groups`` (g) is lowered where it does not divide the
    channels. ``score`` ranks filters by their mean absolute weight (``"l1"``) or by |γ| of their batch norm (``"bn"``).
    ``strength`` is λ, ``delta`` δ, ``lr`` the learning rate of the thresholds, ``progressive`` P in epochs. ``filter_fn(name,
    module)`` and ``ignore`` leave layers out, and ``pointwise`` lets 1×1 convolutions in. ``ValueError`` for values that
    cannot be.
    """

    removed: float = 0.6
    budget: str = "macs"
    bypass: str | None = "grouped"
    groups: int = 8
    score: str = "l1"
    delta: float = 1.0
    strength: float = 10.0
    push: str = "hinge"
    lr: float = 0.1
    progressive: int = 12
    pointwise: bool = False
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        check.share("removed", self.removed)
        check.one_of("bypass", self.bypass, BYPASSES)
        check.one_of("score", self.score, SCORES)
        check.one_of("push", self.push, ("hinge", "square"))
        check.one_of("budget", self.budget, ("macs", "params"))
        check.whole("groups", self.groups)
        check.whole("progressive", self.progressive)
        check.above("delta", self.delta, 1)
        check.above("lr", self.lr, 0.1)
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; it must be at least 0")

    @property
    def rho(self) -> float:
        """ρ, the share that is to be left."""
        return rho_of(self.removed)


def bypass_of(conv: nn.Conv2d, config: LAPP = LAPP()) -> nn.Conv2d | None:
    """The bypass of a convolution: same inputs, outputs and stride, no bias."""
    if config.bypass is None:
        return None
    like = dict(bias=False, device=conv.weight.device, dtype=conv.weight.dtype)
    c, C = conv.in_channels, conv.out_channels
    if config.bypass == "depthwise" and c == C:
        return nn.Conv2d(c, C, conv.kernel_size, conv.stride, conv.padding, conv.dilation, groups=c, **like)
    return nn.Conv2d(c, C, 1, conv.stride, groups=math.gcd(config.groups, c, C), **like)


class ThresholdConv2d(nn.Module):
    """m ⊙ BN(conv(x)) + BN_b(bypass(x)), and the threshold τ that makes m. The activation comes after it.

    ``threshold`` is the one parameter that the method adds beyond the bypass. ``settled`` says that ``mask`` (C,) is final.
    """

    def __init__(self, conv: nn.Conv2d, bn: nn.BatchNorm2d, config: LAPP = LAPP(), bn_name: str = "", joined: bool = True):
        super().__init__()
        self.config, self.bn_name, self.joined = config, bn_name, joined
        self.conv, self.bn = conv, bn
        like = dict(device=conv.weight.device, dtype=conv.weight.dtype)
        self.bypass = bypass_of(conv, config)
        self.bn_bypass = None if self.bypass is None else nn.BatchNorm2d(conv.out_channels, **like)
        self.register_buffer("mask", torch.ones(conv.out_channels, **like))
        self.register_buffer("settled", torch.zeros((), dtype=torch.bool, device=like["device"]))
        self.threshold = nn.Parameter(torch.clamp(self.z().min() - 0.1, max=-3.0).to(**like))  # nothing is pruned yet

    def z(self) -> torch.Tensor:
        """The standardised scores (C,)."""
        if self.config.score == "bn":
            return standardise(self.bn.weight.detach().abs())
        return standardise(scores(self.conv.weight))

    def gate(self) -> torch.Tensor:
        """m (C,): what the threshold says now, or the final mask."""
        return self.mask if self.settled else gate(self.z(), self.threshold, self.config.delta)

    @torch.no_grad()
    def settle(self, keep: torch.Tensor) -> None:
        self.mask.copy_(keep)
        self.settled.fill_(True)

    def kept(self) -> torch.Tensor:
        """Indices of the filters that are kept, ascending."""
        return self.gate().detach().nonzero()[:, 0]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.gate()[:, None, None] * self.bn(self.conv(x))  # (B, C, h, w)
        return y if self.bypass is None else y + self.bn_bypass(self.bypass(x))

    def extra_repr(self) -> str:
        return f"kept={len(self.kept())} of {self.conv.out_channels}, threshold={float(self.threshold.detach()):.3g}"


class CompactConv2d(nn.Module):
    """The same layer without its masked filters: a narrow convolution whose C' outputs are added into the bypass's C.

    ``index`` (C',) says where they go. With ``slices`` they go into runs of neighbouring channels: no index is needed.
    """

    def __init__(self, conv: nn.Conv2d, bn: nn.Module, bypass: nn.Conv2d | None, bn_bypass: nn.Module | None,
                 index: torch.Tensor, width: int, bn_name: str = ""):
        super().__init__()
        self.conv, self.bn, self.bypass, self.bn_bypass, self.width, self.bn_name = conv, bn, bypass, bn_bypass, width, bn_name
        self.register_buffer("index", index.clone())
        self.slices: tuple[tuple[int, int, int], ...] | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.bn(self.conv(x))  # (B, C', h, w)
        if self.bypass is None:
            y = z.new_zeros(len(z), self.width, *z.shape[2:])
        else:
            y = self.bn_bypass(self.bypass(x))  # (B, C, h, w)
        if self.slices is None:
            return y.index_add_(1, self.index, z)
        for start, place, length in self.slices:
            y[:, place : place + length] += z[:, start : start + length]
        return y

    def extra_repr(self) -> str:
        return f"kept={len(self.index)} of {self.width}" + (f", slices={len(self.slices)}" if self.slices else "")

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def units_of(model: nn.Module) -> dict[str, ThresholdConv2d]:
    """The layers of ``model`` that have a threshold, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, ThresholdConv2d)}


def prunable(model: nn.Module, config: LAPP, example: torch.Tensor) -> dict[str, str]:
    """The convolutions that ``attach_`` works on, each with its batch norm, by name.

    ``ValueError`` if there is none, or if one is padded so that its bypass has another size.
    """
    seen = flow(model, example)
    norms = {name: behind[0] for name, behind in seen.norms.items() if len(behind) == 1}
    twice = {name for name, number in seen.calls.items() if number > 1}

    def fits(name: str, conv: nn.Module) -> bool:
        able = conv.groups == 1 and name in norms and name not in seen.first | twice and norms[name] not in twice
        sized = config.pointwise or any(size > 1 for size in conv.kernel_size)
        return able and sized and (config.filter_fn is None or config.filter_fn(name, conv))

    convs = chosen(model, nn.Conv2d, ignore=config.ignore, filter_fn=fits)
    for name, conv in convs.items():
        same = conv.padding == "same" or (not isinstance(conv.padding, str) and all(
            2 * p == d * (k - 1) for p, d, k in zip(conv.padding, conv.dilation, conv.kernel_size)))
        if config.bypass and not same:
            raise ValueError(f"{name} has padding {conv.padding} for windows of {conv.kernel_size}, so a bypass has another "
                             "size; pad by half the window, or leave it out with ignore")
    return {name: norms[name] for name in convs}


def readers_of(plain: nn.Module, name: str, example: torch.Tensor) -> dict[str, int] | None:
    """The layers that become smaller when ``name`` loses a filter, and by how many channels; None if it cannot lose one.

    It cannot where its outputs are added to those of others. A depthwise convolution loses a filter itself, and 0 channels.
    """
    C = plain.get_submodule(name).out_channels
    if C == 1:
        return {}
    try:
        narrow = surgery.keep_filters(plain, {name: torch.arange(C - 1)}, example)
    except ValueError:
        return None
    readers = {}
    for other, module in plain.named_modules():
        if other != name and isinstance(module, nn.Conv2d | nn.Linear):
            before, after = module.weight.shape, narrow.get_submodule(other).weight.shape
            if before != after:
                readers[other] = before[1] - after[1]
    return readers


def flops_of(model: nn.Module, pruned: Sequence[str], config: LAPP, example: torch.Tensor) -> tuple[Flops, set[str]]:
    """F of the plain ``model`` if the convolutions ``pruned`` are, and which of these cannot be removed from the rest."""
    modules, example = dict(model.named_modules()), example[:1]
    costs = {name: cost.macs if config.budget == "macs" else modules[name].weight.numel()
             for name, cost in count(model, example).items() if cost.macs}
    follows: dict[str, str] = {name: name for name in pruned}
    reads: dict[str, list[tuple[str, int]]] = {}
    joined = set(pruned)
    if config.bypass is None:
        for name in pruned:
            readers = readers_of(model, name, example)
            if readers is None:
                continue
            joined.discard(name)
            for other, channels in readers.items():
                if channels:
                    reads.setdefault(other, []).append((name, channels))
                else:
                    follows[other] = name
    terms = []
    for name, cost in costs.items():
        inputs = modules[name].weight.shape[1] if reads.get(name) else 1
        terms.append(Term(cost, follows.get(name), inputs, tuple(reads.get(name, ()))))
        bypass = bypass_of(modules[name], config) if name in pruned else None
        if bypass is not None:
            conv = modules[name]
            terms.append(Term(cost // conv.weight.numel() * bypass.weight.numel()))
    return Flops(sum(costs.values()), tuple(terms), {name: modules[name].out_channels for name in pruned}), joined


def attach_(model: nn.Module, config: LAPP = LAPP(), example: torch.Tensor | None = None) -> Flops:
    """Give every prunable convolution of a fresh ``model`` its threshold and its bypass, in place. Returns F.

    ``example`` is an input; it shows which batch norm belongs to which convolution, and what each layer costs. If nothing is to
    be ``removed`` the network stays as it is. Build the optimiser afterwards. ``ValueError``, with the network unchanged, if
    there is no example, if it has thresholds already, if a weight is not finite, or if so much cannot be removed.

    >>> model = ResNetCIFAR(20)
    >>> flops = attach_(model, LAPP(removed=0.597), torch.zeros(1, 3, 32, 32))
    """
    if example is None:
        raise ValueError("example is missing; give one input of the network, such as torch.zeros(1, 3, 32, 32)")
    if units_of(model):
        raise ValueError("this network has thresholds already; attach them to a plain one")
    norms = prunable(model, config, example)
    for name in norms:
        check.finite(name, model.get_submodule(name).weight, "filters are ranked by finite weights")
    if config.rho == 1:
        whole = macs(model, example[:1])
        return Flops(whole, (Term(whole),), {})
    flops, joined = flops_of(model, list(norms), config, example)
    if config.rho < flops.floor:
        raise ValueError(f"removed {config.removed} cannot be reached: with one filter a layer {flops.floor:.4f} is left; "
                         f"the nearest is {math.floor(1e4 * (1 - flops.floor)) / 1e4:g}")
    made = {name: ThresholdConv2d(model.get_submodule(name), model.get_submodule(bn), config, bn, name in joined)
            for name, bn in norms.items()}
    replace_(model, made | {bn: nn.Identity() for bn in norms.values()})
    return flops


def kept(model: nn.Module) -> dict[str, int]:
    """How many filters each pruned layer keeps now."""
    return {name: len(unit.kept()) for name, unit in units_of(model).items()}


def remaining(model: nn.Module, flops: Flops) -> float:
    """r now."""
    return flops.count(kept(model)) / flops.whole


def settled(model: nn.Module) -> bool:
    """Whether all masks are final."""
    return all(bool(unit.settled) for unit in units_of(model).values())


@check.renamed(target="removed: the share that goes, 1 - target")
@torch.no_grad()
def settle_(model: nn.Module, flops: Flops, removed: float) -> float:
    """Shift all thresholds by one common number to the largest r ≤ ρ = 1 − ``removed``, and make the masks final. Returns r.

    The shift goes up or down. Filters leave and return one by one, so bisection over their distances from the thresholds
    finds it. ``ValueError``, with the network unchanged, if a threshold is not finite, or if so much cannot be removed.
    """
    rho = rho_of(removed)
    units = units_of(model)
    distance = {name: unit.z().double() - unit.threshold.double() for name, unit in units.items()}
    for name, values in distance.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: a score or the threshold is not finite; training has diverged")
    at = torch.cat([torch.tensor([-math.inf], dtype=torch.float64), *(values.cpu() for values in distance.values())]).unique()

    def r(index: int) -> float:
        left = {name: int(kept_by(values, float(at[index])).sum()) for name, values in distance.items()}
        return flops.count(left) / flops.whole

    low, high = 0, len(at) - 1
    if r(high) > rho:
        raise ValueError(f"removed {removed} cannot be reached: filters of equal score stay together, "
                         f"and {r(high):.4f} is left")
    while low < high:  # r falls as the index rises
        middle = (low + high) // 2
        low, high = (low, middle) if r(middle) <= rho else (middle + 1, high)
    shift = float(at[low])
    for name, unit in units.items():
        unit.settle(kept_by(distance[name], shift))
        unit.threshold += max(shift, -1e6)
    return r(low)


@check.renamed(target="removed: the share that goes, 1 - target")
def uniform_(model: nn.Module, flops: Flops, removed: float) -> float:
    """The baseline: every layer keeps the same share of its filters, those of highest score. Returns r.

    It is the largest r ≤ ρ = 1 − ``removed``, or that of one filter a layer, if that is more.
    """
    return uniform_to_(model, flops, rho_of(removed))


@torch.no_grad()
def uniform_to_(model: nn.Module, flops: Flops, rho: float) -> float:
    """``uniform_`` for an ``rho`` of any size, such as those on the way to the target, which begin above 1."""
    units = units_of(model)

    def left(share: float) -> dict[str, int]:
        return {name: max(1, int(share * C + 1e-9)) for name, C in flops.widths.items()}

    shares = sorted({number / C for C in flops.widths.values() for number in range(1, C + 1)}, reverse=True)
    share = next((share for share in shares if flops.count(left(share)) <= rho * flops.whole), shares[-1])
    for name, unit in units.items():
        keep = torch.zeros_like(unit.mask)
        keep[torch.argsort(unit.z(), descending=True, stable=True)[: left(share)[name]]] = 1
        unit.settle(keep)
    return flops.count(left(share)) / flops.whole


def pace(flops: Flops, config: LAPP, steps: int) -> float:
    """The ``lr`` at which the constraint alone lifts a threshold from −3 to 0 in ``steps`` steps.

    For a layer of average share, and scores that are normal. Half the steps of the progressive phase are a good choice: with
    too high a rate the network collapses within an epoch, with too low a one it is cut at the end of the phase. ``ValueError``
    if there are no steps, no constraint, or no pruned layers.
    """
    if steps < 1 or not config.strength or not flops.widths:
        raise ValueError(f"steps {steps}, strength {config.strength}, {len(flops.widths)} pruned layers: all must be above 0")
    z = torch.special.ndtri((torch.arange(999, dtype=torch.float64) + 0.5) / 999)
    way = sum(0.1 / float(bell(z - tau, config.delta).mean()) for tau in torch.arange(-2.95, 0, 0.1).tolist())
    full = flops.count(flops.widths)
    shares = [C * (full - flops.count(dict(flops.widths) | {name: C - 1})) / flops.whole for name, C in flops.widths.items()]
    return way / (config.strength * statistics.mean(shares) * steps)


def step_thresholds_(model: nn.Module, flops: Flops, config: LAPP) -> None:
    """One step of plain gradient descent on the thresholds, without momentum or decay; settles as soon as r ≤ ρ."""
    units = units_of(model).values()
    if settled(model):
        return
    with torch.no_grad():
        for unit in units:
            if unit.threshold.grad is not None:
                unit.threshold -= config.lr * unit.threshold.grad
                unit.threshold.grad = None
    if remaining(model, flops) <= config.rho:
        settle_(model, flops, config.removed)


def objective(model: nn.Module, flops: Flops, config: LAPP) -> Callable:
    """loss(outputs, images, labels): the cross-entropy, and λ h(r − ρ) until the masks are final."""
    def loss(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = functional.cross_entropy(outputs, labels)
        if settled(model):
            return value
        r = flops.share({name: unit.gate() for name, unit in units_of(model).items()})
        return value + config.strength * push(r, config.rho, config.push)

    return loss


def optimiser(model: nn.Module, flops: Flops, config: LAPP, lr: float = 0.1, momentum: float = 0.9,
              weight_decay: float = 5e-4) -> torch.optim.SGD:
    """SGD with momentum for the weights; after each of its steps the thresholds take theirs.

    Weight decay would pull a threshold from −3 towards 0, that is towards more pruning.
    """
    own = {id(unit.threshold) for unit in units_of(model).values()}
    weights = [p for p in model.parameters() if id(p) not in own]
    sgd = torch.optim.SGD(weights, lr, momentum=momentum, weight_decay=weight_decay)
    sgd.register_step_post_hook(lambda *_: step_thresholds_(model, flops, config))
    return sgd
