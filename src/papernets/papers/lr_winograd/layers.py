"""The layers of LR-Winograd, and the verbs that apply it to a network."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import winograd3d as kernel
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.nn import Packed, chosen, replace_, replaced
from papernets.papers.lr_winograd.method import MODES, SCORES, check_rank, columns_gone, cubes, expand, factors, matrices


def winograd(x: torch.Tensor, M: torch.Tensor, Co: int, m: int = 2, padding: Sequence[int] | None = None,
             columns: torch.Tensor | None = None) -> torch.Tensor:
    """The convolution of ``x`` (B, Ci, D, H, W) or (B, Ci, H, W) with transformed kernels ``M`` (Co·Ci, columns), for autograd.

    ``columns`` (ascending) are the positions that ``M`` has, all t³ if left out. A position that is missing is neither
    transformed, nor multiplied, nor transformed back. ``ValueError`` if the shapes do not fit, or for tiles of 4 in half
    precision.
    """
    if m == 4 and x.dtype in (torch.float16, torch.bfloat16):
        raise ValueError(f"x is {x.dtype}; tiles of 4 lose too many digits in half precision, use m=2 or float32")
    axes = x.dim() - 2
    if axes not in (2, 3) or M.shape[0] != Co * x.shape[1]:
        raise ValueError(f"x has shape {tuple(x.shape)}, and {M.shape[0]} kernels lead to {Co} outputs; x is (B, Ci, D, H, W) "
                         f"or (B, Ci, H, W) with Ci = {M.shape[0] // Co}")
    plan = Plan(m, tuple(x.shape[2:]), (0,) * axes if padding is None else tuple(padding))
    B, Ci, t = *x.shape[:2], m + 2
    back, _, out = (one.to(x) for one in cubes(m, axes))
    if columns is not None:
        back, out = back[columns], out[:, columns]
    edges = []  # of the last axis first: what was asked for, and zeros to whole tiles
    for size, pad, tiles in reversed(list(zip(plan.size, plan.padding, plan.tiles))):
        edges += [pad, m * tiles + 2 - size - pad]
    tiles = functional.pad(x, edges)
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

    An image of (H, W) is cut into tiles of ``m``². The last tiles may reach over the edge. What they compute there is thrown
    away, and counted. ``ValueError`` if there is no output.
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
# The layers
# ---------------------------------------------------------------------------------------------------------------------


@check.renamed(rate="removed")
@dataclass(frozen=True)
class LowRankWinograd:
    """How the convolutions of a network are transformed. The paper's rank and share are not known to us: defaults are ours.

    ``m`` is the side of a tile of outputs, ``rank`` s (None: that of spatial kernels, 27, in images 9), ``mode`` one of
    ``MODES``, ``removed`` the share ρ of the columns that ``prune_`` removes, ``score`` one of ``SCORES``; ``scope`` says
    whether columns compete within a ``layer`` or in the whole ``network``. ``filter_fn(name, module)`` and ``ignore`` leave
    layers out.
    """

    m: int = 2
    rank: int | None = None
    mode: str = "factor"
    removed: float = 0.5
    score: str = "column"
    scope: str = "layer"
    ignore: tuple[str, ...] = ()
    filter_fn: Callable[[str, nn.Module], bool] | None = None
    seed: int = 0

    def __post_init__(self):
        matrices(self.m)
        check.share("removed", self.removed)
        if self.rank is not None:
            check.whole(f"the rank in tiles of {self.m}", self.rank, 1, (self.m + 2) ** 3)
        for name, options in (("mode", MODES), ("score", SCORES), ("scope", ("layer", "network"))):
            check.one_of(name, getattr(self, name), options)


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
    ``ValueError`` if the convolution has no Winograd form here, or cannot have the rank.
    """

    def __init__(self, conv: nn.Conv3d | nn.Conv2d, config: LowRankWinograd = LowRankWinograd(),
                 generator: torch.Generator | None = None):
        super().__init__()
        if why := _unfit(conv):
            raise ValueError(why)
        self.in_channels, self.out_channels, self.padding = conv.in_channels, conv.out_channels, conv.padding
        self.m, self.mode = config.m, config.mode
        W = conv.weight.detach()
        M, self.axes = expand(W, config.m), W.dim() - 2
        rank = 3**self.axes if config.rank is None else config.rank
        if config.mode == "factor":
            self.P, self.Q = map(nn.Parameter, factors(M, rank, generator=generator))
        elif config.mode == "delta":
            check_rank(M, rank)
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
        the norm of its column of P. ``taylor`` is what ``accumulate`` has summed. ``ValueError`` if the mode has no such score.
        """
        check.one_of("score", score, SCORES)
        if score == "column":
            scores = self.weights(torch.arange(len(self.kept), device=self.kept.device)).double().norm(dim=0)
        elif score == "factor":
            if self.mode not in ("factor", "spatial"):
                raise ValueError(f"mode {self.mode!r} has no factors of the whole weight; choose column or taylor")
            scores = (self.P.double().norm(dim=0)[:, None] * self.Q.double()).norm(dim=0)
        else:
            scores = self.taylor
        return torch.where(self.kept, scores, torch.zeros_like(scores))

    @torch.no_grad()
    def accumulate(self) -> None:
        """Add |Σ_j Q_jp ∂L/∂Q_jp| (of M where there is no trained Q) to the ``taylor`` scores; call it after ``backward``.

        ``ValueError`` if there is no gradient yet, or no trained tensor of columns.
        """
        W = self.M if self.mode == "vanilla" else self.Q
        if not isinstance(W, nn.Parameter) or W.grad is None:
            raise ValueError("there is no gradient of Q or M to score with; call backward first, in another mode than spatial")
        self.taylor += (W * W.grad).sum(0).abs().double()

    @torch.no_grad()
    def keep(self, columns: torch.Tensor) -> None:
        """Remove all columns but ``columns``; those removed earlier stay removed. ``ValueError`` if none would be left."""
        kept = torch.zeros_like(self.kept)
        kept[columns] = True
        kept &= self.kept
        if not kept.any():
            raise ValueError("no column would be left; a layer keeps at least 1")
        self.kept.copy_(kept)
        if self.mode != "spatial":
            (self.M if self.mode == "vanilla" else self.Q)[:, ~kept] = 0

    @check.renamed(rho="removed")
    def prune(self, removed: float, score: str = "column") -> None:
        """Keep the t³ − ⌊ρ t³⌋ columns with the largest scores, ρ = ``removed``; of equal ones those at lower positions."""
        number = len(self.kept) - columns_gone(len(self.kept), removed)
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
# The verbs
# ---------------------------------------------------------------------------------------------------------------------


def convertible(model: nn.Module, config: LowRankWinograd = LowRankWinograd()) -> dict[str, nn.Conv3d | nn.Conv2d]:
    """The convolutions that ``transform_`` works on, by name: 3×3×3 or 3×3, stride 1, dilation 1, one group.

    Others stay direct.
    """
    return chosen(model, (nn.Conv3d, nn.Conv2d), ignore=config.ignore, filter_fn=lambda name, module: not _unfit(module) and (
        config.filter_fn is None or config.filter_fn(name, module)))


def transform_(model: nn.Module, config: LowRankWinograd = LowRankWinograd()) -> None:
    """Put Winograd layers in the place of the convolutions of ``model``, in place. Build the optimiser afterwards.

    At rank 27 (in images 9) or more, and in the other modes, the network computes what it did before. ``ValueError``, before
    anything is changed, names a layer that cannot have the rank.

    >>> model = C3D()
    >>> transform_(model, LowRankWinograd(rank=27))
    """
    draw, made = torch.Generator().manual_seed(config.seed), {}
    for name, conv in convertible(model, config).items():
        with check.of(name):
            made[name] = WinogradConv(conv, config, draw)
    replace_(model, made)


def winograd_layers(model: nn.Module) -> dict[str, WinogradConv]:
    """The Winograd layers of ``model``, by name. ``ValueError`` if it has none."""
    layers = {name: module for name, module in model.named_modules() if isinstance(module, WinogradConv)}
    if not layers:
        raise ValueError("this network has no Winograd layer; call transform_ first")
    return layers


@check.renamed(rate="removed")
def prune_(model: nn.Module, removed: float | None = None, config: LowRankWinograd = LowRankWinograd()) -> None:
    """Remove the columns with the smallest scores from all Winograd layers, in place. Fine-tune the network afterwards.

    ``removed`` is the share that goes, that of ``config`` if left out. A network that is pruned again, at a higher share, loses
    more columns and gets none back. With ``scope="network"`` the columns of all layers compete; each layer keeps its best one.
    """
    removed, layers = config.removed if removed is None else removed, winograd_layers(model)
    check.share("removed", removed)
    if config.scope == "network":
        for name, columns in _best_of_network(layers, removed, config.score).items():
            layers[name].keep(columns)
    else:
        for layer in layers.values():
            layer.prune(removed, config.score)


def _best_of_network(layers: dict[str, WinogradConv], removed: float, score: str) -> dict[str, torch.Tensor]:
    """By name, the columns that stay if the share ``removed`` of those of all layers together goes."""
    names, total = list(layers), sum(len(layer.kept) for layer in layers.values())
    kept, ranked = {}, []
    for index, (name, layer) in enumerate(layers.items()):
        scores = torch.where(layer.kept, layer.importance(score), -1.0)
        best = int(scores.argmax())
        kept[name] = [best]
        ranked += [(-float(scores[p]), index, p) for p in layer.columns().tolist() if p != best]
    number = max(0, total - columns_gone(total, removed) - len(names))
    for _, index, p in sorted(ranked)[:number]:
        kept[names[index]].append(p)
    return {name: torch.tensor(sorted(columns)) for name, columns in kept.items()}


def compact(model: nn.Module, example: torch.Tensor | None = None, *, threads: int = 1) -> nn.Module:
    """A new network with the same outputs whose Winograd layers hold only what is left, in evaluation mode.

    Layers of three axes run on the compiled kernel, with ``threads``. ``example`` is not needed. ``ValueError`` names a layer
    that the kernel cannot run.
    """
    def packed(name: str, layer: WinogradConv) -> PackedWinograd:
        with check.of(name):
            return PackedWinograd(layer, threads)

    return replaced(model, WinogradConv, packed, missing="call transform_ first").eval()
