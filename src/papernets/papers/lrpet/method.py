"""Compact Model Training by Low-Rank Projection with Energy Transfer.

Kailing Guo, Zhenquan Lin, Canyang Chen, Xiaofen Xing, Fang Liu, Xiangmin Xu; IEEE TNNLS 2024, arXiv 2204.05566.
Code: https://github.com/BZQLin/LRPET

A layer whose weight matrix has rank r is two small layers. To truncate trained weights to rank r destroys the network, and to
train the two small layers keeps the optimiser in a small space. LRPET trains the full matrices and projects them at regular
intervals onto those of rank r; in between they may leave that set. What the projection takes away of the sum of squared
singular values, the energy, is given back to the values that are kept. Where a batch norm follows, the matrix that inference
uses is projected: the weight with the batch norm folded in.

Symbols: W (m, d) with m outputs and d = inputs · k²; p = min(m, d); s the singular values, largest first; r the rank that is
kept, q the pruned share; E the energy; ρ what is left of the values beyond r; a = γ / sqrt(v + ε), the scale of the batch norm.

Differs: a rank is at least 1. The code's int(p − p q) can be 0, and then divides by 0.
Differs: at r ≥ p the weight stays as it is. The code folds the batch norm in and out again, which the damping does not undo.
Differs: a batch norm belongs to the convolution whose output it reads, found with an example. The code pairs them by their
    order, which goes wrong where a convolution has none; such a layer is projected without.
Differs: a layer that has died gives 0, as it did. The code puts an empty module in its place, which hands its input on.
Differs: convolutions in groups are left alone. The code has none.
Differs: the search for ranks calls the objective 40 times; the released file is a stub with two calls, and the weight of the
    multiply-adds is not in it either.
Differs: Faster R-CNN has the features of VGG-16, as the logs of the printed numbers do; the authors' page says ResNet-50.
Differs: a decomposition that fails raises. The code falls back to numpy on a transposed matrix.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from papernets import check
from papernets.nn import chosen, conv_like, flow, linear_like, replace_

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: Added to a² where a batch norm is folded out again, so that a weight stays finite where a is near 0.
DAMPING = 1e-5
#: A matrix whose largest singular value is below this has died, and is not projected.
DEAD = 1e-4
#: A layer whose largest singular value is below this is left out of the compact network.
GONE = 1e-5


def rank(p: int, q: float, least: int = 1) -> int:
    """r: what the pruned share ``q`` leaves of ``p`` singular values, cut down to a whole number and at least ``least``."""
    check.share("the pruned share", q, "[]")
    return min(p, max(least, int(p - p * q)))


def break_even(m: int, d: int) -> float:
    """The rank at which two layers of r (m + d) weights cost as much as one of m d."""
    return m * d / (m + d)


def transfer(s: torch.Tensor, r: int, *, energy: bool = True, rho: float = 0.0) -> torch.Tensor:
    """s' (p,): of the values ``s`` those beyond ``r`` are multiplied by ``rho``, and the others by one factor, so that the
    energy is what it was. Without ``energy`` the factor is 1.
    """
    kept, rest = s[:r], s[r:]
    factor = torch.sqrt((s.square().sum() - rho**2 * rest.square().sum()) / kept.square().sum()) if energy else 1.0
    return torch.cat([kept * factor, rest * rho])


def _decompose(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """U (m, p), s (p,), Vᵀ (p, d)."""
    return torch.linalg.svd(check.finite("the weight", W, "it has no singular values"), full_matrices=False)


def _check_projection(W: torch.Tensor, r: int, rho: float) -> None:
    if W.dim() < 2:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is a matrix, or that of a convolution")
    check.whole("the rank", r)
    check.share("rho", rho, "[]")


@torch.no_grad()
def project(W: torch.Tensor, r: int, a: torch.Tensor | None = None, *, energy: bool = True, rho: float = 0.0) -> torch.Tensor:
    """W' of the shape of ``W`` (m, …): rank ``r`` as a matrix (m, d), with the energy that it had.

    With ``a`` (m,), the scale of the batch norm behind, diag(a) W is projected, and a folded out again. ``ValueError`` if a
    number is not finite, or ``a`` is not one scale for each output.
    """
    _check_projection(W, r, rho)
    if a is not None:
        if a.shape != (len(W),):
            raise ValueError(f"a has shape {tuple(a.shape)}; it is one scale for each of {len(W)} outputs")
        check.finite("the batch norm's scale", a, "no weight can be folded with it")
    flat = W.reshape(len(W), -1)  # (m, d)
    if r >= min(flat.shape):
        return W.clone()
    U, s, Vt = _decompose(flat if a is None else a[:, None] * flat)
    if s[0] < DEAD:
        return W.clone()
    projected = (U * transfer(s, r, energy=energy, rho=rho)) @ Vt
    if a is not None:
        projected = (a / (a.square() + DAMPING))[:, None] * projected
    return projected.view_as(W)


@torch.no_grad()
def factorise(W: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """C (r, d) and N (m, r) with N C the best matrix of rank ``r`` for ``W`` (m, …); both take a square root of s."""
    _check_projection(W, r, 0.0)
    U, s, Vt = _decompose(W.reshape(len(W), -1).double())
    root = s[:r].sqrt()
    return (root[:, None] * Vt[:r]).to(W.dtype), (U[:, :r] * root).to(W.dtype)

# ---------------------------------------------------------------------------------------------------------------------
# The layer that is left of one that has died
# ---------------------------------------------------------------------------------------------------------------------


class Silent(nn.Module):
    """A convolution or linear layer whose weights are all 0: its output is its bias, without a multiplication."""

    def __init__(self, layer: nn.Conv2d | nn.Linear):
        super().__init__()
        self.outputs = len(layer.weight)
        self.window = None if isinstance(layer, nn.Linear) else (layer.kernel_size, layer.stride, layer.padding, layer.dilation)
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().clone())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.window is None:
            y = x.new_zeros(*x.shape[:-1], self.outputs)
            return y if self.bias is None else y + self.bias
        sides = [(side + 2 * pad - far * (k - 1) - 1) // step + 1 for side, k, step, pad, far in zip(x.shape[2:], *self.window)]
        y = x.new_zeros(len(x), self.outputs, *sides)
        return y if self.bias is None else y + self.bias.view(-1, 1, 1)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return 0

    def extra_repr(self) -> str:
        return f"{self.outputs}"

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


@check.renamed(share="removed")
@dataclass(frozen=True)
class LRPET:
    """How the layers of a network are projected; the defaults are those of the released code.

    ``removed`` is the pruned share q, one or one per layer name; ``ranks``, if given, are the ranks themselves, in the order of
    the layers or by name. No rank falls below ``least``. ``energy`` switches the transfer and ``bn_rectify`` the folding of
    the batch norm; ``rho`` is what is left of the values beyond the rank. With ``linear`` linear layers take part, too.
    """

    removed: float | Mapping[str, float] = 0.8
    ranks: Sequence[int] | Mapping[str, int] | None = None
    least: int = 1
    energy: bool = True
    bn_rectify: bool = True
    rho: float = 0.0
    linear: bool = False
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None

    def __post_init__(self):
        for removed in self.removed.values() if isinstance(self.removed, Mapping) else [self.removed]:
            check.share("removed", removed, "[]")
        check.whole("least", self.least)
        check.share("rho", self.rho, "[]")


def ranks(model: nn.Module, config: LRPET = LRPET()) -> dict[str, int]:
    """The rank of every layer that is projected, by name: convolutions of one group, and linear ones if asked.

    ``ValueError`` if the configuration names a layer that is none of them, or a rank that a layer cannot have.
    """
    def fits(name: str, module: nn.Module) -> bool:
        return getattr(module, "groups", 1) == 1 and (config.filter_fn is None or config.filter_fn(name, module))

    layers = chosen(model, (nn.Conv2d, nn.Linear) if config.linear else nn.Conv2d, ignore=config.ignore, filter_fn=fits)
    sides = {name: min(len(module.weight), module.weight[0].numel()) for name, module in layers.items()}
    given = config.removed if config.ranks is None else config.ranks
    if isinstance(given, Mapping):
        for name in given:
            check.one_of("a layer to project", name, layers)
        sides = {name: p for name, p in sides.items() if name in given}
    if config.ranks is None:
        return {name: rank(p, given[name] if isinstance(given, Mapping) else given, config.least) for name, p in sides.items()}
    if not isinstance(given, Mapping):
        if len(given) != len(sides):
            raise ValueError(f"{len(given)} ranks are given, and {len(sides)} layers are projected; give one for each")
        given = dict(zip(sides, given))
    for name, r in given.items():
        with check.of(name):
            check.whole("the rank", r, 1, sides[name])
    return {name: given[name] for name in sides}


def norms(model: nn.Module, example: torch.Tensor) -> dict[str, str]:
    """Which batch norm reads the output of which convolution or linear layer, by name; found by running ``example``."""
    return {name: behind[-1] for name, behind in flow(model, example).norms.items()}


def scale(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> torch.Tensor:
    """a (m,): by what a batch norm multiplies at inference. ``ValueError`` if that changes with the batch."""
    if norm.running_var is None:
        raise ValueError("a batch norm without running statistics has no fixed scale; set bn_rectify to False")
    gain = torch.ones_like(norm.running_var) if norm.weight is None else norm.weight.detach()
    return gain / torch.sqrt(norm.running_var + norm.eps)


@torch.no_grad()
def project_(model: nn.Module, config: LRPET = LRPET(), example: torch.Tensor | None = None) -> None:
    """Project the weights of ``model`` onto their ranks, in place: after every epoch, and once more at the end.

    With ``bn_rectify`` an ``example`` input tells which batch norm follows which layer. Batch norms and the optimiser's state
    are left alone, so the next step goes partly back; that is intended. Each layer knows its rank from then on, as its
    ``projected_rank``. ``ValueError``, before anything is changed, names a layer that cannot be projected.

    >>> project_(model, LRPET(removed=0.8), torch.zeros(1, 3, 32, 32))
    """
    wanted = ranks(model, config)
    if config.bn_rectify and example is None:
        raise ValueError("bn_rectify needs an example input, to find the batch norm behind each layer; or set it to False")
    pairs = norms(model, example.to(next(model.parameters()).device)) if config.bn_rectify else {}
    made = {}
    for name, r in wanted.items():
        a = scale(model.get_submodule(pairs[name])) if name in pairs else None
        with check.of(name):
            made[name] = project(model.get_submodule(name).weight, r, a, energy=config.energy, rho=config.rho)
    for name, W in made.items():
        layer = model.get_submodule(name)
        layer.weight.copy_(W)
        layer.projected_rank = wanted[name]  # a copy keeps it, and a state does not hold it


def pair_of(layer: nn.Conv2d | nn.Linear, r: int) -> nn.Sequential:
    """The two layers that are left of one: d to ``r`` with the window, stride and padding, then ``r`` to m with the bias."""
    C, N = factorise(layer.weight, r)
    if isinstance(layer, nn.Linear):
        first, second = linear_like(layer, outputs=r, bias=False), linear_like(layer, inputs=r)
    else:
        first = conv_like(layer, outputs=r, bias=False)
        second = nn.Conv2d(r, len(N), 1, bias=layer.bias is not None, device=N.device, dtype=N.dtype)
    bias = {} if layer.bias is None else {"bias": layer.bias.detach()}
    first.load_state_dict({"weight": C.view_as(first.weight)})
    second.load_state_dict({"weight": N.view_as(second.weight), **bias})
    return nn.Sequential(first, second).train(layer.training)


def _compacted(layer: nn.Conv2d | nn.Linear, only_cheaper: bool, tolerance: float) -> nn.Module | None:
    """What is left of a projected layer; None if it stays as it is."""
    flat, r = layer.weight.detach().reshape(len(layer.weight), -1).double(), layer.projected_rank
    s = torch.linalg.svdvals(check.finite("the weight", flat, "it has no singular values"))
    if s[0] < GONE and not (isinstance(layer, nn.Conv2d) and isinstance(layer.padding, str)):
        return Silent(layer)
    left = float(s[r:].norm() / s.norm())
    if left > tolerance:
        raise ValueError(f"{left:.2g} of the norm is beyond rank {r}; call project_ with rho 0 first")
    return None if only_cheaper and r >= break_even(*flat.shape) else pair_of(layer, r)


@check.renamed(config="example: each layer knows the rank it was projected to")
def compact(model: nn.Module, example: torch.Tensor | None = None, *, only_cheaper: bool = False,
            tolerance: float = 1e-4) -> nn.Module:
    """A new, ordinary network with the same outputs: every projected layer is a pair of layers, a dead one is ``Silent``.

    ``only_cheaper`` leaves a layer whole where a pair has at least as many weights. ``example`` is not needed. ``ValueError``
    if no layer was projected, or if one has changed since: the singular values beyond its rank hold more than ``tolerance`` of
    its norm.
    """
    layers = {name: module for name, module in model.named_modules() if hasattr(module, "projected_rank")}
    if not layers:
        names = ", ".join(name or "the network itself" for name in ranks(model, LRPET(linear=True)))
        raise ValueError(f"none of these layers was projected: {names}; call project_ first")
    made = {}
    for name, layer in layers.items():
        with check.of(name):
            made[name] = _compacted(layer, only_cheaper, tolerance)
    small = copy.deepcopy(model)
    replace_(small, {name: module for name, module in made.items() if module is not None})
    return small
