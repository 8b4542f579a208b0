"""Low-Rank Winograd Transformation for 3D Convolutional Neural Networks.

Ziran Qin, Mingbao Lin, Weiyao Lin; arXiv 2301.11180, 2023. No code of the authors is known.

Winograd's algorithm saves products: a tile of 4×4×4 inputs gives 2×2×2 outputs with 64 products a pair of channels, where the
direct sum takes 216. Weights can be trained in the transformed domain, but there a kernel of 27 numbers has become 64 (or 216),
and zeros without order save no time. The paper writes the tensor of transformed weights as a product of two small ones, and
removes whole columns of it: positions p, the same in all kernels. Each column that goes takes a matrix product with it.

Symbols: t = m + 2, K = G ⊗ G ⊗ G (t³, 27), W (Co·Ci, 27) spatial kernels, M (Co·Ci, t³) transformed ones, M₀ = W Kᵀ,
M = P Q with P (Co·Ci, s) and Q (s, t³), ρ the rate of removed columns, U_p (Co, Ci) column p of M, V_p (Ci, tiles).

Only the abstract was read. What stands here beyond it is our reading, not the paper's:

Differs: M = P Q is one way to decouple a tensor into two smaller ones; ``mode="delta"``, M = M₀ + P Q, is another.
Differs: the importance of a column is its norm ‖P q_p‖. The abstract says that it is measured, not how.
Differs: 3×3 convolutions of images are transformed as well; the paper is about volumes, and so is everything measured here.
Differs: the rate rises cubically, the mask only grows, and both rank and rate have defaults of our own.
"""

import copy
import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from papernets_kernels import winograd3d as kernel
from torch import nn
from torch.nn import functional as F

from papernets.data import Split, digits
from papernets.measure import take_turns
from papernets.nn import Packed, chosen
from papernets.training import Recipe, fit, loader, logits, seed_everything, single_thread, steps

# ---------------------------------------------------------------------------------------------------------------------
# 1. Transforms, factors and importance
# ---------------------------------------------------------------------------------------------------------------------

#: How M is trained: as a product, as a fixed M₀ and a product, directly, or as the spatial kernels.
MODES = ("factor", "delta", "vanilla", "spatial")
#: How a column is scored: its norm, the norm of its factors in Q, or the sum of first-order changes of the loss.
SCORES = ("column", "factor", "taylor")
_MATRICES = {
    2: ([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]],
        [[1, 0, 0], [1 / 2, 1 / 2, 1 / 2], [1 / 2, -1 / 2, 1 / 2], [0, 0, 1]],
        [[1, 1, 1, 0], [0, 1, -1, -1]]),
    4: ([[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0], [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0],
         [0, 4, 0, -5, 0, 1]],
        [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6],
         [0, 0, 1]],
        [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]),
}


def matrices(m: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bᵀ (t, t), G (t, 3) and Aᵀ (m, t) of F(m, 3) in double precision, for tiles of 2 or 4 outputs."""
    if m not in _MATRICES:
        raise ValueError(f"m is {m!r}; tiles have 2 or 4 outputs a side")
    return tuple(torch.tensor(matrix, dtype=torch.float64) for matrix in _MATRICES[m])


@functools.cache
def _cubes(m: int, axes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return tuple(functools.reduce(torch.kron, [one] * axes).contiguous() for one in matrices(m))


def cubes(m: int = 2, axes: int = 3) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The three matrices for three axes: Bᵀ⊗Bᵀ⊗Bᵀ (t³, t³), K = G⊗G⊗G (t³, 27) and Aᵀ⊗Aᵀ⊗Aᵀ (m³, t³); or for two."""
    matrices(m)
    if axes not in (2, 3):
        raise ValueError(f"axes is {axes}; images have 2 and volumes 3")
    return tuple(one.clone() for one in _cubes(m, axes))


def expand(W: torch.Tensor, m: int = 2) -> torch.Tensor:
    """M₀ (Co·Ci, t³) = W Kᵀ: the kernels ``W`` (Co, Ci, 3, 3, 3) in the transformed domain; (Co·Ci, t²) of 3×3 kernels."""
    axes = W.dim() - 2
    if axes not in (2, 3) or set(W.shape[2:]) != {3}:
        raise ValueError(f"the weight has shape {tuple(W.shape)}; it is (Co, Ci, 3, 3, 3), or (Co, Ci, 3, 3)")
    return (W.reshape(-1, 3**axes).double() @ cubes(m, axes)[1].T.to(W.device)).to(W.dtype)


def _check_rank(M: torch.Tensor, s: int) -> None:
    most = min(M.shape)
    if not isinstance(s, int) or isinstance(s, bool) or not 1 <= s <= most:
        near = 1 if not isinstance(s, int) or s < 1 else most
        raise ValueError(f"the rank is {s!r}; a matrix of {M.shape[0]} kernels and {M.shape[1]} positions allows 1 to {most}, "
                         f"and the nearest is {near}")


def factors(M: torch.Tensor, s: int, *, noise: float = 1e-2,
            generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """P (kernels, s) and Q (s, t³) with P Q nearest to ``M``: the singular values are shared equally between the two.

    Transformed spatial kernels have rank 27, of two axes 9. Beyond it, P gets columns of small noise and Q rows of zeros: the
    product stays as it is, and the gradient of Q is not zero. ``ValueError`` if ``M`` cannot have rank ``s``.
    """
    _check_rank(M, s)
    U, S, Vh = torch.linalg.svd(M.detach().double(), full_matrices=False)
    r = min(s, 27 if M.shape[1] in (4**3, 6**3) else 9)
    root = S[:r].sqrt()
    P, Q = U[:, :r] * root, root[:, None] * Vh[:r]
    if s > r:
        scale = noise * float(P.std())
        more = scale * torch.randn(len(P), s - r, generator=generator, dtype=torch.float64).to(P.device)
        P, Q = torch.cat([P, more], 1), torch.cat([Q, Q.new_zeros(s - r, Q.shape[1])])
    return P.to(M.dtype), Q.to(M.dtype)


def _check_rate(rho: float) -> None:
    if not 0 <= rho < 1:
        raise ValueError(f"rate {rho} is outside [0, 1); a layer keeps at least one column, and the nearest is "
                         f"{0 if rho < 0 else 0.98}")


def removed(positions: int, rho: float) -> int:
    """How many of ``positions`` columns go at rate ``rho``; one always stays."""
    _check_rate(rho)
    return min(positions - 1, int(positions * rho + 1e-9))


def rate_at(epoch: float, epochs: float, rho: float) -> float:
    """The rate after ``epoch`` of ``epochs`` of a cubic rise from 0 to ``rho``."""
    _check_rate(rho)
    return rho * (1 - (1 - min(max(epoch / epochs, 0.0), 1.0)) ** 3)


def stored_numbers(Co: int, Ci: int, s: int, columns: int) -> tuple[int, int]:
    """Numbers on disk of a trained layer with ``columns`` left: multiplied out, and as P and what is left of Q."""
    return columns * Co * Ci, s * (Co * Ci + columns)


def winograd(x: torch.Tensor, M: torch.Tensor, Co: int, m: int = 2, padding: Sequence[int] | None = None,
             columns: torch.Tensor | None = None) -> torch.Tensor:
    """The convolution of ``x`` (B, Ci, D, H, W) or (B, Ci, H, W) with transformed kernels ``M`` (Co·Ci, columns), for autograd.

    ``columns`` (ascending) are the positions that ``M`` has, all t³ if left out. A position that is missing is neither
    transformed, nor multiplied, nor transformed back.
    """
    if m == 4 and x.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"x is {x.dtype}; tiles of 4 lose too many digits in half precision, use m=2 or float32")
    axes = x.dim() - 2
    if axes not in (2, 3) or M.shape[0] != Co * x.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}, and {M.shape[0]} kernels lead to {Co} outputs; x is (B, Ci, D, H, W) "
                         f"or (B, Ci, H, W) with Ci = {M.shape[0] // Co}")
    plan = Plan(m, tuple(x.shape[2:]), (0,) * axes if padding is None else tuple(padding))
    B, Ci, t = *x.shape[:2], m + 2
    back, _, out = (one.to(x) for one in _cubes(m, axes))
    if columns is not None:
        back, out = back[columns], out[:, columns]
    edges = []  # of the last axis first: what was asked for, and zeros to whole tiles
    for size, pad, tiles in reversed(list(zip(plan.size, plan.padding, plan.tiles))):
        edges += [pad, m * tiles + 2 - size - pad]
    tiles = F.pad(x, edges)
    for axis in range(2, 2 + axes):
        tiles = tiles.unfold(axis, t, m)  # at last (B, Ci, z, y, x, t, t, t)
    last = range(2 + axes, 2 + 2 * axes)
    V = back @ tiles.permute(*last, 1, 0, *range(2, 2 + axes)).reshape(t**axes, -1)  # (columns, Ci·B·tiles)
    Z = torch.bmm(M.T.reshape(-1, Co, Ci), V.view(len(V), Ci, -1))  # one product a column
    y = (out @ Z.flatten(1)).view(*[m] * axes, Co, B, *plan.tiles)
    places = [place for axis in range(axes) for place in (axes + 2 + axis, axis)]  # of each axis the tile, and the place in it
    y = y.permute(axes + 1, axes, *places).reshape(B, Co, *(m * tiles for tiles in plan.tiles))
    return y[(slice(None), slice(None), *map(slice, plan.outputs))]


@dataclass(frozen=True)
class Plan:
    """How a volume of ``size`` (D, H, W) is cut into tiles of ``m``³ outputs, and what that costs for a pair of channels.

    An image of (H, W) is cut into tiles of ``m``².

    The last tiles may reach over the edge. What they compute there is thrown away, and counted.
    """

    m: int
    size: tuple[int, ...]
    padding: tuple[int, ...] = (1, 1, 1)

    def __post_init__(self):
        matrices(self.m)
        if len(self.size) not in (2, 3) or len(self.padding) < len(self.size):
            raise ValueError(f"size {self.size} and padding {self.padding} are not both of 2 or 3 axes")
        object.__setattr__(self, "padding", tuple(self.padding[:len(self.size)]))
        if min(self.padding) < 0 or min(self.outputs) < 1:
            raise ValueError(f"a volume of {self.size} with padding {self.padding} leaves {self.outputs} outputs; "
                             "each axis needs at least 3 inputs with their padding")

    @property
    def t(self) -> int:
        return self.m + 2

    @property
    def outputs(self) -> tuple[int, ...]:
        return tuple(size + 2 * pad - 2 for size, pad in zip(self.size, self.padding))

    @property
    def tiles(self) -> tuple[int, ...]:
        """Along each axis, rounded up."""
        return tuple(-(-out // self.m) for out in self.outputs)

    @property
    def direct(self) -> int:
        """Multiply-adds of the direct sum."""
        return 3 ** len(self.size) * math.prod(self.outputs)

    def products(self, columns: int | None = None) -> int:
        """Products with ``columns`` positions, all t³ (in images t²) if left out."""
        return math.prod(self.tiles) * (self.t ** len(self.size) if columns is None else columns)

    def additions(self) -> tuple[int, int]:
        """Additions of the transform of an input channel, and of an output channel, with all columns."""
        return tuple(math.prod(self.tiles) * one for one in additions(self.m, len(self.size)))


def additions(m: int = 2, axes: int = 3) -> tuple[int, int]:
    """Additions of a tile's transform, of an input channel and of an output channel: a pass for each axis."""
    def passes(matrix: torch.Tensor) -> int:
        rows, width = matrix.shape
        each = int((matrix != 0).sum()) - rows  # a row with n numbers adds n - 1 times
        return sum(each * rows**done * width ** (axes - 1 - done) for done in range(axes))

    back, _, out = matrices(m)
    return passes(back), passes(out)


# ---------------------------------------------------------------------------------------------------------------------
# 2. The layers
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LowRankWinograd:
    """How the convolutions of a network are transformed. The paper's rank and rate are not known to us: defaults are ours.

    ``m`` is the side of a tile of outputs, ``rank`` s (None: that of spatial kernels, 27, in images 9), ``mode`` one of
    ``MODES``, ``rate`` ρ of the columns that ``prune_`` removes, ``score`` one of ``SCORES``; ``scope`` says whether columns
    compete within a ``layer`` or in the whole ``network``. ``filter_fn(name, module)`` and ``ignore`` leave layers out.
    """

    m: int = 2
    rank: int | None = None
    mode: str = "factor"
    rate: float = 0.5
    score: str = "column"
    scope: str = "layer"
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None
    seed: int = 0

    def __post_init__(self):
        matrices(self.m)
        _check_rate(self.rate)
        if self.rank is not None and not (isinstance(self.rank, int) and 1 <= self.rank <= (self.m + 2) ** 3):
            raise ValueError(f"the rank is {self.rank!r}; tiles of {self.m} allow 1 to {(self.m + 2) ** 3}")
        for name, options in (("mode", MODES), ("score", SCORES), ("scope", ("layer", "network"))):
            if getattr(self, name) not in options:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(options)}")


def _unfit(conv: nn.Conv3d | nn.Conv2d) -> str:
    """Why a convolution has no Winograd form here, or nothing."""
    axes = conv.weight.dim() - 2
    for name, wanted in (("kernel_size", (3,) * axes), ("stride", (1,) * axes), ("dilation", (1,) * axes), ("groups", 1),
                         ("padding_mode", "zeros")):
        if getattr(conv, name) != wanted:
            return f"{name} is {getattr(conv, name)}; the transform takes {wanted}"
    return f"padding is {conv.padding!r}; the transform takes numbers" if isinstance(conv.padding, str) else ""


class WinogradConv(nn.Module):
    """A 3×3×3 or 3×3 convolution whose weights are trained in the transformed domain, made from ``conv``.

    Parameters are P and Q (``factor``, ``delta``), P alone (``spatial``, Q = Kᵀ is fixed) or M (``vanilla``). The buffer
    ``kept`` (t³,) says which columns are left. A column that was removed takes part in nothing: it has no gradient, and neither
    momentum nor weight decay can bring it back. Weight decay on these parameters is not that on spatial kernels.
    """

    def __init__(self, conv: nn.Conv3d | nn.Conv2d, config: LowRankWinograd = LowRankWinograd(),
                 generator: torch.Generator | None = None):
        super().__init__()
        why = _unfit(conv)
        if why:
            raise ValueError(why)
        self.in_channels, self.out_channels, self.padding = conv.in_channels, conv.out_channels, conv.padding
        self.m, self.mode = config.m, config.mode
        W = conv.weight.detach()
        M, self.axes = expand(W, config.m), W.dim() - 2
        rank = 3**self.axes if config.rank is None else config.rank
        if config.mode == "factor":
            self.P, self.Q = map(nn.Parameter, factors(M, rank, generator=generator))
        elif config.mode == "delta":
            _check_rank(M, rank)
            self.register_buffer("M0", M)
            self.P = nn.Parameter(M.new_zeros(len(M), rank))
            Q = torch.randn(rank, M.shape[1], generator=generator) / math.sqrt(rank)
            self.Q = nn.Parameter(Q.to(M))
        elif config.mode == "spatial":
            self.P = nn.Parameter(W.reshape(len(M), -1).clone())
            self.register_buffer("Q", cubes(config.m, self.axes)[1].T.contiguous().to(W))
        else:
            self.M = nn.Parameter(M.clone())
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach().clone())
        self.register_buffer("kept", torch.ones(M.shape[1], dtype=torch.bool, device=W.device))
        self.register_buffer("taylor", torch.zeros(M.shape[1], dtype=torch.float64, device=W.device))

    def columns(self) -> torch.Tensor:
        """The positions that are left, ascending."""
        return self.kept.nonzero()[:, 0]

    def weights(self, columns: torch.Tensor | None = None) -> torch.Tensor:
        """M (Co·Ci, columns) at the positions that are left, or at those given."""
        columns = self.columns() if columns is None else columns
        if self.mode == "vanilla":
            return self.M[:, columns]
        M = self.P @ self.Q[:, columns]
        return self.M0[:, columns] + M if self.mode == "delta" else M

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = winograd(x, self.weights(), self.out_channels, self.m, self.padding, self.columns())
        return y if self.bias is None else y + self.bias.view(-1, *[1] * self.axes)

    @torch.no_grad()
    def importance(self, score: str = "column") -> torch.Tensor:
        """(t³,) in double precision: the score of every column, 0 of those removed.

        ``column`` is ‖P q_p‖, whatever the scales of P and Q are. ``factor`` is the norm of q_p with each row of Q scaled by
        the norm of its column of P. ``taylor`` is what ``accumulate`` has summed.
        """
        if score not in SCORES:
            raise ValueError(f"score is {score!r}; choose from {', '.join(SCORES)}")
        if score == "column":
            found = self.weights(torch.arange(len(self.kept), device=self.kept.device)).double().norm(dim=0)
        elif score == "factor":
            if self.mode not in ("factor", "spatial"):
                raise ValueError(f"mode {self.mode!r} has no factors of the whole weight; choose column or taylor")
            found = (self.P.double().norm(dim=0)[:, None] * self.Q.double()).norm(dim=0)
        else:
            found = self.taylor.clone()
        return torch.where(self.kept, found, torch.zeros_like(found))

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add |Σ_j Q_jp ∂L/∂Q_jp| (of M where there is no trained Q) to the ``taylor`` scores; call it after ``backward``."""
        W = self.M if self.mode == "vanilla" else self.Q
        if not isinstance(W, nn.Parameter) or W.grad is None:
            raise ValueError("there is no gradient of Q or M to score with; call backward first, in another mode than spatial")
        self.taylor += (W * W.grad).sum(0).abs().double()

    @torch.no_grad()
    def keep(self, columns: torch.Tensor) -> None:
        """Remove all columns but ``columns``; those removed earlier stay removed."""
        kept = torch.zeros_like(self.kept)
        kept[columns] = True
        kept &= self.kept
        if not kept.any():
            raise ValueError("no column would be left; a layer keeps at least 1")
        self.kept.copy_(kept)
        if self.mode != "spatial":
            (self.M if self.mode == "vanilla" else self.Q)[:, ~kept] = 0

    def prune(self, rho: float, score: str = "column") -> None:
        """Keep the t³ − ⌊ρ t³⌋ columns with the largest scores; of equal ones those at lower positions."""
        number = len(self.kept) - removed(len(self.kept), rho)
        if number < int(self.kept.sum()):
            ranked = torch.where(self.kept, self.importance(score), -1.0)
            self.keep(torch.argsort(ranked, descending=True, stable=True)[:number])

    def export(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(columns, U (columns, Co, Ci)): what is left at run time. P and Q are multiplied out once."""
        M = self.weights().detach()
        return self.columns(), M.T.reshape(-1, self.out_channels, self.in_channels).contiguous()

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """Products only; transforms add, and their number is another one: ``additions``."""
        plan = Plan(self.m, tuple(x.shape[2:]), tuple(self.padding))
        products = len(x) * plan.products(int(self.kept.sum())) * self.in_channels * self.out_channels
        return products + (y.numel() if convention == "thop" and self.bias is not None else 0)

    def extra_repr(self) -> str:
        rank = f", rank={self.Q.shape[0]}" if hasattr(self, "Q") else ""
        return (f"{self.in_channels}, {self.out_channels}, m={self.m}, mode={self.mode}{rank}, padding={tuple(self.padding)}, "
                f"columns={int(self.kept.sum())} of {len(self.kept)}")


class PackedWinograd(Packed):
    """A trained layer as it is stored and run: the columns that are left, multiplied out.

    Of three axes it runs on the compiled kernel, with ``threads``. For images there is none, and torch's operators serve.
    """

    sized = ("place", "U")  # one for each column kept

    def __init__(self, layer: WinogradConv, threads: int = 1):
        super().__init__()
        if layer.m != 2 and layer.axes == 3:
            raise ValueError(f"m is {layer.m}; the compiled kernel has tiles of 2 outputs a side")
        self.padding, self.threads, self.axes, self.m = tuple(layer.padding), threads, layer.axes, layer.m
        columns, U = layer.export()
        self.register_buffer("place", columns.cpu())
        self.register_buffer("U", U.float().cpu())
        self.register_buffer("bias", None if layer.bias is None else layer.bias.detach().float().cpu().clone())

    def _pack(self) -> kernel.Winograd | torch.Tensor:
        if self.axes == 3:
            return kernel.Winograd(self.U.numpy(), self.place.numpy())
        return self.U.flatten(1).T.contiguous()  # M (Co·Ci, columns)

    @property
    def stored(self) -> tuple[int, int]:
        """Numbers kept, and their bits with one bit for each of the t³ or t² positions, there or not."""
        numbers = self.U.numel() + (0 if self.bias is None else len(self.bias))
        return numbers, 32 * numbers + (self.m + 2) ** self.axes

    @torch.no_grad()
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.axes == 3:
            volume = np.ascontiguousarray(x.detach().cpu().float().numpy())
            y = torch.from_numpy(kernel.conv3d(volume, self.form, self.padding, threads=self.threads)).to(x)
        else:
            y = winograd(x.detach().cpu().float(), self.form, self.U.shape[1], self.m, self.padding, self.place).to(x)
        return y if self.bias is None else y.add_(self.bias.view(-1, *[1] * self.axes).to(x))

    def macs_of(self, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
        """Products only, as in ``WinogradConv``."""
        products = len(x) * Plan(self.m, tuple(x.shape[2:]), self.padding).products(1) * self.U.numel()
        return products + (y.numel() if convention == "thop" and self.bias is not None else 0)

    def extra_repr(self) -> str:
        return (f"{self.U.shape[2]}, {self.U.shape[1]}, padding={self.padding}, columns={len(self.place)} of "
                f"{(self.m + 2) ** self.axes}")


# ---------------------------------------------------------------------------------------------------------------------
# 3. The verbs
# ---------------------------------------------------------------------------------------------------------------------


def convertible(model: nn.Module, config: LowRankWinograd = LowRankWinograd()) -> dict[str, nn.Conv3d | nn.Conv2d]:
    """The convolutions that ``transform_`` works on, by name: 3×3×3 or 3×3, stride 1, dilation 1, one group.

    Others stay direct.
    """
    return chosen(model, (nn.Conv3d, nn.Conv2d), ignore=config.ignore, filter_fn=lambda name, module: not _unfit(module) and (
        config.filter_fn is None or config.filter_fn(name, module)))


def transform_(model: nn.Module, config: LowRankWinograd = LowRankWinograd()) -> None:
    """Put Winograd layers in the place of the convolutions of ``model``, in place. Build the optimiser afterwards.

    At rank 27 (in images 9) or more, and in the other modes, the network computes what it did before.

    >>> model = C3D()
    >>> transform_(model, LowRankWinograd(rank=27))
    """
    found = convertible(model, config)
    if "" in found:
        raise ValueError("the network is itself a convolution; put it into an nn.Sequential")
    draw, made = torch.Generator().manual_seed(config.seed), {}
    for name, conv in found.items():
        try:
            made[name] = WinogradConv(conv, config, draw)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    for name, layer in made.items():
        model.set_submodule(name, layer.train(found[name].training))


def _layers(model: nn.Module) -> dict[str, WinogradConv]:
    found = {name: module for name, module in model.named_modules() if isinstance(module, WinogradConv)}
    if not found:
        raise ValueError("this network has no Winograd layer; call transform_ first")
    return found


def prune_(model: nn.Module, rate: float | None = None, config: LowRankWinograd = LowRankWinograd()) -> None:
    """Remove the columns with the smallest scores from all Winograd layers, in place. Fine-tune the network afterwards.

    A network that is pruned again, at a higher rate, loses more columns and gets none back. With ``scope="network"`` the
    columns of all layers compete; each layer keeps its best one.
    """
    rho, layers = config.rate if rate is None else rate, _layers(model)
    _check_rate(rho)
    if config.scope == "layer":
        for layer in layers.values():
            layer.prune(rho, config.score)
        return
    names, total = list(layers), sum(len(layer.kept) for layer in layers.values())
    safe, ranked = {}, []
    for index, name in enumerate(names):
        scores = layers[name].importance(config.score)
        scores = torch.where(layers[name].kept, scores, -1.0)
        safe[name] = int(scores.argmax())
        ranked += [(-float(score), index, p) for p, score in enumerate(scores) if layers[name].kept[p] and p != safe[name]]
    number = max(0, total - removed(total, rho) - len(names))
    kept = {name: [safe[name]] for name in names}
    for _, index, p in sorted(ranked)[:number]:
        kept[names[index]].append(p)
    for name, layer in layers.items():
        layer.keep(torch.tensor(sorted(kept[name])))


def compact(model: nn.Module, *, threads: int = 1) -> nn.Module:
    """A new network with the same outputs whose Winograd layers hold only what is left.

    Layers of three axes run on the compiled kernel.
    """
    layers = _layers(model)
    found = copy.deepcopy(model).eval()
    for name, layer in layers.items():
        try:
            found.set_submodule(name, PackedWinograd(layer, threads).eval())
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


# ---------------------------------------------------------------------------------------------------------------------
# 4. Networks to count on
# ---------------------------------------------------------------------------------------------------------------------


class C3D(nn.Module):
    """Eight 3×3×3 convolutions of stride 1 and poolings between them, for clips of 3 × 16 × 112 × 112.

    The network of Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", 2015, which we count on. The
    classifier is a mean and one linear layer, where the original has three. ``width`` scales all channels.
    """

    def __init__(self, classes: int = 101, width: float = 1.0, norm: bool = True):
        super().__init__()
        plan = (64, "first", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512)
        layers, before = [], 3
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool3d((1, 2, 2) if step == "first" else 2))
                continue
            after = max(1, round(step * width))
            layers += [nn.Conv3d(before, after, 3, padding=1, bias=not norm), *([nn.BatchNorm3d(after)] if norm else []),
                       nn.ReLU()]
            before = after
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3, 4)))


class _Block3d(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.BatchNorm3d(after)
        self.conv2, self.bn2 = nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False),
                                                                        nn.BatchNorm3d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet3D18(nn.Module):
    """A stem of 3×7×7 and four stages of two blocks, for clips of 3 × 16 × 112 × 112."""

    def __init__(self, classes: int = 101):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(64), nn.ReLU())
        stages = [_Block3d(before, after, stride) for before, after, stride in (
            (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1))]
        self.stages, self.classifier = nn.Sequential(*stages), nn.Linear(512, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.stages(self.stem(x)).mean((2, 3, 4)))


NETWORKS = {"c3d": C3D, "r3d": ResNet3D18}


@functools.cache
def _convolutions(name: str) -> tuple[tuple[str, int, int, tuple[int, ...], int, bool], ...]:
    """(name, Co, Ci, size of the input, multiply-adds, whether it has a Winograd form) of every 3×3×3 convolution."""
    found = []
    with torch.device("meta"):
        model = NETWORKS[name]()
        for layer, module in model.named_modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
                def watch(module, inputs, output, layer=layer):
                    found.append((layer, module.out_channels, module.in_channels, tuple(inputs[0].shape[2:]),
                                  output.numel() * 27 * module.in_channels, not _unfit(module)))
                module.register_forward_hook(watch)
        model.eval()(torch.empty(1, 3, 16, 112, 112))
    return tuple(found)


def counts(name: str, m: int = 2, rho: float = 0.0, size: tuple[int, int, int] | None = None) -> dict[str, int]:
    """Of the 3×3×3 convolutions of a network: ``macs`` of all, ``direct`` of those with stride 1, their Winograd ``products``
    and ``additions``, spatial ``parameters`` and transformed ones, ``expanded``. ``size`` (D, H, W) leaves only the layers that
    read such a volume."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    found = dict.fromkeys(("macs", "direct", "products", "additions", "parameters", "expanded"), 0)
    columns = (m + 2) ** 3 - removed((m + 2) ** 3, rho)
    for _, Co, Ci, volume, macs, fits in _convolutions(name):
        if size is not None and volume != size:
            continue
        found["macs"] += macs
        if fits:
            plan = Plan(m, volume)
            into, out = plan.additions()
            found["direct"] += macs
            found["products"] += Co * Ci * plan.products(columns)
            found["additions"] += Ci * into + Co * out
            found["parameters"] += 27 * Co * Ci
            found["expanded"] += Co * Ci * columns
    return found


def trained_numbers(Co: int, Ci: int, config: LowRankWinograd) -> int:
    """Parameters of a layer without bias, counted on one."""
    return sum(p.numel() for p in WinogradConv(nn.Conv3d(Ci, Co, 3, padding=1, bias=False), config).parameters())


def truncation(W: torch.Tensor, m: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    """Relative Frobenius errors of P Q at every rank, and the tails of the singular values of M₀ that they should be."""
    M = expand(W, m)
    S = torch.linalg.svdvals(M)
    ranks = range(1, len(S) + 1)
    errors = torch.stack([(M - torch.matmul(*factors(M, s))).norm() for s in ranks])
    tails = torch.stack([S[s:].norm() for s in ranks])
    return errors / M.norm(), tails / M.norm()


def _random_kernels(seed: int, Co: int = 16, Ci: int = 16) -> torch.Tensor:
    return torch.randn(Co, Ci, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def facts(seed: int = 0) -> dict[str, float]:
    """Every exact number of the card, by the identity of its claim."""
    found, W = {}, _random_kernels(seed)
    found["mults.direct"] = Plan(2, (1, 1, 1)).direct
    for m in (2, 4):
        plan, of = Plan(m, (2 * m,) * 3), counts("c3d", m)
        outputs = math.prod(plan.outputs)
        M = expand(W, m)
        found |= {f"params.expand.f{m}": M.shape[1] / 27, f"mults.f{m}": plan.products() / outputs,
                  f"ratio.f{m}": plan.direct / plan.products(), f"c3d.f{m}.products": of["products"],
                  f"c3d.f{m}.ratio": of["direct"] / of["products"], f"c3d.f{m}.params": of["expanded"],
                  f"rank.f{m}": int(torch.linalg.matrix_rank(M)), f"adds.f{m}.in": additions(m)[0],
                  f"adds.f{m}.out": additions(m)[1]}
        five = counts("c3d", m, size=(2, 7, 7))
        found[f"c3d.conv5.f{m}.ratio"] = five["direct"] / five["products"]
    four = counts("c3d", 4, size=(4, 14, 14))
    found["c3d.conv4.f4.ratio"] = four["direct"] / four["products"]
    found["params.expand.2d"] = torch.kron(matrices(2)[1], matrices(2)[1]).shape[0] / 9
    found |= {"c3d.macs": counts("c3d")["macs"], "c3d.params": counts("c3d")["parameters"]}
    r3d = counts("r3d")
    found |= {"r3d.macs": r3d["macs"], "r3d.stride1.macs": r3d["direct"], "r3d.f2.products": r3d["products"],
              "r3d.f2.ratio": r3d["direct"] / r3d["products"]}
    half, plan = 64 - removed(64, 0.5), Plan(2, (4, 4, 4))
    found |= {"columns.half.mults": plan.products(half) / math.prod(plan.outputs),
              "columns.half.ratio": plan.direct / plan.products(half)}
    errors, tails = truncation(W)
    found |= {"svd.tail": float((errors - tails).abs().max()), "svd.zero": float(errors[26])}
    vanilla = trained_numbers(256, 256, LowRankWinograd(mode="vanilla"))
    found["layer.vanilla.params"] = vanilla
    for s in (8, 16, 27, 32):
        number = trained_numbers(256, 256, LowRankWinograd(rank=s))
        found |= {f"layer.s{s}.params": number, f"layer.s{s}.ratio": vanilla / number}
    return found


# ---------------------------------------------------------------------------------------------------------------------
# 5. The experiments of the chapter, and the recipes
# ---------------------------------------------------------------------------------------------------------------------

#: One voxel a frame, down, up, right and left; the label of a clip.
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


def clips(train: int = 480, test: int = 400, seed: int = 0, frames: int = 8, side: int = 16,
          noise: float = 0.3) -> tuple[Split, Split]:
    """Clips (1, ``frames``, ``side``, ``side``) of one digit that moves over a torus in one of four directions, with noise.

    No digit is both in a clip for training and in one for the test.
    """
    draw = np.random.default_rng([seed, 20230126])
    names, found = ("down", "up", "right", "left"), []
    for split, number in zip(digits(1000, seed), (train, test)):
        which, labels = draw.integers(0, len(split), number), draw.integers(0, 4, number)
        corner = draw.integers(0, side, (number, 2))
        videos = draw.normal(0, noise, (number, 1, frames, side, side)).astype(np.float32)
        for video, one, label, at in zip(videos, which, labels, corner):
            for frame in range(frames):
                y, x = at + frame * np.array(MOVES[label])
                video[0, frame][np.ix_((y + np.arange(8)) % side, (x + np.arange(8)) % side)] += split.images[one, 0].numpy()
        found.append(Split(torch.from_numpy(videos), torch.from_numpy(labels.astype(np.int64)), names))
    return found[0], found[1]


class ClipNet(nn.Module):
    """A direct convolution and a pooling, then two convolutions of ``width`` channels, and the largest answer anywhere."""

    def __init__(self, width: int = 8, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU(),
                                  nn.MaxPool3d((1, 2, 2)))
        self.body = nn.Sequential(*(layer for _ in range(2) for layer in (
            nn.Conv3d(width, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU())))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(self.stem(x)).amax((2, 3, 4)))


#: The arms of the comparison, by name.
ARMS = {name: LowRankWinograd(mode=mode, rank=rank, ignore=("stem",)) for name, mode, rank in (
    ("spatial", "spatial", 27), ("vanilla", "vanilla", 27), ("low rank", "factor", 27), ("low rank 16", "factor", 16))}


def _train(model: nn.Module, data: Split, epochs: int, seed: int, lr: float = 3e-3) -> None:
    fit(model, loader(data, 24, True), None, epochs=epochs, lr=steps(lr, ()), seed=seed,
        optimizer=lambda net: torch.optim.Adam((p for p in net.parameters() if p.requires_grad), lr))


def _accuracy(model: nn.Module, data: Split) -> float:
    return float((logits(model, data.images, 100).argmax(1) == data.labels).float().mean())


def _without(model: nn.Module, rho: float, test: Split, draw: torch.Generator | None = None) -> float:
    """Test accuracy after columns went, by importance or, with ``draw``, at random."""
    pruned = copy.deepcopy(model)
    if draw is None:
        prune_(pruned, rho)
    else:
        for layer in _layers(pruned).values():
            layer.keep(torch.randperm(64, generator=draw)[removed(64, rho):])
    return _accuracy(pruned, test)


def compare(seed: int, *, train: int = 480, test: int = 400, epochs: int = 5, arms: Sequence[str] = ("vanilla", "low rank"),
            rates: Sequence[float] = (0.25, 0.5), draws: int = 3) -> dict:
    """All ``arms`` on moving digits for one seed: the same start, clips and order, then columns removed without fine-tuning.

    ``arms[name]``: accuracy (a share) with all columns, ``dense``; ``kept[ρ]`` and ``random[ρ]``, the mean of ``draws`` random
    choices, after the removal. ``packed``: the largest difference of the packed network's outputs.
    """
    first, second = clips(train, test, seed)
    found = {"seed": seed, "arms": {}, "packed": 0.0}
    with single_thread():
        seed_everything(seed)
        start = ClipNet()
        for name in arms:
            model = copy.deepcopy(start)
            transform_(model, ARMS[name])
            _train(model, first, epochs, seed)
            draw = torch.Generator().manual_seed(seed)
            found["arms"][name] = {
                "dense": _accuracy(model, second), "kept": {rho: _without(model, rho, second) for rho in rates},
                "random": {rho: statistics.fmean(_without(model, rho, second, draw) for _ in range(draws)) for rho in rates}}
            x = second.images[:20]
            found["packed"] = max(found["packed"], float((logits(model, x) - logits(compact(model), x)).abs().max()))
    return found


def tuned_layers(seed: int = 0, *, width: int = 32, train: int = 480, epochs: int = 2, tuning: int = 2,
                 rho: float = 0.5) -> tuple[PackedWinograd, PackedWinograd]:
    """A packed layer with all columns, from a trained network, and the same layer after its columns went and fine-tuning."""
    first, _ = clips(train, 1, seed)
    with single_thread():
        seed_everything(seed)
        model = ClipNet(width)
        transform_(model, ARMS["low rank"])
        _train(model, first, epochs, seed)
        whole = compact(model).body[0]
        prune_(model, rho)
        _train(model, first, tuning, seed + 1)
        return whole, compact(model).body[0]


def pair_of_times(layers: tuple[PackedWinograd, PackedWinograd], repeats: int = 15,
                  size: tuple[int, int, int] = (16, 32, 32)) -> tuple[list[float], list[float]]:
    """Milliseconds of the layer with fewer columns and of that with all, turn by turn, on one thread."""
    whole, fewer = layers
    x = torch.randn(1, whole.U.shape[2], *size, generator=torch.Generator().manual_seed(0))
    found = take_turns({"fewer": lambda: fewer(x), "whole": lambda: whole(x)}, repeats=repeats, inner=5)
    return found["fewer"], found["whole"]


def _patches(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """The direct sum as one matrix product a slice of the output: the patches of the input, copied side by side."""
    B, Ci, D, H, W = x.shape
    padded, flat = F.pad(x, (1,) * 6), weight.flatten(1)
    y = x.new_empty(B, len(weight), D, H * W)
    for z in range(D):
        windows = padded[:, :, z:z + 3].unfold(3, 3, 1).unfold(4, 3, 1)  # (B, Ci, 3, H, W, 3, 3)
        y[:, :, z] = flat @ windows.permute(0, 1, 2, 5, 6, 3, 4).reshape(B, 27 * Ci, H * W)
    return y.view(B, -1, D, H, W)


def race(seed: int = 0, *, channels: int = 32, size: tuple[int, int, int] = (8, 28, 28), rates: Sequence[float] = (0, 0.5),
         repeats: int = 5) -> dict:
    """Milliseconds of one layer on one thread: ``ours`` at each rate, and the ``peers``, which compute the direct sum: torch's
    convolution as it chooses, the one of oneDNN, and patches with a product. ``peer`` is the fastest. Results are compared.

    The weights are transformed beforehand; the transforms of inputs and outputs are in the time.
    """
    draw = torch.Generator().manual_seed(seed)
    conv = nn.Conv3d(channels, channels, 3, padding=1, bias=False)
    nn.init.normal_(conv.weight, 0, (27 * channels) ** -0.5, generator=draw)
    x, W = torch.randn(1, channels, *size, generator=draw), conv.weight.detach()
    calls = {"torch conv3d": lambda: F.conv3d(x, W, padding=1), "patches and product": lambda: _patches(x, W)}
    if torch.backends.mkldnn.is_available():
        calls["torch conv3d, oneDNN"] = lambda: torch.mkldnn_convolution(x, W, None, (1, 1, 1), (1, 1, 1), (1, 1, 1), 1)
    peers = list(calls)
    with single_thread(), torch.no_grad():
        direct = conv(x)
        expected = dict.fromkeys(peers, direct)
        for rho in rates:
            layer = WinogradConv(conv, LowRankWinograd(mode="vanilla"))
            layer.prune(rho)
            packed, expected[rho] = PackedWinograd(layer), direct if rho == 0 else layer(x)
            calls[rho] = lambda packed=packed: packed(x)
    taken = take_turns(calls, expected, repeats=repeats, inner=5)
    medians = {name: statistics.median(times) for name, times in taken.items()}
    return {"channels": channels, "ours": {rho: medians[rho] for rho in rates},
            "peers": {name: medians[name] for name in peers},
            "peer": min(medians[name] for name in peers)}


class ClipFolder:
    """Clips of a folder: a folder for each class, with files ``.npy`` of uint8 (frames, height, width, 3).

    Of each file 16 frames are read, of 112 × 112 points from its middle; for training they begin anywhere, and half of them are
    mirrored.
    """

    def __init__(self, folder: Path, train: bool, frames: int = 16, side: int = 112):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not there; it holds a folder for each class with clips as .npy files")
        self.classes = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))
        self.files = [(path, label) for label, name in enumerate(self.classes)
                      for path in sorted((folder / name).glob("*.npy"))]
        self.train, self.frames, self.side = train, frames, side
        if not self.files:
            raise ValueError(f"{folder} has no .npy file in a folder of a class")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        video = np.load(path, mmap_mode="r")
        spare = [video.shape[0] - self.frames, video.shape[1] - self.side, video.shape[2] - self.side]
        if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or min(spare) < 0:
            raise ValueError(f"{path} holds {video.dtype} of shape {video.shape}; a clip is uint8 of at least "
                             f"({self.frames}, {self.side}, {self.side}, 3)")
        first = int(torch.randint(spare[0] + 1, ())) if self.train else spare[0] // 2
        y, x = spare[1] // 2, spare[2] // 2
        part = torch.from_numpy(video[first:first + self.frames, y:y + self.side, x:x + self.side].copy())
        clip = part.permute(3, 0, 1, 2).float() / 127.5 - 1
        return (clip.flip(3) if self.train and torch.rand(()) < 0.5 else clip), label


def _read(data: Path | None) -> tuple[ClipFolder, ClipFolder]:
    if data is None:
        raise ValueError("video clips cannot be fetched; give their folder with --data. It holds train and val, each with a "
                         "folder for each class, with clips as .npy files of uint8 (frames, height, width, 3), at least 16 "
                         "frames of 112 x 112")
    return ClipFolder(Path(data) / "train", True), ClipFolder(Path(data) / "val", False)


#: Where a recipe finds the trained spatial network: the folder that ``papernets train`` writes to by itself.
RUNS = Path("runs") / "lr-winograd"


def _recipe(config: LowRankWinograd | None, rho: float = 0.0, epochs: int = 40) -> Recipe:
    """The spatial network, or a transformed one that starts from it and loses its columns over the first half of the run."""
    def build() -> nn.Module:
        model = C3D()
        if config is not None:
            path = RUNS / "c3d-spatial-ucf101" / "best.pt"
            if not path.exists():
                raise ValueError(f"{path} is not there; the transform starts from a trained network. It is made by: "
                                 "papernets train lr-winograd --config c3d-spatial-ucf101 --data FOLDER")
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            transform_(model, config)
        return model

    def before(model: nn.Module, epoch: int, total: int) -> None:
        if rho:
            prune_(model, rate_at(epoch, total / 2, rho), config)

    lr = steps(0.01 if config is None else 0.001, (epochs // 2, 3 * epochs // 4))
    return Recipe(data="ucf101", build=build, epochs=epochs, batch=16, lr=lr, weight_decay=5e-4 if config is None else 0.0,
                  read=_read, test_batch=16, before_epoch=before, export=None if config is None else compact)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "c3d-spatial-ucf101": lambda: _recipe(None),
    "c3d-ucf101": lambda: _recipe(LowRankWinograd()),
    "c3d-vanilla-ucf101": lambda: _recipe(LowRankWinograd(mode="vanilla")),
    "c3d-half-ucf101": lambda: _recipe(LowRankWinograd(), 0.5),
    "c3d-vanilla-half-ucf101": lambda: _recipe(LowRankWinograd(mode="vanilla"), 0.5),
}

__all__ = ["ARMS", "C3D", "MODES", "MOVES", "NETWORKS", "RECIPES", "SCORES", "ClipFolder", "ClipNet", "LowRankWinograd",
           "PackedWinograd", "Plan", "ResNet3D18", "WinogradConv", "additions", "clips", "compact", "compare",
           "convertible", "counts", "cubes", "expand", "factors", "facts", "matrices", "pair_of_times", "prune_", "race",
           "rate_at", "removed", "stored_numbers", "trained_numbers", "transform_", "truncation", "tuned_layers", "winograd"]
