"""N of M: the packing by hand, and the product against the sum over the kept places."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, SHARES, assert_near, assert_same, normal
from papernets_kernels import n_of_m, reference

pytestmark = pytest.mark.xdist_group("numba")

PIXELS = st.sampled_from([0, 1, 15, 17, 33, 257])  # every width of a tile is compiled for itself
PATTERNS = st.integers(1, 16).flatmap(lambda m: st.tuples(st.integers(1, m), st.just(m)))


def weights(rng, outputs, groups, n, m, share=1.0):
    """A weight (outputs, groups m) with at most n numbers in a group, ``share`` of them not zero."""
    places = rng.permuted(np.broadcast_to(np.arange(m), (outputs, groups, m)), axis=2) < n
    return (normal(rng, outputs, groups, m, share=share) * places).reshape(outputs, groups * m)


def test_the_example_of_two_of_four():
    weight = np.array([[0, -1, 2, 0, 0, 0, 0, 5], [0, 0, 0, 0, 3, 0, 0.25, 0]], np.float32)
    packed = n_of_m.pack(weight, 2, 4)
    # of a group with one weight the lowest free place is kept as well, of an empty one the first two
    assert_same(packed.values, np.array([[[-1, 2], [0, 5]], [[0, 0], [3, 0.25]]], np.float32))
    assert_same(packed.indices, np.array([[[1, 2], [0, 3]], [[0, 1], [0, 2]]], np.uint8))
    assert packed.m == 4
    x = np.array([[1, 2, 3, 4, 5, 6, 7, 8]], np.float32).T
    assert_same(n_of_m.matmul(packed, x), np.array([[-2 + 6 + 40], [15 + 1.75]], np.float32))


@SEARCH
@given(outputs=st.integers(0, 5), groups=st.integers(0, 5), pattern=PATTERNS, share=SHARES, seed=SEEDS)
def test_packing_keeps_every_weight(outputs, groups, pattern, share, seed):
    weight = weights(np.random.default_rng(seed), outputs, groups, *pattern, share=share)
    packed = n_of_m.pack(weight, *pattern)
    values, indices = reference.n_of_m_pack(weight, *pattern)
    assert_same(packed.values, values)
    assert_same(packed.indices, indices)
    assert (np.diff(packed.indices.astype(int), axis=2) > 0).all() and (packed.indices < pattern[1]).all()
    assert_same(n_of_m.unpack(packed), weight)


@SEARCH
@given(outputs=st.integers(0, 7), groups=st.integers(0, 70), pattern=PATTERNS, pixels=PIXELS, share=SHARES, seed=SEEDS)
def test_a_product_is_the_sum_over_the_kept_places(outputs, groups, pattern, pixels, share, seed):
    rng = np.random.default_rng(seed)
    weight = weights(rng, outputs, groups, *pattern, share=share)
    packed, x = n_of_m.pack(weight, *pattern), normal(rng, weight.shape[1], pixels)
    found = n_of_m.matmul(packed, x)
    magnitude = np.abs(weight) @ np.abs(x)
    assert_near(found, np.float64(weight) @ np.float64(x), magnitude, groups * pattern[0])
    if outputs * groups < 100:
        assert_near(found, reference.n_of_m_matmul(weight, *pattern, x), magnitude, groups * pattern[0])
    for threads in (2, 3):
        assert_same(n_of_m.matmul(packed, x, threads=threads), found)


def test_many_outputs_and_many_inputs():
    rng = np.random.default_rng(0)
    for outputs, groups in ((3001, 2), (3, 301)):  # the sums, and the copy of the inputs, of a megabyte
        weight, x = weights(rng, outputs, groups, 2, 4), normal(rng, groups * 4, 257)
        found = n_of_m.matmul(n_of_m.pack(weight, 2, 4), x)
        assert_near(found, np.float64(weight) @ np.float64(x), np.abs(weight) @ np.abs(x), groups * 2)


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")  # 0 times infinity, in numpy
@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_meet_the_kept_places_alone(special):
    rng = np.random.default_rng(0)
    weight, x = weights(rng, 9, 40, 2, 4, share=0.8), normal(rng, 160, 17)
    x[[3, 77, 159], [0, 15, 16]] = special
    magnitude = np.abs(weight) @ np.abs(np.where(np.isfinite(x), x, 0))
    expected = reference.n_of_m_matmul(weight, 2, 4, x)
    assert 0 < np.isfinite(expected).mean() < 1 and np.isfinite(expected[:, 15]).any()
    assert_near(n_of_m.matmul(n_of_m.pack(weight, 2, 4), x), expected, magnitude, 80)
    weight[4, np.flatnonzero(weight[4])[7]] = special
    x = normal(rng, 160, 17)
    found = n_of_m.matmul(n_of_m.pack(weight, 2, 4), x)
    assert_near(
        found, reference.n_of_m_matmul(weight, 2, 4, x), np.abs(np.nan_to_num(weight, posinf=0, neginf=0)) @ np.abs(x), 80
    )
    assert not np.isfinite(found[4]).any() and np.isfinite(np.delete(found, 4, 0)).all()


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    weight = weights(rng, 6, 5, 2, 4)
    x, shown = normal(rng, 9, 40)[:, ::2].T, np.repeat(weight, 2, 1)[::2, ::2]  # (20, 9), (3, 20)
    expected = n_of_m.matmul(n_of_m.pack(shown.copy(), 2, 4), x.copy())
    assert_same(n_of_m.matmul(n_of_m.pack(shown, 2, 4), x), expected)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert_same(n_of_m.matmul(n_of_m.pack(shown, 2, 4), fixed), expected)


W, X = np.array([[1, 0, 2, 0], [0, 3, 0, 0]], np.float32), np.ones((4, 3), np.float32)
PACKED = n_of_m.pack(W, 2, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: n_of_m.pack(W, 1, 4), "group 0 of output 0 holds 2 weights; 1:4 allows 1"),
        (lambda: n_of_m.pack(W, 0, 4), "n is 0; it is a whole number of at least 1"),
        (lambda: n_of_m.pack(W, 5, 4), "n is 5 of m = 4; the largest n is 4"),
        (lambda: n_of_m.pack(np.zeros((2, 34), np.float32), 2, 17), "m is 17; the largest is 16"),
        (lambda: n_of_m.pack(W, 2, 3), "m is 3, and 4 inputs are no multiple of it; the nearest m that divides is [24]"),
        (lambda: n_of_m.pack(W, 2, 4.0), "m is 4.0; it is a whole number"),
        (lambda: n_of_m.pack(np.float64(W), 2, 4), "weight is float64; float32 is expected"),
        (lambda: n_of_m.pack(W[0], 2, 4), re.escape("weight has shape (4,)")),
        (lambda: n_of_m.matmul(PACKED, np.float64(X)), "x is float64; float32 is expected: give x.astype"),
        (lambda: n_of_m.matmul(PACKED, X[:3]), "rows of x is 3, .* inputs of the weight is 4"),
        (lambda: n_of_m.matmul(PACKED, X[None]), re.escape("x has shape (1, 4, 3)")),
        (lambda: n_of_m.matmul(PACKED, X, threads=0), "threads is 0; it is a whole number of at least 1"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    ((1, 1), (1, 1), (0, 0), (1, 1)), ((3, 3), (1, 1), (1, 1), (1, 1)), ((3, 2), (2, 1), (0, 1), (1, 2)),
    ((1, 1), (2, 3), (1, 0), (1, 1)), ((2, 3), (1, 2), (2, 2), (3, 1))])
def test_a_convolution_is_the_sum_over_taps_and_channels(kernel, stride, padding, dilation):
    rng = np.random.default_rng(0)
    weight, x = weights(rng, 5, 2 * kernel[0] * kernel[1], 2, 4), normal(rng, 2, 8, 9, 7)
    found = n_of_m.conv2d(n_of_m.pack(weight, 2, 4), x, kernel, stride, padding, dilation)
    expected = reference.n_of_m_conv2d(weight, x, kernel, stride, padding, dilation)
    assert found.shape == expected.shape
    magnitude = reference.n_of_m_conv2d(np.abs(weight), np.abs(x), kernel, stride, padding, dilation)
    assert_near(found, expected, magnitude, weight.shape[1])
    for threads in (2, 3):
        assert_same(n_of_m.conv2d(n_of_m.pack(weight, 2, 4), x, kernel, stride, padding, dilation, threads=threads), found)


def test_a_convolution_of_no_image_and_its_refusals():
    packed = n_of_m.pack(np.zeros((3, 4), np.float32), 2, 4)
    assert n_of_m.conv2d(packed, np.zeros((0, 4, 5, 6), np.float32)).shape == (0, 3, 5, 6)
    with pytest.raises(ValueError, match=r"the number of channels of x times the taps is 36, but .* is 4; they must be equal"):
        n_of_m.conv2d(packed, np.zeros((1, 4, 5, 6), np.float32), 3)
    with pytest.raises(ValueError, match="dilation is 0; it is a whole number of at least 1"):
        n_of_m.conv2d(packed, np.zeros((1, 4, 5, 6), np.float32), dilation=0)
