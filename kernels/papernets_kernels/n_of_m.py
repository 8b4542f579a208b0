"""N:M sparsity: of every M consecutive inputs of an output, at most N have a weight.

Zhang, Lin, Lin, Luo, Li, Chao, Wu, Ji, "Learning Best Combination for Efficient N:M Sparsity", NeurIPS 2022.

A GPU selects the N inputs in hardware. A CPU has no such selection, but each weight can multiply a whole row of pixels: one
multiply-add for each weight that is kept and each pixel. No other output reads the same row at the same time, so each
multiply-add reads its input from the cache. Two per cycle is what the nearest cache gives, and all it gives: the inputs are
copied there first, a block of rows at a time, each register on a line of its own.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numba
import numpy as np

from papernets_kernels import _check, simd
from papernets_kernels._tiles import widths


@dataclass(frozen=True)
class NofM:
    """``values`` (Co, K / M, N) float32, ``indices`` (Co, K / M, N) uint8: the place of each within its group of ``m``.

    Places are ascending. Where a group has fewer than N weights, values of zero fill its lowest free places.
    """

    values: np.ndarray
    indices: np.ndarray
    m: int

    def __post_init__(self):
        """However it was made: the kernel reads memory at these places. ``ValueError`` says which part is wrong."""
        m = _check.whole("m", self.m, 1)
        values = _check.array("values", self.values, np.float32, "Co groups N")
        indices = _check.integers("indices", self.indices, "Co groups N", 0, m)
        if indices.shape != values.shape:
            raise ValueError(f"indices has shape {indices.shape}, and values {values.shape}; they must be equal")
        if (np.diff(indices.astype(np.int16), axis=2) < 1).any():
            raise ValueError("the indices of a group do not ascend; each place of a group is named at most once, in order")
        for name, part in {"values": values, "indices": indices.astype(np.uint8, copy=False), "m": m}.items():
            object.__setattr__(self, name, part)

    @property
    def n(self) -> int:
        return self.values.shape[2]

    @property
    def shape(self) -> tuple[int, int]:
        """(Co, K) of the dense weight."""
        return self.values.shape[0], self.values.shape[1] * self.m

    @cached_property
    def columns(self) -> np.ndarray:
        """(Co, K N / M) int32: the input of every weight."""
        groups = np.arange(self.values.shape[1], dtype=np.int32)[:, None] * self.m
        return np.ascontiguousarray((self.indices + groups).reshape(len(self.values), self.values.shape[1] * self.n), np.int32)


def pack(weight: np.ndarray, n: int, m: int) -> NofM:
    """The weights of ``weight`` (Co, K) float32 that are not zero (NaN is not), N places for every M inputs."""
    weight = _check.array("weight", weight, np.float32, "Co K")
    n, m = _check.whole("n", n, 1), _check.whole("m", m, 1)
    if m > 16:
        raise ValueError(f"m is {m}; the largest is 16")
    if n > m:
        raise ValueError(f"n is {n} of m = {m}; the largest n is {m}")
    outputs, inputs = weight.shape
    if inputs % m:
        legal = [size for size in range(1, 17) if inputs % size == 0 and size >= n]
        near = f"the nearest m that divides is {min(legal, key=lambda size: abs(size - m))}" if legal else "pad it with zeros"
        raise ValueError(f"m is {m}, and {inputs} inputs are no multiple of it; {near}")
    groups = weight.reshape(outputs, inputs // m, m)
    kept = groups != 0
    full = np.argwhere(kept.sum(2) > n)
    if len(full):
        row, group = full[0]
        raise ValueError(
            f"group {group} of output {row} holds {kept[row, group].sum()} weights; {n}:{m} allows {n}: "
            f"set the {kept[row, group].sum() - n} smallest to zero"
        )
    # the kept places first, then the lowest free ones; of these the first n, in ascending order
    indices = np.sort(np.argsort(~kept, axis=2, kind="stable")[:, :, :n], axis=2)
    return NofM(np.take_along_axis(groups, indices, 2), indices.astype(np.uint8), m)


def unpack(packed: NofM) -> np.ndarray:
    """The weight (Co, K) that ``pack`` was given."""
    outputs, inputs = packed.shape
    weight = np.zeros((outputs, inputs), np.float32)
    np.put_along_axis(weight, packed.columns.astype(np.int64), packed.values.reshape(packed.columns.shape), 1)
    return weight


def matmul(packed: NofM, x: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """The product with ``x`` (K, P) float32: (Co, P)."""
    x = _check.array("x", x, np.float32, "K P")
    _check.same("the number of rows of x", x.shape[0], "the number of inputs of the weight", packed.shape[1])
    y = np.empty((packed.shape[0], x.shape[1]), np.float32)
    product = _product(*widths(x.shape[1], WIDEST))
    values, work = packed.values.reshape(packed.columns.shape), packed.values.size * x.shape[1] / 70
    simd.share(product, len(y), threads, work, x, values, packed.columns, packed.n, packed.m, y)
    return y


def conv2d(packed: NofM, x: np.ndarray, kernel=1, stride=1, padding=0, dilation=1, *, threads: int = 1) -> np.ndarray:
    """The convolution of ``x`` (B, C, H, W) float32: (B, Co, Ho, Wo), zeros around the borders.

    The weight's K runs over the taps of ``kernel`` first and over the channels last, so that a group is M channels of one tap.
    """
    x = _check.array("x", x, np.float32, "B C H W")
    kernel, stride = _check.each("kernel", kernel, 2, 1), _check.each("stride", stride, 2, 1)
    padding, dilation = _check.each("padding", padding, 2, 0), _check.each("dilation", dilation, 2, 1)
    taps = kernel[0] * kernel[1]
    _check.same("the number of channels of x times the taps", x.shape[1] * taps, "the number of inputs of the weight",
                packed.shape[1])
    reach = tuple(d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True))
    height, width = _check.output_size(x.shape[2:], reach, stride, padding)
    y = np.empty((len(x), packed.shape[0], height * width), np.float32)
    for image, out in zip(x, y, strict=True):
        if (*kernel, *stride, *padding) == (1, 1, 1, 1, 0, 0):
            columns = image.reshape(len(image), height * width)
        else:
            columns = _columns(image, kernel, stride, padding, dilation, (height, width))
        out[:] = matmul(packed, columns, threads=threads)
    return y.reshape(len(x), packed.shape[0], height, width)


def _columns(image: np.ndarray, kernel, stride, padding, dilation, size) -> np.ndarray:
    """The patch matrix (kh kw C, Ho Wo): one row for each tap and channel, channels next to each other."""
    (height, width), (sy, sx), (dy, dx) = size, stride, dilation
    image = np.pad(image, ((0, 0), *((pad, pad) for pad in padding)))
    columns = np.empty((*kernel, len(image), height, width), np.float32)
    for i, j in np.ndindex(*kernel):
        columns[i, j] = image[:, i * dy :: sy, j * dx :: sx][:, :height, :width]
    return columns.reshape(-1, height * width)


# ---- the kernel ------------------------------------------------------------------------------------------------------

WIDEST = min(8, simd.REGISTERS // 2 - 2)  # registers of pixels in a tile of two outputs
NEAR = 36 * 1024  # bytes of inputs that stay in the nearest cache, three quarters of 48 KB


@cache
def _product(*widths: int):
    """The product for tiles of these widths, widest first."""
    widest, pair = widths[0], _pairs(*widths)

    @numba.njit(nogil=True)
    def product(first, last, x, values, columns, n, m, y):
        """Outputs ``first`` to ``last``, tile by tile of pixels, block by block of inputs; sums wait in memory in between."""
        inputs, pixels = x.shape
        vectors = -(-pixels // simd.F32)
        tiles = -(-vectors // widest)
        near = max(1, NEAR // (widest * simd.BYTES * m))  # groups in a block
        blocks = max(1, -(-(inputs // m) // near))
        near = -(-(inputs // m) // blocks)  # as even as can be
        memory = np.empty((near * m + last - first + 1) * widest * simd.F32 + 16, np.float32)
        panel = (simd.address(memory) + 63) & -64
        for t in range(tiles):
            begin, end = vectors * t // tiles, vectors * (t + 1) // tiles
            p, width = begin * simd.F32, end - begin
            inside = min(pixels, end * simd.F32) - p
            line = simd.BYTES * width
            sums = panel + line * near * m
            for b in range(blocks):
                k0, k1 = b * near * m, min(inputs, (b + 1) * near * m)
                for k in range(k0, k1):
                    source, target = simd.address(x) + 4 * (k * pixels + p), panel + line * (k - k0)
                    for v in range(width):
                        rest = min(simd.F32, inside - v * simd.F32)
                        simd.store(target + simd.BYTES * v, 0, simd.load_f32_first(source + simd.BYTES * v, 1, rest), 1)
                stage = (b == 0) + 2 * (b == blocks - 1)
                for o in range(first, last, 2):
                    other = min(o + 1, last - 1)  # the last of an odd number is computed twice
                    q = k0 // m * n
                    weight = simd.address(values) + 4 * (columns.shape[1] * o + q)
                    column = simd.address(columns) + 4 * (columns.shape[1] * o + q)
                    apart = 4 * columns.shape[1] * (other - o)
                    out = simd.address(y) + 4 * (o * pixels + p), 4 * pixels * (other - o), inside
                    wait = sums + line * (o - first), line * (other - o)
                    pair(width, panel - line * k0, weight, column, apart, (k1 - k0) // m * n, wait, stage, out)
        simd.keep(memory)

    return product


def _pairs(*widths: int):
    """Two outputs by ``wanted`` registers of pixels, ``wanted`` being one of ``widths``.

    ``stage``: 1 for the first block of inputs (no sums yet), 2 for the last (the sums are the result), 3 for both.
    """
    width = widths[0]
    line = simd.BYTES * width

    @numba.njit(nogil=True)
    def pair(wanted, x, weight, column, apart, count, wait, stage, out):
        sums, sums_apart = wait
        if stage & 1:
            one, two = simd.zeros_f32(1, width), simd.zeros_f32(1, width)
        else:
            one, two = simd.load_f32(sums, width), simd.load_f32(sums + sums_apart, width)
        for q in range(0, 4 * count, 4):
            one = simd.outer_f32(one, weight + q, 4, x + line * simd.read_i32(column + q), 1, width)
            two = simd.outer_f32(two, weight + apart + q, 4, x + line * simd.read_i32(column + apart + q), 1, width)
        y, y_apart, inside = out
        if stage < 2:
            simd.store(sums, 0, one, 1)
            simd.store(sums + sums_apart, 0, two, 1)
        elif inside == width * simd.F32:
            simd.store(y, 0, one, 1)
            simd.store(y + y_apart, 0, two, 1)
        else:
            simd.store_first(y, 0, one, 1, inside)
            simd.store_first(y + y_apart, 0, two, 1, inside)

    if len(widths) == 1:
        return pair
    others = _pairs(*widths[1:])

    @numba.njit(nogil=True)
    def choose(wanted, x, weight, column, apart, count, wait, stage, out):
        if wanted == width:
            pair(wanted, x, weight, column, apart, count, wait, stage, out)
        else:
            others(wanted, x, weight, column, apart, count, wait, stage, out)

    return choose
