"""Loads and stores up to a place, scratch that outlives its address, and arrays that start on a cache line."""

import numba
import numpy as np
import pytest
from kernel_checks import normal
from papernets_kernels import simd
from papernets_kernels.simd import F32

rng = np.random.default_rng(0)


@pytest.mark.parametrize("count", [0, 1, F32 - 1, F32, F32 + 1, 2 * F32 - 1, 2 * F32])
def test_a_tile_is_loaded_and_stored_up_to_a_place_and_not_behind(count):
    @numba.njit
    def move(source, target, count):
        simd.store_first(simd.address(target), 0, simd.load_f32_first(simd.address(source), 2, count), 1, 2 * F32)
        simd.store_first(simd.address(target) + 4 * 2 * F32, 0, simd.load_f32(simd.address(source), 2), 1, count)

    source, target = normal(rng, 2 * F32), np.full(4 * F32, 7, np.float32)
    move(source, target, count)
    loaded, stored = target[: 2 * F32], target[2 * F32 :]
    assert np.array_equal(loaded, np.where(np.arange(2 * F32) < count, source, 0))
    assert np.array_equal(stored, np.where(np.arange(2 * F32) < count, source, 7))


def test_scratch_lives_as_long_as_it_is_kept():
    @numba.njit
    def total(count):
        memory = np.full(count, 1.0)
        start = simd.address(memory)
        other = np.full(count, 2.0)  # would be given the same place, were the first one free
        found = simd.address(other) != start
        simd.keep(memory)
        return found and other[0] == 2

    assert all(total(count) for count in (8, 4096, 2**16))


def test_memory_starts_on_a_cache_line():
    assert all(simd.aligned(shape, np.float32).ctypes.data % 64 == 0 for shape in (1, 17, (3, 5)))
    x = normal(rng, 3, 7)[:, ::2]
    assert np.array_equal(simd.align(x), x) and simd.align(x).ctypes.data % 64 == 0


def test_scratch_of_a_purpose_is_one_memory_that_grows():
    first = simd.scratch("one", 100)
    assert first.dtype == np.float32 and simd.scratch("one", (5, 10), np.int16).ctypes.data == first.ctypes.data
    assert not np.shares_memory(first, simd.scratch("other", 100))
    assert simd.scratch("one", 10**6).shape == (10**6,) and simd.scratch("one", 0).size == 0
    large = simd.scratch("large", simd.memory.KEPT + 1, np.uint8)
    assert not np.shares_memory(large, simd.scratch("large", 1, np.uint8))
