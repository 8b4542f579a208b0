"""1xN blocks: the packing by hand, and both products against the sum over the kept blocks."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_checks import COUNTS, PAIRS, SEARCH, SEEDS, SHARES, assert_near, assert_same, normal
from papernets_kernels import one_by_n, reference

pytestmark = pytest.mark.xdist_group("numba")

SIZES = st.sampled_from([1, 3, 16])  # every N is compiled for itself


def blocks(rng, groups, n, inputs, *kernel, share=1.0):
    """A weight (groups n, inputs, *kernel) of which ``share`` of the blocks are not zero."""
    kept = np.repeat(rng.random((groups, inputs)) < share, n, axis=0)
    return normal(rng, groups * n, inputs, *kernel) * kept.reshape(*kept.shape, *(1 for _ in kernel))


def conv2d(weight, n, x, *geometry, threads=1):
    return one_by_n.conv2d(one_by_n.pack(weight, n), x, *geometry, threads=threads)


def test_an_example_of_three_blocks():
    weight = np.array([[1, -4], [3, 0.5], [0, 2], [0, 0], [0, 7], [0, 0]], np.float32)
    packed = one_by_n.pack(weight, 3)
    assert_same(packed.values, np.array([[1, 3, 0], [-4, 0.5, 2], [0, 7, 0]], np.float32)[:, None, None])  # (blocks, 1, 1, n)
    assert_same(packed.columns, np.array([0, 1, 1], np.int32))
    assert_same(packed.rows, np.array([0, 2, 3]))
    assert packed.shape == (6, 2, 1, 1)
    found = one_by_n.matmul(packed, np.array([[1], [10]], np.float32))
    assert_same(found, np.array([[-39], [8], [20], [0], [70], [0]], np.float32))


def test_the_rows_that_a_mask_keeps():
    """Of four outputs in blocks of two, the last two have the smaller norms and are removed for both inputs."""
    packed = one_by_n.pack(np.array([[1, -4], [3, 0.5], [0, 0], [0, 0]], np.float32), 2)
    assert_same(packed.values[:, 0, 0], np.array([[1, 3], [-4, 0.5]], np.float32))
    assert packed.columns.tolist() == [0, 1] and packed.rows.tolist() == [0, 2, 2]


@SEARCH
@given(
    groups=st.integers(0, 3),
    n=st.integers(1, 6),
    inputs=st.integers(0, 5),
    kernel=st.tuples(*[st.integers(1, 3)] * 2),
    share=SHARES,
    seed=SEEDS,
)
def test_packing_keeps_the_blocks_that_are_not_zero(groups, n, inputs, kernel, share, seed):
    weight = blocks(np.random.default_rng(seed), groups, n, inputs, *kernel, share=share)
    packed = one_by_n.pack(weight, n)
    values, columns, rows = reference.one_by_n_pack(weight, n)
    assert_same(packed.values, values)
    assert_same(packed.columns, columns)
    assert_same(packed.rows, rows)
    assert packed.rows[-1] == len(packed.values) and packed.shape == weight.shape
    assert_same(one_by_n.unpack(packed), weight)


def test_a_block_with_one_number_is_kept_whole_and_nan_is_a_number():
    weight = np.zeros((4, 3), np.float32)
    weight[1, 0], weight[3, 2] = 5, np.nan
    packed = one_by_n.pack(weight, 2)
    assert_same(packed.values[:, 0, 0], np.array([[0, 5], [0, np.nan]], np.float32))
    assert packed.columns.tolist() == [0, 2] and packed.rows.tolist() == [0, 1, 2]
    assert_same(one_by_n.unpack(packed), weight[:, :, None, None])


@SEARCH
@given(groups=st.integers(0, 5), n=SIZES, inputs=st.integers(0, 40), pixels=COUNTS, share=SHARES, seed=SEEDS)
def test_a_product_is_the_sum_over_the_kept_blocks(groups, n, inputs, pixels, share, seed):
    rng = np.random.default_rng(seed)
    weight, x = blocks(rng, groups, n, inputs, share=share), normal(rng, inputs, pixels)
    packed = one_by_n.pack(weight, n)
    found = one_by_n.matmul(packed, x)
    assert_near(found, reference.one_by_n_matmul(weight, n, x), np.abs(weight) @ np.abs(x), inputs)
    assert_near(found, np.float64(weight) @ np.float64(x), np.abs(weight) @ np.abs(x), inputs)
    for threads in (2, 3):
        assert_same(one_by_n.matmul(packed, x, threads=threads), found)


@SEARCH
@given(
    batch=st.integers(0, 3),
    groups=st.integers(0, 3),
    n=SIZES,
    inputs=st.integers(0, 4),
    size=st.tuples(st.integers(0, 9), st.integers(0, 23)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=PAIRS[1],
    padding=PAIRS[0],
    share=SHARES,
    seed=SEEDS,
)
def test_a_convolution_is_the_sum_over_the_kept_blocks(batch, groups, n, inputs, size, kernel, stride, padding, share, seed):
    pads = (padding, padding) if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= k for length, pad, k in zip(size, pads, kernel)))
    rng = np.random.default_rng(seed)
    weight, x = blocks(rng, groups, n, inputs, *kernel, share=share), normal(rng, batch, inputs, *size)
    found = conv2d(weight, n, x, stride, padding)
    expected = reference.one_by_n_conv2d(weight, n, x, stride, padding)
    magnitude = reference.conv2d(np.abs(x), np.abs(weight), stride, padding)
    assert_near(found, expected, magnitude, inputs * kernel[0] * kernel[1])
    for threads in (2, 3):
        assert_same(conv2d(weight, n, x, stride, padding, threads=threads), found)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_reach_their_own_pixels_and_outputs_alone(special):
    rng = np.random.default_rng(0)
    weight, x = blocks(rng, 3, 3, 5, 3, 3, share=0.5), normal(rng, 2, 5, 7, 19)
    x[0, 2, 3, 4] = x[1, 4, 6, 18] = special
    found = conv2d(weight, 3, x, 1, 1)
    expected = reference.one_by_n_conv2d(weight, 3, x, 1, 1)
    assert 0 < np.isfinite(expected).mean() < 1
    clean = np.where(np.isfinite(x), x, 0)
    assert_near(found, expected, reference.conv2d(np.abs(clean), np.abs(weight), 1, 1), 45)
    weight[5, 1, 1, 1] = special
    assert_near(
        conv2d(weight, 3, clean),
        reference.one_by_n_conv2d(weight, 3, clean),
        reference.conv2d(np.abs(clean), np.abs(weight)),
        45,
    )


def test_a_block_of_zeros_is_not_multiplied():
    weight = np.array([[2, 0], [3, 0], [0, 0]], np.float32)
    found = one_by_n.matmul(one_by_n.pack(weight, 3), np.array([[1], [np.inf]], np.float32))
    assert_same(found, np.array([[2], [3], [0]], np.float32))


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    wide, tall = normal(rng, 2, 8, 5, 6, 3), normal(rng, 12, 3, 3, 4)
    x, weight = (
        wide[..., ::2].transpose(0, 4, 2, 3, 1)[..., 0],
        tall[::2, :2].transpose(0, 1, 3, 2),
    )  # (2, 2, 5, 6), (6, 2, 4, 3)
    expected = conv2d(weight.copy(), 3, x.copy())
    assert not x.flags.c_contiguous and not weight.flags.c_contiguous
    assert_same(conv2d(weight, 3, x), expected)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert_same(conv2d(weight, 3, fixed), expected)
    pixels = normal(rng, 7, 2).T  # (2, 7)
    packed = one_by_n.pack(weight[:, :, 0, 0], 3)
    assert_same(one_by_n.matmul(packed, pixels), one_by_n.matmul(packed, pixels.copy()))


WEIGHT, X = np.ones((6, 2, 3, 3), np.float32), np.ones((1, 2, 5, 5), np.float32)
ONE = one_by_n.pack(WEIGHT[:, :, 0, 0], 3)
NINE = one_by_n.pack(WEIGHT, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: one_by_n.pack(WEIGHT, 4), "n is 4, and 6 output channels are no multiple of it; the nearest .* is 3"),
        (lambda: one_by_n.pack(WEIGHT, 0), "n is 0; it is a whole number of at least 1"),
        (lambda: one_by_n.pack(WEIGHT, 2.0), "n is 2.0; it is a whole number"),
        (lambda: one_by_n.pack(WEIGHT[0, 0, 0], 3), "its axes are"),
        (lambda: one_by_n.pack(np.float64(WEIGHT), 3), "weight is float64; float32 is expected"),
        (lambda: one_by_n.matmul(ONE, np.float64(X[0, :, 0])), "x is float64; float32 is expected: give x.astype"),
        (lambda: one_by_n.matmul(ONE, np.float16(X[0, :, 0])), "x is float16"),
        (lambda: one_by_n.matmul(ONE, X[0]), re.escape("x has shape (2, 5, 5)")),
        (lambda: one_by_n.matmul(ONE, X[0, :1, 0]), "rows of x is 1, .* input channels of the weight is 2"),
        (lambda: one_by_n.matmul(NINE, X[0, :, 0]), "3x3; matmul takes 1x1"),
        (lambda: one_by_n.matmul(ONE, X[0, :, 0], threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: one_by_n.matmul(ONE, X[0, :, 0], threads=True), "threads is True"),
        (lambda: one_by_n.conv2d(NINE, X[0]), re.escape("x has shape (2, 5, 5)")),
        (lambda: one_by_n.conv2d(NINE, X[:, :1]), "channels of x is 1, .* is 2"),
        (lambda: one_by_n.conv2d(NINE, X, 0), "stride is 0; it is a whole number of at least 1"),
        (lambda: one_by_n.conv2d(NINE, X, 1, -1), "padding is -1; it is a whole number of at least 0"),
        (lambda: one_by_n.conv2d(NINE, X, (1, 1, 1)), re.escape("stride is (1, 1, 1)")),
        (lambda: one_by_n.conv2d(NINE, X[:, :, :2]), "the kernel is 3 long.* the padded input 2; padding must be at least 1"),
        (lambda: one_by_n.conv2d(NINE, X, threads=1.5), "threads is 1.5"),
        (lambda: one_by_n.conv2d(NINE, X[:0], threads=0), "threads is 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
