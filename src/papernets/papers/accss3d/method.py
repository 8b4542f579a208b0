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

import heapq
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from papernets_kernels import sparse_conv3d
from papernets_kernels.sparse_conv3d import Rulebook

PLANES, CENTRE = 27, 13

# ---------------------------------------------------------------------------------------------------------------------
# Metadata: a line for each voxel
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
# The order of the voxels
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
# The dataflow: what moves for a tile size, channel blocks and a loop order
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
# What the abstract's factors imply
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
