"""The layers of AccSS3D, and the verbs that apply it to a network."""

import functools
import math
import weakref
from dataclasses import dataclass, replace

import numpy as np
import torch
from papernets_kernels import sparse_conv3d
from papernets_kernels.sparse_conv3d import Rulebook, rulebook
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

# ---------------------------------------------------------------------------------------------------------------------
# Layers
# ---------------------------------------------------------------------------------------------------------------------

_INDICES: "weakref.WeakKeyDictionary[Rulebook, tuple]" = weakref.WeakKeyDictionary()


def _indices(book: Rulebook) -> tuple[torch.Tensor, torch.Tensor, list[slice]]:
    """Inputs and outputs of all pairs as tensors (P,), and the part of each plane that has pairs."""
    if book not in _INDICES:
        parts = [slice(int(a), int(b)) for a, b in zip(book.plane_pointers, book.plane_pointers[1:])]
        _INDICES[book] = tuple(torch.from_numpy(x.astype(np.int64)) for x in (book.pair_inputs, book.pair_outputs)), parts
    (inputs, outputs), parts = _INDICES[book]
    return inputs, outputs, parts


class _Product(torch.autograd.Function):
    """Y_o = Σ_k Σ_{(i, o) in plane k} F_i W_k: gather the rows of all pairs, multiply plane by plane, add up by output."""

    @staticmethod
    def forward(ctx, features, weight, book):
        inputs, outputs, parts = _indices(book)
        inputs, outputs = inputs.to(features.device), outputs.to(features.device)
        rows = features[inputs]  # (P, C)
        products = torch.cat([rows[part] @ weight[k] for k, part in enumerate(parts)])  # (P, K)
        ctx.save_for_backward(rows, weight, inputs, outputs)
        ctx.parts, ctx.count = parts, len(features)
        return products.new_zeros(book.outputs, weight.shape[2]).index_add_(0, outputs, products)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        rows, weight, inputs, outputs = ctx.saved_tensors
        pairs = gradient[outputs]  # (P, K)
        to_features = to_weight = None
        if ctx.needs_input_grad[0]:
            parts = torch.cat([pairs[part] @ weight[k].T for k, part in enumerate(ctx.parts)])  # (P, C)
            to_features = parts.new_zeros(ctx.count, weight.shape[1]).index_add_(0, inputs, parts)
        if ctx.needs_input_grad[1]:
            to_weight = torch.stack([rows[part].T @ pairs[part] for part in ctx.parts])  # (planes, C, K)
        return to_features, to_weight, None


def sparse_convolution(features: torch.Tensor, weight: torch.Tensor, book: Rulebook) -> torch.Tensor:
    """The convolution of ``features`` (inputs, C) by ``weight`` (planes, C, K): (outputs, K). Differentiable."""
    planes = len(book.plane_pointers) - 1
    fit = features.ndim == 2 and weight.ndim == 3 and weight.shape[:2] == (planes, features.shape[1])
    if not fit or len(features) != book.inputs:
        raise ValueError(f"features {tuple(features.shape)} and weight {tuple(weight.shape)} do not fit the rulebook: "
                         f"({book.inputs}, C) and ({planes}, C, K) are expected")
    return _Product.apply(features, weight, book)


class Scene:
    """Occupied voxels of one level, with the rulebooks that lead from them; made when first asked for.

    ``coordinates`` (N, 3) whole numbers z, y, x. With ``grid`` they must lie inside it. ``coarse`` is the scene of half the
    resolution, where a voxel is occupied if one of its eight children is.
    """

    def __init__(self, coordinates: np.ndarray, grid: int | None = None, fine: "Scene | None" = None):
        coordinates = np.asarray(coordinates)
        if grid is not None and coordinates.size and not (0 <= coordinates.min() and coordinates.max() < grid):
            wrong = coordinates[((coordinates < 0) | (coordinates >= grid)).any(1)][0].tolist()
            raise ValueError(f"voxel {tuple(wrong)} is outside the grid of {grid}^3; coordinates are 0 to {grid - 1}")
        self.coordinates, self.grid, self.fine = coordinates, grid, fine

    def __len__(self) -> int:
        return len(self.coordinates)

    @functools.cached_property
    def book(self) -> Rulebook:
        return rulebook(self.coordinates)

    @functools.cached_property
    def down(self) -> Rulebook:
        return sparse_conv3d.strided_rulebook(self.coordinates, 2, 2)

    @functools.cached_property
    def up(self) -> Rulebook:
        """From the coarse scene back to this one."""
        return sparse_conv3d.inverse_rulebook(self.down, self.coordinates)

    @functools.cached_property
    def coarse(self) -> "Scene":
        return Scene(self.down.out_coordinates, None if self.grid is None else -(-self.grid // 2), self)


@dataclass(frozen=True, eq=False)
class Voxels:
    """``features`` (N, C) of the voxels of a scene."""

    features: torch.Tensor
    scene: Scene

    def of(self, features: torch.Tensor) -> "Voxels":
        return replace(self, features=features)

    def joined(self, other: "Voxels") -> "Voxels":
        return self.of(torch.cat([self.features, other.features], 1))


#: Kinds of convolution, and their planes.
KINDS = {"submanifold": 27, "down": 8, "up": 8}


def step(scene: Scene, kind: str) -> tuple[Rulebook, Scene]:
    """The rulebook of a convolution of ``kind`` on a scene, and the scene it leads to."""
    if kind == "submanifold":
        return scene.book, scene
    if kind == "down":
        return scene.down, scene.coarse
    if scene.fine is None:
        raise ValueError("this scene was not made by a convolution of kind 'down'; there is no way up from it")
    return scene.fine.up, scene.fine


class SparseConv3d(nn.Module):
    """A sparse convolution without bias, ``weight`` (planes, C, K).

    ``"submanifold"``: 3x3x3, outputs are the inputs. ``"down"``: 2x2x2 with stride 2, to the coarse scene. ``"up"``: the way
    back from the coarse scene, a deconvolution.
    """

    def __init__(self, inputs: int, outputs: int, kind: str = "submanifold"):
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"no convolution of kind {kind!r}; choose from {', '.join(KINDS)}")
        if min(inputs, outputs) < 1:
            raise ValueError(f"{inputs} to {outputs} channels; the smallest number is 1")
        self.kind = kind
        self.weight = nn.Parameter(torch.empty(KINDS[kind], inputs, outputs))
        bound = 1 / math.sqrt(KINDS[kind] * inputs)  # as the dense layer starts
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, x: Voxels) -> Voxels:
        book, scene = step(x.scene, self.kind)
        return Voxels(sparse_convolution(x.features, self.weight, book), scene)

    def macs_of(self, x: Voxels, y: Voxels, convention: str) -> int:
        return step(x.scene, self.kind)[0].pairs * self.weight[0].numel()

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[2]}, kind={self.kind!r}"


@dataclass(frozen=True, eq=False)
class Cells:
    """``features`` (B, C, S, S, S) of all cells of B grids, and where they are occupied, (B, 1, S, S, S), for every level."""

    features: torch.Tensor
    occupied: tuple[torch.Tensor, ...]
    level: int = 0

    def of(self, features: torch.Tensor) -> "Cells":
        return replace(self, features=features)

    def joined(self, other: "Cells") -> "Cells":
        return self.of(torch.cat([self.features, other.features], 1))


class DenseConv3d(nn.Module):
    """The dense convolution of the same kernel.

    With ``masked`` its output is zero in empty cells, and the network computes what the sparse one does; without, it computes
    in all of space.
    """

    def __init__(self, inputs: int, outputs: int, kind: str = "submanifold", masked: bool = False):
        super().__init__()
        make = nn.ConvTranspose3d if kind == "up" else nn.Conv3d
        size, options = (3, dict(padding=1)) if kind == "submanifold" else (2, dict(stride=2))
        self.conv = make(inputs, outputs, size, bias=False, **options)
        self.step, self.masked = {"submanifold": 0, "down": 1, "up": -1}[kind], masked

    def forward(self, x: Cells) -> Cells:
        level = x.level + self.step
        y = self.conv(x.features)
        return replace(x, features=y * x.occupied[level] if self.masked else y, level=level)

    @torch.no_grad()
    def take_(self, other: SparseConv3d) -> None:
        """The weights of a sparse layer: (planes, C, K) in the order in which torch keeps them."""
        side = round(len(other.weight) ** (1 / 3))
        axes = (1, 2, 0) if isinstance(self.conv, nn.ConvTranspose3d) else (2, 1, 0)
        self.conv.weight.copy_(other.weight.permute(axes).reshape(self.conv.weight.shape[:2] + (side,) * 3))


class NormReLU(nn.Module):
    """Batch normalisation and ReLU: over occupied voxels, or over all cells of a dense grid."""

    def __init__(self, channels: int, dense: bool = False, masked: bool = False):
        super().__init__()
        self.norm = (nn.BatchNorm3d if dense else nn.BatchNorm1d)(channels)
        self.masked = masked

    def forward(self, x):
        y = F.relu(self.norm(x.features))
        return x.of(y * x.occupied[x.level] if self.masked else y)
