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

import copy
import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations

import numpy as np
import torch
from papernets_kernels import n_of_m as kernel
from papernets_kernels import one_by_n
from PIL import Image
from torch import nn
from torch.nn import functional as F

from papernets.data import ImageFolder, digits, image_folders
from papernets.measure import count, fastest, parameters, products, sparse_products, take_turns
from papernets.nn import DeiT, Packed, ResNetBasic, ResNetImageNet, chosen
from papernets.training import (
    Recipe,
    cosine,
    erase,
    fit,
    loader,
    logits,
    mixing,
    rand_augment,
    seed_everything,
    single_thread,
    with_warmup,
)

# ---------------------------------------------------------------------------------------------------------------------
# 1. Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: More supports than this for each group are refused: their scores would outgrow the weights many times.
LIMIT = 2000


def number(N: int, M: int) -> int:
    """n, in how many ways N of M places can be chosen. ``ValueError`` if N:M is no pattern, or has more than ``LIMIT``."""
    for name, value in (("N", N), ("M", M)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} is {value!r}; it is a whole number of at least 1")
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
    number(N, M)
    return 1 / math.comb(M - 1, N - 1)


def left(epoch: int, N: int, M: int, t_i: int = 0, t_f: int = 60) -> int:
    """How many of the n supports are left in ``epoch``, counted from 0: 1 + ⌈(n − 1)(1 − (e − t_i)/(t_f − t_i))³⌉."""
    _check_epochs(t_i, t_f)
    n = number(N, M)
    share = 1 - Fraction(min(max(int(epoch), t_i), t_f) - t_i, t_f - t_i)
    return 1 + math.ceil((n - 1) * share**3)


def _check_epochs(t_i: int, t_f: int) -> None:
    if t_i < 0:
        raise ValueError(f"the removal starts at epoch {t_i}; the earliest is 0")
    if t_f <= t_i:
        raise ValueError(f"the removal ends at epoch {t_f} and starts at {t_i}; it must end at {t_i + 1} or later")


def to_groups(W: torch.Tensor, M: int) -> torch.Tensor:
    """w (G, M): ``W`` (Co, Ci) or (Co, Ci, kh, kw) cut along the inputs, at one output and one tap of the window."""
    if W.dim() not in (2, 4):
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci) or (Co, Ci, kh, kw)")
    if W.shape[1] % M:
        near = min((m for m in range(1, W.shape[1] + 1) if W.shape[1] % m == 0), key=lambda m: (abs(m - M), m))
        raise ValueError(f"M is {M}, and {W.shape[1]} inputs are no multiple of it; the nearest M that divides is {near}")
    return (W if W.dim() == 2 else W.permute(0, 2, 3, 1)).reshape(-1, M)


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
    """``alive`` (G, n) without the lowest scores of each group, so that ``stay`` are left. Ties go to the lower index."""
    if not 1 <= stay <= s.shape[1]:
        raise ValueError(f"{stay} supports are to stay; it must be from 1 to {s.shape[1]}")
    if not torch.isfinite(s[alive]).all():
        raise ValueError("a score is not finite; supports are ranked by finite scores")
    order = torch.argsort(s.detach().masked_fill(~alive, -torch.inf), dim=1, stable=True)  # those removed before come first
    return alive & torch.ones_like(alive).scatter_(1, order[:, : s.shape[1] - stay], False)


def rerank_(s: torch.Tensor, k: int) -> torch.Tensor:
    """The code's removal: set the ``k`` lowest scores of each group to 0, scores of 0 first; what is left (G, n)."""
    with torch.no_grad():
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
    if not 1 <= c <= n:
        raise ValueError(f"c is {c}; {N}:{M} has from 1 to {n} supports")
    return 1 - math.comb(n - math.comb(M - 1, N - 1), c) / math.comb(n, c)


def bits(N: int, M: int, value: int = 16) -> int:
    """Bits of one group: N values of ``value`` bits, each with its place among M."""
    number(N, M)
    return N * (value + math.ceil(math.log2(M)))


def code_bits(N: int, M: int) -> int:
    """The least bits that tell the supports of one group apart."""
    return math.ceil(math.log2(number(N, M)))


# ---------------------------------------------------------------------------------------------------------------------
# 2. The layers
# ---------------------------------------------------------------------------------------------------------------------

#: How the N of M are found: by the paper's scores, or, for comparison, once at random, or as the largest magnitudes of each
#: step with masked gradients (magnitude) or with dense straight-through ones (ste).
RULES = ("scores", "random", "magnitude", "ste")


@dataclass(frozen=True)
class LBC:
    """How a network becomes N:M; the defaults are those of the released script for ResNets.

    ``t_i`` and ``t_f`` are the first and the last epoch of the removal. ``rerank`` lets removed supports come back, as in the
    code. ``skip`` leaves layers dense whose inputs M does not divide. ``filter_fn(name, module)`` and ``ignore`` leave layers
    out. ``rule`` is one of ``RULES``, and ``seed`` that of the random one.
    """

    N: int = 2
    M: int = 4
    t_i: int = 0
    t_f: int = 60
    rerank: bool = False
    skip: bool = False
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None
    rule: str = "scores"
    seed: int = 0

    def __post_init__(self):
        number(self.N, self.M)
        _check_epochs(self.t_i, self.t_f)
        if self.rule not in RULES:
            raise ValueError(f"rule is {self.rule!r}; choose from {', '.join(RULES)}")


class _Grouped:
    """What a convolution and a linear layer have in common: scores (G, n), the supports that are left, and the mask."""

    def _begin(self, config: LBC, draw: torch.Generator) -> None:
        self.config, n, W = config, number(config.N, config.M), self.weight
        G, at = len(to_groups(W, config.M)), W.device
        self.register_buffer("removed", torch.zeros((), dtype=torch.int64, device=at))  # k, of each group
        if config.rule == "scores":
            self.scores = nn.Parameter(torch.full((G, n), start(config.N, config.M), dtype=W.dtype, device=at))
            self.register_buffer("alive", torch.ones(G, n, dtype=torch.bool, device=at))
        elif config.rule == "random":
            picked = torch.randint(n, (G, 1), generator=draw).to(at)
            self.register_buffer("alive", torch.zeros(G, n, dtype=torch.bool, device=at).scatter_(1, picked, True))

    @property
    def A(self) -> torch.Tensor:
        return supports(self.config.N, self.config.M).to(self.weight)

    @property
    def final(self) -> bool:
        """Whether the choice of supports is over."""
        return self.config.rule != "scores" or int(self.removed) == number(self.config.N, self.config.M) - 1

    @property
    def mask(self) -> torch.Tensor:
        """True where a weight counts, in the shape of the weight."""
        by_size = self.config.rule in ("magnitude", "ste")
        w = to_groups(self.weight, self.config.M)
        return from_groups(largest(w, self.config.N) if by_size else union(self.alive, self.A), self.weight.shape)

    def sparse_weight(self) -> torch.Tensor:
        """Ŵ = m ⊙ W, with the gradients of the rule."""
        config, W = self.config, self.weight
        w = to_groups(W, config.M)
        if config.rule == "ste":
            return from_groups(w + (w * largest(w, config.N) - w).detach(), W.shape)
        if config.rule == "magnitude":
            return from_groups(w * largest(w, config.N), W.shape)
        if config.rule == "random":
            return from_groups(w * union(self.alive, self.A), W.shape)
        if config.rerank and self.training and not self.final:
            self.alive = rerank_(self.scores, int(self.removed))
        return from_groups(masked(w, self.scores, self.alive, self.A, learn=not self.final), W.shape)

    @torch.no_grad()
    def refresh_(self, epoch: int) -> None:
        config = self.config
        if config.rule != "scores":
            return
        n = number(config.N, config.M)
        k = max(int(self.removed), n - left(epoch, config.N, config.M, config.t_i, config.t_f))
        if config.rerank:
            if not self.final:
                self.alive = rerank_(self.scores, k)
        else:
            self.alive = remove(self.scores, self.alive, n - k)
        self.removed.fill_(k)

    def _macs(self, y: torch.Tensor, outputs: int, convention: str, extra: bool) -> int:
        return y.numel() // outputs * int(self.mask.sum()) + (y.numel() if convention == "thop" and extra else 0)


class SparseLinear(_Grouped, nn.Linear):
    """A linear layer that becomes N:M: forward m ⊙ W."""

    def __init__(self, layer: nn.Linear, config: LBC, draw: torch.Generator):
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.device, layer.weight.dtype)
        self.load_state_dict(layer.state_dict())
        self._begin(config, draw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self.sparse_weight(), self.bias)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """A weight outside of the mask costs nothing."""
        return self._macs(y, self.out_features, convention, False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.config.N}:{self.config.M}"


class SparseConv2d(_Grouped, nn.Conv2d):
    """A convolution that becomes N:M along its input channels: forward m ⊙ W."""

    def __init__(self, layer: nn.Conv2d, config: LBC, draw: torch.Generator):
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                         bias=layer.bias is not None, padding_mode=layer.padding_mode, device=layer.weight.device,
                         dtype=layer.weight.dtype)
        self.load_state_dict(layer.state_dict())
        self._begin(config, draw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.sparse_weight(), self.bias)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """A weight outside of the mask costs nothing."""
        return self._macs(y, self.out_channels, convention, self.bias is not None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.config.N}:{self.config.M}"


class PackedProduct(Packed):
    """The product with an N:M weight as it is stored: values V (Co, K / M, N) and their places in the group, for the kernel.

    K runs over the taps of the window first and over the input channels last, so that a group is M inputs of one tap.
    """

    def __init__(self, W: torch.Tensor, bias: torch.Tensor | None, N: int, M: int, threads: int = 1):
        super().__init__()
        self.N, self.M, self.threads = N, M, threads
        found = kernel.pack(to_groups(W.detach().cpu().float(), M).reshape(len(W), -1).contiguous().numpy(), N, M)
        self.register_buffer("V", torch.from_numpy(found.values))
        self.register_buffer("places", torch.from_numpy(found.indices))
        self.register_buffer("bias", None if bias is None else bias.detach().cpu().clone())

    def _pack(self) -> kernel.NofM:
        return kernel.NofM(self.V.numpy(), self.places.numpy(), self.M)

    @property
    def stored(self) -> tuple[int, int]:
        """Numbers kept, and their bits: 32 a value and ⌈log2 M⌉ a place. (In memory and in a state a place takes a byte.)"""
        bias = 0 if self.bias is None else len(self.bias)
        return self.V.numel() + bias, self.V.shape[0] * self.V.shape[1] * bits(self.N, self.M, 32) + 32 * bias

    def forward(self, columns: np.ndarray) -> np.ndarray:
        """(K, P) to (Co, P)."""
        y = kernel.matmul(self.form, columns, threads=self.threads)
        return y if self.bias is None else y + self.bias.numpy()[:, None]

    def cost(self, y: torch.Tensor, convention: str, extra: bool) -> int:
        return y.numel() // len(self.V) * self.V.numel() + (y.numel() if convention == "thop" and extra else 0)


class PackedLinear(nn.Module):
    """A linear layer of N:M weights on the compiled kernel."""

    def __init__(self, layer: SparseLinear, threads: int = 1):
        super().__init__()
        self.inputs, self.outputs = layer.in_features, layer.out_features
        self.product = PackedProduct(layer.weight * layer.mask, layer.bias, layer.config.N, layer.config.M, threads)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.detach().cpu().float().reshape(-1, self.inputs).numpy()
        return torch.from_numpy(self.product(np.ascontiguousarray(rows.T)).T.reshape(*x.shape[:-1], self.outputs)).to(x)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return self.product.cost(y, convention, False)


class PackedConv2d(nn.Module):
    """A convolution of N:M weights on the compiled kernel."""

    def __init__(self, layer: SparseConv2d, threads: int = 1):
        super().__init__()
        self.kernel_size, self.stride, self.padding = layer.kernel_size, layer.stride, layer.padding
        self.dilation = layer.dilation
        self.product = PackedProduct(layer.weight * layer.mask, layer.bias, layer.config.N, layer.config.M, threads)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = x.detach().cpu().float().numpy()
        made = [self._one(image) for image in images]
        if not made:
            made = self._one(np.zeros(images.shape[1:], np.float32))[None][:0]
        return torch.from_numpy(np.stack(made) if len(made) else made).to(x)

    def _one(self, image: np.ndarray) -> np.ndarray:
        (kh, kw), (sy, sx), (py, px), (dy, dx) = self.kernel_size, self.stride, self.padding, self.dilation
        if (kh, kw, sy, sx, py, px) == (1, 1, 1, 1, 0, 0):
            return self.product(np.ascontiguousarray(image).reshape(len(image), -1)).reshape(-1, *image.shape[1:])
        image = np.pad(image, ((0, 0), (py, py), (px, px)))
        height, width = (image.shape[1] - dy * (kh - 1) - 1) // sy + 1, (image.shape[2] - dx * (kw - 1) - 1) // sx + 1
        columns = np.empty((kh, kw, len(image), height, width), np.float32)
        for i in range(kh):
            for j in range(kw):
                columns[i, j] = image[:, i * dy :: sy, j * dx :: sx][:, :height, :width]
        return self.product(columns.reshape(-1, height * width)).reshape(-1, height, width)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return self.product.cost(y.permute(0, 2, 3, 1), convention, self.product.bias is not None)


# ---------------------------------------------------------------------------------------------------------------------
# 3. The verbs
# ---------------------------------------------------------------------------------------------------------------------

_SPARSE = (SparseLinear, SparseConv2d)


def _layers(model: nn.Module) -> dict[str, SparseLinear | SparseConv2d]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, _SPARSE)}
    if not found:
        raise ValueError("this network has no N:M layer; call sparsify_ first")
    return found


def sparsifiable(model: nn.Module, config: LBC = LBC()) -> dict[str, nn.Module]:
    """The convolutions of one group and the linear layers that ``sparsify_`` works on, by name."""
    def fits(name: str, module: nn.Module) -> bool:
        divides = not config.skip or module.weight.shape[1] % config.M == 0
        return getattr(module, "groups", 1) == 1 and divides and (config.filter_fn is None or config.filter_fn(name, module))

    return chosen(model, (nn.Conv2d, nn.Linear), ignore=config.ignore, filter_fn=fits)


def sparsify_(model: nn.Module, config: LBC = LBC()) -> None:
    """Give every support of every group of ``model`` a score, in place. The outputs stay what they are until ``refresh_``.

    It works on convolutions of one group and on linear layers, but for those that ``config`` leaves out; the paper's recipes
    leave out the stem and the classifier. Build the optimiser afterwards: the scores are parameters.

    >>> model = ResNetBasic()
    >>> sparsify_(model, LBC(N=2, M=4, ignore=("conv1", "classifier")))
    >>> fit(model, …, before_epoch=refresh_)
    """
    found = sparsifiable(model, config)
    if "" in found:
        raise ValueError("the network is itself a layer; put it into an nn.Sequential")
    draw, made = torch.Generator().manual_seed(config.seed), {}
    for name, layer in found.items():
        if isinstance(layer, _SPARSE):
            raise ValueError(f"{name} has scores already; begin with the dense network")
        try:
            made[name] = (SparseLinear if isinstance(layer, nn.Linear) else SparseConv2d)(layer, config, draw)
        except ValueError as error:
            raise ValueError(f"{name}: {error}; leave the layer dense with ignore=({name!r},) or skip=True") from None
        made[name].train(layer.training)
    for name, layer in made.items():
        model.set_submodule(name, layer)


def refresh_(model: nn.Module, epoch: int) -> None:
    """Remove the supports that ``epoch``, counted from 0, is to lose. To be called at the start of every epoch."""
    for name, layer in _layers(model).items():
        try:
            layer.refresh_(epoch)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def density(model: nn.Module) -> float:
    """Share of the weights of the N:M layers that count now. It is N / M only after the last removal."""
    masks = [layer.mask for layer in _layers(model).values()]
    return sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


def violations(model: nn.Module) -> int:
    """How many groups of the N:M layers do not have exactly N places."""
    return sum(int((to_groups(layer.mask, layer.config.M).sum(1) != layer.config.N).sum()) for layer in _layers(model).values())


def dense(model: nn.Module) -> nn.Module:
    """A new, ordinary network with the same outputs: what the mask leaves out is zeros, and the scores are gone.

    Before the last removal it is sparse, but not yet N:M.
    """
    _layers(model)
    model = copy.deepcopy(model)
    for name, layer in _layers(model).items():
        bias = layer.bias is not None
        options = dict(bias=bias, device=layer.weight.device, dtype=layer.weight.dtype)
        if isinstance(layer, SparseLinear):
            plain = nn.Linear(layer.in_features, layer.out_features, **options)
        else:
            plain = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding,
                              layer.dilation, padding_mode=layer.padding_mode, **options)
        plain.load_state_dict({"weight": layer.weight.detach() * layer.mask} | ({"bias": layer.bias.detach()} if bias else {}))
        model.set_submodule(name, plain.train(layer.training))
    return model


def compact(model: nn.Module, *, threads: int = 1) -> nn.Module:
    """A new network with the same outputs whose N:M layers are stored as values and places and run on the compiled kernel."""
    for name, layer in _layers(model).items():
        if not layer.final:
            n = number(layer.config.N, layer.config.M)
            raise ValueError(f"{name} has {n - int(layer.removed)} of {n} supports left in each group; it is packed when one "
                             f"is, at epoch {layer.config.t_f}")
        if isinstance(layer, SparseConv2d) and (layer.padding_mode != "zeros" or isinstance(layer.padding, str)):
            raise ValueError(f"{name} has padding {layer.padding!r} of mode {layer.padding_mode!r}; "
                             "the packed form takes numbers of zeros")
    model = copy.deepcopy(model).eval()
    for name, layer in _layers(model).items():
        model.set_submodule(name, (PackedLinear if isinstance(layer, SparseLinear) else PackedConv2d)(layer, threads))
    return model


# ---------------------------------------------------------------------------------------------------------------------
# 4. The paper's networks
# ---------------------------------------------------------------------------------------------------------------------


NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet18": ResNetBasic, "resnet50": ResNetImageNet, "deitsmall": DeiT}


def network(name: str) -> Callable[[], nn.Module]:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _body(name: str, module: nn.Module) -> bool:
    """Everything between the stem and the classifier."""
    return name not in ("conv1", "patches", "classifier")


@functools.cache
def counts(name: str, N: int = 2, M: int = 4) -> dict[str, int]:
    """A network of the paper at N:M: ``params``, ``layers`` and ``weights`` under N:M, their ``scores``, ``nonzero`` parameters
    at the end, ``dense.macs``, those ``nm.macs`` of them that are of N:M layers, and ``macs`` at the end.
    """
    n = number(N, M)
    with torch.device("meta"):
        model = network(name)()
        costs = count(model, torch.empty(1, 3, 224, 224))
    layers = sparsifiable(model, LBC(N, M, filter_fn=_body))
    groups = {layer: len(to_groups(module.weight, M)) for layer, module in layers.items()}
    weights, whole = M * sum(groups.values()), sum(cost.macs for cost in costs.values())
    inside = sum(costs[layer].macs for layer in layers)
    kept = sum(costs[layer].macs // (M * groups[layer]) * N * groups[layer] for layer in layers)
    return {"params": parameters(model), "layers": len(layers), "weights": weights, "scores": n * sum(groups.values()),
            "nonzero": parameters(model) - weights + N * sum(groups.values()), "dense.macs": whole, "nm.macs": inside,
            "macs": whole - inside + kept}


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found = {}
    for N, M in ((2, 4), (1, 4), (2, 8), (4, 8), (1, 8), (1, 16)):
        found |= {f"count.{N}_{M}": len(supports(N, M)), f"scores.{N}_{M}": supports(N, M).shape[0] / M}
        found |= {f"store.{N}_{M}.bits": bits(N, M), f"store.{N}_{M}.share": 100 * bits(N, M) / (16 * M),
                  f"store.{N}_{M}.code": code_bits(N, M)}
    config = LBC()
    found |= {"schedule.start": config.t_i, "schedule.end": config.t_f, "nodense.pretraining": config.t_i,
              "schedule.epochs": RECIPES["resnet50-imagenet"]().epochs}
    alive = [left(epoch, config.N, config.M, config.t_i, config.t_f) for epoch in range(config.t_f + 1)]
    found |= {f"schedule.removal{k}": next(e for e, c in enumerate(alive) if 6 - c >= k) for k in range(1, 6)}
    for short, name in (("r18", "resnet18"), ("r50", "resnet50")):
        every = counts(name)
        found |= {f"{short}.{key}": every[key] for key in ("weights", "params", "layers", "nm.macs")}
        found[f"{short}.macs"] = every["dense.macs"]
        for N, M in ((2, 4), (4, 8), (1, 4), (1, 16)):
            every = counts(name, N, M)
            found |= {f"{short}.{N}_{M}.{key}": every[key] for key in ("scores", "nonzero", "macs")}
            found[f"{short}.{N}_{M}.macs_left"] = 100 * every["macs"] / every["dense.macs"]
    return found | _observed(seed)


def _observed(seed: int) -> dict[str, float]:
    """What a short training of a small network shows of the mask and of its gradients."""
    at_start, at_end, gradient = set(), 0, 0.0
    with single_thread(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for N, M in ((2, 4), (1, 4), (2, 8)):
            model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 16))
            sparsify_(model, LBC(N, M, t_f=4))
            optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
            for epoch in range(6):
                refresh_(model, epoch)
                if not epoch:
                    at_start.add(100 * density(model))
                optimizer.zero_grad()
                model(torch.randn(16, 8, 5, 5)).square().mean().backward()
                for layer in _layers(model).values():
                    pruned = layer.weight.grad[~layer.mask]
                    gradient = max(gradient, float(pruned.abs().max()) if len(pruned) else 0.0)
                optimizer.step()
            at_end += violations(model)
    return {"sparsity.start": min(at_start), "sparsity.end": at_end, "nodense.gradient": gradient}


# ---------------------------------------------------------------------------------------------------------------------
# 5. The experiments of the chapter, and the recipes of the paper
# ---------------------------------------------------------------------------------------------------------------------


class SmallMLP(nn.Module):
    """Two hidden layers for 8×8 digits."""

    def __init__(self, inputs: int = 64, hidden: int = 64, classes: int = 10):
        super().__init__()
        self.fc1, self.fc2, self.classifier = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


@torch.no_grad()
def rescale_(model: nn.Module) -> None:
    """Scale the weight of each N:M layer so that the part that counts has the norm of the whole."""
    for layer in _layers(model).values():
        layer.weight *= layer.weight.norm() / (layer.weight * layer.mask).norm()


#: The arms of the comparison, by name.
ARMS = {"lbc": LBC(), "random": LBC(rule="random"), "magnitude": LBC(rule="magnitude"), "ste": LBC(rule="ste")}
PATTERNS = ((2, 4), (1, 4), (1, 8), (1, 16))


def compare(seed: int, *, train: int = 1000, epochs: int = 40, patterns: Sequence[tuple[int, int]] = PATTERNS,
            lr: float = 0.05) -> dict:
    """All arms on the digits for one seed: same first weights, order of the data and epochs; removal over the first half.

    The first weights of each N:M layer are scaled so that those that count have the norm of the dense layer. Without it a
    sparse arm would begin with weak signals, and LBC, which begins dense, would gain from that alone.

    ``dense``: the test accuracy of the dense network (a share). ``arms[N, M][name]``: that of an arm. ``density[N, M]``: the
    share of weights that count in each epoch of LBC. ``packed``: the largest difference between a network and its packed form.
    """
    data = digits(train, seed)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    options = dict(epochs=epochs, lr=cosine(lr, epochs), weight_decay=1e-4, seed=seed)
    with single_thread():
        seed_everything(seed)
        first = SmallMLP()
        found = {"seed": seed, "dense": fit(copy.deepcopy(first), *loaders, **options).accuracy[-1], "arms": {}, "density": {},
                 "packed": 0.0}
        for N, M in patterns:
            found["arms"][N, M] = {}
            for name, config in ARMS.items():
                model, seen = copy.deepcopy(first), []
                sparsify_(model, replace(config, N=N, M=M, t_f=max(1, epochs // 2), seed=seed, ignore=("classifier",)))
                rescale_(model)
                after = (lambda model, epoch, history, seen=seen: seen.append(density(model))) if name == "lbc" else None
                history = fit(model, *loaders, before_epoch=refresh_, after_epoch=after, **options)
                found["arms"][N, M][name] = history.accuracy[-1]
                if name == "lbc":
                    refresh_(model, epochs)  # of a run of one epoch the last removal is still to come
                    found["density"][N, M] = seen
                    gap = logits(model, data[1].images) - logits(compact(model), data[1].images)
                    found["packed"] = max(found["packed"], float(gap.abs().max()))
    return found


def race(seed: int, *, channels: int = 256, side: int = 14, N: int = 2, M: int = 4, repeats: int = 15) -> dict[str, float]:
    """Milliseconds of one 1×1 layer on one thread: our kernel, the dense product, and the same weights in compressed rows.

    Medians over ``repeats`` turns, in which all take part in turn. ``dense`` is the fastest of numpy's product, torch's, and
    the dense product of this package's own (the 1×N kernel with nothing removed); ``csr`` the faster of scipy's and torch's.
    Results are compared first.
    """
    rng = np.random.default_rng(seed)
    full = rng.standard_normal((channels, channels)).astype(np.float32)
    W = full * largest(to_groups(torch.from_numpy(full), M), N).reshape(full.shape).numpy()
    x = rng.standard_normal((channels, side * side)).astype(np.float32)
    packed, whole = kernel.pack(W, N, M), one_by_n.pack(full[:, :, None, None], 8)
    every = {"ours": {"ours": lambda: kernel.matmul(packed, x)},
             "dense": {**products(W, x), "nothing removed": lambda: one_by_n.matmul(whole, x)}, "csr": sparse_products(W, x)}
    calls = {name: call for group in every.values() for name, call in group.items()}
    taken = take_turns(calls, {**dict.fromkeys(calls, W @ x), "nothing removed": full @ x}, repeats=repeats)
    return {group: fastest(taken, names) for group, names in every.items()}


_smoothed = functools.partial(F.cross_entropy, label_smoothing=0.1)


def _no_decay(model: nn.Module) -> list[dict]:
    """Parameters in two groups, those with weight decay first; scales, shifts, biases, token and places have none."""
    decayed, plain = ([p for p in model.parameters() if (p.dim() in (2, 4)) is wanted] for wanted in (True, False))
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def _sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(_no_decay(model), 0.1, momentum=0.9, weight_decay=1e-4)


def _adamw(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW(_no_decay(model), 1e-3, weight_decay=0.05)


def _transformer() -> Recipe:
    """DeiT-small as in table 9 of its paper; the script that was released with LBC trains it so, too."""
    def read(path) -> tuple[ImageFolder, ImageFolder]:
        return image_folders(path, "imagenet", change=rand_augment, resampling=Image.Resampling.BICUBIC)

    return Recipe(data="imagenet", build=lambda: DeiT(drop=[0.1 * block / 11 for block in range(12)]), epochs=300, batch=1024,
                  lr=with_warmup(cosine(1e-3, 300, 5), 5), weight_decay=0.05, optimizer=_adamw, read=read, repeats=3,
                  augment=functools.partial(erase, areas=(0.02, 1 / 3), noise=True),
                  step=mixing(_smoothed, chance=1.0, alpha=(0.8, 1.0)))


def _convolutional(name: str) -> Recipe:
    return Recipe(data="imagenet", build=NETWORKS[name], epochs=120, batch=256, lr=with_warmup(cosine(0.1, 120, 5), 5),
                  weight_decay=1e-4, optimizer=_sgd, loss=lambda: lambda outputs, images, labels: _smoothed(outputs, labels))


def _recipe(name: str, config: LBC | None) -> Recipe:
    recipe = _transformer() if name == "deitsmall" else _convolutional(name)
    if config is None:
        return recipe

    def build() -> nn.Module:
        model = recipe.build()
        sparsify_(model, replace(config, filter_fn=_body))
        return model

    return replace(recipe, build=build, before_epoch=lambda model, epoch, _: refresh_(model, epoch), export=dense)


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found: dict[str, tuple[str, LBC | None]] = {}
    for name in NETWORKS:
        found[f"{name}-dense"] = name, None
        for N, M in (*PATTERNS, (2, 8), (4, 8)):
            for arm, config in ARMS.items():
                key = "-".join([name, *([] if arm == "lbc" else [arm]), *([] if (N, M) == (2, 4) else [f"{N}of{M}"])])
                found[key] = name, replace(config, N=N, M=M, t_f=200 if name == "deitsmall" else 60)
    return {f"{key}-imagenet": lambda a=arguments: _recipe(*a) for key, arguments in found.items()}


#: By network, rule and pattern: ``resnet50-imagenet`` is LBC at 2:4, ``resnet50-ste-1of4-imagenet`` its peer at 1:4. The best
#: network of a run may be of an epoch before the last removal, and then it is not yet N:M; the last one always is.
RECIPES: dict[str, Callable[[], Recipe]] = _recipes()

__all__ = [
    "ARMS",
    "LBC",
    "LIMIT",
    "NETWORKS",
    "PATTERNS",
    "RECIPES",
    "RULES",
    "PackedConv2d",
    "PackedLinear",
    "PackedProduct",
    "SmallMLP",
    "SparseConv2d",
    "SparseLinear",
    "bits",
    "code_bits",
    "compact",
    "compare",
    "counts",
    "dense",
    "density",
    "expected_density",
    "facts",
    "from_groups",
    "largest",
    "left",
    "masked",
    "network",
    "number",
    "race",
    "refresh_",
    "remove",
    "rerank_",
    "rescale_",
    "sparsifiable",
    "sparsify_",
    "start",
    "supports",
    "to_groups",
    "union",
    "violations",
]
