"""LAPP: Layer Adaptive Progressive Pruning for Compressing CNNs from Scratch.

Pucheng Zhai, Kailing Guo, Fang Liu, Xiaofen Xing, Xiangmin Xu; arXiv 2309.14157, 2023. No code was published.

How much to remove from each layer is learned, with one number a layer: filters whose score is below the layer's threshold are
masked. The task's loss and a limit on the multiply-accumulates of the whole network move the thresholds during the first epochs
of training from scratch, so the network becomes narrow step by step. Every layer gets a cheap bypass before training, which
keeps its output at full width however few filters are left.

The abstract fixes: a learnable threshold for each layer; a constraint on the network's FLOPs; thresholds guided by both the
task's loss and the constraint, gradually, while scores change; pruning in the first few epochs, from scratch; rates per layer
that nobody sets; a compression rate that is set; a lightweight bypass on each layer to be pruned, added before training. It
gives no formula. All formulas here are our reading of the abstract.

Symbols: W (C, c, k, k), s the scores of C filters, z the scores standardised within the layer, τ the threshold, m the mask,
δ the width of the surrogate gradient, F the multiply-accumulates and F_0 those of the plain network, r = F/F_0, ρ the target,
λ the strength of the constraint, g the groups of the bypass, P the epochs of the progressive phase.

Differs: "FLOPs" are multiply-accumulates of convolutions and linear layers, the bypass included; the abstract does not say.
Differs: 1×1 convolutions, convolutions in groups and the one that reads the image keep all filters, and so do convolutions
    without a batch norm of their own. ``pointwise`` lets 1×1 convolutions in. The abstract does not say which are pruned.
Differs: a depthwise bypass needs as many outputs as inputs; other layers get the grouped one.
"""

import copy
import functools
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from papernets.data import digits
from papernets.measure import count, macs, parameters, take_turns
from papernets.nn import ConvNet, PadShortcut, ResNetBasic, ResNetCIFAR, chosen, flow, surgery
from papernets.training import Recipe, Schedule, accuracy, cosine, fit, loader, seed_everything, single_thread, steps

# ---------------------------------------------------------------------------------------------------------------------
# 1. Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------


def scores(W: torch.Tensor) -> torch.Tensor:
    """s (C,): the mean absolute weight of each filter of ``W`` (C, c, k, k)."""
    return W.detach().abs().flatten(1).mean(1)


def standardise(s: torch.Tensor) -> torch.Tensor:
    """z (C,): ``s`` less its mean, over its standard deviation (of the sample). All 0 where the scores do not differ.

    Without this step no threshold would have a usable scale: freshly drawn filters differ by a few per cent.
    """
    s = s.detach()
    if len(s) == 1:
        return torch.zeros_like(s)
    mean, std = s.mean(), s.std()
    spread = std > 1e-6 * s.abs().max()  # less than that is rounding
    return torch.where(spread, (s - mean) / torch.where(spread, std, torch.ones_like(std)), torch.zeros_like(s))


def kept_by(z: torch.Tensor, tau: torch.Tensor | float) -> torch.Tensor:
    """True (C,) where a filter is kept: z > τ, and always the filter of highest score. Equal scores all survive."""
    return (z > tau) | (z == z.max())


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, tau, delta):
        ctx.save_for_backward(z, tau)
        ctx.delta = delta
        return kept_by(z, tau).to(z.dtype)

    @staticmethod
    def backward(ctx, grad):
        z, tau = ctx.saved_tensors
        return None, -(grad * bell(z - tau, ctx.delta)).sum().reshape(tau.shape), None


def bell(distance: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    """σ'(distance / δ) / δ: how much a filter's mask counts as changing when the threshold moves."""
    share = torch.sigmoid(distance / delta)
    return share * (1 - share) / delta


def gate(z: torch.Tensor, tau: torch.Tensor, delta: float = 1.0) -> torch.Tensor:
    """m (C,): ``kept_by`` as numbers, with the surrogate gradient ∂m/∂τ = −σ'((z − τ)/δ)/δ. No gradient reaches ``z``."""
    return _Gate.apply(z.detach(), tau, delta)


def push(r: torch.Tensor, rho: float, how: str = "hinge") -> torch.Tensor:
    """h(r − ρ): max(0, r − ρ), or its ``"square"``, which slows down before the target."""
    over = torch.clamp(r - rho, min=0)
    return over if how == "hinge" else over.square()


@dataclass(frozen=True)
class Term:
    """A layer's multiply-accumulates at full width; the pruned layer that gives it its filters; its inputs.

    ``reads`` are pruned layers whose missing filters it need not read, with the inputs that belong to a filter.
    """

    macs: int
    filters: str | None = None
    inputs: int = 1
    reads: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Flops:
    """F(m), the multiply-accumulates of a network by the number of filters that its layers keep. ``whole`` is F_0."""

    whole: int
    terms: tuple[Term, ...]
    widths: Mapping[str, int]

    def count(self, kept: Mapping[str, int]) -> int:
        """F for the ``kept`` filters of each pruned layer: what a counter finds on the compact network."""
        total = 0
        for term in self.terms:
            rows = self.widths.get(term.filters, 1)
            gone = sum(each * (self.widths[name] - int(kept[name])) for name, each in term.reads)
            total += term.macs // (rows * term.inputs) * int(kept.get(term.filters, 1)) * (term.inputs - gone)
        return total

    def share(self, masks: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """r = F(m) / F_0, with gradients to the masks (C,) of the pruned layers."""
        kept = {name: mask.sum() for name, mask in masks.items()}
        total = 0.0
        for term in self.terms:
            rows = kept[term.filters] / self.widths[term.filters] if term.filters else 1.0
            gone = sum(each * (self.widths[name] - kept[name]) for name, each in term.reads)
            total = total + term.macs / self.whole * rows * (1 - gone / term.inputs)
        return torch.as_tensor(total)

    @property
    def start(self) -> float:
        """r with all filters and the bypasses, a little above 1."""
        return self.count(self.widths) / self.whole

    @property
    def floor(self) -> float:
        """The smallest r: one filter a layer."""
        return self.count(dict.fromkeys(self.widths, 1)) / self.whole

    @property
    def dearest(self) -> float:
        """The largest share of F_0 that one filter costs."""
        full, one_less = self.count(self.widths), [dict(self.widths) | {name: C - 1} for name, C in self.widths.items()]
        return max((full - self.count(left) for left in one_less), default=0) / self.whole


# ---------------------------------------------------------------------------------------------------------------------
# 2. The layers
# ---------------------------------------------------------------------------------------------------------------------

BYPASSES = ("grouped", "depthwise", None)
SCORES = ("l1", "bn")


@dataclass(frozen=True)
class LAPP:
    """How a network is pruned. ``target`` (ρ) is the share of multiply-accumulates that is to be left; with ``budget``
    "params" it is a share of the weights of convolutions and linear layers.

    ``bypass`` is a grouped 1×1 convolution, a depthwise one, or None. ``groups`` (g) is lowered where it does not divide the
    channels. ``score`` ranks filters by their mean absolute weight (``"l1"``) or by |γ| of their batch norm (``"bn"``).
    ``strength`` is λ, ``delta`` δ, ``rate`` the learning rate of the thresholds, ``progressive`` P in epochs. ``filter_fn(name,
    module)`` and ``ignore`` leave layers out, and ``pointwise`` lets 1×1 convolutions in.
    """

    target: float = 0.4
    budget: str = "macs"
    bypass: str | None = "grouped"
    groups: int = 8
    score: str = "l1"
    delta: float = 1.0
    strength: float = 10.0
    push: str = "hinge"
    rate: float = 0.1
    progressive: int = 12
    pointwise: bool = False
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        if not 0 < self.target <= 1:
            raise ValueError(f"target {self.target} is outside (0, 1]; the nearest is {1 if self.target > 1 else 0.01}")
        for name, value, options in (("bypass", self.bypass, BYPASSES), ("score", self.score, SCORES),
                                     ("push", self.push, ("hinge", "square")), ("budget", self.budget, ("macs", "params"))):
            if value not in options:
                raise ValueError(f"{name} is {value!r}; choose from {', '.join(map(str, options))}")
        if not isinstance(self.groups, int) or self.groups < 1:
            raise ValueError(f"groups is {self.groups!r}; it is a whole number of at least 1")
        for name in ("delta", "rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0, such as {getattr(type(self), name)}")
        if not 0 <= self.strength < math.inf:
            raise ValueError(f"strength is {self.strength}; it must be at least 0")
        if not isinstance(self.progressive, int) or self.progressive < 1:
            raise ValueError(f"progressive is {self.progressive!r}; the phase has a whole number of epochs, at least 1")


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


def runs(index: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    """An ascending ``index`` as runs of neighbours: (start in the index, first channel, length)."""
    found, listed = [], index.tolist()
    for start, place in enumerate(listed):
        if found and place == listed[start - 1] + 1:
            found[-1][2] += 1
        else:
            found.append([start, place, 1])
    return tuple(map(tuple, found))


# ---------------------------------------------------------------------------------------------------------------------
# 3. The verbs
# ---------------------------------------------------------------------------------------------------------------------


def _units(model: nn.Module) -> dict[str, ThresholdConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, ThresholdConv2d)}


def prunable(model: nn.Module, config: LAPP, example: torch.Tensor) -> dict[str, str]:
    """The convolutions that ``attach_`` works on, each with its batch norm, by name."""
    seen = flow(model, example)
    norms = {name: behind[0] for name, behind in seen.norms.items() if len(behind) == 1}
    twice = {name for name, number in seen.calls.items() if number > 1}

    def fits(name: str, conv: nn.Module) -> bool:
        able = conv.groups == 1 and name in norms and name not in seen.first | twice and norms[name] not in twice
        sized = config.pointwise or any(size > 1 for size in conv.kernel_size)
        return able and sized and (config.filter_fn is None or config.filter_fn(name, conv))

    found = chosen(model, nn.Conv2d, ignore=config.ignore, filter_fn=fits)
    for name, conv in found.items():
        same = conv.padding == "same" or (not isinstance(conv.padding, str) and all(
            2 * p == d * (k - 1) for p, d, k in zip(conv.padding, conv.dilation, conv.kernel_size)))
        if config.bypass and not same:
            raise ValueError(f"{name} has padding {conv.padding} for windows of {conv.kernel_size}, so a bypass has another "
                             "size; pad by half the window, or leave it out with ignore")
    return {name: norms[name] for name in found}


def _readers(plain: nn.Module, name: str, example: torch.Tensor) -> dict[str, int] | None:
    """The layers that become smaller when ``name`` loses a filter, and by how many channels; None if it cannot lose one.

    It cannot where its outputs are added to those of others.
    """
    C = plain.get_submodule(name).out_channels
    if C == 1:
        return {}
    try:
        narrow = surgery.keep_filters(plain, {name: torch.arange(C - 1)}, example)
    except ValueError:
        return None
    found = {}
    for other, module in plain.named_modules():
        if other != name and isinstance(module, nn.Conv2d | nn.Linear):
            before, after = module.weight.shape, narrow.get_submodule(other).weight.shape
            if before != after:
                found[other] = before[1] - after[1]  # 0: a depthwise convolution, which has a filter less itself
    return found


def flops_of(model: nn.Module, found: Sequence[str], config: LAPP, example: torch.Tensor) -> tuple[Flops, set[str]]:
    """F of the plain ``model`` if the convolutions ``found`` are pruned, and which of these cannot be removed from the rest."""
    modules, example = dict(model.named_modules()), example[:1]
    costs = {name: cost.macs if config.budget == "macs" else modules[name].weight.numel()
             for name, cost in count(model, example).items() if cost.macs}
    follows: dict[str, str] = {name: name for name in found}
    reads: dict[str, list[tuple[str, int]]] = {}
    joined = set(found)
    if config.bypass is None:
        for name in found:
            readers = _readers(model, name, example)
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
        bypass = bypass_of(modules[name], config) if name in found else None
        if bypass is not None:
            conv = modules[name]
            terms.append(Term(cost // conv.weight.numel() * bypass.weight.numel()))
    return Flops(sum(costs.values()), tuple(terms), {name: modules[name].out_channels for name in found}), joined


def attach_(model: nn.Module, config: LAPP = LAPP(), example: torch.Tensor | None = None) -> Flops:
    """Give every prunable convolution of a fresh ``model`` its threshold and its bypass, in place. Returns F.

    ``example`` is an input; it shows which batch norm belongs to which convolution, and what each layer costs. A target of 1
    leaves the network as it is. Build the optimiser afterwards.

    >>> model = ResNetCIFAR(20)
    >>> flops = attach_(model, LAPP(target=0.403), torch.zeros(1, 3, 32, 32))
    """
    if example is None:
        raise ValueError("example is missing; give one input of the network, such as torch.zeros(1, 3, 32, 32)")
    if _units(model):
        raise ValueError("this network has thresholds already; attach them to a plain one")
    found = prunable(model, config, example)
    for name in found:
        if not torch.isfinite(model.get_submodule(name).weight).all():
            raise ValueError(f"{name} holds a value that is not finite; filters are ranked by finite weights")
    if config.target == 1:
        whole = macs(model, example[:1])
        return Flops(whole, (Term(whole),), {})
    flops, joined = flops_of(model, list(found), config, example)
    if config.target < flops.floor:
        raise ValueError(f"target {config.target} cannot be reached: with one filter a layer {flops.floor:.4f} is left; "
                         f"the nearest is {math.ceil(1e4 * flops.floor) / 1e4:g}")
    made = {name: ThresholdConv2d(model.get_submodule(name), model.get_submodule(bn), config, bn, name in joined)
            for name, bn in found.items()}
    for name, unit in made.items():
        model.set_submodule(name, unit.train(model.get_submodule(name).training))
        model.set_submodule(unit.bn_name, nn.Identity())
    return flops


def kept(model: nn.Module) -> dict[str, int]:
    """How many filters each pruned layer keeps now."""
    return {name: len(unit.kept()) for name, unit in _units(model).items()}


def remaining(model: nn.Module, flops: Flops) -> float:
    """r now."""
    return flops.count(kept(model)) / flops.whole


def settled(model: nn.Module) -> bool:
    """Whether all masks are final."""
    return all(bool(unit.settled) for unit in _units(model).values())


@torch.no_grad()
def settle_(model: nn.Module, flops: Flops, target: float) -> float:
    """Shift all thresholds by one common number to the largest r ≤ ``target``, and make the masks final. Returns r.

    The shift goes up or down. Filters leave and return one by one, so bisection over their distances from the thresholds
    finds it.
    """
    units = _units(model)
    distance = {name: unit.z().double() - unit.threshold.double() for name, unit in units.items()}
    for name, values in distance.items():
        if not torch.isfinite(values).all():
            raise ValueError(f"{name}: a score or the threshold is not finite; training has diverged")
    at = torch.cat([torch.tensor([-math.inf], dtype=torch.float64), *(values.cpu() for values in distance.values())]).unique()

    def r(index: int) -> float:
        left = {name: int(kept_by(values, float(at[index])).sum()) for name, values in distance.items()}
        return flops.count(left) / flops.whole

    low, high = 0, len(at) - 1
    if r(high) > target:
        raise ValueError(f"target {target} cannot be reached: filters of equal score stay together, and {r(high):.4f} is left")
    while low < high:  # r falls as the index rises
        middle = (low + high) // 2
        low, high = (low, middle) if r(middle) <= target else (middle + 1, high)
    shift = float(at[low])
    for name, unit in units.items():
        unit.settle(kept_by(distance[name], shift))
        unit.threshold += max(shift, -1e6)
    return r(low)


@torch.no_grad()
def uniform_(model: nn.Module, flops: Flops, target: float) -> float:
    """The baseline: every layer keeps the same share of its filters, those of highest score, at the largest r ≤ ``target``."""
    units = _units(model)

    def left(share: float) -> dict[str, int]:
        return {name: max(1, int(share * C + 1e-9)) for name, C in flops.widths.items()}

    shares = sorted({number / C for C in flops.widths.values() for number in range(1, C + 1)}, reverse=True)
    share = next((share for share in shares if flops.count(left(share)) <= target * flops.whole), shares[-1])
    for name, unit in units.items():
        keep = torch.zeros_like(unit.mask)
        keep[torch.argsort(unit.z(), descending=True, stable=True)[: left(share)[name]]] = 1
        unit.settle(keep)
    return flops.count(left(share)) / flops.whole


def pace(flops: Flops, config: LAPP, steps: int) -> float:
    """The ``rate`` at which the constraint alone lifts a threshold from −3 to 0 in ``steps`` steps.

    For a layer of average share, and scores that are normal. Half the steps of the progressive phase are a good choice: with
    too high a rate the network collapses within an epoch, with too low a one it is cut at the end of the phase.
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
    units = _units(model).values()
    if settled(model):
        return
    with torch.no_grad():
        for unit in units:
            if unit.threshold.grad is not None:
                unit.threshold -= config.rate * unit.threshold.grad
                unit.threshold.grad = None
    if remaining(model, flops) <= config.target:
        settle_(model, flops, config.target)


def objective(model: nn.Module, flops: Flops, config: LAPP) -> Callable:
    """loss(outputs, images, labels): the cross-entropy, and λ h(r − ρ) until the masks are final."""
    def loss(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value = F.cross_entropy(outputs, labels)
        if settled(model):
            return value
        r = flops.share({name: unit.gate() for name, unit in _units(model).items()})
        return value + config.strength * push(r, config.target, config.push)

    return loss


def optimiser(model: nn.Module, flops: Flops, config: LAPP, lr: float = 0.1, momentum: float = 0.9,
              weight_decay: float = 5e-4) -> torch.optim.SGD:
    """SGD with momentum for the weights; after each of its steps the thresholds take theirs.

    Weight decay would pull a threshold from −3 towards 0, that is towards more pruning.
    """
    own = {id(unit.threshold) for unit in _units(model).values()}
    weights = [p for p in model.parameters() if id(p) not in own]
    found = torch.optim.SGD(weights, lr, momentum=momentum, weight_decay=weight_decay)
    found.register_step_post_hook(lambda *_: step_thresholds_(model, flops, config))
    return found


def _narrow(conv: nn.Conv2d, index: torch.Tensor) -> nn.Conv2d:
    """The convolution with only the filters of ``index``."""
    found = nn.Conv2d(conv.in_channels, len(index), conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                      bias=conv.bias is not None, padding_mode=conv.padding_mode, device=conv.weight.device,
                      dtype=conv.weight.dtype)
    found.load_state_dict({name: value[index] for name, value in conv.state_dict().items()})
    return found.train(conv.training)


def _narrow_norm(bn: nn.BatchNorm2d, index: torch.Tensor) -> nn.BatchNorm2d:
    found = copy.deepcopy(bn)
    found.num_features = len(index)
    for tensors in (found._parameters, found._buffers):
        for name, value in tensors.items():
            if value is not None and value.dim():
                value = value.detach()[index].clone()
                tensors[name] = nn.Parameter(value) if tensors is found._parameters else value
    return found


def _plain(model: nn.Module) -> nn.Module:
    """A copy without thresholds and bypasses, in which masked filters give 0."""
    plain = copy.deepcopy(model)
    for name, unit in _units(plain).items():
        with torch.no_grad():
            if unit.bn.weight is None:
                raise ValueError(f"{unit.bn_name} has no scale, so that {name} cannot give 0; use affine=True")
            gone = unit.gate() == 0
            unit.bn.weight[gone] = 0
            unit.bn.bias[gone] = 0
        plain.set_submodule(name, unit.conv)
        plain.set_submodule(unit.bn_name, unit.bn)
    return plain


def _compact(model: nn.Module, example: torch.Tensor | None) -> nn.Module:
    units = _units(model)
    index = {name: unit.kept() for name, unit in units.items()}
    if all(unit.bypass is not None for unit in units.values()):
        found = copy.deepcopy(model)
        for name, unit in _units(found).items():
            conv, bn = _narrow(unit.conv, index[name]), _narrow_norm(unit.bn, index[name])
            width = unit.conv.out_channels
            found.set_submodule(name, CompactConv2d(conv, bn, unit.bypass, unit.bn_bypass, index[name], width, unit.bn_name)
                                .train(unit.training))
        return found
    if example is None:
        raise ValueError("example is missing; without bypasses the channels are followed on one input of the network")
    found = _plain(model)
    removed = {name: rows for name, rows in index.items() if not units[name].joined}
    if removed:
        found = surgery.keep_filters(found, removed, example[:1])
    for name, rows in index.items():  # their outputs are added to others' and stay at full width
        bn = units[name].bn_name
        if name not in removed and len(rows) < len(units[name].mask):
            conv, norm = found.get_submodule(name), found.get_submodule(bn)
            found.set_submodule(name, CompactConv2d(_narrow(conv, rows), _narrow_norm(norm, rows), None, None, rows,
                                                    len(units[name].mask), bn).train(units[name].training))
            found.set_submodule(bn, nn.Identity())
    return found


def compact(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """A new network with the same outputs, without the masked filters. ``example`` is an input; bypasses need none.

    With bypasses every pruned layer is a narrow convolution added into the bypass. Without them filters are removed with all
    that depends on them; those whose outputs are added to others' are put back into full width at run time.
    """
    if not _units(model):
        raise ValueError("this network has no thresholds; call attach_ first")
    found = _compact(model, example)
    if example is not None:
        modes = [(module, module.training) for each in (model, found) for module in each.modules()]
        with torch.no_grad():
            x = torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
            one, other = model.eval()(x), found.eval()(x)
        for module, mode in modes:
            module.training = mode
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6):
            raise ValueError("without its masked filters this network gives other outputs: what follows a filter that gives 0 "
                             "must give 0, as ReLU does; use a bypass")
    return found


def _momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {name: optimizer.state.get(p, {}).get("momentum_buffer") for name, p in model.named_parameters()}
    return {name: torch.zeros_like(model.get_parameter(name)) if value is None else value for name, value in found.items()}


def slim(model: nn.Module, optimizer: torch.optim.Optimizer,
         example: torch.Tensor) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """``compact`` in the middle of a training: also the momentum of what is left, by the name of the new parameter.

    The momenta go the way of the weights: a copy of the network holds them in the place of its weights and is made compact.
    """
    moving, momenta = copy.deepcopy(model), _momenta(model, optimizer)
    with torch.no_grad():
        for name, p in moving.named_parameters():
            p.copy_(momenta[name])
    for (name, unit), other in zip(_units(model).items(), _units(moving).values(), strict=True):
        if not unit.settled:
            raise ValueError(f"{name}: its mask is not final; call settle_ first")
        other.settle(unit.mask)
    return compact(model, example), {name: p.detach() for name, p in _compact(moving, example).named_parameters()}


def restore(model: nn.Module, state: Mapping[str, torch.Tensor], config: LAPP, example: torch.Tensor) -> nn.Module:
    """The compact network whose ``state`` was saved; ``model`` is the plain one that it was made from, and stays as it is."""
    found = copy.deepcopy(model)
    attach_(found, config, example)
    for name, unit in _units(found).items():
        rows = state.get(f"{name}.index")
        rows = torch.arange(len(state[f"{name}.weight"])) if rows is None else rows.cpu()
        unit.settle(torch.isin(torch.arange(len(unit.mask)), rows).to(unit.mask))
    found = compact(found, example)
    found.load_state_dict(state)
    return found


def export(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The compact network as it is put to use: batch norms folded, and slices in the place of the index.

    Within each group of a bypass the kept filters come first, and the inputs of the layers that read them follow. So a layer
    needs at most as many slices as its bypass has groups. The order stays where outputs are added to others' or the bypass is
    depthwise; slices are then the runs of neighbours that there are.
    """
    found = copy.deepcopy(model).eval()
    units = {name: module for name, module in found.named_modules() if isinstance(module, CompactConv2d)}
    if not units:
        raise ValueError("this network has no compact layer; call compact first")
    twin = copy.deepcopy(model).eval()
    for name, unit in units.items():
        conv, C = unit.conv, unit.width
        twin.set_submodule(name, nn.Conv2d(conv.in_channels, C, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                                           padding_mode=conv.padding_mode))
        unit.conv, unit.bn = fuse_conv_bn_eval(conv, unit.bn), nn.Identity()
        if unit.bypass is not None:
            unit.bypass, unit.bn_bypass = fuse_conv_bn_eval(unit.bypass, unit.bn_bypass), nn.Identity()
    with torch.no_grad():
        for name, unit in units.items():
            order = _order(unit)
            readers = None if torch.equal(order, torch.arange(unit.width)) else _readers(twin, name, example[:1])
            if readers and all(_can_follow(found.get_submodule(other), each, order) for other, each in readers.items()):
                _put_in_order(unit, order)
                for other in readers:
                    _read_in_order(found.get_submodule(other), order)
            unit.slices = runs(unit.index)
        x = torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
        one, other = copy.deepcopy(model).eval()(x), found(x)
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6):
        raise ValueError("the reordered network gives other outputs; its channels cannot be followed")
    return found


def _order(unit: CompactConv2d) -> torch.Tensor:
    """(C,) the outputs with the kept ones first in each group of the bypass."""
    width = unit.width // (unit.bypass.groups if unit.bypass is not None else 1)
    here = torch.zeros(unit.width, dtype=torch.bool)
    here[unit.index.cpu()] = True
    return torch.cat([torch.cat([part[here[part]], part[~here[part]]]) for part in torch.arange(unit.width).split(width)])


def _can_follow(reader: nn.Module, each: int, order: torch.Tensor) -> bool:
    """Whether a layer can read its inputs in this order: each group of its bypass must keep its inputs."""
    if not each:
        return False  # depthwise: its own outputs would move, and what reads them
    if isinstance(reader, nn.Linear):
        return len(order) * each == reader.in_features
    conv = reader.conv if isinstance(reader, CompactConv2d) else reader
    if conv.in_channels != len(order) or conv.groups != 1:
        return False
    if isinstance(reader, CompactConv2d) and reader.bypass is not None:
        width = reader.bypass.in_channels // reader.bypass.groups
        return torch.equal(order // width, torch.arange(len(order)) // width)
    return True


def _put_in_order(unit: CompactConv2d, order: torch.Tensor) -> None:
    place = torch.argsort(order)  # where an output is now
    index = place[unit.index.cpu()]
    rows = torch.argsort(index)
    unit.index.copy_(index[rows])
    for tensor in (unit.conv.weight, unit.conv.bias):
        tensor.copy_(tensor[rows])
    if unit.bypass is not None:
        for tensor in (unit.bypass.weight, unit.bypass.bias):
            tensor.copy_(tensor[order])


def _read_in_order(reader: nn.Module, order: torch.Tensor) -> None:
    if isinstance(reader, nn.Linear):
        each = reader.in_features // len(order)
        reader.weight.copy_(reader.weight.view(len(reader.weight), len(order), each)[:, order].flatten(1))
        return
    conv = reader.conv if isinstance(reader, CompactConv2d) else reader
    conv.weight.copy_(conv.weight[:, order])
    if isinstance(reader, CompactConv2d) and reader.bypass is not None:
        bypass = reader.bypass
        width, rows = bypass.in_channels // bypass.groups, bypass.out_channels // bypass.groups
        for group, inside in enumerate(order.split(width)):
            part = bypass.weight[group * rows : (group + 1) * rows]
            part.copy_(part[:, inside - group * width])


# ---------------------------------------------------------------------------------------------------------------------
# 4. The training
# ---------------------------------------------------------------------------------------------------------------------

#: How filters are chosen: by learned thresholds, or, for comparison, the same share of every layer, step by step or at once.
RULES = ("learned", "uniform", "one-shot")


@dataclass
class Progress:
    """What a training left. ``loss`` and ``accuracy`` (a share) after every epoch; ``remaining`` (r) and ``kept``, the
    filters of each pruned layer, before the first epoch and after every one; ``thresholds``, ``z`` (the standardised scores)
    and ``masks`` likewise, of the progressive phase.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    kept: list[dict[str, int]] = field(default_factory=list)
    thresholds: list[dict[str, float]] = field(default_factory=list)
    z: list[dict[str, list[float]]] = field(default_factory=list)
    masks: list[dict[str, list[float]]] = field(default_factory=list)

    @property
    def steepest(self) -> float:
        """The largest fall of r within one epoch."""
        return max((before - after for before, after in pairwise(self.remaining)), default=0.0)


def train(model: nn.Module, loaders: tuple, config: LAPP = LAPP(), *, epochs: int, lr: Schedule | None = None,
          momentum: float = 0.9, weight_decay: float = 5e-4, seed: int = 0, example: torch.Tensor | None = None,
          rule: str = "learned", **options) -> tuple[nn.Module, Progress]:
    """Train a plain, fresh ``model`` and make it compact on the way. Returns the compact network and what happened.

    ``loaders`` are those of the training and the test images; the second may be None. After ``config.progressive`` of the
    ``epochs`` the masks are final and the masked filters are removed; training goes on with the rest, momentum included.
    ``model`` stays as it is. ``lr`` is a schedule over all epochs, a cosine from 0.05 if left out. ``options`` are those of
    ``fit``, such as ``augment`` and ``fabric``. The ``rule`` is one of ``RULES``; all but the first are baselines.

    ``config.rate`` belongs to the number of steps and of layers. For other networks than small ones ask ``pace``:
    ``pace(attach_(copy.deepcopy(model), config, example), config, steps)``, with half the steps of the progressive phase.

    >>> small, progress = train(ResNetCIFAR(20), loaders, LAPP(target=0.4), epochs=200)
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; choose from {', '.join(RULES)}")
    P = config.progressive
    if epochs < P:
        raise ValueError(f"{epochs} epochs are fewer than the {P} of the progressive phase; the nearest is {P}")
    lr = lr or cosine(0.05, epochs)
    seed_everything(seed)
    example = next(iter(loaders[0]))[0][:1] if example is None else example
    model, progress = copy.deepcopy(model), Progress()
    flops = attach_(model, config, example)
    units = _units(model)

    def note() -> None:
        progress.remaining.append(remaining(model, flops))
        progress.kept.append(kept(model))
        progress.thresholds.append({name: float(unit.threshold.detach()) for name, unit in units.items()})
        progress.z.append({name: unit.z().tolist() for name, unit in units.items()})
        progress.masks.append({name: unit.gate().tolist() for name, unit in units.items()})

    def before(model: nn.Module, epoch: int) -> None:
        if rule == "uniform":  # the same fall in every epoch
            uniform_(model, flops, flops.start + (config.target - flops.start) * (epoch + 1) / P)

    def after(model: nn.Module, epoch: int, history) -> None:
        if epoch == P - 1:
            finish_(model, flops, config, rule)
            if history.accuracy:  # of what is left
                history.accuracy[-1] = accuracy(model, loaders[1])
        note()

    if rule != "learned":
        for unit in units.values():
            unit.settle(torch.ones_like(unit.mask))
    note()
    made = {}

    def first(model: nn.Module) -> torch.optim.Optimizer:
        made["optimizer"] = optimiser(model, flops, config, lr(0.0) or 1e-12, momentum, weight_decay)
        return made["optimizer"]

    history = fit(model, *loaders, epochs=P, lr=lr, seed=seed, optimizer=first, loss=objective(model, flops, config),
                  before_epoch=before, after_epoch=after, **options)
    small, momenta = model, _momenta(model, made["optimizer"])
    if units:
        small, momenta = slim(model, made["optimizer"], example.to(next(model.parameters()).device))

    def second(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr(P) or 1e-12, momentum=momentum, weight_decay=weight_decay)
        for name, p in model.named_parameters():
            if name in momenta:
                optimizer.state[p]["momentum_buffer"] = momenta[name].clone()
        return optimizer

    def continued(model: nn.Module, epoch: int) -> None:  # the order of the data that a single run would have had
        seed_everything((seed * 100_003 + epoch + P) % 2**32)

    rest = fit(small, *loaders, epochs=epochs - P, lr=lambda epoch: lr(epoch + P), seed=seed, optimizer=second,
               before_epoch=continued, **options)
    progress.loss, progress.accuracy = history.loss + rest.loss, history.accuracy + rest.accuracy
    progress.remaining += [progress.remaining[-1]] * (epochs - P)
    progress.kept += [progress.kept[-1]] * (epochs - P)
    return small, progress


def finish_(model: nn.Module, flops: Flops, config: LAPP, rule: str = "learned") -> None:
    """The end of the progressive phase: final masks whose r is at most the target."""
    if not _units(model):
        return
    if rule != "learned":
        uniform_(model, flops, config.target)
    elif not settled(model):
        settle_(model, flops, config.target)


# ---------------------------------------------------------------------------------------------------------------------
# 5. The paper's networks, the experiments of the chapter, and the recipes
# ---------------------------------------------------------------------------------------------------------------------


def projected_resnet(depth: int = 20) -> nn.Module:
    """The CIFAR residual network with 1×1 convolutions on the shortcuts that change the width."""
    model = ResNetCIFAR(depth)
    for name, block in model.named_modules():
        if isinstance(getattr(block, "shortcut", None), PadShortcut):
            conv = block.conv1
            model.set_submodule(f"{name}.shortcut", nn.Sequential(
                nn.Conv2d(conv.in_channels, conv.out_channels, 1, conv.stride, bias=False), nn.BatchNorm2d(conv.out_channels)))
    return model


@dataclass(frozen=True)
class Network:
    """A network of the paper, the side of its images, and the share of multiply-accumulates that is to be left."""

    build: Callable[[], nn.Module]
    side: int
    target: float


#: The abstract says that ResNet-20 is compressed "to 40.3 %", and not of what; ResNet-18 loses 55.6 % of its FLOPs.
NETWORKS = {"resnet20": Network(lambda: ResNetCIFAR(20), 32, 0.403),
            "resnet20-projected": Network(projected_resnet, 32, 0.403),
            "resnet18": Network(ResNetBasic, 224, 0.444)}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


@functools.cache
def counts(name: str) -> dict[str, int]:
    """Multiply-accumulates and parameters of a plain network of the paper."""
    made = network(name)
    with torch.device("meta"):
        model = made.build()
        return {"macs": macs(model, torch.empty(1, 3, made.side, made.side)), "params": parameters(model)}


def model_against_count(seed: int = 0, draws: int = 4) -> int:
    """The largest difference between F(m) and the count of the compact network, over random numbers of kept filters."""
    seed_everything(seed)
    largest = 0
    for build, example in ((lambda: ConvNet((8, 16, 24)), torch.zeros(1, 3, 16, 16)),
                           (lambda: ResNetCIFAR(8, (8, 8, 16), (8, 8, 16)), torch.zeros(1, 3, 16, 16))):
        for bypass in BYPASSES:
            model = build()
            flops = attach_(model, LAPP(bypass=bypass, target=0.99), example)
            for _ in range(draws):
                left = {}
                for name, unit in _units(model).items():
                    left[name] = int(torch.randint(1, len(unit.mask) + 1, ()))
                    unit.settle(torch.randperm(len(unit.mask)) < left[name])
                largest = max(largest, abs(flops.count(left) - macs(compact(model, example), example)))
    return largest


def facts() -> dict[str, float]:
    """Every exact number of the card that needs no training, by the identity of its claim."""
    r20, projected, r18 = (counts(name) for name in NETWORKS)
    found = {"r20.macs": r20["macs"], "r20.params": r20["params"], "r20.proj.macs": projected["macs"],
             "r20.proj.params": projected["params"], "r18.macs": r18["macs"], "r18.params": r18["params"],
             "r20.left.macs": 0.403 * r20["macs"], "r20.left.params": 0.403 * r20["params"],
             "r18.left.macs": (1 - 0.556) * r18["macs"]}
    conv, x = nn.Conv2d(16, 16, 3, padding=1, bias=False), torch.zeros(1, 16, 32, 32)
    found |= {"layer.dense.macs": macs(conv, x), "layer.kept5.macs": macs(_narrow(conv, torch.arange(5)), x)}
    found |= {f"layer.{bypass}.macs": macs(bypass_of(conv, LAPP(bypass=bypass)), x) for bypass in ("grouped", "depthwise")}
    model = ResNetCIFAR(20)
    units = attach_(model, LAPP(), torch.zeros(1, 3, 32, 32)).widths
    plain = sum(p.numel() for name, p in model.named_parameters() if not name.endswith("threshold") and "bypass" not in name)
    if plain != r20["params"]:
        raise AssertionError(f"{plain} parameters are no threshold and no bypass; the plain network has {r20['params']}")
    thresholds = sum(p.numel() for name, p in model.named_parameters() if name.endswith("threshold"))
    return found | {"overhead.thresholds": thresholds, "overhead.gates": sum(units.values()),
                    "book.difference": model_against_count()}


#: The arms of the comparison, by name: the rule by which filters are chosen, and the bypass.
ARMS = {"lapp": ("learned", "grouped"), "plain": ("learned", None), "uniform": ("uniform", "grouped"),
        "one-shot": ("one-shot", None)}
_EXAMPLE = torch.zeros(1, 1, 8, 8)


def small_net(widths: Sequence[int] = (32, 64, 64, 64)) -> ConvNet:
    """The network of the experiments: 3×3 convolutions on 8×8 digits, with one pooling after the first."""
    return ConvNet(widths, channels=1, pool=(0,))


def narrow_widths(share: float, widths: Sequence[int] = (32, 64, 64, 64)) -> tuple[int, ...]:
    """The widths of the plain network whose pruned layers are all narrower by one factor, at most at ``share`` of the MACs."""
    whole = macs(small_net(widths), _EXAMPLE)
    for width in range(max(widths), 0, -1):
        tried = (widths[0], *(max(1, round(C * width / max(widths))) for C in widths[1:]))
        if macs(small_net(tried), _EXAMPLE) <= share * whole:
            return tried
    raise ValueError(f"share {share} is below that of one filter a layer")


def compare(seed: int, *, images: int = 600, epochs: int = 24, progressive: int = 12, lr: float = 0.05,
            targets: Sequence[float] = (0.4, 0.2, 0.1)) -> dict:
    """All arms on the digits for one seed: same first weights, same order of the data, same number of epochs.

    ``full``: test accuracy (a share) of the network that is never pruned. ``arms[ρ][name]``: ``accuracy``, r before the first
    epoch and after every one (``remaining``), and the filters ``kept`` likewise. ``narrow`` is a plain network that is narrow
    from the first epoch on. ``control[ρ]``: of both arms that learn their thresholds, whether r ends ``above`` the target, or
    ``below`` it by the dearest filter or more.
    """
    data = digits(images, seed)
    batches, test = loader(data[0], 64, True), loader(data[1], 2000, False)
    options = dict(epochs=epochs, lr=cosine(lr, epochs), seed=seed)
    with single_thread():
        seed_everything(seed)
        first = small_net()
        full = copy.deepcopy(first)
        fit(full, batches, None, **options)
        found = {"seed": seed, "full": accuracy(full, test), "arms": {}, "control": {}}
        for rho in targets:
            arms = found["arms"][rho] = {}
            for name, (rule, bypass) in ARMS.items():
                config = LAPP(target=rho, bypass=bypass, progressive=progressive)
                small, progress = train(first, (batches, None), config, rule=rule, example=_EXAMPLE, **options)
                arms[name] = {"accuracy": accuracy(small, test), "remaining": progress.remaining,
                              "kept": [list(left.values()) for left in progress.kept]}
                if rule == "learned":
                    flops = attach_(copy.deepcopy(first), config, _EXAMPLE)
                    r = macs(small, _EXAMPLE) / flops.whole
                    found["control"].setdefault(rho, []).append({"above": r > rho, "below": r <= rho - flops.dearest})
            seed_everything(seed)
            narrow = small_net(narrow_widths(rho))
            fit(narrow, batches, None, **options)
            arms["narrow"] = {"accuracy": accuracy(narrow, test)}
    return found


def snapshots(seed: int = 0, *, targets: Sequence[float] = (0.2, 0.3, 0.4, 0.6, 0.8), epochs: int = 24, images: int = 600,
              widths: Sequence[int] = (16, 32, 32, 32)) -> dict[float, Progress]:
    """What happens to a narrower network in trainings with every target that are progressive to the end, for the explorer."""
    data = digits(images, seed)
    batches, found = loader(data[0], 64, True), {}
    with single_thread():
        for rho in targets:
            seed_everything(seed)
            config = LAPP(target=rho, progressive=epochs)
            _, found[rho] = train(small_net(widths), (batches, None), config, epochs=epochs, seed=seed, example=_EXAMPLE)
    return found


def layer_times(channels: int, side: int, left: Sequence[int], *, groups: int = 8, bypass: str = "grouped", seed: int = 0,
                repeats: int = 5) -> dict:
    """Milliseconds and MACs of a 3×3 layer of ``channels`` inputs and outputs on one image, by the filters that are ``left``.

    ``full``: the plain layer. ``conv``, ``bypass`` and ``scatter``: the parts of the compact layer, each on its own. ``index``
    and ``slice``: the compact layer with an index, and with one slice. ``narrow``: a plain layer of fewer inputs and outputs
    with as many multiply-accumulates. Batch norms are folded. The compact layer's result is compared with that of its parts.
    """
    seed_everything(seed)
    config = LAPP(bypass=bypass, groups=groups)
    conv = nn.Conv2d(channels, channels, 3, padding=1).eval()
    x = torch.randn(1, channels, side, side)
    side_path = bypass_of(conv, config)
    side_path.bias = nn.Parameter(torch.zeros(channels))
    calls, expected = {"full": functools.partial(conv, x), "bypass": functools.partial(side_path, x)}, {}
    found = {"left": list(left), "full.macs": macs(conv, x), "bypass.macs": macs(side_path, x), "macs": [], "narrow.macs": [],
             "narrow.width": []}
    with torch.no_grad():
        y = side_path(x)
        for number in left:
            index = torch.linspace(0, channels - 1, number).round().long()
            small = _narrow(conv, index)
            z = small(x)
            scattered = CompactConv2d(small, nn.Identity(), side_path, nn.Identity(), index, channels)
            sliced = CompactConv2d(small, nn.Identity(), side_path, nn.Identity(), torch.arange(number), channels)
            sliced.slices = runs(sliced.index)
            cost = macs(scattered, x)
            width = max(1, round(math.sqrt(cost / (9 * side * side))))
            narrow, thin = nn.Conv2d(width, width, 3, padding=1).eval(), torch.randn(1, width, side, side)
            target = torch.zeros_like(y)
            calls |= {("conv", number): functools.partial(small, x), ("scatter", number): functools.partial(
                target.index_add_, 1, index, z), ("index", number): functools.partial(scattered, x),
                ("slice", number): functools.partial(sliced, x), ("narrow", number): functools.partial(narrow, thin)}
            expected |= {("index", number): y.index_add(1, index, z),
                         ("slice", number): torch.cat([y[:, :number] + z, y[:, number:]], 1)}
            found["macs"].append(cost)
            found["narrow.macs"].append(macs(narrow, thin))
            found["narrow.width"].append(width)
    taken = {name: statistics.median(values) for name, values in take_turns(calls, expected, repeats=repeats).items()}
    found |= {name: taken[name] for name in ("full", "bypass")}
    return found | {part: [taken[part, number] for number in left] for part in ("conv", "scatter", "index", "slice", "narrow")}


def _recipe(name: str, pruned: bool) -> Recipe:
    """SGD as is usual for these networks; the abstract gives no recipe.

    The thresholds have the rate that ``pace`` gives for half of the progressive phase. It has not been tried at this size.
    """
    made = network(name)
    if made.side == 32:
        options = dict(data="cifar10", epochs=200, batch=128, lr=cosine(0.1, 200), weight_decay=5e-4)
        config, images = LAPP(target=made.target, progressive=25), 50_000
    else:
        options = dict(data="imagenet", epochs=90, batch=256, lr=steps(0.1, (30, 60)), weight_decay=1e-4)
        config, images = LAPP(target=made.target, progressive=12), 1_281_167
    if not pruned:
        return Recipe(build=made.build, **options)
    held: dict = {}

    def build() -> nn.Module:
        held["model"] = made.build()
        held["flops"] = attach_(held["model"], config, torch.zeros(1, 3, made.side, made.side))
        steps_ahead = config.progressive * -(-images // options["batch"]) // 2
        held["config"] = replace(config, rate=pace(held["flops"], config, steps_ahead))
        return held["model"]

    def before(model: nn.Module, epoch: int, epochs: int) -> None:
        if epoch >= config.progressive:
            finish_(model, held["flops"], held["config"])

    def optimizer(model: nn.Module) -> torch.optim.Optimizer:
        return optimiser(model, held["flops"], held["config"], weight_decay=options["weight_decay"])

    return Recipe(build=build, before_epoch=before, export=compact, optimizer=optimizer,
                  loss=lambda: objective(held["model"], held["flops"], held["config"]), **options)


RECIPES: dict[str, Callable[[], Recipe]] = {
    f"{name}{'' if pruned else '-dense'}-{'cifar10' if made.side == 32 else 'imagenet'}":
        functools.partial(_recipe, name, pruned) for name, made in NETWORKS.items() for pruned in (True, False)}

__all__ = ["ARMS", "BYPASSES", "LAPP", "NETWORKS", "RECIPES", "RULES", "CompactConv2d", "Flops", "Network", "Progress", "Term",
           "ThresholdConv2d", "attach_", "bell", "bypass_of", "compact", "compare", "counts", "export", "facts", "finish_",
           "flops_of", "gate", "kept", "kept_by", "layer_times", "model_against_count", "narrow_widths", "network",
           "objective", "optimiser", "pace", "projected_resnet", "prunable", "push", "remaining", "restore", "runs", "scores",
           "settle_", "settled", "slim", "small_net", "snapshots", "standardise", "step_thresholds_", "train", "uniform_"]
