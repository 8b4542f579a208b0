"""The layers of LBC, and the verbs that apply it to a network."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import n_of_m as kernel
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.nn import Packed, chosen, plain_like, replace_, replaced
from papernets.papers.lbc.method import (
    bits,
    from_groups,
    largest,
    left,
    masked,
    number,
    remove,
    rerank_,
    start,
    supports,
    to_groups,
    union,
)

#: How the N of M are found: by the paper's scores, or, for comparison, once at random, or as the largest magnitudes of each
#: step with masked gradients (magnitude) or with dense straight-through ones (ste).
RULES = ("scores", "random", "magnitude", "ste")
#: Epochs of the released script for ResNets.
EPOCHS = 120


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
        left(self.t_i, self.N, self.M, self.t_i, self.t_f)  # refuses what is no pattern or no schedule
        check.one_of("rule", self.rule, RULES)

# ---------------------------------------------------------------------------------------------------------------------
# The layers while they are trained
# ---------------------------------------------------------------------------------------------------------------------


class _Grouped:
    """What a convolution and a linear layer have in common: scores (G, n), the supports that are left, and the mask."""

    def begin(self, config: LBC, draw: torch.Generator) -> None:
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
        """(n, M) on the device of the weight."""
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
        """Remove what ``epoch``, counted from 0, is to lose. An earlier epoch than before brings nothing back."""
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

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """A weight outside of the mask costs nothing."""
        return _macs(y, len(self.weight), int(self.mask.sum()), convention, self.weight.dim() == 4 and self.bias is not None)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.config.N}:{self.config.M}"


def _macs(y: torch.Tensor, outputs: int, weights: int, convention: str, biased: bool) -> int:
    """Of a layer of so many ``outputs`` and ``weights`` that gives ``y``; thop also counts the bias of a convolution."""
    return y.numel() // outputs * weights + (y.numel() if convention == "thop" and biased else 0)


class SparseLinear(_Grouped, nn.Linear):
    """A linear layer that becomes N:M: forward m ⊙ W."""

    def __init__(self, layer: nn.Linear, config: LBC, draw: torch.Generator):
        super().__init__(layer.in_features, layer.out_features, layer.bias is not None, layer.weight.device, layer.weight.dtype)
        self.load_state_dict(layer.state_dict())
        self.begin(config, draw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.sparse_weight(), self.bias)


class SparseConv2d(_Grouped, nn.Conv2d):
    """A convolution that becomes N:M along its input channels: forward m ⊙ W."""

    def __init__(self, layer: nn.Conv2d, config: LBC, draw: torch.Generator):
        super().__init__(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
                         bias=layer.bias is not None, padding_mode=layer.padding_mode, device=layer.weight.device,
                         dtype=layer.weight.dtype)
        self.load_state_dict(layer.state_dict())
        self.begin(config, draw)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.sparse_weight(), self.bias)

# ---------------------------------------------------------------------------------------------------------------------
# The layers when they are trained: values and places on the compiled kernel
# ---------------------------------------------------------------------------------------------------------------------


class _PackedLayer(Packed):
    """An N:M weight as it is stored: values V (Co, K / M, N) and their places in the group, for the kernel.

    K runs over the taps of the window first and over the input channels last, so that a group is M inputs of one tap.
    """

    def __init__(self, layer: SparseLinear | SparseConv2d, threads: int):
        super().__init__()
        self.N, self.M, self.threads = layer.config.N, layer.config.M, threads
        W = (layer.weight * layer.mask).detach().cpu().float()
        packed = kernel.pack(to_groups(W, self.M).reshape(len(W), -1).contiguous().numpy(), self.N, self.M)
        self.register_buffer("V", torch.from_numpy(packed.values))
        self.register_buffer("places", torch.from_numpy(packed.indices))
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().cpu().clone())

    def _pack(self) -> kernel.NofM:
        return kernel.NofM(self.V.numpy(), self.places.numpy(), self.M)

    @property
    def stored(self) -> tuple[int, int]:
        """Numbers kept, and their bits: 32 a value and ⌈log2 M⌉ a place. (In memory and in a state a place takes a byte.)"""
        bias = 0 if self.bias is None else len(self.bias)
        return self.V.numel() + bias, self.V.shape[0] * self.V.shape[1] * bits(self.N, self.M, 32) + 32 * bias


class PackedLinear(_PackedLayer):
    """A linear layer of N:M weights on the compiled kernel."""

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = x.detach().cpu().float().reshape(-1, x.shape[-1])  # (P, K)
        y = torch.from_numpy(kernel.matmul(self.form, np.ascontiguousarray(rows.numpy().T), threads=self.threads))  # (Co, P)
        y = y if self.bias is None else y + self.bias[:, None]
        return y.T.reshape(*x.shape[:-1], len(y)).to(x)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return _macs(y, len(self.V), self.V.numel(), convention, False)


class PackedConv2d(_PackedLayer):
    """A convolution of N:M weights on the compiled kernel."""

    def __init__(self, layer: SparseConv2d, threads: int):
        super().__init__(layer, threads)
        self.window = layer.kernel_size, layer.stride, layer.padding, layer.dilation

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = x.detach().cpu().float().numpy()
        y = torch.from_numpy(kernel.conv2d(self.form, images, *self.window, threads=self.threads))  # (B, Co, Ho, Wo)
        return (y if self.bias is None else y + self.bias[:, None, None]).to(x)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        return _macs(y, len(self.V), self.V.numel(), convention, self.bias is not None)

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------

_SPARSE = (SparseLinear, SparseConv2d)
_FIRST = "call sparsify_ first"


def sparse_layers(model: nn.Module) -> dict[str, SparseLinear | SparseConv2d]:
    """The N:M layers of ``model`` by name. ``ValueError`` if there is none."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, _SPARSE)}
    if not layers:
        raise ValueError(f"this network has no N:M layer; {_FIRST}")
    return layers


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

    ``ValueError``, before anything is changed, if M does not divide the inputs of a layer, or if a layer has scores already.

    >>> model = ResNetBasic()
    >>> sparsify_(model, LBC(N=2, M=4, ignore=("conv1", "classifier")))
    >>> fit(model, …, before_epoch=refresh_)
    """
    draw, made = torch.Generator().manual_seed(config.seed), {}
    for name, layer in sparsifiable(model, config).items():
        if isinstance(layer, _SPARSE):
            raise ValueError(f"{name} has scores already; begin with the dense network")
        with check.of(name, f"leave the layer dense with ignore=({name!r},) or skip=True"):
            made[name] = (SparseLinear if isinstance(layer, nn.Linear) else SparseConv2d)(layer, config, draw)
    replace_(model, made)


def refresh_(model: nn.Module, epoch: int) -> None:
    """Remove the supports that ``epoch``, counted from 0, is to lose. To be called at the start of every epoch.

    ``ValueError`` names the layer if a score is not finite.
    """
    for name, layer in sparse_layers(model).items():
        with check.of(name):
            layer.refresh_(epoch)


def density(model: nn.Module) -> float:
    """Share of the weights of the N:M layers that count now. It is N / M only after the last removal."""
    masks = [layer.mask for layer in sparse_layers(model).values()]
    return sum(int(m.sum()) for m in masks) / sum(m.numel() for m in masks)


def violations(model: nn.Module) -> int:
    """How many groups of the N:M layers do not have exactly N places."""
    return sum(int((to_groups(layer.mask, layer.config.M).sum(1) != layer.config.N).sum())
               for layer in sparse_layers(model).values())


def dense(model: nn.Module) -> nn.Module:
    """A new, ordinary network with the same outputs: what the mask leaves out is zeros, and the scores are gone.

    Before the last removal it is sparse, but not yet N:M. ``ValueError`` if there is no N:M layer.
    """
    return replaced(model, _SPARSE, lambda name, layer: plain_like(layer, layer.weight * layer.mask), missing=_FIRST)


def compact(model: nn.Module, example: torch.Tensor | None = None, *, threads: int = 1) -> nn.Module:
    """A new network with the same outputs whose N:M layers are stored as values and places and run on the compiled kernel.

    The layers know all that is needed, so ``example`` is not looked at. ``threads`` are those of the kernel. ``ValueError`` if
    there is no N:M layer, if removals are still to come, or if a convolution does not pad with numbers of zeros.
    """
    check.whole("threads", threads)

    def packed(name: str, layer: SparseLinear | SparseConv2d) -> PackedLinear | PackedConv2d:
        if not layer.final:
            n = number(layer.config.N, layer.config.M)
            raise ValueError(f"{name} has {n - int(layer.removed)} of {n} supports left in each group; it is packed when one "
                             f"is, at epoch {layer.config.t_f}")
        if isinstance(layer, SparseLinear):
            return PackedLinear(layer, threads)
        if layer.padding_mode != "zeros" or isinstance(layer.padding, str):
            raise ValueError(f"{name} has padding {layer.padding!r} of mode {layer.padding_mode!r}; "
                             "the packed form takes numbers of zeros")
        return PackedConv2d(layer, threads)

    return replaced(model, _SPARSE, packed, missing=_FIRST).eval()
