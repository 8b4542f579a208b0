"""AccSS3D: Accelerator for Spatially Sparse 3D DNNs.

Om Ji Omer, Prashant Laddha, Gurpreet S. Kalsi, Anirud Thyagharajan, Kamlesh R. Pillai, Abhimanyu Kulkarni, Anbang Yao, Yurong
Chen, Sreenivas Subramoney; arXiv 2011.12669, 2020. There is no official code. Two patents by the same inventors describe
parts: US 11,620,818 B2 (the accelerator) and US 2021/0090328 A1 (the dataflow optimiser).

A scan of a room is nearly empty, so a submanifold convolution computes only where a voxel is occupied. AccSS3D designs four
things together for it: metadata in which each voxel lists its neighbours, an order of the voxels that follows surfaces, an
optimiser that chooses tile and loop order from statistics of the sparsity, and a core that shares inputs and weights.

Symbols: N voxels, F (N, C) their features, W_k (C, K) the weights of plane k of 27, P the pairs (plane, input, output),
ARF = P / N, T the voxels of a tile, u(T) the distinct inputs of a tile per output, c and k blocks of C and K.

Only the abstract and the patents were read, and no number of the paper's tables is used. What they name and do not specify is
built here in their spirit, and each such point is a line below.

Differs: the layout of the metadata is ours. The patents name lines from input to output and from output to input; a mask of
    27 bits with the indices by ascending plane is our reading of them.
Differs: the order of the voxels is ours. The abstract says that it follows the orientation of surfaces, not how. Here chunks
    of one tile grow breadth first over the surface; ``filled`` and ``tangent`` are two more forms.
Differs: the cost model and its three loop orders are ours, as is the table of choices. The patent chooses tile and loop order
    by the average receptive field, and the abstract says that it costs nearly no time; a table computed beforehand does that.
Differs: the core is ours (``papernets_kernels.hdl.sspnna``), as are its host and every count of cycles.
Differs: the U-Net, its recipe and its quantisation to 8 bits are ours; the abstract names the task only.
"""

import copy
import functools
import heapq
import math
import statistics
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
import torch
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import golden, simulate, sspnna, sspnna_host
from papernets_kernels.hdl.sspnna import SSpNNA, Tile
from papernets_kernels.sparse_conv3d import Rulebook, rulebook
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from papernets.data import ROOM_CLASSES, SCANNET_CLASSES, Room, Rooms, points, room, scan_splits
from papernets.measure import macs, take_turns
from papernets.training import Recipe, cosine, fit, loader, logits, seed_everything, single_thread

PLANES, CENTRE = 27, 13

# ---------------------------------------------------------------------------------------------------------------------
# 1. Metadata: a line for each voxel
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Lines:
    """Metadata in receptive-field form: line j has a mask of its planes, and the indices that stand there, by ascending plane.

    kind ``"output"``: a line is an output and lists its inputs (the ORO form). ``"input"``: a line is an input and lists the
    outputs that it feeds (IOR). mask (lines,) uint32, pointers (lines + 1,) int32, indices (P,) int32; ``others`` counts the
    voxels that the indices name.
    """

    kind: Literal["output", "input"]
    mask: np.ndarray
    pointers: np.ndarray
    indices: np.ndarray
    others: int

    def __len__(self) -> int:
        return len(self.mask)


def output_lines(book: Rulebook) -> Lines:
    """The lines of the outputs: which inputs does each of them receive, and by which planes?"""
    mask, pointers, indices = book.lines()
    return Lines("output", mask, pointers.astype(np.int32), indices, book.inputs)


def pairs_of(lines: Lines) -> np.ndarray:
    """The pairs (P, 3) of the lines: plane, input, output, sorted."""
    bits = (lines.mask[:, None] >> np.arange(PLANES, dtype=np.uint32) & 1).astype(bool)  # (lines, 27)
    line, plane = np.nonzero(bits)  # by line, then by ascending plane, as the indices are
    columns = (plane, lines.indices, line) if lines.kind == "output" else (plane, line, lines.indices)
    found = np.stack(columns, 1).astype(np.int64)
    return found[np.lexsort(found.T[::-1])]


def turned(lines: Lines) -> Lines:
    """The lines of the other kind, of the same pairs. Twice turned is what it was."""
    pairs = pairs_of(lines)
    kind, line, other = ("input", 1, 2) if lines.kind == "output" else ("output", 2, 1)
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, line]))]
    mask = np.zeros(lines.others, np.uint32)
    np.bitwise_or.at(mask, pairs[:, line], np.uint32(1) << pairs[:, 0].astype(np.uint32))
    pointers = np.zeros(lines.others + 1, np.int32)
    np.cumsum(np.bincount(pairs[:, line], minlength=lines.others), out=pointers[1:])
    return Lines(kind, mask, pointers, pairs[:, other].astype(np.int32), len(lines))


def mirrored(lines: Lines) -> Lines:
    """The lines of the other kind of a submanifold rulebook, without a search: every line reversed.

    Plane k of an output is plane 26 - k of its input, so a mask is read from the other end and a list backwards.
    """
    mask = np.zeros_like(lines.mask)
    for k in range(PLANES):
        mask |= (lines.mask >> np.uint32(k) & np.uint32(1)) << np.uint32(PLANES - 1 - k)
    length = np.diff(lines.pointers)
    back = np.repeat(lines.pointers[:-1] + lines.pointers[1:] - 1, length) - np.arange(len(lines.indices))
    return Lines("input" if lines.kind == "output" else "output", mask, lines.pointers, lines.indices[back], lines.others)


def index_bits(N: int) -> int:
    """Bits of an index below N; one voxel still takes one."""
    return max(1, math.ceil(math.log2(N))) if N else 0


def metadata(N: int, P: int) -> dict[str, int]:
    """Size of the two forms: in bits, with indices as narrow as N allows, and in bytes, with words of 32 bits."""
    return {"lines": PLANES * N + P * index_bits(N), "pairs": 2 * P * index_bits(N),
            "lines_bytes": 4 * (N + N + 1 + P), "pairs_bytes": 8 * P}


# ---------------------------------------------------------------------------------------------------------------------
# 2. The order of the voxels
# ---------------------------------------------------------------------------------------------------------------------

#: Random and the two usual orders, then ours: breadth-first chunks, the same filled up, the same along the tangent plane.
ORDERS = ("random", "raster", "Morton", "chunks", "filled", "tangent")


def order(name: str, book: Rulebook, tile: int, seed: int = 0) -> np.ndarray:
    """The voxels of a submanifold rulebook in the order ``name``: entry j is the number of the voxel that comes j-th.

    Random is numpy's ``default_rng(seed).permutation``; raster is by z, y, x; the last three are made for chunks of ``tile``.
    """
    if name not in ORDERS:
        raise ValueError(f"no order {name!r}; choose from {', '.join(ORDERS)}")
    if name == "random":
        return np.random.default_rng(seed).permutation(book.outputs)
    if name in ("raster", "Morton"):
        return getattr(sparse_conv3d, f"{name.lower()}_order")(book.out_coordinates)
    return tangent_order(book, tile) if name == "tangent" else sparse_conv3d.surface_order(book, tile, name == "filled")


def normal(place: Mapping[tuple, int], coordinates: np.ndarray, voxel: int) -> np.ndarray:
    """The direction (3,) in which the voxels within 5x5x5 around ``voxel`` spread least."""
    z, y, x = coordinates[voxel].tolist()
    near = [place[at] for dz in range(-2, 3) for dy in range(-2, 3) for dx in range(-2, 3)
            if (at := (z + dz, y + dy, x + dx)) in place]
    away = coordinates[near].astype(float) - coordinates[near].mean(0)
    return np.linalg.eigh(away.T @ away)[1][:, 0]


def tangent_order(book: Rulebook, chunk: int) -> np.ndarray:
    """Chunks that grow along the surface's plane: of the voxels in reach, next is the one nearest to the plane of the seed.

    Else as the plain chunks: a chunk ends when it holds ``chunk`` voxels or nothing is in reach; the next starts at the oldest
    voxel that was met and not taken, or at one of least degree. Of equal distance the one met first.
    """
    if not book.submanifold:
        raise ValueError("the rulebook is not submanifold; make it with rulebook()")
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; the smallest is 1")
    _, pointers, indices = book.lines()
    coordinates = book.out_coordinates
    place = {tuple(at): number for number, at in enumerate(coordinates.tolist())}
    seeds = iter(np.argsort(np.diff(pointers), kind="stable").tolist())
    taken, found, left = np.zeros(book.outputs, bool), [], []
    while len(found) < book.outputs:
        seed = next((v for v in left if not taken[v]), None)
        if seed is None:
            seed = next(v for v in seeds if not taken[v])
        n, start = normal(place, coordinates, seed), coordinates[seed]
        reach, met, count = [(0.0, 0, seed)], {seed}, 0
        while reach and count < chunk:
            _, _, v = heapq.heappop(reach)
            taken[v] = True
            found.append(v)
            count += 1
            for w in indices[pointers[v] : pointers[v + 1]].tolist():
                if not taken[w] and w not in met:
                    distance = round(abs(float(n @ (coordinates[w] - start))), 6)
                    heapq.heappush(reach, (distance, len(met), w))
                    met.add(w)
        left = [v for _, v in sorted((number, v) for _, number, v in reach)]
    return np.array(found)


def renumbered(book: Rulebook, order: np.ndarray) -> Rulebook:
    """The rulebook of the same voxels in another order: every index becomes its place, and outputs ascend again."""
    place = np.empty(book.outputs, np.int32)
    place[order] = np.arange(book.outputs, dtype=np.int32)
    plane = np.repeat(np.arange(len(book.plane_pointers) - 1), np.diff(book.plane_pointers))
    inputs, outputs = place[book.pair_inputs], place[book.pair_outputs]
    by = np.lexsort((outputs, plane))
    return replace(book, pair_inputs=inputs[by], pair_outputs=outputs[by], out_coordinates=book.out_coordinates[order])


def reuse(book: Rulebook, T: int, order: np.ndarray | None = None) -> float:
    """u(T): distinct inputs of a tile of T consecutive outputs, for each output. u(1) = ARF; near 1 an input is read once."""
    return sparse_conv3d.locality(book, T, order)


def misses(book: Rulebook, order: np.ndarray, tile: int, channels: int = 32, *, size: int = 65536, line: int = 64,
           ways: int = 8) -> int:
    """Reads of features that a cache of ``size`` bytes does not hold, with lines of ``line`` bytes and the oldest thrown out.

    Features are int8 and lie in memory in ``order``. They are read as the core reads them: tile by tile, in a tile plane by
    plane (13 first), in a plane output by output.
    """
    sets = size // (line * ways)
    if sets < 1 or channels < 1:
        raise ValueError(f"{channels} channels with a cache of {size} bytes in {ways} lines of {line}: nothing can be held")
    renewed = renumbered(book, order)
    plane = np.repeat(np.arange(PLANES), np.diff(renewed.plane_pointers))
    plane = np.where(plane == CENTRE, -1, plane)
    by = np.lexsort((renewed.pair_outputs, plane, renewed.pair_outputs // tile))
    first = renewed.pair_inputs[by].astype(np.int64) * channels
    held: list[dict[int, None]] = [{} for _ in range(sets)]
    missed = 0
    for begin, end in zip((first // line).tolist(), ((first + channels - 1) // line).tolist()):
        for number in range(begin, end + 1):
            one = held[number % sets]
            if number in one:
                del one[number]  # and again as the newest
            else:
                missed += 1
                if len(one) == ways:
                    del one[next(iter(one))]
            one[number] = None
    return missed


# ---------------------------------------------------------------------------------------------------------------------
# 3. The dataflow: what moves for a tile size, channel blocks and a loop order
# ---------------------------------------------------------------------------------------------------------------------

#: Loop orders, by what stays in the core: outputs, weights or inputs.
FLOWS = ("OS", "WS", "IS")
TILES = (32, 64, 128, 256, 512, 1024)
L1 = 65536


@dataclass(frozen=True)
class Dataflow:
    """A loop order with its tile and channel blocks, the bytes that it moves and the bytes of the buffer that it needs."""

    flow: str
    T: int
    c: int
    k: int
    bytes: int
    buffer: float


def least_traffic(N: int, C: int, K: int) -> int:
    """Bytes if inputs, weights and outputs moved exactly once."""
    return N * C + PLANES * C * K + N * K


def dataflow(flow: str, N: int, touched: int, C: int, K: int, T: int, c: int, k: int) -> Dataflow:
    """The bytes of one layer: int8 features and weights, partial sums of 4 bytes.

    ``touched`` = N u(T) is the sum over the tiles of their distinct inputs. The buffer holds a tile's inputs, one block of
    weights and the tile's sums.
    """
    if flow not in FLOWS:
        raise ValueError(f"no loop order {flow!r}; choose from {', '.join(FLOWS)}")
    if min(N, touched, C, K, T, c, k) < 1:
        raise ValueError(f"N = {N}, touched = {touched}, C = {C}, K = {K}, T = {T}, c = {c}, k = {k}: the smallest is 1")
    tiles, in_blocks, out_blocks = -(-N // T), -(-C // c), -(-K // k)
    moved = {
        "OS": touched * C * out_blocks + tiles * PLANES * C * K + N * K,
        "WS": PLANES * C * K + touched * C * out_blocks + 4 * N * K * (2 * in_blocks - 2) + N * K,
        "IS": N * C + tiles * PLANES * C * K + 8 * touched * K * in_blocks,
    }
    held = min(T, N)
    return Dataflow(flow, T, c, k, moved[flow], held * touched / N * c + PLANES * c * k + 4 * held * k)


def blocks(channels: int) -> list[int]:
    """Blocks of 8, 16, 32, … channels that divide ``channels``; all of them at once if none does."""
    return [b for b in (8 << i for i in range(12)) if channels % b == 0] or [channels]


def optimise(N: int, touched: Mapping[int, int], C: int, K: int, buffer: int = L1, flows: Sequence[str] = FLOWS) -> Dataflow:
    """The loop order, tile and blocks that move the fewest bytes and fit ``buffer``; of equal ones the smallest buffer.

    ``touched[T]`` is N u(T) for every tile size that may be chosen.
    """
    every = [dataflow(flow, N, touched[T], C, K, T, c, k)
             for flow in flows for T in touched for c in blocks(C) for k in blocks(K)]
    fitting = [one for one in every if one.buffer <= buffer]
    if not fitting:
        least = math.ceil(min(one.buffer for one in every))
        raise ValueError(f"no tile and block fits {buffer} bytes; the least that one needs is {least}")
    return min(fitting, key=lambda one: (one.bytes, one.buffer))


def touches(book: Rulebook, order_name: str = "chunks", tiles: Iterable[int] = TILES) -> dict[int, int]:
    """N u(T) for every tile size, each with the order made for it."""
    return {T: sparse_conv3d.distinct_inputs(book, T, order(order_name, book, T)) for T in tiles}


def statistics_key(N: int, P: int) -> tuple[int, int]:
    """What the table is asked by: N to the nearest half power of two, ARF to the nearest half."""
    return round(2 * math.log2(N)), round(2 * P / N)


class FlowTable:
    """The optimiser's choices, made beforehand: what remains at run time is one look-up. A table of this kind is our inference.

    It is built from scenes like those to come. An entry holds the choice for the mean u(T) of the scenes that share its
    statistics, at the largest N among them; a choice must fit the buffer for the largest u(T).
    """

    def __init__(self, scenes: Sequence[tuple[int, int, Mapping[int, int]]], channels: Iterable[tuple[int, int]],
                 buffer: int = L1):
        """scenes: (N, P, touched) of each; channels: the pairs (C, K) of the layers."""
        if not scenes:
            raise ValueError("there is no scene to build the table from; give at least one")
        self.buffer, self.entries = buffer, {}
        groups: dict[tuple[int, int], list] = {}
        for N, P, touched in scenes:
            groups.setdefault(statistics_key(N, P), []).append((N, touched))
        for key, found in groups.items():
            largest = max(N for N, _ in found)
            shares = {T: [touched[T] / N for N, touched in found] for T in found[0][1]}
            mean = {T: round(largest * statistics.mean(values)) for T, values in shares.items()}
            worst = {T: math.ceil(largest * max(values)) for T, values in shares.items()}
            for C, K in channels:
                fits = [one for flow in FLOWS for T in mean for c in blocks(C) for k in blocks(K)
                        if dataflow(flow, largest, worst[T], C, K, T, c, k).buffer <= buffer
                        for one in [dataflow(flow, largest, mean[T], C, K, T, c, k)]]
                if fits:
                    self.entries[*key, C, K] = min(fits, key=lambda one: (one.bytes, one.buffer))
        self._keys = sorted(groups)

    def __len__(self) -> int:
        return len(self.entries)

    def choose(self, N: int, P: int, C: int, K: int) -> Dataflow:
        """The choice for a scene of N voxels and P pairs; statistics that were never seen take the nearest that were."""
        key = statistics_key(N, P)
        found = self.entries.get((*key, C, K))
        if found is None:
            near = [k for k in self.entries if k[2:] == (C, K)]
            if not near:
                raise ValueError(f"the table has no layer of {C} to {K} channels; it has "
                                 f"{', '.join(f'{a} to {b}' for a, b in sorted({k[2:] for k in self.entries}))}")
            found = self.entries[min(near, key=lambda k: ((k[0] - key[0]) ** 2 + (k[1] - key[1]) ** 2, k))]
        return found


# ---------------------------------------------------------------------------------------------------------------------
# 4. What the abstract's factors imply
# ---------------------------------------------------------------------------------------------------------------------

#: The abstract's factors over the CPU.
CONV_SPEEDUP, CONV_ENERGY, E2E_SPEEDUP, E2E_ENERGY = 16.8, 2232, 11.8, 24.8


def implied_share(part: float, whole: float) -> float:
    """The share f that was accelerated, if a part became ``part`` times faster and the whole ``whole`` times.

    From 1 / whole = 1 - f + f / part. A reading: it holds if nothing but that part was accelerated.
    """
    if not 1 < whole <= part:
        raise ValueError(f"the whole gains {whole} and the part {part}; 1 < whole ≤ part is needed")
    return (1 - 1 / whole) / (1 - 1 / part)


def reading() -> dict[str, float]:
    """What follows from the four factors: shares of time and energy, and ratios of mean power."""
    return {
        "share.time": implied_share(CONV_SPEEDUP, E2E_SPEEDUP),
        "share.energy_left": 100 / E2E_ENERGY,
        "share.energy_other": 100 * (1 - implied_share(CONV_ENERGY, E2E_ENERGY)),
        "power.conv": CONV_ENERGY / CONV_SPEEDUP,
        "power.e2e": E2E_ENERGY / E2E_SPEEDUP,
    }


# ---------------------------------------------------------------------------------------------------------------------
# 5. Layers
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


# ---------------------------------------------------------------------------------------------------------------------
# 6. The U-Net and its dense twin
# ---------------------------------------------------------------------------------------------------------------------


class _Level(nn.Module):
    def __init__(self, widths: Sequence[int], block: Callable, repeats: int):
        super().__init__()
        width = widths[0]
        self.before = nn.Sequential(*[block(width, width, "submanifold") for _ in range(repeats)])
        self.down = self.below = self.up = self.after = None
        if len(widths) > 1:
            self.down, self.up = block(width, widths[1], "down"), block(widths[1], width, "up")
            self.below = _Level(widths[1:], block, repeats)
            self.after = nn.Sequential(*[block(width if i else 2 * width, width, "submanifold") for i in range(repeats)])

    def forward(self, x):
        x = self.before(x)
        return x if self.below is None else self.after(x.joined(self.up(self.below(self.down(x)))))


class UNet(nn.Module):
    """A U-Net of ``len(widths)`` levels that gives every occupied voxel a score for each class.

    The input is (n, 4 + features): the number of the room in the batch, z, y, x, and the features. ``dense`` is the twin of
    equal width that computes in all of space; ``masked`` zeroes its empty cells after every layer.
    """

    def __init__(self, widths: Sequence[int] = (8, 16), features: int = 2, classes: int = 4, *, repeats: int = 1,
                 dense: bool = False, masked: bool = False):
        super().__init__()
        if not widths or min(*widths, features, classes, repeats, 1) < 1:
            raise ValueError(f"widths {tuple(widths)}, features {features}, classes {classes}, repeats {repeats}: "
                             "each is at least 1")
        if masked and not dense:
            raise ValueError("masked is for the dense twin; the sparse network has no empty cells")
        self.dense, self.levels, self.grid = dense, len(widths), None

        def block(inputs, outputs, kind):
            conv = DenseConv3d(inputs, outputs, kind, masked) if dense else SparseConv3d(inputs, outputs, kind)
            return nn.Sequential(conv, NormReLU(outputs, dense, masked))

        self.stem = block(features, widths[0], "submanifold")
        self.level = _Level(widths, block, repeats)
        self.head = nn.Linear(widths[0], classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if not self.dense:
            return self.head(self.level(self.stem(voxels(rows, self.levels))).features)
        x, place = cells(rows, self.levels)
        y = self.level(self.stem(x)).features  # (B, C, S, S, S)
        b, z, y_, x_ = place.unbind(1)
        return self.head(y[b, :, z, y_, x_])


def _placed(rows: torch.Tensor) -> torch.Tensor:
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise ValueError(f"the input has shape {tuple(rows.shape)}; it is (n, 4 + features): room, z, y, x and features")
    return rows[:, :4].long()


def voxels(rows: torch.Tensor, levels: int = 2) -> Voxels:
    """The input of a U-Net as voxels. The rooms of a batch stand above each other, too far apart to touch at any level."""
    place = _placed(rows).cpu().numpy()
    step = 2 ** (levels - 1)
    height = int(place[:, 1].max()) + 1 if len(place) else 1
    apart = (-(-height // step) + 1) * step
    coordinates = place[:, 1:] + np.array([1, 0, 0]) * apart * place[:, :1]
    return Voxels(rows[:, 4:], Scene(coordinates))


def cells(rows: torch.Tensor, levels: int = 2) -> tuple[Cells, torch.Tensor]:
    """The input of a U-Net as a dense grid, and the place (n, 4) of every voxel in it."""
    place = _placed(rows)
    step = 2 ** (levels - 1)
    side = -(-(int(place[:, 1:].max()) + 1) // step) * step
    batch = int(place[:, 0].max()) + 1
    grid = rows.new_zeros(batch, 1 + rows.shape[1] - 4, side, side, side)
    b, z, y, x = place.unbind(1)
    grid[b, :, z, y, x] = torch.cat([torch.ones_like(rows[:, :1]), rows[:, 4:]], 1)
    occupied = [grid[:, :1]]
    for _ in range(levels - 1):
        occupied.append(F.max_pool3d(occupied[-1], 2))
    return Cells(grid[:, 1:], tuple(occupied)), place


def densified(model: UNet) -> UNet:
    """The dense network, masked after every layer, with the weights of a sparse one: the same outputs for far more work."""
    if model.dense:
        raise ValueError("this network is dense already")
    widths, level = [], model.level
    while level is not None:
        widths.append(level.before[0][0].weight.shape[2])
        level = level.below
    twin = UNet(widths, model.stem[0].weight.shape[1], model.head.out_features, repeats=len(model.level.before), dense=True,
                masked=True)
    theirs, ours = dict(model.named_modules()), dict(twin.named_modules())
    for name, module in ours.items():
        if isinstance(module, DenseConv3d):
            module.take_(theirs[name])
        elif isinstance(module, nn.BatchNorm3d | nn.Linear):
            module.load_state_dict(theirs[name].state_dict())
    return twin.train(model.training)


# ---------------------------------------------------------------------------------------------------------------------
# 7. The verbs: a network on the accelerator
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Accelerator:
    """Sizes of the accelerator that a network is planned for. All are ours; the abstract gives 64 KB, 1 GHz and 0.92 mm².

    A tile of the core has at most ``outputs`` outputs, ``inputs`` distinct inputs and ``pairs`` pairs; ``pages``, ``planes``
    and ``rows`` are the options of the core; ``order`` is that of the voxels.
    """

    buffer: int = L1
    lanes: int = 8
    channels: int = 8
    inputs: int = 256
    outputs: int = 128
    pairs: int = 2048
    pages: int = 1
    planes: int = 1
    rows: int = 1
    order: str = "chunks"

    def __post_init__(self):
        if self.order not in ORDERS:
            raise ValueError(f"no order {self.order!r}; choose from {', '.join(ORDERS)}")
        self.core()

    def cut(self, book: Rulebook) -> sspnna_host.Schedule:
        """A rulebook in tiles for the core; the voxels of a submanifold one in ``order``."""
        by = order(self.order, book, self.outputs) if book.submanifold else None
        return sspnna_host.schedule(self.core(), book, by)

    def core(self) -> SSpNNA:
        return _core(self.lanes, self.channels, self.inputs, self.outputs, self.pairs, self.pages, self.planes, self.rows)


@functools.lru_cache(maxsize=16)
def _core(lanes, channels, inputs, outputs, pairs, pages, planes, rows) -> SSpNNA:
    return SSpNNA(lanes, channels, inputs, outputs, pairs, pages=pages, planes=planes, rows=rows)


@dataclass(frozen=True, eq=False)
class PlannedLayer:
    """One layer on the accelerator: its sizes, what it costs, and how it is cut for the core.

    ``flow`` is the optimiser's choice; only submanifold layers, whose tiles it knows, have one.
    """

    name: str
    kind: str
    C: int
    K: int
    schedule: sspnna_host.Schedule
    flow: Dataflow | None

    @property
    def macs(self) -> int:
        return self.schedule.book.pairs * self.C * self.K

    @property
    def cycles(self) -> int:
        return self.schedule.cycles(self.C, self.K)

    @property
    def utilisation(self) -> float:
        return self.schedule.utilisation(self.C, self.K)


def plan(model: UNet, rows: torch.Tensor, accelerator: Accelerator = Accelerator()) -> list[PlannedLayer]:
    """Every sparse convolution of ``model`` for the input ``rows``, on the accelerator: dataflow, tiles and cycles."""
    found, cuts, reads = [], {}, {}
    for name, module, x, _ in _sparse_layers(model, rows):
        book, _ = step(x.scene, module.kind)
        C, K = module.weight.shape[1:]
        if book not in cuts:  # layers may share a rulebook
            cuts[book] = accelerator.cut(book)
            reads[book] = touches(book, accelerator.order) if book.submanifold else None
        flow = reads[book] and optimise(book.outputs, reads[book], C, K, accelerator.buffer)
        found.append(PlannedLayer(name, module.kind, C, K, cuts[book], flow))
    return found


@torch.no_grad()
def _sparse_layers(model: nn.Module, rows: torch.Tensor) -> list[tuple[str, SparseConv3d, Voxels, Voxels]]:
    """(name, layer, its input, its output) of every sparse convolution, in the order in which they run."""
    found, handles = [], []
    for name, module in model.named_modules():
        if isinstance(module, SparseConv3d):
            handles.append(module.register_forward_hook(
                lambda module, inputs, output, name=name: found.append((name, module, inputs[0], output))))
    was = model.training
    try:
        model.eval()
        model(rows)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError("this network has no sparse convolution; a dense one has nothing to plan")
    return found


def integer_product(features: np.ndarray, book: Rulebook, weight: np.ndarray) -> np.ndarray:
    """The sums (outputs, K) int64 of int8 ``features`` (inputs, C) and ``weight`` (planes, C, K): the reference."""
    sums = np.zeros((book.outputs, weight.shape[2]), np.int64)
    for k in range(len(weight)):
        part = slice(book.plane_pointers[k], book.plane_pointers[k + 1])
        products = features[book.pair_inputs[part]].astype(np.float64) @ weight[k].astype(np.float64)  # exact: below 2^53
        np.add.at(sums, book.pair_outputs[part], products.astype(np.int64))
    return sums


@dataclass(eq=False)
class CoreProduct:
    """The product on the simulated core, whole layers at a time. ``log`` takes (pairs, C, K, cycles, cycles by the law)."""

    accelerator: Accelerator = field(default_factory=Accelerator)
    engine: str = "fastest"
    log: list[tuple[int, int, int, int, int]] = field(default_factory=list)
    cuts: dict[Rulebook, sspnna_host.Schedule] = field(default_factory=dict, repr=False)

    def __call__(self, features: np.ndarray, book: Rulebook, weight: np.ndarray) -> np.ndarray:
        if book not in self.cuts:
            self.cuts[book] = self.accelerator.cut(book)
        cut = self.cuts[book]
        outputs, found, cycles = sspnna_host.run_tiles(cut, features, weight, engine=self.engine)
        sums = np.zeros_like(found)
        sums[outputs] = found
        self.log.append((book.pairs, *weight.shape[1:], sum(cycles), cut.cycles(*weight.shape[1:])))
        return sums


class IntegerConv3d(nn.Module):
    """A sparse convolution in 8 bits: features and weights are rounded to int8, the sums are exact, and then scaled back.

    Features have one scale for the layer, weights one for each output channel. ``product`` computes the sums.
    """

    def __init__(self, layer: SparseConv3d, largest: float):
        super().__init__()
        if not 0 < largest < math.inf:
            raise ValueError(f"the largest feature is {largest}; a scale needs a finite number above 0")
        self.kind = layer.kind
        weight = layer.weight.detach()
        scale = weight.abs().amax((0, 1)).clamp(min=1e-12) / 127  # (K,)
        self.register_buffer("scale", torch.tensor(largest / 127))
        self.register_buffer("weight_scale", scale)
        self.register_buffer("weight", torch.round(weight / scale).to(torch.int8))
        self.product: Callable = integer_product
        self.sums: np.ndarray | None = None

    def forward(self, x: Voxels) -> Voxels:
        book, scene = step(x.scene, self.kind)
        whole = torch.round(x.features / self.scale).clamp(-127, 127).to(torch.int8)
        self.sums = self.product(whole.numpy(), book, self.weight.numpy())
        return Voxels(torch.from_numpy(self.sums).float() * (self.scale * self.weight_scale), scene)


def quantised(model: UNet, rows: torch.Tensor) -> UNet:
    """A copy of a sparse U-Net whose convolutions compute in 8 bits, with scales from the features that ``rows`` make.

    Batch norm, ReLU and the last linear layer stay in floats.
    """
    layers = [(name, module, float(x.features.abs().max())) for name, module, x, _ in _sparse_layers(model, rows)]
    found = copy.deepcopy(model).eval()
    for name, module, largest in layers:
        found.set_submodule(name, IntegerConv3d(module, largest))
    return found


def on_core(model: UNet, product: Callable) -> UNet:
    """A copy of a quantised network whose convolutions use ``product``, such as a ``CoreProduct``."""
    found = copy.deepcopy(model)
    layers = [module for module in found.modules() if isinstance(module, IntegerConv3d)]
    if not layers:
        raise ValueError("this network has no integer convolution; call quantised() first")
    for module in layers:
        module.product = product
    return found


# ---------------------------------------------------------------------------------------------------------------------
# 8. The core on small shapes
# ---------------------------------------------------------------------------------------------------------------------

#: Voxel sets small enough to count by hand.
SHAPES = {"one": (1, 1, 1), "pair": (1, 1, 2), "line5": (1, 1, 5), "cube2": (2, 2, 2), "plane4": (1, 4, 4), "cube3": (3, 3, 3)}
#: Builds of the core: name, channels, lanes.
BUILDS = (("c8", 8, 8), ("c4", 4, 8), ("c2", 2, 4))


def shape_tile(name: str, channels: int, seed: int = 0) -> Tile:
    """A shape of ``SHAPES`` as a tile with random int8 features."""
    coordinates = np.argwhere(np.ones(SHAPES[name]))
    mask, _, indices = rulebook(coordinates).lines()
    features = np.random.default_rng(seed).integers(-128, 128, (len(coordinates), channels), np.int8)
    return Tile(features, mask, indices)


def border_tile(channels: int = 2, seed: int = 0) -> Tile:
    """A hand-made tile in which plane 13 ends on output 0 and plane 12 begins with it, so its sum must be forwarded."""
    features = np.random.default_rng(seed).integers(-128, 128, (2, channels), np.int8)
    return Tile(features, np.array([3 << 12, 1 << 13]), np.array([1, 0, 1]))


def core_cycles(engine: str = "amaranth", seed: int = 0) -> dict[str, int]:
    """Cycles of the simulated core for every shape and build, and for the border tile; wrong sums raise an error."""
    found = {}
    for build, channels, lanes in BUILDS:
        core = _core(lanes, channels, 64, 64, 1024, 1, 1, 1)
        tiles = {f"{name}.{build}": shape_tile(name, channels, seed) for name in SHAPES}
        if build == "c2":
            tiles["border"] = border_tile(channels, seed)
        weight = np.random.default_rng(seed + 1).integers(-128, 128, (PLANES, channels, lanes), np.int8)
        sums, cycles = sspnna.run(core, weight, [[tile] for tile in tiles.values()], engine)
        for (name, tile), (found_sums,), took in zip(tiles.items(), sums, cycles):
            expected = golden.sspnna(tile.features, tile.masks, tile.indices, weight)
            if not np.array_equal(found_sums, expected):
                raise AssertionError(f"the core's sums of {name} differ from the integer model")
            found[name] = took
    return found


def worked_trace(seed: int = 0) -> tuple[SSpNNA, dict[str, np.ndarray]]:
    """Two neighbours on the core of 2 channels and 4 lanes: the core, and every port in every cycle from its start on."""
    core = _core(4, 2, 64, 64, 1024, 1, 1, 1)
    weight = np.random.default_rng(seed).integers(-128, 128, (PLANES, 2, 4), np.int8)
    todo = sspnna.stimulus(core, weight, [[shape_tile("pair", 2, seed)]])
    trace = simulate.simulate(core, todo, trace=True).trace
    busy = np.flatnonzero(trace["busy"])
    part = slice(busy[0] - 1, busy[-1] + 3)
    return core, {name: values[part] for name, values in trace.items()}


def memory_bits(core: SSpNNA) -> dict[str, int]:
    """Bits of the six memories of a core without pages."""
    input_bits, output_bits = index_bits(core.inputs), index_bits(core.outputs)
    return {
        "inputs": core.inputs * core.channels * 8,
        "weights": PLANES * core.channels * core.lanes * 8,
        "masks": core.outputs * PLANES,
        "indices": core.pairs * input_bits,
        "nodes": core.pairs * (input_bits + output_bits + index_bits(core.pairs) + 1),
        "sums": core.outputs * core.lanes * core.accumulator,
    }


# ---------------------------------------------------------------------------------------------------------------------
# 9. The experiments of the chapter, and the recipe
# ---------------------------------------------------------------------------------------------------------------------


def compare_orders(seed: int, *, grid: int = 64, tile: int = 128, channels: int = 32) -> dict[str, dict[str, float]]:
    """One room without boxes: u(T), least modelled bytes and cache misses, for every order of its voxels."""
    book = rulebook(room(seed, grid, boxes=(0, 0)).coordinates)
    found = {}
    for name in ORDERS:
        by = order(name, book, tile, seed)
        flow = optimise(book.outputs, touches(book, name), channels, channels)
        found[name] = {"reuse": reuse(book, tile, by), "bytes": flow.bytes, "misses": misses(book, by, tile, channels)}
    return found


def race(seed: int, *, grid: int = 64, channels: int = 32, repeats: int = 5, coordinates: np.ndarray | None = None) -> dict:
    """Seconds of one sparse and one dense convolution of the same weights on one thread, alternating; medians.

    The pairs are searched beforehand and timed for themselves. Both must give the same sums on the voxels.
    """
    coordinates = room(seed, grid).coordinates if coordinates is None else coordinates
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(coordinates), channels)).astype(np.float32)
    weight = rng.standard_normal((PLANES, channels, channels)).astype(np.float32)
    cube = torch.zeros(1, channels, grid, grid, grid)
    z, y, x = torch.from_numpy(coordinates.astype(np.int64)).T
    cube[0, :, z, y, x] = torch.from_numpy(features).T
    kernel = torch.from_numpy(weight).permute(2, 1, 0).reshape(channels, channels, 3, 3, 3).contiguous()
    book = rulebook(coordinates)
    calls = {"sparse": lambda: sparse_conv3d.submanifold(features, book, weight), "search": lambda: rulebook(coordinates),
             "dense": lambda: F.conv3d(cube, kernel, padding=1)}
    expected = calls["dense"]()[0, :, z, y, x].T.numpy()
    gap, largest = np.abs(calls["sparse"]() - expected).max(), np.abs(expected).max()
    if not gap <= 1e-4 * largest:
        raise ValueError(f"sparse and dense sums differ by {gap / largest:.2g} of the largest; no time is quoted")
    taken = take_turns(calls, repeats=repeats, inner=1)
    return {"voxels": len(coordinates), "pairs": book.pairs, "density": len(coordinates) / grid**3,
            "macs_ratio": PLANES * grid**3 / book.pairs,
            **{name: statistics.median(times) / 1e3 for name, times in taken.items()}}


def race_by_density(densities: Sequence[float], *, grid: int = 32, channels: int = 32, repeats: int = 3,
                    seed: int = 0) -> list[dict]:
    """The same race on grids filled at random, from nearly empty to full."""
    draw = np.random.default_rng(seed).random((grid,) * 3)
    return [race(seed, grid=grid, channels=channels, repeats=repeats, coordinates=np.argwhere(draw < density))
            for density in densities]


def mean_iou(found: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Intersection over union, the mean over the classes in ``found`` or ``labels``; labels below 0 do not count."""
    known = labels >= 0
    found, labels = found[known], labels[known]
    table = torch.bincount(labels * classes + found, minlength=classes**2).reshape(classes, classes).double()
    both, either = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    return float((both[either > 0] / either[either > 0]).mean())


def halves(seed: int, rooms: int = 20, grid: int = 32) -> tuple[Rooms, Rooms]:
    """``rooms`` rooms with 2 % holes, 70 % of them to train on and the rest held out."""
    if rooms < 2:
        raise ValueError(f"rooms is {rooms}; at least 2 are needed, one to train on and one to test")
    every = [room(1000 * seed + number, grid, missing=0.02) for number in range(rooms)]
    border = min(rooms - 1, max(1, round(0.7 * rooms)))
    return Rooms(every[:border]), Rooms(every[border:])


@dataclass(frozen=True, eq=False)
class Segmented:
    """A trained network, its mean IoU on the held-out rooms, its MACs for one of them on average, and the loss by epoch."""

    model: UNet
    iou: float
    macs: float
    loss: list[float]


def segment(seed: int, dense: bool = False, *, rooms: int = 20, grid: int = 32, epochs: int = 10, widths=(8, 16),
            lr: float = 0.05) -> Segmented:
    """Train a U-Net on generated rooms and test it on others; the twins share data, order, epochs and rates."""
    train, test = halves(seed, rooms, grid)
    with single_thread():
        seed_everything(seed)
        model = UNet(widths, 2, len(ROOM_CLASSES), dense=dense)
        history = fit(model, loader(train, 1, True), None, epochs=epochs, lr=cosine(lr, epochs), weight_decay=1e-4, seed=seed)
        _, labels = test[range(len(test))]
        each = [points(one)[0] for one in test.images]
        found = torch.cat([logits(model, part, len(part)).argmax(1) for part in each])
        cost = sum(macs(model, part) for part in each) / len(each)
    return Segmented(model, mean_iou(found, labels, len(ROOM_CLASSES)), cost, history.loss)


def compare_networks(seed: int, **options) -> dict:
    """Sparse U-Net, dense twin and most frequent class for one seed: mean IoU (a share), MACs and losses."""
    sparse, dense = segment(seed, **options), segment(seed, True, **options)
    train, test = halves(seed, options.get("rooms", 20), options.get("grid", 32))
    _, known = train[range(len(train))]
    _, labels = test[range(len(test))]
    frequent = torch.full_like(labels, int(torch.bincount(known).argmax()))
    return {"seed": seed, "majority": mean_iou(frequent, labels, len(ROOM_CLASSES)),
            **{name: {"iou": one.iou, "macs": one.macs, "loss": one.loss}
               for name, one in (("sparse", sparse), ("dense", dense))}}


def core_test(model: UNet, one: Room, product: CoreProduct) -> dict:
    """A trained network in 8 bits on one room, by the reference and on the simulated core.

    Says whether all sums and scores are equal to the last bit, whether the cycles are those of the law, and how often the 8-bit
    network agrees with the float one.
    """
    rows, labels = points(one)
    reference = quantised(model, rows)
    simulated = on_core(reference, product)
    with torch.no_grad(), single_thread():
        scores, core_scores = reference(rows), simulated(rows)
        plain = logits(model, rows, len(rows))
    pairs = [(a.sums, b.sums) for a, b in zip(reference.modules(), simulated.modules()) if isinstance(a, IntegerConv3d)]
    return {"layers": len(pairs), "sums": sum(a.size for a, _ in pairs), "equal": all(np.array_equal(a, b) for a, b in pairs)
            and torch.equal(scores, core_scores), "cycles": sum(row[3] for row in product.log),
            "law": sum(row[4] for row in product.log), "agree": float((scores.argmax(1) == plain.argmax(1)).double().mean()),
            "iou": mean_iou(scores.argmax(1), labels, len(ROOM_CLASSES)),
            "float_iou": mean_iou(plain.argmax(1), labels, len(ROOM_CLASSES))}


def sampled_difference(layers: Sequence[PlannedLayer], tiles: int = 1, engine: str = "fastest", seed: int = 0) -> list[dict]:
    """Some tiles of every layer on the simulated core with random numbers: cycles beside the law, and wrong sums counted."""
    rng, found = np.random.default_rng(seed), []
    for layer in layers:
        cut = layer.schedule
        numbers = sorted(rng.choice(len(cut.pieces), min(tiles, len(cut.pieces)), replace=False).tolist())
        features = rng.integers(-128, 128, (cut.book.inputs, layer.C), np.int8)
        weight = rng.integers(-128, 128, (KINDS[layer.kind], layer.C, layer.K), np.int8)
        outputs, sums, cycles = sspnna_host.run_tiles(cut, features, weight, numbers, engine)
        law = cut.passes(layer.C, layer.K) * sum(cut.law(numbers))
        wrong = int((sums != integer_product(features, cut.book, weight)[outputs]).sum())
        found.append({"name": layer.name, "tiles": len(numbers), "cycles": sum(cycles), "law": law, "wrong": wrong})
    return found


def table_regret(seeds: Sequence[int], grids: Sequence[int] = (16, 24, 32, 48, 64), *, held: Sequence[int] = (100, 101, 102),
                 channels: Sequence[tuple[int, int]] = ((16, 16), (32, 32), (64, 64), (128, 128))) -> dict:
    """The table, built on rooms of ``seeds``, against the full search on rooms of the seeds ``held`` that it never saw.

    ``regret`` are the bytes by the table over the bytes by the search; a choice that does not fit counts in ``misfits`` and not
    there. ``look_up`` and ``search`` are microseconds of one choice.
    """
    def scenes(numbers):
        for number in numbers:
            for grid in grids:
                book = rulebook(room(number, grid).coordinates)
                yield book.outputs, book.pairs, touches(book)

    table = FlowTable(list(scenes(seeds)), channels)
    regret, misfits, times = [], 0, {"look_up": [], "search": []}
    for N, P, touched in scenes(held):
        for C, K in channels:
            begin = time.perf_counter()
            guess = table.choose(N, P, C, K)
            middle = time.perf_counter()
            best = optimise(N, touched, C, K)
            times["look_up"].append(middle - begin)
            times["search"].append(time.perf_counter() - middle)
            real = dataflow(guess.flow, N, touched[guess.T], C, K, guess.T, guess.c, guess.k)
            if real.buffer > table.buffer:
                misfits += 1
            else:
                regret.append(real.bytes / best.bytes)
    return {"entries": len(table), "regret": regret, "misfits": misfits,
            **{name: 1e6 * statistics.median(values) for name, values in times.items()}}


def _scannet() -> Recipe:
    """A submanifold U-Net of seven levels on scans at 2 cm. Ours: the abstract says no more than that scenes are segmented."""
    def build():
        return UNet(tuple(16 * i for i in range(1, 8)), 3, len(SCANNET_CLASSES), repeats=2)

    return Recipe(data="scannet", build=build, epochs=200, batch=4, test_batch=1, lr=cosine(0.1, 200), weight_decay=1e-4,
                  read=scan_splits)


RECIPES: dict[str, Callable[[], Recipe]] = {"unet-scannet": _scannet}

__all__ = ["BUILDS", "FLOWS", "KINDS", "ORDERS", "RECIPES", "SHAPES", "TILES", "Accelerator", "Cells", "CoreProduct",
           "Dataflow", "DenseConv3d", "FlowTable", "IntegerConv3d", "Lines", "NormReLU", "PlannedLayer", "Scene", "Segmented",
           "SparseConv3d", "UNet", "Voxels", "blocks", "border_tile", "cells", "compare_networks", "compare_orders",
           "core_cycles", "core_test", "dataflow", "densified", "halves", "implied_share", "index_bits", "integer_product",
           "least_traffic", "mean_iou", "memory_bits", "metadata", "mirrored", "misses", "normal", "on_core", "optimise",
           "order", "output_lines", "pairs_of", "plan", "quantised", "race", "race_by_density", "reading", "renumbered",
           "reuse", "sampled_difference", "segment", "shape_tile", "sparse_convolution", "statistics_key", "step",
           "table_regret", "tangent_order", "touches", "turned", "voxels", "worked_trace"]
