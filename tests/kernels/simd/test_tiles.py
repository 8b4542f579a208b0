"""What happens to numbers in registers, each operation against numpy on one tile."""

import numba
import numpy as np
import pytest
from kernel_checks import normal
from papernets_kernels import simd
from papernets_kernels.simd import F32, I8, I16, I64

rng = np.random.default_rng(0)


def test_lanes_change_places():
    @numba.njit
    def shuffle(x, words, pairs, out, back, turned):
        even, odd = simd.deinterleave(simd.load_f32(simd.address(x), 2))
        simd.store(simd.address(out), 4 * F32, even, 1)
        simd.store(simd.address(out) + 4 * F32, 4 * F32, odd, 1)
        simd.store(simd.address(back), 0, simd.interleave(even, odd), 1)
        simd.store(simd.address(turned), 8 * I64, simd.transpose_i64(simd.address(words), 4), 4)

    x, words = normal(rng, 2 * F32), rng.integers(0, 2**63, (I64, 4))
    out, back, turned = np.empty((2, F32), np.float32), np.empty(2 * F32, np.float32), np.empty((4, I64), np.int64)
    shuffle(x, words, 2, out, back, turned)
    assert np.array_equal(out, [x[::2], x[1::2]]) and np.array_equal(back, x) and np.array_equal(turned, words.T)


def test_small_numbers_are_added_and_widened():
    @numba.njit
    def widen(a, b, sums, wide, wider):
        total = simd.add(simd.load_i8(simd.address(a), 1), simd.load_i8(simd.address(b), 1))
        simd.store(simd.address(sums), 0, total, 1)
        simd.store(simd.address(wide), 0, simd.widen_i16(total), 1)
        simd.store(simd.address(wider), 0, simd.widen_i32(simd.load_i16(simd.address(wide), 2)), 1)

    a, b = rng.integers(-63, 64, (2, I8)).astype(np.int8)
    sums, wide, wider = np.empty(I8, np.int8), np.empty(2 * I16, np.int16), np.empty(4 * F32, np.int32)
    widen(a, b, sums, wide, wider)
    assert (sums < 0).any()
    for found in (sums, wide, wider):
        assert np.array_equal(found, a.astype(int) + b)


def test_the_number_of_registers_is_a_constant():
    count = numba.njit(lambda n: len(simd.zeros_f32(1, n)))
    with pytest.raises(numba.TypingError, match="must be a constant of the compilation"):
        count(3)
