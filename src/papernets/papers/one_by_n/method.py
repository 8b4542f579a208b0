"""1xN Pattern for Pruning Convolutional Neural Networks.

Mingbao Lin, Yuxin Zhang, Yuchao Li, Bohong Chen, Fei Chao, Mengdi Wang, Shen Li, Yonghong Tian, Rongrong Ji; IEEE TPAMI 2022,
arXiv 2105.14713. Code: https://github.com/lmbxmu/1xN

Single weights can be removed at little cost in accuracy, but an ordinary CPU gains nothing from zeros without order. Whole
filters can be removed with a gain in time, at a cost in accuracy. In between, N kernels of consecutive outputs that read the
same input channel form a block. A block that is kept multiplies one input with N weights, one operation on a register.

Symbols: W (Co, Ci, k, k), p the pruning rate, N the block size, G = Co / N groups, B (G, Ci) the L1 norms of the blocks,
M the mask, π an order of the filters, and P, I, D the row pointers, indices and values of the encoded blocks.

Differs: N must divide Co, or ``pad`` makes the last group a short one. The code reshapes whatever the product of Co and Ci
    allows, so that blocks may straddle two input channels.
Differs: ties go to the lower index in the order of the code, input channel first. The code leaves them to the sort.
Differs: removed weights are set to 0 at once, where the code keeps them behind the mask. No output and no gradient sees them.
Differs: the masked layers get no bias. The code adds one, and keeps it at 0.
Differs: random blocks are drawn without replacement. The code draws with it, so it removes fewer than it says.
Differs: ``compact`` reorders a filter only with all that depends on it. The code's masks of ResNet-50 also reorder the
    convolutions on shortcuts, which a network could not do without the third convolution of the block.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import one_by_n as kernel
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.nn import Packed, chosen, plain_like, replace_, replaced, surgery

# ---------------------------------------------------------------------------------------------------------------------
# Functions on tensors
# ---------------------------------------------------------------------------------------------------------------------

#: What is removed at a time: a block of N kernels, or, for comparison, a weight, a kernel (1×1), a filter, a random block.
PATTERNS = ("block", "weight", "kernel", "filter", "random")


def groups(Co: int, N: int, pad: bool = False) -> int:
    """G: groups of N among Co filters; with ``pad`` the last may be short. ``ValueError`` names the nearest N that divides."""
    check.whole("N", N)
    if Co % N and not pad:
        near = min((n for n in range(1, Co + 1) if Co % n == 0), key=lambda n: (abs(n - N), n))
        raise ValueError(f"N is {N}, and {Co} filters are no multiple of it; the nearest N that divides is {near}")
    return -(-Co // N)


def norms(W: torch.Tensor, N: int, pad: bool = False) -> torch.Tensor:
    """B (G, Ci): the L1 norm of every block of ``W`` (Co, Ci, k, k)."""
    G = groups(len(W), N, pad)
    each = W.detach().abs().sum((2, 3))  # (Co, Ci)
    return functional.pad(each, (0, 0, 0, G * N - len(W))).view(G, N, -1).sum(1)


def order(W: torch.Tensor) -> torch.Tensor:
    """π (Co,): the filters of ``W`` by ascending L1 norm, so that strong kernels come into the same blocks."""
    return torch.argsort(W.detach().abs().sum((1, 2, 3)), stable=True)


def smallest(scores: torch.Tensor, number: int) -> torch.Tensor:
    """True where one of the ``number`` smallest ``scores`` (G, Ci) stands; ties by input channel, then by group."""
    flat = scores.T.flatten()  # index i G + g, as in the code
    gone = torch.zeros_like(flat, dtype=torch.bool)
    gone[torch.argsort(flat, stable=True)[:number]] = True
    return gone.view(scores.T.shape).T


def mask(W: torch.Tensor, p: float, N: int = 4, *, rearrange: bool = False, pattern: str = "block", pad: bool = False,
         generator: torch.Generator | None = None) -> torch.Tensor:
    """M, True where a weight of ``W`` (Co, Ci, k, k) is kept: of each layer int(pieces · p) pieces go, the smallest in L1 norm.

    A piece is a block of N kernels, in the order of ``order`` if ``rearrange``; or what ``pattern`` says instead.
    ``ValueError`` if p is outside [0, 1), if a weight is not finite, or if N does not divide Co and ``pad`` is not given.
    """
    check.share("p", p)
    check.one_of("pattern", pattern, PATTERNS)
    if W.dim() != 4:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci, k, k), of a linear layer (Co, Ci, 1, 1)")
    check.finite("W", W, "pieces are ranked by finite norms")
    Co, Ci = W.shape[:2]
    if pattern == "weight":
        scores = W.detach().abs().transpose(0, 1).reshape(-1, 1)  # input channel first, as in the code
        keep = ~smallest(scores, int(len(scores) * p))
        return keep.reshape(Ci, Co, *W.shape[2:]).transpose(0, 1).contiguous()
    if pattern == "filter":
        keep = ~smallest(W.detach().abs().sum((1, 2, 3))[:, None], int(Co * p))  # (Co, 1)
        return keep[:, :, None, None].expand(W.shape).contiguous()
    N = 1 if pattern == "kernel" else N
    pi = order(W) if rearrange else torch.arange(Co, device=W.device)
    B = norms(W[pi], N, pad)
    if pattern == "random":
        B = torch.rand(B.shape, generator=generator).to(B.device)
    keep = ~smallest(B, int(B.numel() * p))  # (G, Ci)
    M = torch.empty(Co, Ci, dtype=torch.bool, device=W.device)
    M[pi] = keep.repeat_interleave(N, 0)[:Co]  # the rows of W[π], put back
    return M[:, :, None, None].expand(W.shape).contiguous()


def kept_norm(W: torch.Tensor, M: torch.Tensor) -> float:
    """The L1 norm that ``M`` keeps, as a share of that of ``W``."""
    whole = W.detach().abs().sum()
    return float((W.detach().abs() * M).sum() / whole) if whole else 1.0


def encode(W: torch.Tensor, N: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P (G + 1,), I (blocks,) and D (blocks, k, k, N): the blocks of ``W`` that are not zero, by group. Indices from 0."""
    packed = kernel.pack(W.detach().cpu().numpy(), N)
    return packed.rows, packed.columns, packed.values


def decode(P: np.ndarray, I: np.ndarray, D: np.ndarray, shape: Sequence[int]) -> torch.Tensor:
    """The weight of ``shape`` (Co, Ci, k, k) that ``encode`` was given."""
    return torch.from_numpy(kernel.unpack(kernel.OneByN(D, I, P, tuple(shape))))


def stored_bytes(kept: int, blocks: int, G: int, value: int = 4, index: int = 2, pointer: int = 4) -> int:
    """Bytes of ``kept`` values, an index for each of ``blocks`` blocks, and G + 1 row pointers."""
    return kept * value + blocks * index + (G + 1) * pointer

# ---------------------------------------------------------------------------------------------------------------------
# The layers
# ---------------------------------------------------------------------------------------------------------------------


@check.renamed(rate="removed: the same share")
@dataclass(frozen=True)
class OneByN:
    """How a network is pruned; the defaults are the paper's.

    ``removed`` is the share of blocks that go, in [0, 1): one for all layers, or one for each layer name. ``rearrange`` says
    whether blocks are formed in the order of the filters' norms: in all layers, in none, or in those named. ``kernel`` are the
    sizes of kernels that are pruned: (1,) the pointwise convolutions only, None all. ``filter_fn(name, module)`` and
    ``ignore`` leave layers out.
    """

    removed: float | Mapping[str, float] = 0.5
    N: int = 4
    rearrange: bool | tuple[str, ...] = True
    pattern: str = "block"
    pad: bool = False
    kernel: tuple[int, ...] | None = None
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None
    seed: int = 0

    def __post_init__(self):
        check.whole("N", self.N)
        check.one_of("pattern", self.pattern, PATTERNS)
        for share in self.removed.values() if isinstance(self.removed, Mapping) else [self.removed]:
            check.share("removed", share)


class MaskedConv2d(nn.Conv2d):
    """A convolution in which some weights stay 0: forward M ⊙ W, and a gradient of exactly 0 where M is.

    ``mask`` (Co, Ci, k, k) and ``order`` (Co,), the order of the filters in which the mask is one of blocks, are buffers.
    """

    def __init__(self, conv: nn.Conv2d, M: torch.Tensor, order: torch.Tensor, N: int):
        super().__init__(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                         bias=conv.bias is not None, padding_mode=conv.padding_mode, device=conv.weight.device,
                         dtype=conv.weight.dtype)
        self.N = N
        self.register_buffer("mask", M)
        self.register_buffer("order", order)
        with torch.no_grad():
            self.weight.copy_(conv.weight * M)
            if conv.bias is not None:
                self.bias.copy_(conv.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(x, self.mask * self.weight, self.bias)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """Removed weights cost nothing."""
        positions = y.numel() // self.out_channels
        return positions * int(self.mask.sum()) + (y.numel() if convention == "thop" and self.bias is not None else 0)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, N={self.N}, kept={float(self.mask.float().mean()):.3g}"


class PackedConv2d(Packed):
    """A pruned convolution as it is stored and run: blocks of N kernels in P, I and D, for the compiled kernel.

    ``order`` is None, or the order of the outputs in which the blocks were formed; the outputs are then put back at run time.
    """

    sized = ("I", "D")  # one for each block kept

    def __init__(self, W: torch.Tensor, bias: torch.Tensor | None, N: int, stride, padding, order: torch.Tensor | None = None,
                 threads: int = 1):
        super().__init__()
        self.shape, self.N, self.stride, self.padding, self.threads = tuple(W.shape), N, stride, padding, threads
        W = W.detach().cpu() if order is None else W.detach().cpu()[order]
        G = groups(len(W), N, pad=True)
        P, I, D = encode(functional.pad(W, (0, 0, 0, 0, 0, 0, 0, G * N - len(W))).contiguous(), N)
        self.register_buffer("P", torch.from_numpy(P))
        self.register_buffer("I", torch.from_numpy(I))
        self.register_buffer("D", torch.from_numpy(D))
        self.register_buffer("bias", None if bias is None else bias.detach().cpu().clone())
        self.register_buffer("back", None if order is None else torch.argsort(order.cpu()))

    def _pack(self) -> kernel.OneByN:
        shape = (len(self.P) - 1) * self.N, *self.shape[1:]
        return kernel.OneByN(self.D.numpy(), self.I.numpy(), self.P.numpy(), shape)

    @property
    def stored(self) -> tuple[int, int]:
        """Numbers kept, and the bits of values, indices (16 where they suffice) and pointers, and of the bias."""
        numbers = self.D.numel() + (0 if self.bias is None else len(self.bias))
        index = 2 if self.shape[1] <= 2**16 else 4
        return numbers, 8 * stored_bytes(numbers, len(self.I), len(self.P) - 1, index=index)

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        images = x.detach().cpu().float().numpy()
        if (*self.shape[2:], *self.stride, *self.padding) == (1, 1, 1, 1, 0, 0):  # no patches need be made
            y = np.empty((len(images), self.form.shape[0], *images.shape[2:]), np.float32)
            for image, out in zip(images, y):
                out.reshape(len(out), -1)[:] = kernel.matmul(self.form, image.reshape(len(image), -1), threads=self.threads)
        else:
            y = kernel.conv2d(self.form, images, self.stride, self.padding, threads=self.threads)
        y = torch.from_numpy(y)[:, : self.shape[0]].to(x)
        y = y if self.back is None else y[:, self.back]
        return y if self.bias is None else y + self.bias.view(-1, 1, 1).to(x)

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        positions = y.numel() // y.shape[1]
        return positions * self.D.numel() + (y.numel() if convention == "thop" and self.bias is not None else 0)

    def extra_repr(self) -> str:
        return f"{self.shape[1]}, {self.shape[0]}, kernel_size={self.shape[2:]}, N={self.N}, blocks={len(self.I)}"

# ---------------------------------------------------------------------------------------------------------------------
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


_FIRST = "call prune_ first"


def prunable(model: nn.Module, config: OneByN = OneByN()) -> dict[str, nn.Conv2d]:
    """The convolutions that ``prune_`` works on, by name; those in groups, depthwise ones among them, are never among them."""
    def fits(name: str, module: nn.Module) -> bool:
        sized = config.kernel is None or all(size in config.kernel for size in module.kernel_size)
        return module.groups == 1 and sized and (config.filter_fn is None or config.filter_fn(name, module))

    return chosen(model, nn.Conv2d, ignore=config.ignore, filter_fn=fits)


def prune_(model: nn.Module, config: OneByN = OneByN()) -> None:
    """Remove blocks from the convolutions of a trained ``model``, in place and in one shot. Fine-tune it afterwards.

    Every convolution of one group is pruned, but for those that ``config`` leaves out. All masks are made before the model is
    changed, and they stay as they are: build the optimiser afterwards.

    ``ValueError``, before anything is changed, if N does not divide the filters of a layer, if ``config`` names a layer that is
    none to prune, or if a layer is pruned already.

    >>> model = MobileNetV2()
    >>> prune_(model, OneByN(removed=0.5, N=4, kernel=(1,)))
    """
    layers = prunable(model, config)
    removed = dict(config.removed) if isinstance(config.removed, Mapping) else dict.fromkeys(layers, config.removed)
    for name in removed:
        check.one_of("a name of removed", name, layers)
    for name in config.rearrange if isinstance(config.rearrange, tuple) else ():
        check.one_of("a name of rearrange", name, layers)
    draw, made = torch.Generator().manual_seed(config.seed), {}
    for name, share in removed.items():
        conv = layers[name]
        if isinstance(conv, MaskedConv2d):
            raise ValueError(f"{name} is pruned already; prune the dense network")
        blocks = config.pattern in ("block", "random")
        first = blocks and (config.rearrange is True or (config.rearrange is not False and name in config.rearrange))
        with check.of(name):
            M = mask(conv.weight, share, config.N, rearrange=first, pattern=config.pattern, pad=config.pad, generator=draw)
        pi = order(conv.weight) if first else torch.arange(conv.out_channels, device=conv.weight.device)
        made[name] = MaskedConv2d(conv, M, pi, config.N if blocks else 1)
    replace_(model, made)


def dense(model: nn.Module) -> nn.Module:
    """A new, ordinary network with the same outputs: the removed weights are zeros of plain convolutions.

    ``ValueError`` if nothing of ``model`` was pruned.
    """
    return replaced(model, MaskedConv2d, lambda name, layer: plain_like(layer, layer.weight * layer.mask), missing=_FIRST)


def compact(model: nn.Module, example: torch.Tensor | None = None, *, threads: int = 1) -> nn.Module:
    """A new network with the same outputs in which every pruned convolution is encoded blocks and runs on the compiled kernel.

    With ``example``, an input, filters that were rearranged are put into their new order together with all that depends on
    them, so that nothing is left to do at run time. Without it, or where that cannot be done, outputs are put back in place.
    ``ValueError`` if nothing was pruned, or if a pruned convolution is dilated or does not pad with numbers of zeros.
    """
    check.whole("threads", threads)
    masked = {name: module for name, module in model.named_modules() if isinstance(module, MaskedConv2d)}
    for name, module in masked.items():
        if module.dilation != (1, 1) or module.padding_mode != "zeros" or isinstance(module.padding, str):
            raise ValueError(f"{name} has dilation {module.dilation} and padding {module.padding!r} of mode "
                             f"{module.padding_mode!r}; the kernel takes dilation 1 and numbers of zeros")
    plain, moved, made = dense(model).eval(), {}, {}
    if example is not None:
        wanted = {name: module.order for name, module in masked.items() if not _straight(module.order)}
        plain, moved = surgery.permute_filters(plain, wanted, example, strict=False)
    for name, module in masked.items():
        conv, formed = plain.get_submodule(name), module.order
        if name in moved:  # row j of the network is now what row moved[j] was
            formed = torch.argsort(moved[name])[formed]
        made[name] = PackedConv2d(conv.weight, conv.bias, module.N, conv.stride, conv.padding,
                                  None if _straight(formed) else formed, threads)
    replace_(plain, made)
    return plain


def _straight(order: torch.Tensor) -> bool:
    """Whether ``order`` changes nothing."""
    return torch.equal(order, torch.arange(len(order), device=order.device))
