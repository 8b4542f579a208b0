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
δ the width of the surrogate gradient, F the multiply-accumulates and F_0 those of the plain network, r = F/F_0, ρ the target
for r, λ the strength of the constraint, g the groups of the bypass, P the epochs of the progressive phase.

Differs: "FLOPs" are multiply-accumulates of convolutions and linear layers, the bypass included; the abstract does not say.
Differs: 1×1 convolutions, convolutions in groups and the one that reads the image keep all filters, and so do convolutions
    without a batch norm of their own. ``pointwise`` lets 1×1 convolutions in. The abstract does not say which are pruned.
Differs: a depthwise bypass needs as many outputs as inputs; other layers get the grouped one.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from papernets import check

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
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


def rho_of(removed: float) -> float:
    """ρ = 1 − ``removed``, to twelve digits: 0.8 leaves 0.2 to the last bit. ``ValueError`` if it is outside [0, 1)."""
    return round(1 - check.share("removed", removed), 12)


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


def runs(index: torch.Tensor) -> tuple[tuple[int, int, int], ...]:
    """An ascending ``index`` (C',) as runs of neighbours: (start in the index, first channel, length)."""
    parts, listed = [], index.tolist()
    for start, place in enumerate(listed):
        if parts and place == listed[start - 1] + 1:
            parts[-1][2] += 1
        else:
            parts.append([start, place, 1])
    return tuple(map(tuple, parts))
