"""Sparse 3D convolution: sums by hand, against loops over voxels, and against the dense convolution."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, assert_near, assert_same, normal
from papernets_kernels import reference, sparse_conv3d
from voxel_checks import BOOK, SHARES, SIDES, STRIDED, planes, voxels

pytestmark = pytest.mark.xdist_group("numba")
WIDTHS = st.sampled_from([0, 1, 2, 7, 16, 17, 33, 50])


def assert_sums(book, features, weight, bias):
    found = sparse_conv3d.convolve(features, book, weight, bias)
    expected = reference.convolve(features, planes(book), book.outputs, weight, bias)
    size = reference.convolve(
        np.abs(features), planes(book), book.outputs, np.abs(weight), bias if bias is None else np.abs(bias)
    )
    assert_near(found, expected, size, weight.shape[0] * weight.shape[1] + 1)
    for threads in (2, 3):
        assert_same(sparse_conv3d.convolve(features, book, weight, bias, threads=threads), found)


def test_two_neighbours_by_hand():
    book = sparse_conv3d.rulebook(np.array([[0, 0, 0], [0, 0, 1]]))
    assert planes(book)[12:15] == [[(0, 1)], [(0, 0), (1, 1)], [(1, 0)]] and book.pairs == 4 and book.arf == 2
    weight = np.arange(27, dtype=np.float32).reshape(27, 1, 1)
    features = np.array([[2], [3]], np.float32)
    assert sparse_conv3d.submanifold(features, book, weight).tolist() == [[2 * 13 + 3 * 14], [3 * 13 + 2 * 12]]
    assert sparse_conv3d.submanifold(features, book, weight, np.float32([0.5])).tolist() == [[68.5], [63.5]]
    masks, pointers, indices = book.lines()
    assert_same(masks, np.array([1 << 13 | 1 << 14, 1 << 12 | 1 << 13], np.uint32))
    assert_same(pointers, np.array([0, 2, 4]))
    assert_same(indices, np.array([0, 1, 0, 1], np.int32))


# --- against loops over voxels ---------------------------------------------------------------------------------------


def test_the_scene_in_many_blocks(scene):
    """Whole numbers, so that every sum is exact in any order."""
    rng = np.random.default_rng(0)
    scene = rng.permutation(scene)
    features = rng.integers(-9, 10, (len(scene), 3)).astype(np.float32)
    weight = rng.integers(-9, 10, (27, 3, 19)).astype(np.float32)
    grid = np.zeros((1, 3, 64, 64, 64))
    grid[0, :, *scene.T] = features
    dense = reference.conv3d(grid, weight.reshape(3, 3, 3, 3, 19).transpose(4, 3, 0, 1, 2), 1)
    pairs = reference.rulebook(scene)
    for threads in (1, 2, 3):
        book = sparse_conv3d.rulebook(scene, threads=threads)
        assert planes(book) == pairs
        found = sparse_conv3d.submanifold(features, book, weight, threads=threads)
        assert np.array_equal(found, dense[0, :, *scene.T])


@SEARCH
@given(
    side=SIDES,
    share=SHARES,
    kernel_size=st.sampled_from([1, 3]),
    inputs=WIDTHS,
    outputs=WIDTHS,
    biased=st.booleans(),
    seed=SEEDS,
)
def test_a_convolution_is_the_sum_over_the_pairs(side, share, kernel_size, inputs, outputs, biased, seed):
    rng = np.random.default_rng(seed)
    coordinates = voxels(rng, side, share)
    weight, bias = normal(rng, kernel_size**3, inputs, outputs), normal(rng, outputs) if biased else None
    assert_sums(sparse_conv3d.rulebook(coordinates, kernel_size), normal(rng, len(coordinates), inputs), weight, bias)


@SEARCH
@given(
    side=SIDES,
    share=SHARES,
    kernel_size=st.integers(1, 3),
    stride=st.integers(1, 3),
    widths=st.tuples(WIDTHS, WIDTHS),
    seed=SEEDS,
)
def test_a_strided_convolution_and_its_inverse_are_the_sums_over_the_pairs(side, share, kernel_size, stride, widths, seed):
    rng = np.random.default_rng(seed)
    coordinates = voxels(rng, side, share)
    book = sparse_conv3d.strided_rulebook(coordinates, kernel_size, stride)
    weight, bias = normal(rng, kernel_size**3, *widths), normal(rng, widths[1])
    assert_sums(book, normal(rng, book.inputs, widths[0]), weight, bias)
    assert_sums(sparse_conv3d.inverse_rulebook(book, coordinates), normal(rng, book.outputs, widths[0]), weight, bias)


# --- against the dense convolution -----------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_equals_the_dense_convolution_at_the_voxels(share, kernel_size):
    """The dense one also has outputs beside the voxels; a submanifold convolution leaves these out."""
    rng = np.random.default_rng(0)
    coordinates = voxels(rng, 7, share)
    features, weight = normal(rng, len(coordinates), 5), normal(rng, kernel_size**3, 5, 19)
    grid = np.zeros((1, 5, 7, 7, 7), np.float32)
    grid[0, :, *coordinates.T] = features
    dense = weight.reshape(kernel_size, kernel_size, kernel_size, 5, 19).transpose(4, 3, 0, 1, 2)
    place = (0, slice(None), *coordinates.T)
    expected, size = (
        reference.conv3d(x, w, kernel_size // 2)[place] for x, w in ((grid, dense), (np.abs(grid), np.abs(dense)))
    )
    book = sparse_conv3d.rulebook(coordinates, kernel_size)
    assert_near(sparse_conv3d.convolve(features, book, weight), expected, size, kernel_size**3 * 5)


def test_a_strided_one_equals_every_second_output_of_the_dense_convolution():
    rng = np.random.default_rng(0)
    coordinates = voxels(rng, 8, 0.1)
    features, weight = normal(rng, len(coordinates), 5), normal(rng, 8, 5, 19)
    grid = np.zeros((1, 5, 8, 8, 8), np.float32)
    grid[0, :, *coordinates.T] = features
    dense = weight.reshape(2, 2, 2, 5, 19).transpose(4, 3, 0, 1, 2)
    expected, size = (reference.conv3d(x, w)[0, :, ::2, ::2, ::2] for x, w in ((grid, dense), (np.abs(grid), np.abs(dense))))
    book = sparse_conv3d.strided_rulebook(coordinates)
    assert np.array_equal(book.out_coordinates, np.argwhere(size.any(0)))
    place = (slice(None), *book.out_coordinates.T)
    assert_near(sparse_conv3d.convolve(features, book, weight), expected[place].T, size[place].T, 40)


# --- laws ------------------------------------------------------------------------------------------------------------


def test_other_orders_of_the_voxels_give_the_same_sums():
    rng = np.random.default_rng(0)
    coordinates = voxels(rng, 7, 0.3)
    features = rng.integers(-128, 128, (len(coordinates), 9)).astype(np.float32)  # sums of these are exact
    weight = rng.integers(-128, 128, (27, 9, 21)).astype(np.float32)
    found = sparse_conv3d.submanifold(features, sparse_conv3d.rulebook(coordinates), weight)
    assert np.array_equal(found, reference.convolve(features, reference.rulebook(coordinates), len(coordinates), weight))
    order = rng.permutation(len(coordinates))
    moved = sparse_conv3d.submanifold(features[order], sparse_conv3d.rulebook(coordinates[order]), weight)
    assert_same(moved, found[order])


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_reach_the_neighbours_alone(special):
    rng = np.random.default_rng(0)
    coordinates = voxels(rng, 7, 0.2)
    features, weight = normal(rng, len(coordinates), 5), normal(rng, 27, 5, 19)
    book = sparse_conv3d.rulebook(coordinates)
    clean = sparse_conv3d.submanifold(features, book, weight)
    features[17, 3] = special
    found = sparse_conv3d.submanifold(features, book, weight)
    near = (np.abs(coordinates - coordinates[17]) <= 1).all(1)
    assert 1 < near.sum() < len(near)
    assert not np.isfinite(found[near]).any()
    assert_same(found[~near], clean[~near])


def test_no_voxels_at_all():
    book = sparse_conv3d.rulebook(np.zeros((0, 3), int))
    assert (book.inputs, book.outputs, book.pairs) == (0, 0, 0)
    found = sparse_conv3d.submanifold(np.zeros((0, 5), np.float32), book, np.zeros((27, 5, 9), np.float32))
    assert_same(found, np.zeros((0, 9), np.float32))
    assert sparse_conv3d.distinct_inputs(book, 8) == 0
    for order in (sparse_conv3d.raster_order(np.zeros((0, 3), int)), sparse_conv3d.surface_order(book, 8)):
        assert_same(order, np.zeros(0, np.int64))


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    coordinates = voxels(rng, 6, 0.3)
    shown = np.repeat(coordinates[:, ::-1], 2, 0)[::2, ::-1]
    assert not shown.flags.c_contiguous
    book = sparse_conv3d.rulebook(shown)
    assert planes(book) == reference.rulebook(coordinates)
    for order in (sparse_conv3d.raster_order, sparse_conv3d.morton_order):
        assert_same(order(shown), order(coordinates))
    features, weight = normal(rng, 7, len(coordinates)).T, normal(rng, 10, 7, 54)[::2].T[::2]  # (N, 7), (27, 7, 5)
    expected = sparse_conv3d.submanifold(features.copy(), book, weight.copy())
    assert_same(sparse_conv3d.submanifold(features, book, weight), expected)
    fixed = features.copy()
    fixed.flags.writeable = False
    assert_same(sparse_conv3d.submanifold(fixed, book, weight), expected)


# --- refusals --------------------------------------------------------------------------------------------------------

F, W = np.ones((2, 5), np.float32), np.ones((27, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sparse_conv3d.convolve(np.float64(F), BOOK(), W),
            "features is float64; float32 is expected: give features.astype",
        ),
        (lambda: sparse_conv3d.convolve(F, BOOK(), np.float64(W)), "weight is float64; float32 is expected"),
        (lambda: sparse_conv3d.convolve(F[:1], BOOK(), W), "rows of features is 1, .* is 2"),
        (lambda: sparse_conv3d.convolve(F[:, :4], BOOK(), W), "columns of features is 4, .* is 5"),
        (lambda: sparse_conv3d.convolve(F, BOOK(), W[:26]), "planes of the weight is 26, .* is 27"),
        (lambda: sparse_conv3d.convolve(F[0], BOOK(), W), re.escape("features has shape (5,)")),
        (lambda: sparse_conv3d.convolve(F, BOOK(), W, np.ones(4, np.float32)), "length of bias is 4, .* is 3"),
        (lambda: sparse_conv3d.convolve(F, BOOK(), W, np.ones(3)), "bias is float64; float32 is expected"),
        (lambda: sparse_conv3d.convolve(F, BOOK(), W, threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: sparse_conv3d.submanifold(F, STRIDED(), W[:8]), "not submanifold; make it with rulebook"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
