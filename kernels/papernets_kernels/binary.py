"""Products of +1 and -1 by counting bits.

Lin, Ji, Xu, Zhang, Chao, Lin, Shao, "SiMaN: Sign-to-Magnitude Network Binarization", TPAMI 2023; the counting form is
Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net", 2016.

A vector of signs is packed into 64-bit words, 1 for +1. Two signs that differ contribute -1, two that agree +1, so the dot
product of k signs is ``k - 2 popcount(a xor b)``: three instructions for 512 multiply-adds where the machine counts the bits
of a whole register. The numbers of 8 outputs lie side by side in a register, so nothing is summed across lanes.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numba
import numpy as np

from papernets_kernels import _check, simd
from papernets_kernels._patches import patches

# ---- packing ---------------------------------------------------------------------------------------------------------


def pack(x: np.ndarray) -> np.ndarray:
    """The signs of the last axis, (..., K) to (..., ceil(K / 64)) uint64: bit j of word w is 1 where ``x[..., 64 w + j] >= 0``.

    Zero of either sign counts as +1 and NaN as -1; the bits behind K are 0.
    """
    x = np.asarray(x)
    if x.ndim == 0 or x.dtype.kind not in "fiub":
        raise ValueError(f"x is {x.dtype} of shape {x.shape}; real numbers with at least one axis are expected")
    words = -(-x.shape[-1] // 64)
    bits = np.zeros((*x.shape[:-1], 64 * words), np.uint8)
    np.greater_equal(x, 0, out=bits[..., : x.shape[-1]].view(bool))
    return np.packbits(bits, axis=-1, bitorder="little").view("<u8").astype(np.uint64, copy=False)


def unpack(words: np.ndarray, k: int) -> np.ndarray:
    """The ``k`` signs (..., k) int8 of packed words (..., ceil(k / 64))."""
    words, k = np.asarray(words), _check.whole("k", k, 0)
    words = _check.array("words", words, np.uint64, " ".join(["..."] * words.ndim))
    _check.same("the number of words", words.shape[-1], "ceil(k / 64)", -(-k // 64))
    bits = np.unpackbits(words.astype("<u8").view(np.uint8), axis=-1, bitorder="little", count=k)
    return bits.astype(np.int8) * 2 - 1


# ---- product ---------------------------------------------------------------------------------------------------------


def matmul(a_bits: np.ndarray, b_bits: np.ndarray, k: int, *, threads: int = 1) -> np.ndarray:
    """Dot products (M, N) int32 of the vectors of ``k`` signs in ``a_bits`` (M, W) and ``b_bits`` (N, W) uint64."""
    k = _check.whole("k", k, 0)
    a, b = (_check.array(name, x, np.uint64, "rows words") for name, x in (("a_bits", a_bits), ("b_bits", b_bits)))
    for name, x in (("a_bits", a), ("b_bits", b)):
        _check.same(f"the number of words of {name}", x.shape[1], f"ceil(k / 64) of k = {k}", -(-k // 64))
        if k % 64 and x.size and (x[:, -1] >> np.uint64(k % 64)).any():
            raise ValueError(f"{name} has a bit set behind k = {k}; the unused high bits are 0")
    y = np.empty((len(a), len(b)), np.int32)
    simd.share(_product, len(a), threads, a.size * len(b) / WORDS, a, np.ascontiguousarray(b.T), k, y)
    return y


# ---- convolution -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """``bits`` (Co, kh, kw, ceil(C / 64)) uint64, the signs of ``channels`` = C input channels."""

    bits: np.ndarray
    channels: int

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(Co, C, kh, kw)."""
        return self.bits.shape[0], self.channels, *self.bits.shape[1:3]

    @cached_property
    def taps(self) -> np.ndarray:
        """(Co, words kh kw): the words of each output in the order of the patches."""
        outputs, height, width, words = self.bits.shape
        return np.ascontiguousarray(self.bits.transpose(0, 3, 1, 2)).reshape(outputs, words * height * width)

    @lru_cache(maxsize=64)  # noqa: B019 -- small tables, and an image size comes again at every call
    def border(self, image, stride, padding, size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The output pixels with taps outside the image, the pattern of each, and what to add to it, (Co, patterns) int32.

        A pattern is a set of taps. Outside, the packed input is 0, so the product counts such a tap as the sum of the
        tap's signs; this is taken off again.
        """
        outside = []
        for length, k, step, pad, out in zip(image, self.shape[2:], stride, padding, size, strict=True):
            source = np.arange(out)[:, None] * step + np.arange(k) - pad
            outside.append((source < 0) | (source >= length))  # (out, k)
        taps = outside[0][:, None, :, None] | outside[1][None, :, None, :]
        taps = taps.reshape(size[0] * size[1], self.bits.shape[1] * self.bits.shape[2])
        pixels = np.nonzero(taps.any(1))[0]
        patterns, place = np.unique(taps[pixels], axis=0, return_inverse=True)
        ones = np.bitwise_count(self.bits).sum(3, dtype=np.int32).reshape(len(self.bits), taps.shape[1])  # (Co, kh kw)
        add = (2 * ones - self.channels) @ patterns.astype(np.int32).T
        return pixels, place.reshape(-1), np.ascontiguousarray(add, np.int32)


def pack_weight(weight: np.ndarray) -> PackedWeight:
    """A weight (Co, C, kh, kw) of +1 and -1, one bit each."""
    weight = _check.signs("weight", weight, "Co C kh kw")
    return PackedWeight(pack(np.ascontiguousarray(weight.transpose(0, 2, 3, 1))), weight.shape[1])


def conv2d(x: np.ndarray, weight: np.ndarray | PackedWeight, stride=1, padding=0, *, threads: int = 1) -> np.ndarray:
    """The signs of ``x`` (B, C, H, W) float32 convolved with a weight of signs: (B, Co, Ho, Wo) int32.

    A place outside the image adds nothing, as in a convolution of numbers: it has no sign.
    """
    x = _check.array("x", x, np.float32, "B C H W")
    weight = weight if isinstance(weight, PackedWeight) else pack_weight(weight)
    outputs, channels, *kernel = weight.shape
    _check.same("the number of channels of x", x.shape[1], "the number of input channels of the weight", channels)
    stride, padding, threads = (
        _check.each("stride", stride, 2, 1),
        _check.each("padding", padding, 2, 0),
        _check.threads(threads),
    )
    height, width = size = _check.output_size(x.shape[2:], kernel, stride, padding)
    border = weight.border(x.shape[2:], stride, padding, size)
    y = np.empty((len(x), outputs, height * width), np.int32)
    for image, out in zip(x, y, strict=True):
        signs = np.empty((weight.bits.shape[3], *x.shape[2:]), np.uint64)
        simd.share(_pack_channels, len(signs), threads, image.size / 4, image, signs)
        rows = patches(signs, kernel, stride, padding, size, threads)  # (words kh kw, Ho Wo), 0 outside the image
        work = outputs * rows.size / WORDS
        simd.share(_product, outputs, threads, work, weight.taps, rows, channels * kernel[0] * kernel[1], out)
        if border[0].size:
            simd.share(_correct, outputs, threads, outputs * border[0].size, *border, out)
    return y.reshape(len(x), outputs, height, width)


# ---- the kernels -----------------------------------------------------------------------------------------------------

WORDS = 32  # products of words in a nanosecond, roughly
ROWS, WIDTH = (8, 2) if simd.REGISTERS >= 32 else (4, 2)


@numba.njit(nogil=True)
def _product(first, last, a, b, k, y):
    """Rows ``first`` to ``last`` of ``k - 2 popcount(a[i] xor b[:, j])``; ``a`` (M, words), ``b`` (words, N)."""
    words, columns = b.shape
    tile = WIDTH * simd.I64
    memory = np.empty((words + 1) * tile + 8, np.int64)
    panel = (simd.address(memory) + 63) & -64
    for j in range(0, columns, tile):
        inside = min(tile, columns - j)
        for w in range(words):
            source = simd.address(b) + 8 * (w * columns + j)
            simd.store(panel + 8 * tile * w, 0, simd.load_i64_first(source, WIDTH, inside), 1)
        for i in range(first, last, ROWS):
            if i + ROWS <= last:
                acc = simd.zeros_i64(ROWS, WIDTH)
                start = simd.address(a) + 8 * words * i
                for w in range(words):
                    acc = simd.outer_popcount(acc, start + 8 * w, 8 * words, panel + 8 * tile * w, ROWS, WIDTH)
                simd.store_first(simd.address(y) + 4 * (i * columns + j), 4 * columns, simd.dots(acc, k), ROWS, inside)
            else:
                for row in range(i, last):
                    one = simd.zeros_i64(1, WIDTH)
                    start = simd.address(a) + 8 * words * row
                    for w in range(words):
                        one = simd.outer_popcount(one, start + 8 * w, 0, panel + 8 * tile * w, 1, WIDTH)
                    simd.store_first(simd.address(y) + 4 * (row * columns + j), 0, simd.dots(one, k), 1, inside)
    simd.keep(memory)


@numba.njit(nogil=True)
def _pack_channels(first, last, x, words):
    """Words ``first`` to ``last`` of the signs of ``x`` (C, H, W): bit j of word w is channel 64 w + j."""
    channels, pixels = len(x), x.shape[1] * x.shape[2]
    for w in range(first, last):
        for p in range(0, pixels, simd.I64):
            inside = min(simd.I64, pixels - p)
            bits = simd.zeros_i64(1, 1)
            for j in range(min(64, channels - 64 * w)):
                bits = simd.put_sign(bits, simd.address(x) + 4 * ((64 * w + j) * pixels + p), inside, j)
            simd.store_first(simd.address(words) + 8 * (w * pixels + p), 0, bits, 1, inside)


@numba.njit(nogil=True)
def _correct(first, last, pixels, patterns, add, y):
    for o in range(first, last):
        for p in range(pixels.size):
            y[o, pixels[p]] += add[o, patterns[p]]
