"""The vector operations, each against numpy on one tile."""

import subprocess
import sys
import time

import numba
import numpy as np
import pytest
from papernets_kernels import simd
from papernets_kernels.simd import F32, I8, I16, I64

rng = np.random.default_rng(0)


def floats(*shape) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("count", [0, 1, F32 - 1, F32, F32 + 1, 2 * F32 - 1, 2 * F32])
def test_a_tile_is_loaded_and_stored_up_to_a_place_and_not_behind(count):
    @numba.njit
    def move(source, target, count):
        simd.store_first(simd.address(target), 0, simd.load_f32_first(simd.address(source), 2, count), 1, 2 * F32)
        simd.store_first(simd.address(target) + 4 * 2 * F32, 0, simd.load_f32(simd.address(source), 2), 1, count)

    source, target = floats(2 * F32), np.full(4 * F32, 7, np.float32)
    move(source, target, count)
    loaded, stored = target[: 2 * F32], target[2 * F32 :]
    assert np.array_equal(loaded, np.where(np.arange(2 * F32) < count, source, 0))
    assert np.array_equal(stored, np.where(np.arange(2 * F32) < count, source, 7))


@pytest.mark.parametrize("count", [1, F32 + 1, 3 * F32])
def test_outer_products_add_up(count):
    ROWS, WIDTH = 5, 3

    @numba.njit
    def product(weights, rows, whole, part, count):
        acc, some = simd.zeros_f32(ROWS, WIDTH), simd.zeros_f32(ROWS, WIDTH)
        for q in range(len(weights)):
            weight, row = simd.address(weights) + 4 * ROWS * q, simd.address(rows) + 4 * WIDTH * F32 * q
            acc = simd.outer_f32(acc, weight, 4, row, ROWS, WIDTH)
            some = simd.outer_f32_first(some, weight, 4, row, count, ROWS, WIDTH)
        simd.store(simd.address(whole), 4 * WIDTH * F32, acc, ROWS)
        simd.store(simd.address(part), 4 * WIDTH * F32, some, ROWS)

    weights, rows = floats(7, ROWS), floats(7, WIDTH * F32)
    whole, part = np.empty((2, ROWS, WIDTH * F32), np.float32)
    last = 2 * F32 + (count - 1) % F32 + 1  # only the last register of a row may be cut
    product(weights, rows, whole, part, last)
    exact = weights.T.astype(np.float64) @ rows
    bound = 8 * np.finfo(np.float32).eps * (np.abs(weights.T) @ np.abs(rows))
    assert (np.abs(whole - exact) <= bound).all()
    assert np.array_equal(part[:, :last], whole[:, :last]) and not part[:, last:].any()


def test_rows_are_gathered_and_added_where_they_belong():
    ROWS, WIDTH = 3, 2

    @numba.njit
    def scatter(features, places, weights, y, targets, count):
        rows = simd.rows_at(simd.address(places), simd.address(features), 4 * features.shape[1], ROWS)
        out = simd.rows_at(simd.address(targets), simd.address(y), 4 * y.shape[1], ROWS)
        acc = simd.zeros_f32(ROWS, WIDTH)
        for c in range(features.shape[1]):
            acc = simd.outer_rows_f32(acc, rows, 4 * c, simd.address(weights) + 4 * c * WIDTH * F32, ROWS, WIDTH)
        simd.add_to_rows(out, acc, ROWS)
        simd.add_to_rows_first(out, acc, ROWS, count)

    features, weights, y = floats(11, 5), floats(5, WIDTH * F32), floats(7, WIDTH * F32)
    places, targets, count = np.array([10, 0, 4], np.int32), np.array([6, 1, 3], np.int32), F32 + 1
    expected = y.astype(np.float64)
    product = features[places].astype(np.float64) @ weights
    expected[targets] += product
    expected[targets, :count] += product[:, :count]
    scatter(features, places, weights, y, targets, count)
    assert np.abs(y - expected).max() < 1e-5


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


def test_lanes_change_places():
    @numba.njit
    def shuffle(x, words, pairs, out, back, turned):
        even, odd = simd.deinterleave(simd.load_f32(simd.address(x), 2))
        simd.store(simd.address(out), 4 * F32, even, 1)
        simd.store(simd.address(out) + 4 * F32, 4 * F32, odd, 1)
        simd.store(simd.address(back), 0, simd.interleave(even, odd), 1)
        simd.store(simd.address(turned), 8 * I64, simd.transpose_i64(simd.address(words), 4), 4)

    x, words = floats(2 * F32), rng.integers(0, 2**63, (I64, 4))
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


def test_signs_of_zero_and_nan():
    @numba.njit
    def signs(x, small, bits, count):
        simd.store(simd.address(small), 0, simd.signs_i8(simd.address(x), count), 1)
        simd.store(simd.address(bits), 0, simd.put_sign(simd.zeros_i64(1, 1), simd.address(x), I64, 5), 1)

    x = np.resize(np.array([0.0, -0.0, np.nan, -np.inf, np.inf, -1e-40, 1e-40], np.float32), F32)
    small, bits = np.empty(F32, np.int8), np.empty(I64, np.int64)
    signs(x, small, bits, F32)
    assert np.array_equal(small, np.where(x >= 0, 1, -1)) and np.array_equal(bits, np.where(x[:I64] >= 0, 32, 0))


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


def test_the_number_of_registers_is_a_constant():
    count = numba.njit(lambda n: len(simd.zeros_f32(1, n)))
    with pytest.raises(numba.TypingError, match="must be a constant of the compilation"):
        count(3)


def test_memory_starts_on_a_cache_line():
    assert all(simd.aligned(shape, np.float32).ctypes.data % 64 == 0 for shape in (1, 17, (3, 5)))
    x = floats(3, 7)[:, ::2]
    assert np.array_equal(simd.align(x), x) and simd.align(x).ctypes.data % 64 == 0


def test_scratch_of_a_purpose_is_one_memory_that_grows():
    first = simd.scratch("one", 100)
    assert first.dtype == np.float32 and simd.scratch("one", (5, 10), np.int16).ctypes.data == first.ctypes.data
    assert not np.shares_memory(first, simd.scratch("other", 100))
    assert simd.scratch("one", 10**6).shape == (10**6,) and simd.scratch("one", 0).size == 0
    large = simd.scratch("large", simd.KEPT + 1, np.uint8)
    assert not np.shares_memory(large, simd.scratch("large", 1, np.uint8))


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 100])
def test_every_item_is_worked_on_once(threads):
    @numba.njit(nogil=True)
    def work(first, last, found):
        for i in range(first, last):
            found[i] += 1

    for size in (0, 1, 4, 7):
        found = np.zeros(size, np.int64)
        simd.share(work, size, threads, np.inf, found)
        assert (found == 1).all()


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, [(0, 10)]),
        (119_999, [(0, 10)]),
        (120_000, [(0, 5), (5, 10)]),
        (180_000, [(0, 3), (3, 6), (6, 10)]),
        (1e9, [(0, 3), (3, 6), (6, 10)]),
    ],
)
def test_a_part_is_worth_handing_over(monkeypatch, nanoseconds, expected):
    monkeypatch.setattr(simd, "HAND_OVER", 60_000.0)
    found = []
    simd.share(lambda first, last: found.append((first, last)), 10, 3, nanoseconds)
    assert sorted(found) == expected


def test_an_error_in_another_thread_is_not_lost():
    def work(first, last):
        if first:
            raise ValueError(f"part {first}")

    with pytest.raises(ValueError, match="part 5"):
        simd.share(work, 10, 2, np.inf)


def test_after_an_error_no_part_is_still_at_work():
    ended = []

    def work(first, last):
        if not first:
            raise ValueError("part 0")
        time.sleep(0.05)
        ended.append(first)

    with pytest.raises(ValueError, match="part 0"):
        simd.share(work, 10, 2, np.inf)
    assert ended == [5]


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, None])
def test_a_number_of_threads_is_whole_and_positive(threads):
    with pytest.raises(ValueError, match=f"threads is {threads!r}; it is a whole number of at least 1"):
        simd.share(None, 1, threads, np.inf)


@pytest.mark.parametrize(
    ("name", "width"),
    [("x86-64", (16, 16)), ("x86-64-v2", (16, 16)), ("x86-64-v3", (32, 16)), ("x86-64-v4", (64, 32)), ("cortex-a72", (16, 16))],
)
def test_the_width_follows_the_machine_that_numba_compiles_for(name, width):
    code = "from numba.core import config; from papernets_kernels import simd; config.CPU_NAME = {!r}; print(simd._machine())"
    found = subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(width)
