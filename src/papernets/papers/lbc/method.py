"""Learning Best Combination for Efficient N:M Sparsity (LBC).

Yuxin Zhang, Mingbao Lin, Zhihang Lin, Yiting Luo, Ke Li, Fei Chao, Yongjian Wu, Rongrong Ji; NeurIPS 2022, arXiv 2206.06662.
Code: https://github.com/zyxxmu/LBC

Of every M consecutive input weights of an output at most N stay. Which N is a choice among n = C(M, N) supports, and each
support of each group gets a score of its own, trained by gradient descent together with the weights. The supports with the
lowest scores are removed step by step, on a cubic schedule, until one is left in each group. The network starts dense, from
random weights, and ends with exactly N of M.

Symbols: w (G, M) the weights in G groups, A (n, M) the supports in lexicographic order, s (G, n) the scores, alive (G, n)
which supports are left, m (G, M) the union of these, the mask, t_i and t_f the first and the last epoch of the removal.

Differs: which supports are left is a mask of its own, and a removal is for ever. The code takes a score of 0 as the sign of a
    removed support; the momentum of the optimiser moves it off 0, and it competes again at the next step. A score that is 0
    by chance is removed, too. ``LBC(rerank=True)`` does as the code does.
Differs: a place is kept if any support that is left holds it. The code asks whether the sum of their scores is 0, which could
    also happen by cancellation.
Differs: ties go to the lower index. The code leaves them to the sort.
Differs: after the last removal the gradient of the scores is 0; the code also takes them out of the optimiser. No mask can
    change any more in either.
Differs: M must divide the inputs. The code reshapes whatever the product allows, so that a group may straddle two outputs.
Differs: convolutions in groups stay dense; with one input channel for each output nothing but 1:1 could be asked of them.
"""

import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations

import torch

from papernets import check

#: More supports than this for each group are refused: their scores would outgrow the weights many times.
LIMIT = 2000


def number(N: int, M: int) -> int:
    """n, in how many ways N of M places can be chosen. ``ValueError`` if N:M is no pattern, or has more than ``LIMIT``."""
    check.whole("N", N)
    check.whole("M", M)
    if N > M:
        raise ValueError(f"N is {N} of M = {M}; the largest N is {M}")
    n = math.comb(M, N)
    if n > LIMIT:
        raise ValueError(f"{N}:{M} has {n} supports, and the limit is {LIMIT}: the scores would take {n / M:.0f} times the "
                         f"memory of the weights; 4:8 takes {math.comb(8, 4) / 8:g} times")
    return n


@functools.cache
def supports(N: int, M: int) -> torch.Tensor:
    """A (n, M) float32: one row for each way to choose N of M places, in lexicographic order."""
    A = torch.zeros(number(N, M), M)
    for row, places in enumerate(combinations(range(M), N)):
        A[row, list(places)] = 1
    return A


def start(N: int, M: int) -> float:
    """The score of every support at the start, so that the scores of those that hold a place add up to 1."""
    number(N, M)  # refuses what is no pattern
    return 1 / math.comb(M - 1, N - 1)


def left(epoch: int, N: int, M: int, t_i: int = 0, t_f: int = 60) -> int:
    """How many of the n supports are left in ``epoch``, counted from 0: 1 + ⌈(n − 1)(1 − (e − t_i)/(t_f − t_i))³⌉.

    ``ValueError`` if N:M is no pattern, or if ``t_i`` is below 0 or ``t_f`` not above ``t_i``.
    """
    check.whole("t_i, where the removal starts,", t_i, 0)
    check.whole("t_f, where the removal ends,", t_f, t_i + 1)
    share = 1 - Fraction(min(max(int(epoch), t_i), t_f) - t_i, t_f - t_i)  # exact, so that no rounding moves the ceiling
    return 1 + math.ceil((number(N, M) - 1) * share**3)


def to_groups(W: torch.Tensor, M: int) -> torch.Tensor:
    """w (G, M): ``W`` (Co, Ci) or (Co, Ci, kh, kw) cut along the inputs, at one output and one tap of the window.

    ``ValueError`` if M does not divide Ci; it names the nearest that does.
    """
    if W.dim() not in (2, 4):
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci) or (Co, Ci, kh, kw)")
    Ci = W.shape[1]
    if Ci % M:
        near = min((m for m in range(1, Ci + 1) if Ci % m == 0), key=lambda m: (abs(m - M), m))
        raise ValueError(f"M is {M}, and {Ci} inputs are no multiple of it; the nearest M that divides is {near}")
    return (W if W.dim() == 2 else W.permute(0, 2, 3, 1)).reshape(-1, M)  # inputs last, so that a group is one row


def from_groups(w: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The weight of ``shape`` of which ``to_groups`` made ``w``."""
    if len(shape) == 2:
        return w.reshape(shape)
    Co, Ci, *window = shape
    return w.reshape(Co, *window, Ci).permute(0, 3, 1, 2).contiguous()


def union(alive: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """m (G, M), True at a place that some support which is left holds."""
    return alive.to(A.dtype) @ A > 0


class _Masked(torch.autograd.Function):
    """``masked``, with the gradients that its docstring gives."""

    @staticmethod
    def forward(ctx, w, s, alive, A, learn):
        m = union(alive, A)
        ctx.save_for_backward(w, m, alive, A)
        ctx.learn = learn
        return w * m

    @staticmethod
    def backward(ctx, g):
        w, m, alive, A = ctx.saved_tensors
        to_s = None
        if ctx.needs_input_grad[1]:
            to_s = alive * ((w * g) @ A.T) if ctx.learn else torch.zeros(alive.shape, dtype=w.dtype, device=w.device)
        return g * m, to_s, None, None, None


def masked(w: torch.Tensor, s: torch.Tensor, alive: torch.Tensor, A: torch.Tensor, learn: bool = True) -> torch.Tensor:
    """ŵ = m ⊙ w (G, M). No score scales a weight; each still gets a gradient, as if the mask were the sum of the scores:

    ∂L/∂w = m ⊙ g and ∂L/∂s_c = alive_c Σ_{j ∈ c} w_j g_j with g = ∂L/∂ŵ at all places of the support c. Without ``learn`` the
    scores get zeros.
    """
    return _Masked.apply(w, s, alive, A, learn)


def remove(s: torch.Tensor, alive: torch.Tensor, stay: int) -> torch.Tensor:
    """``alive`` (G, n) without the lowest scores of each group, so that ``stay`` are left. Ties go to the lower index.

    ``ValueError`` if a support that is left has a score that is not finite.
    """
    check.whole("stay", stay, 1, s.shape[1])
    check.finite("s", s[alive], "supports are ranked by finite scores")
    order = torch.argsort(s.detach().masked_fill(~alive, -torch.inf), dim=1, stable=True)  # those removed before come first
    return alive & torch.ones_like(alive).scatter_(1, order[:, : s.shape[1] - stay], False)


def rerank_(s: torch.Tensor, k: int) -> torch.Tensor:
    """The code's removal: set the ``k`` lowest scores of each group to 0, scores of 0 first; what is left (G, n)."""
    with torch.no_grad():  # the code's -1000 stands below every score
        order = torch.argsort(s.masked_fill(s == 0, -1000), dim=1, stable=True)
        s.scatter_(1, order[:, :k], 0)
    return s.detach() != 0


def largest(w: torch.Tensor, N: int) -> torch.Tensor:
    """m (G, M), True at the N largest magnitudes of each group; ties go to the lower index."""
    order = torch.argsort(w.detach().abs(), dim=1, descending=True, stable=True)
    return torch.zeros_like(w, dtype=torch.bool).scatter_(1, order[:, :N], True)


def expected_density(c: int, N: int, M: int) -> float:
    """Share of places that at least one of ``c`` supports holds, if these are drawn at random: 1 − C(n − a, c) / C(n, c).

    a = C(M − 1, N − 1) is the number of supports that hold a place.
    """
    n = number(N, M)
    check.whole("c", c, 1, n)
    return 1 - math.comb(n - math.comb(M - 1, N - 1), c) / math.comb(n, c)


def bits(N: int, M: int, value: int = 16) -> int:
    """Bits of one group: N values of ``value`` bits, each with its place among M."""
    number(N, M)  # refuses what is no pattern
    return N * (value + math.ceil(math.log2(M)))


def code_bits(N: int, M: int) -> int:
    """The least bits that tell the supports of one group apart."""
    return math.ceil(math.log2(number(N, M)))
