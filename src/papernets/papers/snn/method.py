"""Sub-bit Neural Networks: Learning to Compress and Accelerate Binary Neural Networks (SNN).

Yikai Wang, Yi Yang, Fuchun Sun, Anbang Yao; ICCV 2021, arXiv 2110.09195. Code: https://github.com/yikaiw/SNN

A binary 3×3 kernel is one of 512 patterns. Every layer may use only 2^τ of them, a subset that it learns, so a kernel is stored
as an index of τ bits, τ/9 bit a weight. And a window of the input meets only 2^τ different kernels, however many outputs there
are: their dot products are computed once and shared.

Symbols: w the latent real kernels (Co, Ci, 3, 3), w̄ the binary ones, K = {-1, +1}^9, P a layer's subset of 2^τ patterns, p
its real form (2^τ, 9), m the memory of its signs, θ the dead zone, s the scale of a filter. A pattern is nine signs, row by
row; its code has bit j set where sign j is +. Projection and subset are the paper's; the rules of scale, gradient, memory,
dead zone and interval are read from the authors' code, for the paper's own text on them was not at hand.

Differs: duplicates among the patterns are replaced after the optimiser's step (``settle_``). The code does it inside the
    forward pass, before the backward pass, so after a removal the gradient's rows belong to other patterns.
Differs: a duplicate is replaced where it stands, and its moments in the optimiser are cleared. In the code the rows behind it
    close up, under the optimiser's moments and under the memory. The set of patterns is the same.
Differs: a replacement is drawn from the patterns that are missing. The code draws once from all 512 and may end with fewer rows
    than 2^τ, which then fit nowhere.
Differs: the step counter and the memory are buffers and count passes in training mode only. In the code they are plain
    attributes: a checkpoint loses them, and passes of evaluation count too.
Differs: sign(0) is +1 where activations are binarised, as in the kernels; the code's is 0.
Differs: the scale multiplies the convolution's outputs, not its weights. The product is the same; sums of signs stay whole
    numbers, so a network and its compact form agree to the last bit.
Differs: inner products are taken in float64, for in float32 a tiny weight can vanish beside a large one, and with it its sign.
"""

import numpy as np
import torch
from torch.nn import functional

from papernets import check

ALL = 512  # patterns of nine signs
_POWERS = 2 ** np.arange(9)


def patterns(codes) -> torch.Tensor:
    """The patterns (n, 9) float of ``codes`` (n,): entry j is +1 where bit j is set, else -1."""
    codes = torch.as_tensor(codes)
    powers = torch.as_tensor(_POWERS, device=codes.device)
    return ((codes.unsqueeze(-1) & powers) != 0).float() * 2 - 1  # (n, 9)


def codes(rows: torch.Tensor) -> torch.Tensor:
    """The codes (…,) of the signs of ``rows`` (…, 9); what is not above 0 counts as -1. The inverse of ``patterns``."""
    return ((rows > 0) * torch.as_tensor(_POWERS, device=rows.device)).sum(-1)


def reading(codes: torch.Tensor) -> torch.Tensor:
    """Where the authors' code has a pattern in its list of all 512: position 0 is there the highest bit, not the lowest."""
    return sum(((codes >> j) & 1) << (8 - j) for j in range(9))


def subset_size(tau: int) -> int:
    """2^τ. ``ValueError`` if τ is no whole number from 1 to 9: a 3×3 kernel has nine signs."""
    return 2 ** check.whole("tau", tau, 1, 9)


def sample(tau: int, generator: torch.Generator | None = None) -> torch.Tensor:
    """Codes (2^τ,) of a subset drawn uniformly from the 512 without replacement, ascending."""
    return torch.randperm(ALL, generator=generator, device="cpu")[:subset_size(tau)].sort().values


def most_frequent(w: torch.Tensor, tau: int) -> torch.Tensor:
    """Codes (2^τ,) of the patterns that the signs of ``w`` (…, 3, 3) show most often, most frequent first.

    Ties, also among those that never occur, go to the larger index in the authors' list of patterns (``reading``).
    """
    number = subset_size(tau)
    times = torch.bincount(codes(w.detach().reshape(-1, 9)).cpu(), minlength=ALL)
    return torch.sort(times * ALL + reading(torch.arange(ALL)), descending=True).indices[:number]


def project(w: torch.Tensor, P: torch.Tensor, at_once: int = 2**16) -> torch.Tensor:
    """ids (…) of the nearest pattern in ``P`` (n, 9) to each kernel of ``w`` (…, 3, 3); ties go to the lowest index.

    argmin ‖k - w‖² over k ∈ P. All ‖k‖² are 9, so it is argmax ⟨k, w⟩, and the scale of w has no say.
    """
    rows = w.detach().reshape(-1, 9)
    if len(P) == ALL and bool((codes(P) == torch.arange(ALL, device=P.device)).all()):
        return codes(rows).view(w.shape[:-2])  # with all 512 in order the nearest is the kernel's signs
    P = P.to(torch.float64).T
    ids = [(part.to(torch.float64) @ P).argmax(1) for part in rows.split(at_once)]  # (n of a part, 2^τ) → (n,)
    return torch.cat(ids).view(w.shape[:-2])


def scales(w: torch.Tensor) -> torch.Tensor:
    """s (Co,): the mean of |w| over each filter of ``w`` (Co, Ci, 3, 3); a constant for the gradient."""
    return w.detach().abs().mean((1, 2, 3))


class _Straight(torch.autograd.Function):
    """``straight_through``, with the gradients that its docstring gives."""

    @staticmethod
    def forward(ctx, w, p, P, ids):
        ctx.save_for_backward(w, ids)
        ctx.rows = None if p is None else p.shape
        return P[ids].view(w.shape)

    @staticmethod
    def backward(ctx, g):
        w, ids = ctx.saved_tensors
        to_p = None
        if ctx.rows is not None:
            to_p = g.new_zeros(ctx.rows).index_add_(0, ids.flatten(), g.reshape(-1, 9))
        return g * (w.abs() <= 1), to_p, None, None


def straight_through(w: torch.Tensor, P: torch.Tensor, ids: torch.Tensor, p: torch.Tensor | None = None) -> torch.Tensor:
    """w̄ = P[ids] (Co, Ci, 3, 3), with a gradient straight to w where |w| ≤ 1.

    With ``p`` (2^τ, 9) the gradient also goes to p, unclipped: to each row the sum over the kernels that use it.
    """
    return _Straight.apply(w, p, P, ids)


def remember(p: torch.Tensor, m: torch.Tensor, theta: float = 1e-3) -> torch.Tensor:
    """The new memory: the signs of ``p`` where |p| ≥ θ, and the old ``m`` inside this dead zone."""
    return torch.where(p.abs() >= theta, torch.where(p > 0, 1.0, -1.0), m)


def settle(p: torch.Tensor, m: torch.Tensor, generator: torch.Generator | None = None, scale: float = 1.0,
           limit: float = 3.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """p and m with every repeated pattern replaced by a missing one, p clamped to ±3; and which rows are fresh (2^τ,).

    A row repeats if its signs are those of an earlier one. A fresh row of p is ``scale`` times its pattern.
    """
    signs = codes(p).tolist()
    fresh = torch.tensor([code in signs[:row] for row, code in enumerate(signs)], device=p.device)
    missing = torch.tensor(sorted(set(range(ALL)) - set(signs)))
    drawn = missing[torch.randperm(len(missing), generator=generator)[: int(fresh.sum())]]
    new = patterns(drawn).to(p)
    p, m = p.clone(), m.clone()
    p[fresh], m[fresh] = scale * new, new
    return p.clamp(-limit, limit), m, fresh


class _Binarise(torch.autograd.Function):
    """``binarise``, with the slope that its docstring gives."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * (2 - 2 * x.abs()).clamp(min=0)


def binarise(x: torch.Tensor) -> torch.Tensor:
    """The signs of ``x``, +1 at 0. The slope is that of a piecewise polynomial: 2 + 2x on [-1, 0), 2 - 2x on [0, 1), else 0."""
    return _Binarise.apply(x)


def shared_conv2d(x: torch.Tensor, ids: torch.Tensor, P: torch.Tensor, stride=1, padding=0) -> torch.Tensor:
    """The convolution of ``x`` (B, Ci, H, W) with ``P[ids]``, its results shared: (B, Co, Ho, Wo).

    First every window's dot product with each of the n patterns, then for every output one pick for each input channel.
    """
    channels = x.shape[1]
    kernels = P.to(x.dtype).view(-1, 1, 3, 3).repeat(channels, 1, 1, 1)  # (Ci n, 1, 3, 3)
    table = functional.conv2d(x, kernels, stride=stride, padding=padding, groups=channels)  # (B, Ci n, Ho, Wo)
    table = table.unflatten(1, (channels, len(P)))  # (B, Ci, n, Ho, Wo)
    return sum(table[:, c, ids[:, c]] for c in range(channels))
