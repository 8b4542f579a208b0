"""Bits that differ, lanes below a limit, and signs, against numpy on one tile."""

import numba
import numpy as np
import pytest
from papernets_kernels import simd
from papernets_kernels.simd import F32, I64

rng = np.random.default_rng(0)


def test_bits_that_differ_are_counted():
    ROWS, WIDTH = 2, 2

    @numba.njit
    def count(words, row, counts, dots, low, k):
        acc = simd.outer_popcount(simd.zeros_i64(ROWS, WIDTH), simd.address(words), 8, simd.address(row), ROWS, WIDTH)
        simd.store(simd.address(counts), 8 * WIDTH * I64, acc, ROWS)
        simd.store(simd.address(dots), 4 * WIDTH * I64, simd.dots(acc, k), ROWS)
        simd.store(simd.address(low), 2 * WIDTH * I64, simd.narrow_i16(acc), ROWS)

    words, row = (rng.integers(0, 2**64, size, np.uint64) for size in (ROWS, WIDTH * I64))
    words[0], row[0] = 0, 2**64 - 1  # all 64
    counts, dots, low = (np.empty((ROWS, WIDTH * I64), dtype) for dtype in (np.int64, np.int32, np.uint16))
    count(words, row, counts, dots, low, 61)
    expected = np.bitwise_count(words[:, None] ^ row)
    assert counts[0, 0] == 64
    assert np.array_equal(counts, expected) and np.array_equal(low, expected)
    assert np.array_equal(dots, 61 - 2 * expected.astype(int))


def test_lanes_below_a_limit_are_found():
    ROWS, WIDTH = 2, 2

    @numba.njit
    def below(x, limits):
        tile = simd.outer_popcount(simd.zeros_i64(ROWS, WIDTH), simd.address(x), 0, simd.address(x), ROWS, WIDTH)
        here = simd.any_below(tile, simd.address(limits), ROWS)
        return here, simd.lanes_below(simd.address(x), limits[0], WIDTH)

    x = np.full(WIDTH * I64, 5, np.int64)  # the tile is all zeros: no bit of a word differs from itself
    x[[1, WIDTH * I64 - 1]] = 2
    assert below(x, np.array([0, 0]))[0] is False  # nothing is below 0 ...
    first = np.full(WIDTH * I64, x[0])
    assert below(first, np.array([0, 1]))[0] is True  # ... and for row 1 a zero is below 1
    assert below(x, np.array([3, 0]))[1] == 1 << 1 | 1 << (WIDTH * I64 - 1)


@pytest.mark.parametrize("place", [0, 1, 31, 62])
def test_the_lowest_bit_is_found(place):
    lowest = numba.njit(lambda bits: simd.lowest_bit(bits))
    assert lowest(5 << place & (1 << 63) - 1) == place


def test_signs_of_zero_and_nan():
    @numba.njit
    def signs(x, small, bits, count):
        simd.store(simd.address(small), 0, simd.signs_i8(simd.address(x), count), 1)
        simd.store(simd.address(bits), 0, simd.put_sign(simd.zeros_i64(1, 1), simd.address(x), I64, 5), 1)

    x = np.resize(np.array([0.0, -0.0, np.nan, -np.inf, np.inf, -1e-40, 1e-40], np.float32), F32)
    small, bits = np.empty(F32, np.int8), np.empty(I64, np.int64)
    signs(x, small, bits, F32)
    assert np.array_equal(small, np.where(x >= 0, 1, -1)) and np.array_equal(bits, np.where(x[:I64] >= 0, 32, 0))
