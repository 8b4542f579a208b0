"""Convolution with 3x3 kernels of signs that are taken from a small codebook: less than one bit a weight.

Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate Binary Neural Networks", ICCV 2021.

Two outputs with the same kernel for an input channel need the same partial sums, so these are computed once for each kernel of
the codebook and looked up for each output. The table is laid out over positions: an entry is a register of 8-bit sums, one
for each of 64 positions, and a lookup is one load and one addition. A sum of 14 channels still fits 8 bits (14 * 9 = 126).
"""

from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np

from papernets_kernels import _check, simd

# ---- packing ---------------------------------------------------------------------------------------------------------


def pack_ids(ids: np.ndarray, bits: int) -> np.ndarray:
    """``ids``, whole numbers below 2 ** bits, in ``bits`` bits each: uint8 (ceil(ids.size * bits / 8),).

    A little-endian stream: bit b of number i is bit ``i * bits + b``. Bits behind the last number are 0.
    """
    bits = _bits(bits)
    ids = _check.integers("ids", ids, "", 0, 2**bits)
    stream = (ids.reshape(-1, 1) >> np.arange(bits, dtype=ids.dtype)) & 1
    return np.packbits(stream.astype(np.uint8), bitorder="little")


def unpack_ids(packed: np.ndarray, bits: int, shape) -> np.ndarray:
    """The numbers that ``pack_ids`` was given, as uint16 of ``shape``."""
    bits = _bits(bits)
    packed = _check.array("packed", packed, np.uint8, "bytes")
    count = int(np.prod(shape))
    _check.same("the number of bytes", len(packed), f"what {count} numbers of {bits} bits need", -(-count * bits // 8))
    stream = np.unpackbits(packed, bitorder="little", count=count * bits).reshape(count, bits).astype(np.uint16)
    return (stream << np.arange(bits, dtype=np.uint16)).sum(1, dtype=np.uint16).reshape(shape)


def _bits(bits) -> int:
    if _check.whole("bits", bits, 1) > 9:
        raise ValueError(f"bits is {bits}; a 3x3 kernel of signs has 9 bits, so 1 to 9 are possible")
    return int(bits)


@dataclass(frozen=True, eq=False)
class SharedWeight:
    """``ids`` (Co, C), the kernel of every output and input channel in ``codebook`` (n, 3, 3) of +1 and -1."""

    ids: np.ndarray
    codebook: np.ndarray

    def __post_init__(self):
        codebook = _check.signs("codebook", self.codebook, "kernels 3 3")
        if codebook.shape[1:] != (3, 3) or not 1 <= len(codebook) <= 512:
            raise ValueError(f"codebook has shape {codebook.shape}; it is (n, 3, 3) with n from 1 to 512")
        object.__setattr__(self, "codebook", codebook)
        object.__setattr__(self, "ids", _check.integers("ids", self.ids, "Co C", 0, len(codebook)))

    @property
    def together(self) -> int:
        """Channels whose tables stay in the nearest cache at a time; their sum must fit 8 bits."""
        return max(1, min(14, 32 * 1024 // (len(self.codebook) * simd.BYTES)))

    @cached_property
    def offsets(self) -> np.ndarray:
        """(Co, C) int32: where in the tables, in bytes, the sums of every kernel are."""
        place = np.arange(self.ids.shape[1], dtype=np.int64) % self.together * len(self.codebook)
        return np.ascontiguousarray((self.ids + place) * simd.BYTES, np.int32)

    @cached_property
    def rows(self) -> np.ndarray:
        """(n, 3) int32: where among the 24 sums of a row of three inputs, in bytes, each row of a kernel is."""
        code = (self.codebook > 0) @ np.array([4, 2, 1])  # (n, 3), 0 ... 7
        return np.ascontiguousarray((code + np.array([0, 8, 16])) * simd.BYTES, np.int32)


def conv2d(x: np.ndarray, ids, codebook=None, stride=1, padding=0, *, threads: int = 1) -> np.ndarray:
    """The signs of ``x`` (B, C, H, W) float32 convolved with ``codebook[ids]``: (B, Co, Ho, Wo) int32.

    Zero counts as +1 and NaN as -1. Give ``ids`` (Co, C) and ``codebook`` (n, 3, 3), or a ``SharedWeight`` made of both
    before. Places outside the image add nothing.
    """
    x = _check.array("x", x, np.float32, "B C H W")
    if isinstance(ids, SharedWeight) != (codebook is None):
        raise ValueError("give ids and a codebook, or a SharedWeight and none")
    weight = ids if codebook is None else SharedWeight(ids, codebook)
    outputs, channels = weight.ids.shape
    _check.same("the number of channels of x", x.shape[1], "the number of input channels of ids", channels)
    stride, padding, threads = (
        _check.each("stride", stride, 2, 1),
        _check.each("padding", padding, 2, 0),
        _check.threads(threads),
    )
    height, width = size = _check.output_size(x.shape[2:], (3, 3), stride, padding)
    # With a stride, the inputs of one remainder lie side by side: a tap reads one of these planes without gaps. A plane
    # has room for the taps' shift behind each line; the outputs computed there are dropped.
    lines = [out + 2 // step for out, step in zip(size, stride, strict=True)]
    plane = lines[0] * lines[1]
    tiles = -(-(size[0] * lines[1]) // simd.I8) if height * width else 0
    signs = np.zeros((channels, stride[0] * stride[1] * plane + simd.I8 + 2), np.int8)
    y = np.zeros((len(x), outputs, height, width), np.int32)
    i, j = np.divmod(np.arange(9), 3)  # of a tap: its plane, and its shift in it
    shift = i // stride[0] * lines[1] + j // stride[1]
    taps = (i % stride[0] * stride[1] + j % stride[1]) * plane + shift
    for image, out in zip(x, y, strict=True):
        simd.share(_signs, channels, threads, image.size / 4, image, *stride, *padding, *lines, signs)
        work = weight.ids.size * size[0] * lines[1] / 50
        simd.share(_lookups, tiles, threads, work, signs, lines[1], taps, weight.rows, weight.offsets, weight.together, out)
    return y


# ---- the kernels -----------------------------------------------------------------------------------------------------


@numba.njit(nogil=True)
def _signs(first, last, image, sy, sx, py, px, high, wide, signs):
    """Channels ``first`` to ``last``: +1 or -1 for each input that an output can need, by the remainders of its place."""
    _, height, width = image.shape
    for c in range(first, last):
        for i in range(sy):
            for j in range(sx):
                for y in range(high):
                    source = y * sy + i - py
                    if source < 0 or source >= height:
                        continue  # stays 0
                    out = ((i * sx + j) * high + y) * wide
                    begin = min(wide, max(0, -(-(px - j) // sx)))
                    end = max(begin, min(wide, (width - 1 + px - j) // sx + 1))
                    if sx == 1:
                        line = simd.address(image) + 4 * ((c * height + source) * width + j - px)
                        target = simd.address(signs) + c * signs.shape[1] + out
                        for x in range(begin, end, simd.F32):
                            simd.store_first(target + x, 0, simd.signs_i8(line + 4 * x, end - x), 1, end - x)
                    else:
                        for x in range(begin, end):
                            signs[c, out + x] = 1 if image[c, source, x * sx + j - px] >= 0 else -1


MOST = 32767 // 9 // 14 * 14  # channels whose sum fits 16 bits


@numba.njit(nogil=True)
def _lookups(first, last, signs, line, taps, rows, offsets, together, y):
    """Tiles ``first`` to ``last`` of positions, all outputs: tables for a few channels at a time, then the lookups."""
    outputs, channels = offsets.shape
    kernels = len(rows)
    step = simd.BYTES
    memory = np.empty((together * kernels + 24 + 4) * step + 64 + 2 * step * (outputs + 1), np.int8)
    tables = (simd.address(memory) + 63) & -64
    threes = tables + together * kernels * step
    wide = threes + 24 * step
    sums = wide + 4 * step
    for t in range(first, last):
        for most in range(0, channels, MOST):
            simd.clear(sums, 2 * step * (outputs + 1))
            for c0 in range(most, min(channels, most + MOST), together):
                c1 = min(channels, c0 + together)
                for c in range(c0, c1):
                    source = simd.address(signs) + c * signs.shape[1] + t * step
                    _table(source, taps, rows, threes, tables + (c - c0) * kernels * step)
                for o in range(0, outputs, 2):
                    place = simd.address(offsets) + 4 * (o * channels + c0)
                    other = place + 4 * channels if o + 1 < outputs else place
                    one, two = simd.zeros_i8(1, 1), simd.zeros_i8(1, 1)
                    for c in range(0, 4 * (c1 - c0), 4):
                        one = simd.add(one, simd.load_i8(tables + simd.read_i32(place + c), 1))
                        two = simd.add(two, simd.load_i8(tables + simd.read_i32(other + c), 1))
                    here = sums + 2 * step * o
                    simd.store(here, 0, simd.add(simd.load_i16(here, 2), simd.widen_i16(one)), 1)
                    here += 2 * step  # of an odd number, one more is there
                    simd.store(here, 0, simd.add(simd.load_i16(here, 2), simd.widen_i16(two)), 1)
            for o in range(outputs):
                simd.store(wide, 0, simd.widen_i32(simd.load_i16(sums + 2 * step * o, 2)), 1)
                _drop(wide, t * step, line, y[o])
    simd.keep(memory)


@numba.njit(nogil=True)
def _table(source, taps, rows, threes, table):
    """The sums of one channel for every kernel of the codebook, at the positions from ``source`` on."""
    step = simd.BYTES
    for i in range(3):
        a = simd.load_i8(source + taps[3 * i], 1)
        b = simd.load_i8(source + taps[3 * i + 1], 1)
        c = simd.load_i8(source + taps[3 * i + 2], 1)
        plus, minus = simd.add(a, b), simd.subtract(a, b)
        # the eight signs of (a, b, c), from - - - to + + +
        sums = simd.subtract(minus, c), simd.add(minus, c), simd.subtract(plus, c), simd.add(plus, c)
        for place in range(4):
            simd.store(threes + (8 * i + 4 + place) * step, 0, sums[place], 1)
            simd.store(threes + (8 * i + 3 - place) * step, 0, simd.subtract(simd.zeros_i8(1, 1), sums[place]), 1)
    for k in range(len(rows)):
        first = simd.add(simd.load_i8(threes + rows[k, 0], 1), simd.load_i8(threes + rows[k, 1], 1))
        simd.store(table + k * step, 0, simd.add(first, simd.load_i8(threes + rows[k, 2], 1)), 1)


@numba.njit(nogil=True)
def _drop(wide, begin, line, y):
    """Adds the sums at ``wide``, of the positions from ``begin`` on, to the outputs; those behind a line's end are dropped."""
    height, width = y.shape
    place = begin
    while place < begin + simd.I8:
        row, column = place // line, place % line
        if row >= height:
            return
        count = min(width - column, begin + simd.I8 - place)
        source, out = wide + 4 * (place - begin), simd.address(y) + 4 * (row * width + column)
        for i in range(0, count, simd.F32):
            inside = min(simd.F32, count - i)
            sums = simd.add(simd.load_i32_first(out + 4 * i, 1, inside), simd.load_i32_first(source + 4 * i, 1, inside))
            simd.store_first(out + 4 * i, 0, sums, 1, inside)
        place = (row + 1) * line
