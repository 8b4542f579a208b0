"""The layers of LBC, and the verbs that apply it to a network."""

import copy
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import n_of_m as kernel
from torch import nn
from torch.nn import functional as F

from papernets.nn import Packed, chosen
from papernets.papers.lbc.method import (
    _check_epochs,
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

# ---------------------------------------------------------------------------------------------------------------------
# The layers
# ---------------------------------------------------------------------------------------------------------------------

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
# The verbs
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
