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
    together = _together(count, threads, nanoseconds)
    room = (16 * inputs + 12 * groups * ROWS) * (together + simd.F32)
    order = np.arange(inputs, dtype=np.int32)

    def layer(first, last, *arguments):
        _layer(first, last, simd.scratch("winograd", room), *arguments)

    for image, out in zip(x, y, strict=True):
        planes = _planes(image, padding, across, threads)
        layout = planes, across, weight.groups, weight.slots, order
        simd.share(layer, -(-count // together), threads, nanoseconds, together, *layout, out)
    return y


def _together(count: int, threads: int, nanoseconds: float) -> int:
    """How many tiles, in whole registers, to transform, multiply and transform back at a time.

    With fewer the weights are fetched too often, with more what one step hands to the next leaves the caches.
    """
    vectors = -(-count // simd.F32)
    return simd.F32 * max(1, min(3 * WIDTH, -(-vectors // simd.parts(vectors, threads, nanoseconds))))


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
    """Blocks ``first`` to ``last`` of ``together`` tiles. Of a block, the positions (a, ., .) are transformed, and of these
    (a, b, .) multiplied, transformed back and added to the sums, so that what one step hands to the next stays in near caches.

    All tiles of a block lie in lines: of the inputs (position, channel), of the products (output, position), of the sums
    (output, place in the tile of outputs).
    """
    _, group_count, inputs, _ = groups.shape
    outputs, volume = group_count * ROWS, across[0] * across[1] * across[2]
    line = 4 * together + simd.BYTES  # room behind the last tile
    v = simd.address(memory)
    z = v + 16 * inputs * line
    sums = z + 4 * outputs * line
    for block in range(first, last):
        t0, t1 = block * together, min(volume, (block + 1) * together)
        vectors = -(-(t1 - t0) // simd.F32)
        parts = -(-vectors // WIDTH)
        simd.clear(sums, 8 * outputs * line)
        for a in range(4):
            first_slot = len(groups)
            for slot in slots[16 * a : 16 * a + 16]:
                first_slot = min(first_slot, slot) if slot >= 0 else first_slot
            here = slots[16 * a : 16 * a + 16] - first_slot  # negative where no product is made
            for c in range(inputs):
                _forward(planes, c, t0, t1, across, a, here, v + line * c, line * inputs)
            for b in range(4):
                kept = here[4 * b : 4 * b + 4]
                count = 0
                for slot in kept:
                    if slot >= 0:
                        for g in range(group_count):
                            weight = simd.address(groups) + 4 * ((first_slot + slot) * group_count + g) * inputs * ROWS
                            for part in range(parts):
                                lo, hi = vectors * part // parts, vectors * (part + 1) // parts
                                source = v + line * inputs * slot + simd.BYTES * lo
                                target = z + line * (4 * ROWS * g + count) + simd.BYTES * lo
                                _tile(hi - lo, source, line, (hi - lo) * simd.F32, weight, order, (0, inputs), target, 4 * line)
                        count += 1
                if count:
                    for o in range(len(y)):
                        _backward(z + 4 * line * o, sums + 8 * line * o, line, vectors, a, b, kept)
        for o in range(len(y)):
            _write(sums + 8 * line * o, line, t0, t1, across, y[o])


def _forward_of(add: bool):
    along_z = simd.add if add else simd.subtract

    @numba.njit(nogil=True)
    def row(one, other, volume):
        """Row a of B^T along z, of four inputs in x. Those at x = 0 and 2 lie in one plane, 1 and 3 in the next."""
        return (
            along_z(simd.load_f32(one, 1), simd.load_f32(other, 1)),
            along_z(simd.load_f32(one + 4 * volume, 1), simd.load_f32(other + 4 * volume, 1)),
            along_z(simd.load_f32(one + 4, 1), simd.load_f32(other + 4, 1)),
            along_z(simd.load_f32(one + 4 * volume + 4, 1), simd.load_f32(other + 4 * volume + 4, 1)),
        )

    @numba.njit(nogil=True)
    def forward(planes, c, t0, t1, across, z0, z1, slots, out, apart):
        line = across[2] + 1
        plane = line * (across[1] + 1)
        volume = plane * (across[0] + 1)
        near0, near1 = z0 % 2 * 4 * volume + z0 // 2 * plane, z1 % 2 * 4 * volume + z1 // 2 * plane
        t = t0
        while t < t1:
            ahead, x = t // across[2], t % across[2]
            at = simd.address(planes) + 4 * (c * planes.shape[1] + ahead // across[1] * plane + ahead % across[1] * line + x)
            one, other, to = at + 4 * near0, at + 4 * near1, out + 4 * (t - t0)
            d0, d2 = row(one, other, volume), row(one + 4 * line, other + 4 * line, volume)
            _along_x(_minus(d0, d2), slots[0:4], to, apart)
            d1 = row(one + 8 * volume, other + 8 * volume, volume)
            _along_x(_plus(d1, d2), slots[4:8], to, apart)
            _along_x(_minus(d2, d1), slots[8:12], to, apart)
            d3 = row(one + 8 * volume + 4 * line, other + 8 * volume + 4 * line, volume)
            _along_x(_minus(d1, d3), slots[12:16], to, apart)
            t += min(simd.F32, across[2] - x)

    return forward


_forward_sum, _forward_difference = _forward_of(True), _forward_of(False)


@numba.njit(nogil=True)
def _forward(planes, c, t0, t1, across, a, slots, out, apart):
    """B^T along each axis of tiles ``t0`` to ``t1``, along z row a; position (b, c) goes to its slot's line at ``out``.

    A row of tiles ends where it will: what is computed for tiles behind the end is overwritten by the next row.
    """
    if a == 1:
        _forward_sum(planes, c, t0, t1, across, 1, 2, slots, out, apart)
    else:
        z0, z1 = (0, 2) if a == 0 else (2, 1) if a == 2 else (1, 3)
        _forward_difference(planes, c, t0, t1, across, z0, z1, slots, out, apart)


@numba.njit(nogil=True)
def _minus(d, e):
    return simd.subtract(d[0], e[0]), simd.subtract(d[1], e[1]), simd.subtract(d[2], e[2]), simd.subtract(d[3], e[3])


@numba.njit(nogil=True)
def _plus(d, e):
    return simd.add(d[0], e[0]), simd.add(d[1], e[1]), simd.add(d[2], e[2]), simd.add(d[3], e[3])


@numba.njit(nogil=True)
def _along_x(d, slots, out, apart):
    if slots[0] >= 0:
        simd.store(out + apart * slots[0], 0, simd.subtract(d[0], d[2]), 1)
    if slots[1] >= 0:
        simd.store(out + apart * slots[1], 0, simd.add(d[1], d[2]), 1)
    if slots[2] >= 0:
        simd.store(out + apart * slots[2], 0, simd.subtract(d[2], d[1]), 1)
    if slots[3] >= 0:
        simd.store(out + apart * slots[3], 0, simd.subtract(d[1], d[3]), 1)


@numba.njit(nogil=True)
def _backward(source, sums, line, vectors, a, b, kept):
    """A^T along x of the products at positions (a, b, 0 to 3), added to the sums that rows a and b of A^T lead to.

    A^T has the rows (1, 1, 1, 0) and (0, 1, -1, -1). A position that no product made counts as zero.
    """
    for vector in range(vectors):
        at = source + simd.BYTES * vector
        m0 = m1 = m2 = m3 = simd.zeros_f32(1, 1)
        if kept[0] >= 0:
            m0, at = simd.load_f32(at, 1), at + line
        if kept[1] >= 0:
            m1, at = simd.load_f32(at, 1), at + line
        if kept[2] >= 0:
            m2, at = simd.load_f32(at, 1), at + line
        if kept[3] >= 0:
            m3 = simd.load_f32(at, 1)
        even, odd = simd.add(simd.add(m0, m1), m2), simd.subtract(simd.subtract(m1, m2), m3)
        for i in range(2):
            if (a, i) == (3, 0) or (a, i) == (0, 1):
                continue
            for j in range(2):
                if (b, j) == (3, 0) or (b, j) == (0, 1):
                    continue
                to = sums + line * (4 * i + 2 * j) + simd.BYTES * vector
                if (i == 1 and a >= 2) != (j == 1 and b >= 2):
                    simd.store(to, 0, simd.subtract(simd.load_f32(to, 1), even), 1)
                    simd.store(to + line, 0, simd.subtract(simd.load_f32(to + line, 1), odd), 1)
                else:
                    simd.store(to, 0, simd.add(simd.load_f32(to, 1), even), 1)
                    simd.store(to + line, 0, simd.add(simd.load_f32(to + line, 1), odd), 1)


@numba.njit(nogil=True)
def _write(sums, line, t0, t1, across, y):
    """The 2x2x2 outputs of tiles ``t0`` to ``t1``, from lines to their places in ``y`` (Do, Ho, Wo)."""
    depth, height, width = y.shape
    t = t0
    while t < t1:
        row, x = t // across[2], t % across[2]
        some = min(simd.F32, across[2] - x, t1 - t)
        inside = min(2 * some, width - 2 * x)
        for i in range(2):
            for j in range(2):
                out_z, out_y = row // across[1] * 2 + i, row % across[1] * 2 + j
                if out_z < depth and out_y < height:
                    at = sums + line * (4 * i + 2 * j) + 4 * (t - t0)
                    both = simd.interleave(simd.load_f32(at, 1), simd.load_f32(at + line, 1))
                    simd.store_first(simd.address(y) + 4 * ((out_z * height + out_y) * width + 2 * x), 0, both, 1, inside)
        t += some
