"""Winograd convolution in three dimensions, F(2x2x2, 3x3x3), and its low-rank, column-sparse form.

Qin, Lin, Lin, "Low-Rank Winograd Transformation for 3D Convolutional Neural Networks", 2023; the transforms are those of
Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2016.

A tile of 4x4x4 inputs gives 2x2x2 outputs with 64 products for each pair of channels, where the direct sum takes 216. In the
transformed domain a layer is 64 matrix products ``Z_p = U_p V_p``, one for each position p; a column of the weights that is
zero (position p of every kernel) drops its product. Tiles lie side by side in a register in every step.
"""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from papernets_kernels import _check, simd
from papernets_kernels._tiles import tiles

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # kernel, 3 to 4
KERNEL = np.kron(np.kron(G, G), G)  # (64, 27): K of the paper


@dataclass(frozen=True, eq=False)
class Winograd:
    """``u`` (columns, Co, C) float32, the matrices U_p; ``columns`` (columns,) int64, their positions p = 16 a + 4 b + c."""

    u: np.ndarray
    columns: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int, int, int]:
        """(Co, C, 3, 3, 3)."""
        return *self.u.shape[1:], 3, 3, 3

    @cached_property
    def groups(self) -> np.ndarray:
        """(columns, ceil(Co / ROWS), C, ROWS): the weights in the order in which the product reads them."""
        columns, outputs, inputs = self.u.shape
        count = -(-outputs // ROWS)
        filled = np.zeros((columns, count * ROWS, inputs), np.float32)
        filled[:, :outputs] = self.u
        return np.ascontiguousarray(filled.reshape(columns, count, ROWS, inputs).transpose(0, 1, 3, 2))

    @cached_property
    def slots(self) -> np.ndarray:
        """(64,) int64: the place of each position among the columns, or -1."""
        slots = np.full(64, -1, np.int64)
        slots[self.columns] = np.arange(len(self.columns))
        return slots


def pack(weight: np.ndarray, columns=None) -> Winograd:
    """The transformed kernels of ``weight`` (Co, C, 3, 3, 3) float32, all 64 columns or those given."""
    weight = _check.array("weight", weight, np.float32, "Co C D H W")
    if weight.shape[2:] != (3, 3, 3):
        raise ValueError(f"the kernel is {'x'.join(map(str, weight.shape[2:]))}; F(2x2x2, 3x3x3) takes 3x3x3")
    u = weight.reshape(*weight.shape[:2], 27) @ KERNEL.T.astype(np.float64)
    return _keep(u, columns)


def pack_low_rank(p: np.ndarray, q: np.ndarray, columns=None) -> Winograd:
    """``p`` (Co, C, s) and ``q`` (s, 64), multiplied out once: products of rank s would cost more, not less.

    Without ``columns``, those of ``q`` are kept that are not all zero.
    """
    p, q = _low_rank(p, q)
    if columns is None:
        columns = np.nonzero((q != 0).any(0))[0]
    return _keep(p.astype(np.float64) @ q, columns)


def column_norms(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """(64,) float64: the norm of each column of M = P Q, the importance of a position."""
    p, q = _low_rank(p, q)
    p = p.reshape(-1, p.shape[2]).astype(np.float64)
    return np.sqrt(np.maximum(np.einsum("sp,st,tp->p", q, p.T @ p, q), 0))


def _low_rank(p, q) -> tuple[np.ndarray, np.ndarray]:
    p, q = _check.array("p", p, np.float32, "Co C s"), _check.array("q", q, np.float32, "s positions")
    _check.same("the number of rows of q", q.shape[0], "the last axis of p", p.shape[2])
    _check.same("the number of columns of q", q.shape[1], "the number of positions", 64)
    return p, q


def _keep(u: np.ndarray, columns) -> Winograd:
    """``u`` (Co, C, 64) float64 at ``columns``."""
    if columns is None:
        columns = np.arange(64)
    if np.size(columns) == 0:
        raise ValueError("columns is empty; a layer keeps at least 1 of its 64 columns")
    columns = _check.integers("columns", columns, "columns", 0, 64)
    if (np.diff(columns.astype(np.int64)) <= 0).any():
        raise ValueError(f"columns is {columns.tolist()}; they ascend, each once: give np.unique(columns)")
    return Winograd(np.ascontiguousarray(u.transpose(2, 0, 1)[columns], np.float32), columns.astype(np.int64))


def conv3d(x: np.ndarray, weight: np.ndarray | Winograd, padding=0, *, threads: int = 1) -> np.ndarray:
    """The convolution of ``x`` (B, C, D, H, W) float32 with stride 1: (B, Co, Do, Ho, Wo).

    A float32 result differs from the direct sum's by a few roundings of the tile's largest partial sum.
    """
    x = _check.array("x", x, np.float32, "B C D H W")
    weight = weight if isinstance(weight, Winograd) else pack(weight)
    outputs, inputs = weight.shape[:2]
    _check.same("the number of channels of x", x.shape[1], "the number of input channels of the weight", inputs)
    padding, threads = _check.each("padding", padding, 3, 0), _check.threads(threads)
    size = _check.output_size(x.shape[2:], (3, 3, 3), (1, 1, 1), padding)
    across = tuple(-(-out // 2) for out in size)  # tiles along each axis
    y = np.empty((len(x), outputs, *size), np.float32)
    count = across[0] * across[1] * across[2]
    columns, groups, *_ = weight.groups.shape
    nanoseconds = columns * inputs * outputs * count / 80
    together = _together(count, simd.parts(count, threads, nanoseconds))
    vectors = -(-together // simd.F32)
    room = (columns * inputs * vectors + (columns * groups * ROWS + 64) * (vectors + 1) + 64) * simd.F32
    order = np.arange(inputs, dtype=np.int32)

    def layer(first, last, *arguments):
        _layer(first, last, simd.scratch("winograd", room), *arguments)

    for image, out in zip(x, y, strict=True):
        planes = _planes(image, padding, across, threads)
        layout = planes, across, weight.groups, weight.slots, order
        simd.share(layer, -(-count // together), threads, nanoseconds, together, *layout, out)
    return y


def _together(count: int, parts: int) -> int:
    """How many tiles to transform, multiply and transform back at a time.

    With fewer the weights are fetched too often, with more what one step hands to the next leaves the caches.
    """
    panel = WIDTH * simd.F32
    return max(1, min(count if count <= 3 * panel else 2 * panel, -(-count // parts)))


def _planes(image: np.ndarray, padding, across, threads: int) -> np.ndarray:
    """``image`` (C, D, H, W), padded, by the remainders of its places: (C, 2, 2, 2, tiles + 1 along each axis).

    Input 2 t + r of tile t lies at t of plane r, so what neighbouring tiles read lies side by side.
    """
    volume = (across[0] + 1) * (across[1] + 1) * (across[2] + 1)
    planes = simd.scratch("planes", (len(image), 8 * volume + simd.F32))  # room behind the last row
    simd.share(_split, len(image), threads, planes.nbytes / 8, image, *padding, *across, planes)
    return planes


@numba.njit(nogil=True)
def _split(first, last, image, pz, py, px, az, ay, ax, planes):
    _, depth, height, width = image.shape
    volume = (az + 1) * (ay + 1) * (ax + 1)
    for c in range(first, last):
        for z in range(2 * az + 2):
            for y in range(2 * ay + 2):
                place = (z % 2 * 4 + y % 2 * 2) * volume + ((z // 2) * (ay + 1) + y // 2) * (ax + 1)
                even, odd = planes[c, place : place + ax + 1], planes[c, place + volume : place + volume + ax + 1]
                even[:] = 0
                odd[:] = 0
                if pz <= z < pz + depth and py <= y < py + height:
                    for x in range(0, width, 2 * simd.F32):  # input x is at x + px of the padded row
                        source = simd.address(image) + 4 * (((c * depth + z - pz) * height + y - py) * width + x)
                        first_half, second_half = simd.deinterleave(simd.load_f32_first(source, 2, width - x))
                        at, rest = (x + px) // 2, (width - x + 1) // 2
                        if px % 2 == 0:
                            simd.store_first(simd.address(even) + 4 * at, 0, first_half, 1, rest)
                            simd.store_first(simd.address(odd) + 4 * at, 0, second_half, 1, (width - x) // 2)
                        else:
                            simd.store_first(simd.address(odd) + 4 * at, 0, first_half, 1, rest)
                            simd.store_first(simd.address(even) + 4 * at + 4, 0, second_half, 1, (width - x) // 2)


# ---- the kernel ------------------------------------------------------------------------------------------------------

ROWS = 8 if simd.REGISTERS >= 32 else 4
WIDTH = simd.registers(ROWS)
_tile = tiles(ROWS, ROWS, *range(WIDTH, 0, -1))


@numba.njit(nogil=True)
def _layer(first, last, memory, together, planes, across, groups, slots, order, y):
    """Blocks ``first`` to ``last`` of ``together`` tiles: transform, multiply, transform back.

    The transforms write and read lines, one for each position, with all tiles of the block; the products want their inputs
    in panels, a few registers of tiles wide, that lie in one piece. A row of tiles ends where it will: what a transform
    computes for tiles behind the end is overwritten by the next row.
    """
    columns, group_count, inputs, _ = groups.shape
    outputs, wide = group_count * ROWS, across[2]
    vectors = -(-together // simd.F32)
    line = simd.BYTES * (vectors + 1)  # room behind the last tile
    v = simd.address(memory)
    z = v + columns * inputs * vectors * simd.BYTES
    lines = z + columns * outputs * line
    scratch = lines + 64 * line
    for block in range(first, last):
        t0, t1 = block * together, min(across[0] * across[1] * wide, (block + 1) * together)
        vectors = -(-(t1 - t0) // simd.F32)
        parts = -(-vectors // WIDTH)
        for c in range(inputs):
            t = t0
            while t < t1:
                _forward(planes, c, t // wide, t % wide, across, slots, scratch, lines + 4 * (t - t0), line)
                t += min(simd.F32, wide - t % wide)
            for p in range(columns):
                for part in range(parts):
                    begin, end = vectors * part // parts, vectors * (part + 1) // parts
                    panel = v + simd.BYTES * ((p * vectors + begin) * inputs + c * (end - begin))
                    for i in range(begin, end):
                        simd.store(panel + simd.BYTES * (i - begin), 0, simd.load_f32(lines + line * p + simd.BYTES * i, 1), 1)
        for p in range(columns):
            for part in range(parts):
                begin, end = vectors * part // parts, vectors * (part + 1) // parts
                source = v + simd.BYTES * (p * vectors + begin) * inputs
                out = z + line * p + simd.BYTES * begin
                apart = simd.BYTES * (end - begin)
                for g in range(group_count):
                    weight = simd.address(groups) + 4 * (p * group_count + g) * inputs * ROWS
                    target = out + line * columns * ROWS * g
                    _tile(end - begin, source, apart, apart // 4, weight, order, (0, inputs), target, line * columns)
        for o in range(len(y)):
            for byte in range(0, line * columns, 64):  # the lines of the next output, which lie in a far cache
                simd.prefetch(z + line * columns * (o + 1) + byte)
            t = t0
            while t < t1:
                some = min(simd.F32, wide - t % wide, t1 - t)
                _backward(z + line * columns * o + 4 * (t - t0), line, slots, scratch, t // wide, t % wide, some, across, y[o])
                t += some


@numba.njit(nogil=True)
def _forward(planes, c, row, t, across, slots, scratch, out, apart):
    """B^T along each axis of the tiles from ``t`` on in a row of tiles; position p goes to ``out + apart slots[p]``."""
    line = across[2] + 1
    plane = line * (across[1] + 1)
    volume = plane * (across[0] + 1)
    tz, ty = row // across[1], row % across[1]
    here = simd.address(planes) + 4 * (c * planes.shape[1] + tz * plane + ty * line + t)
    for a in range(4):
        for b in range(4):
            source = here + 4 * ((a % 2 * 4 + b % 2 * 2) * volume + a // 2 * plane + b // 2 * line)
            d0, d2 = simd.load_f32(source, 1), simd.load_f32(source + 4, 1)
            d1, d3 = simd.load_f32(source + 4 * volume, 1), simd.load_f32(source + 4 * volume + 4, 1)
            to = scratch + simd.BYTES * (16 * a + 4 * b)
            simd.store(to, 0, simd.subtract(d0, d2), 1)
            simd.store(to + simd.BYTES, 0, simd.add(d1, d2), 1)
            simd.store(to + 2 * simd.BYTES, 0, simd.subtract(d2, d1), 1)
            simd.store(to + 3 * simd.BYTES, 0, simd.subtract(d1, d3), 1)
    for a in range(4):
        for c_ in range(4):
            at = scratch + simd.BYTES * (16 * a + c_)
            d0, d1, d2, d3 = _four(at, 4 * simd.BYTES)
            simd.store(at, 0, simd.subtract(d0, d2), 1)
            simd.store(at + 4 * simd.BYTES, 0, simd.add(d1, d2), 1)
            simd.store(at + 8 * simd.BYTES, 0, simd.subtract(d2, d1), 1)
            simd.store(at + 12 * simd.BYTES, 0, simd.subtract(d1, d3), 1)
    for bc in range(16):
        d0, d1, d2, d3 = _four(scratch + simd.BYTES * bc, 16 * simd.BYTES)
        if slots[bc] >= 0:
            simd.store(out + apart * slots[bc], 0, simd.subtract(d0, d2), 1)
        if slots[16 + bc] >= 0:
            simd.store(out + apart * slots[16 + bc], 0, simd.add(d1, d2), 1)
        if slots[32 + bc] >= 0:
            simd.store(out + apart * slots[32 + bc], 0, simd.subtract(d2, d1), 1)
        if slots[48 + bc] >= 0:
            simd.store(out + apart * slots[48 + bc], 0, simd.subtract(d1, d3), 1)


@numba.njit(nogil=True)
def _backward(source, apart, slots, scratch, row, t, some, across, y):
    """A^T along each axis; a position that no product made counts as zero. Writes 2x2x2 outputs of ``some`` tiles."""
    tz, ty = row // across[1], row % across[1]
    for p in range(64):
        if slots[p] >= 0:
            simd.store(scratch + simd.BYTES * p, 0, simd.load_f32(source + apart * slots[p], 1), 1)
        else:
            simd.store(scratch + simd.BYTES * p, 0, simd.zeros_f32(1, 1), 1)
    for bc in range(16):  # the first axis: 4 to 2, in place
        at = scratch + simd.BYTES * bc
        m0, m1, m2, m3 = _four(at, 16 * simd.BYTES)
        simd.store(at, 0, simd.add(simd.add(m0, m1), m2), 1)
        simd.store(at + 16 * simd.BYTES, 0, simd.subtract(simd.subtract(m1, m2), m3), 1)
    for i in range(2):
        if 2 * tz + i >= y.shape[0]:
            continue
        for c in range(4):
            at = scratch + simd.BYTES * (16 * i + c)
            m0, m1, m2, m3 = _four(at, 4 * simd.BYTES)
            simd.store(at, 0, simd.add(simd.add(m0, m1), m2), 1)
            simd.store(at + 4 * simd.BYTES, 0, simd.subtract(simd.subtract(m1, m2), m3), 1)
        for j in range(2):
            if 2 * ty + j >= y.shape[1]:
                continue
            m0, m1, m2, m3 = _four(scratch + simd.BYTES * (16 * i + 4 * j), simd.BYTES)
            even, odd = simd.add(simd.add(m0, m1), m2), simd.subtract(simd.subtract(m1, m2), m3)
            inside = min(2 * some, y.shape[2] - 2 * t)
            out = simd.address(y) + 4 * (((2 * tz + i) * y.shape[1] + 2 * ty + j) * y.shape[2] + 2 * t)
            simd.store_first(out, 0, simd.interleave(even, odd), 1, inside)


@numba.njit(nogil=True)
def _four(start, apart):
    return (
        simd.load_f32(start, 1),
        simd.load_f32(start + apart, 1),
        simd.load_f32(start + 2 * apart, 1),
        simd.load_f32(start + 3 * apart, 1),
    )
