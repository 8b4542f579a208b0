"""1xN sparsity: blocks of N consecutive output channels that share one input channel.

Lin, Zhang, Li, Chen, Chao, Wang, Li, Tian, Ji, "1xN Pattern for Pruning Convolutional Neural Networks", TPAMI 2022.

A block that is kept multiplies one row of the input with N weights and adds to N rows of the output. The row is read once
for N multiply-adds and the N sums stay in registers, so the arithmetic runs near the machine's peak whatever the sparsity;
zeros scattered without order would read the row once for each multiply-add.
"""

from dataclasses import dataclass
from functools import cache, cached_property

import numba
import numpy as np

from papernets_kernels import _check, simd
from papernets_kernels._patches import patches
from papernets_kernels._tiles import tiles, widths


@dataclass(frozen=True)
class OneByN:
    """The kept blocks, group by group of N output channels.

    ``values`` (blocks, kh, kw, N) float32; ``columns`` (blocks,) int32, the input channel of each block, ascending within a
    group; ``rows`` (Co / N + 1,) int64: group g owns the blocks ``rows[g]`` to ``rows[g + 1]``; ``shape`` (Co, C, kh, kw).
    """

    values: np.ndarray
    columns: np.ndarray
    rows: np.ndarray
    shape: tuple[int, int, int, int]

    def __post_init__(self):
        """However it was made: the kernel reads memory at these places. ``ValueError`` says which part is wrong."""
        outputs, inputs, *kernel = _check.each("shape", tuple(self.shape), 4, 0)
        values = _check.array("values", self.values, np.float32, "blocks kh kw N")
        if list(values.shape[1:3]) != kernel or not values.shape[3] or outputs % values.shape[3]:
            high, wide = kernel
            raise ValueError(f"values has shape {values.shape}; for a weight {self.shape} it is (blocks, {high}, {wide}, N), "
                             f"with an N that divides {outputs}")
        columns = _check.integers("columns", self.columns, "blocks", 0, inputs)
        rows = _check.integers("rows", self.rows, "pointers", 0, len(values) + 1)
        _check.same("the number of columns", len(columns), "the number of blocks", len(values))
        _check.same("the number of rows", len(rows), "the number of groups and one", outputs // values.shape[3] + 1)
        _check.pointers("rows", rows, len(values))
        parts = {"values": values, "columns": columns.astype(np.int32, copy=False), "rows": rows.astype(np.int64, copy=False)}
        for name, part in parts.items():
            object.__setattr__(self, name, part)

    @property
    def n(self) -> int:
        return self.values.shape[3]

    @cached_property
    def taps(self) -> "tuple[np.ndarray, np.ndarray]":
        """Every tap of a block as a block of its own: the rows of the patch matrix (C kh kw, pixels), and the pointers."""
        size = self.shape[2] * self.shape[3]
        columns = (self.columns[:, None] * size + np.arange(size, dtype=np.int32)).reshape(-1)
        return np.ascontiguousarray(columns, np.int32), self.rows * size


def pack(weight: np.ndarray, n: int) -> OneByN:
    """The blocks of ``weight`` (Co, C) or (Co, C, kh, kw), float32, with an entry that is not zero (NaN is not)."""
    n = _check.whole("n", n, 1)
    weight = np.asarray(weight)
    if weight.ndim == 2:
        weight = weight[:, :, None, None]
    weight = _check.array("weight", weight, np.float32, "Co C kh kw")
    outputs, inputs, *kernel = weight.shape
    if outputs % n:
        legal = [size for size in range(1, outputs + 1) if outputs % size == 0]
        near = min(legal, key=lambda size: abs(size - n))
        raise ValueError(f"n is {n}, and {outputs} output channels are no multiple of it; the nearest n that divides is {near}")
    blocks = weight.reshape(outputs // n, n, inputs, *kernel).transpose(0, 2, 3, 4, 1)  # (groups, C, kh, kw, n)
    kept = (blocks != 0).any(axis=(2, 3, 4))  # (groups, C)
    rows = np.zeros(outputs // n + 1, np.int64)
    rows[1:] = kept.sum(1).cumsum()
    columns = np.nonzero(kept)[1].astype(np.int32)
    return OneByN(np.ascontiguousarray(blocks[kept]), columns, rows, (outputs, inputs, *kernel))


def unpack(packed: OneByN) -> np.ndarray:
    """The weight (Co, C, kh, kw) that ``pack`` was given."""
    outputs, inputs, *kernel = packed.shape
    blocks = np.zeros((outputs // packed.n, inputs, *kernel, packed.n), np.float32)
    groups = np.repeat(np.arange(len(packed.rows) - 1), np.diff(packed.rows))
    blocks[groups, packed.columns] = packed.values
    return np.ascontiguousarray(blocks.transpose(0, 4, 1, 2, 3)).reshape(packed.shape)


def matmul(packed: OneByN, x: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """The pointwise convolution of ``x`` (C, P) float32: (Co, P)."""
    if packed.shape[2:] != (1, 1):
        raise ValueError(f"the kernel is {packed.shape[2]}x{packed.shape[3]}; matmul takes 1x1, conv2d takes this one")
    x = _check.array("x", x, np.float32, "C P")
    _check.same("the number of rows of x", x.shape[0], "the number of input channels of the weight", packed.shape[1])
    y = np.empty((packed.shape[0], x.shape[1]), np.float32)
    product = _product(packed.n, *widths(x.shape[1], _widest(packed.n)))
    work = packed.values.size * x.shape[1] / MACS
    simd.share(product, len(packed.rows) - 1, threads, work, x, packed.values, *packed.taps, y)
    return y


def conv2d(packed: OneByN, x: np.ndarray, stride=1, padding=0, *, threads: int = 1) -> np.ndarray:
    """The convolution of ``x`` (B, C, H, W) float32: (B, Co, Ho, Wo), zeros around the borders."""
    x = _check.array("x", x, np.float32, "B C H W")
    outputs, inputs, *kernel = packed.shape
    _check.same("the number of channels of x", x.shape[1], "the number of input channels of the weight", inputs)
    stride, padding, threads = (
        _check.each("stride", stride, 2, 1),
        _check.each("padding", padding, 2, 0),
        _check.threads(threads),
    )
    size = _check.output_size(x.shape[2:], kernel, stride, padding)
    y = np.empty((len(x), outputs, size[0] * size[1]), np.float32)
    product = _product(packed.n, *widths(size[0] * size[1], _widest(packed.n)))
    for image, out in zip(x, y, strict=True):
        rows = patches(image, kernel, stride, padding, size, threads)  # (C kh kw, Ho Wo)
        work = packed.values.size * rows.shape[1] / MACS
        simd.share(product, len(packed.rows) - 1, threads, work, rows, packed.values, *packed.taps, out)
    return y.reshape(len(x), outputs, *size)


# ---- the kernel ------------------------------------------------------------------------------------------------------


@cache
def _product(n: int, *widths: int):
    """Groups ``first`` to ``last`` of ``y``: for each tile of pixels, each group adds its kept blocks."""
    rows, widest = _rows(n), widths[0]
    tile = tiles(rows, n, *widths)

    @numba.njit(nogil=True)
    def product(first, last, x, values, columns, pointers, y):
        pixels = x.shape[1]
        vectors = -(-pixels // simd.F32)
        count = -(-vectors // widest)
        for t in range(count):
            begin, end = vectors * t // count, vectors * (t + 1) // count
            p = begin * simd.F32
            inside = min(pixels, end * simd.F32) - p
            for g in range(first, last):
                for r in range(0, n, rows):
                    weight = simd.address(values) + 4 * r
                    out = simd.address(y) + 4 * ((g * n + r) * pixels + p)
                    blocks = pointers[g], pointers[g + 1]
                    source = simd.address(x) + 4 * p
                    tile(end - begin, source, 4 * pixels, inside, weight, columns, blocks, out, 4 * pixels)

    return product


def _rows(n: int) -> int:
    """Rows of a tile: the divisor of ``n`` with most multiply-adds a load (an input may lie on two cache lines)."""
    divisors = [rows for rows in range(1, n + 1) if n % rows == 0 and rows < simd.REGISTERS // 2]
    return max(divisors, key=lambda rows: rows * simd.registers(rows) / (rows + 2 * simd.registers(rows)))


MACS = 90  # multiply-adds in a nanosecond, roughly


def _widest(n: int) -> int:
    return min(12, simd.registers(_rows(n)))
