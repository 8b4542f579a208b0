"""Sparse 3D convolution: rulebooks, sums and orders by hand, against loops over voxels, and against the dense convolution."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, assert_near, assert_same, normal
from papernets_kernels import reference, sparse_conv3d

pytestmark = pytest.mark.xdist_group("numba")

SIDES = st.integers(1, 6)
SHARES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
CORNERS = st.sampled_from([0, 1, 1023, 2**20 - 6])
WIDTHS = st.sampled_from([0, 1, 2, 7, 16, 17, 33, 50])


def voxels(rng, side, share, corner=0):
    """Voxels of a cube in no order."""
    found = np.argwhere(rng.random((side,) * 3) < share) + corner
    return rng.permutation(found)


def planes(book):
    """A rulebook in the form of the reference."""
    pairs = list(zip(book.pair_inputs.tolist(), book.pair_outputs.tolist()))
    return [pairs[start:stop] for start, stop in pairwise(book.plane_pointers)]


def assert_book(book, expected, inputs, outputs, kernel_size, stride):
    assert (book.inputs, book.outputs, book.kernel_size, book.stride) == (inputs, outputs, kernel_size, stride)
    assert (book.plane_pointers.dtype, book.pair_inputs.dtype, book.pair_outputs.dtype) == (np.int64, np.int32, np.int32)
    assert planes(book) == expected
    assert book.pairs == sum(map(len, expected)) and (not outputs or book.arf == book.pairs / outputs)


def assert_sums(book, features, weight, bias):
    found = sparse_conv3d.convolve(features, book, weight, bias)
    expected = reference.convolve(features, planes(book), book.outputs, weight, bias)
    size = reference.convolve(
        np.abs(features), planes(book), book.outputs, np.abs(weight), bias if bias is None else np.abs(bias)
    )
    assert_near(found, expected, size, weight.shape[0] * weight.shape[1] + 1)
    for threads in (2, 3):
        assert_same(sparse_conv3d.convolve(features, book, weight, bias, threads=threads), found)


@pytest.fixture(scope="module")
def scene():
    """A floor, two walls and a sphere on a grid of 64^3: the scene that the figures of AccSS3D's chapter are drawn on."""
    z, y, x = np.ogrid[:64, :64, :64]
    walls = ((y == 3) | (x == 3)) & (2 <= z) & (z < 40)
    sphere = np.abs(np.sqrt((z - 20) ** 2 + (y - 30) ** 2 + (x - 35) ** 2) - 12) < 0.6
    return np.argwhere((z == 2) | walls | sphere)


# --- by hand ---------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("coordinates", "pairs", "used"),
    [
        ([[5, 5, 5]], 1, 1),
        ([[0, 0, 0], [0, 0, 1]], 4, 3),
        ([[0, 0, x] for x in range(5)], 13, 3),
        (np.argwhere(np.ones((2, 2, 2))), 64, 27),
        (np.argwhere(np.ones((1, 4, 4))), 100, 9),
        (np.argwhere(np.ones((3, 3, 3))), 343, 27),
    ],
)
def test_the_pairs_of_small_sets(coordinates, pairs, used):
    book = sparse_conv3d.rulebook(np.array(coordinates))
    assert book.pairs == pairs and np.count_nonzero(np.diff(book.plane_pointers)) == used


@pytest.mark.parametrize("side", [1, 2, 3, 7])
def test_a_full_cube_has_the_cube_of_3n_minus_2_pairs(side):
    assert sparse_conv3d.rulebook(np.argwhere(np.ones((side,) * 3))).pairs == (3 * side - 2) ** 3


def test_a_strided_rulebook_by_hand():
    coordinates = np.array([[1, 0, 3], [0, 0, 0], [1, 1, 2]])
    book = sparse_conv3d.strided_rulebook(coordinates)
    assert_book(book, [[(1, 0)], [], [], [], [], [(0, 1)], [(2, 1)], []], 3, 2, 2, 2)
    assert book.out_coordinates.tolist() == [[0, 0, 0], [0, 0, 1]]
    back = sparse_conv3d.inverse_rulebook(book, coordinates)
    assert_book(back, [[(0, 1)], [], [], [], [], [(1, 0)], [(1, 2)], []], 2, 3, 2, 2)


# --- the scene -------------------------------------------------------------------------------------------------------


def test_the_scene_has_its_pairs(scene):
    book = sparse_conv3d.rulebook(scene)
    assert (len(scene), book.pairs) == (10_993, 107_967) and round(book.arf, 3) == 9.821
    assert round(100 * len(scene) / 64**3, 2) == 4.19
    assert planes(book) == reference.rulebook(scene)
    counts = np.diff(book.plane_pointers)
    assert (counts == counts[::-1]).all() and counts[13] == len(scene)
    masks, pointers, indices = book.lines()
    assert np.bitwise_count(masks).sum() == len(indices) == pointers[-1] == book.pairs
    # what a line receives is, reversed, what it feeds
    reversed_masks = np.array([int(f"{mask:027b}"[::-1], 2) for mask in masks], np.uint32)
    fed = np.zeros(len(scene), np.uint32)
    for k, plane in enumerate(planes(book)):
        fed[[i for i, _ in plane]] |= np.uint32(1 << k)
    assert_same(fed, reversed_masks)


@pytest.mark.parametrize(
    ("tile", "figures"),
    [
        (64, (9.57, 3.19, 1.85, 1.88, 1.67)),
        (128, (9.32, 2.70, 1.58, 1.56, 1.46)),
        (256, (8.82, 2.17, 1.42, 1.42, 1.30)),
        (1024, (6.60, 1.30, 1.21, 1.16, 1.14)),
    ],
)
def test_orders_that_follow_the_surface_read_fewer_inputs(scene, tile, figures):
    """Distinct inputs of a tile of outputs, over its size: random, raster, Morton, breadth first, the same filled up."""
    book = sparse_conv3d.rulebook(scene)
    orders = [
        np.random.default_rng(0).permutation(len(scene)),
        sparse_conv3d.raster_order(scene),
        sparse_conv3d.morton_order(scene),
        sparse_conv3d.surface_order(book, tile),
        sparse_conv3d.surface_order(book, tile, filled=True),
    ]
    assert tuple(round(sparse_conv3d.locality(book, tile, order), 2) for order in orders) == figures
    if tile == 128:
        found = [sparse_conv3d.distinct_inputs(book, 128, order) for order in orders[1:]]
        assert found == [29_710, 17_348, 17_198, 16_002]
        assert found == [reference.distinct_inputs(planes(book), len(scene), 128, order) for order in orders[1:]]


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


def test_a_tile_of_one_reads_every_pair_and_one_of_all_reads_every_voxel(scene):
    book = sparse_conv3d.rulebook(scene)
    assert sparse_conv3d.locality(book, 1) == book.arf
    assert sparse_conv3d.distinct_inputs(book, len(scene)) == sparse_conv3d.distinct_inputs(book, 10**6) == len(scene)


# --- against loops over voxels ---------------------------------------------------------------------------------------


@SEARCH
@given(
    side=SIDES,
    share=SHARES,
    corner=CORNERS,
    kernel_size=st.sampled_from([1, 3, 5]),
    seed=SEEDS,
    dtype=st.sampled_from([np.int32, np.int64]),
)
def test_a_rulebook_is_that_of_a_dictionary(side, share, corner, kernel_size, seed, dtype):
    coordinates = voxels(np.random.default_rng(seed), side, share, corner).astype(dtype)
    book, n = sparse_conv3d.rulebook(coordinates, kernel_size), len(coordinates)
    assert_book(book, reference.rulebook(coordinates, kernel_size), n, n, kernel_size, 1)
    if kernel_size == 3:
        masks, pointers, indices = book.lines()
        lines = reference.lines(planes(book), n)
        assert masks.tolist() == [mask for mask, _ in lines] and pointers[0] == 0
        assert [indices[start:stop].tolist() for start, stop in pairwise(pointers)] == [inputs for _, inputs in lines]


@SEARCH
@given(side=SIDES, share=SHARES, corner=CORNERS, kernel_size=st.integers(1, 3), stride=st.integers(1, 3), seed=SEEDS)
def test_a_strided_rulebook_is_that_of_a_dictionary(side, share, corner, kernel_size, stride, seed):
    coordinates = voxels(np.random.default_rng(seed), side, share, corner)
    book = sparse_conv3d.strided_rulebook(coordinates, kernel_size, stride)
    expected, outputs = reference.strided_rulebook(coordinates, kernel_size, stride)
    assert_book(book, expected, len(coordinates), len(outputs), kernel_size, stride)
    assert np.array_equal(book.out_coordinates, outputs)
    back = sparse_conv3d.inverse_rulebook(book, coordinates)
    assert np.array_equal(back.out_coordinates, coordinates)
    turned = [sorted(((o, i) for i, o in plane), key=lambda pair: pair[1]) for plane in expected]
    assert_book(back, turned, len(outputs), len(coordinates), kernel_size, stride)


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


@SEARCH
@given(
    side=SIDES, share=SHARES, corner=CORNERS, chunk=st.sampled_from([1, 2, 3, 8, 64, 1000]), filled=st.booleans(), seed=SEEDS
)
def test_orders_are_those_of_the_definition(side, share, corner, chunk, filled, seed):
    coordinates = voxels(np.random.default_rng(seed), side, share, corner)
    book, n = sparse_conv3d.rulebook(coordinates), len(coordinates)
    raster, morton = sparse_conv3d.raster_order(coordinates), sparse_conv3d.morton_order(coordinates)
    surface = sparse_conv3d.surface_order(book, chunk, filled)
    assert_same(raster, reference.raster_order(coordinates))
    assert_same(morton, reference.morton_order(coordinates))
    assert_same(surface, reference.surface_order(planes(book), n, chunk, filled))
    for order in (None, raster, morton, surface):
        assert order is None or np.array_equal(np.sort(order), np.arange(n))
        found = sparse_conv3d.distinct_inputs(book, chunk, order)
        assert found == reference.distinct_inputs(planes(book), n, chunk, order)
        assert not n or sparse_conv3d.locality(book, chunk, order) == found / n


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


def test_lines_hold_every_pair():
    book = sparse_conv3d.rulebook(voxels(np.random.default_rng(0), 6, 0.3))
    masks, pointers, indices = book.lines()
    found = [[] for _ in range(27)]
    for o, mask in enumerate(masks.tolist()):
        of_line = iter(indices[pointers[o] : pointers[o + 1]].tolist())
        for k in range(27):
            if mask >> k & 1:
                found[k].append((next(of_line), o))
    assert found == planes(book)


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


TWO = np.array([[0, 0, 0], [0, 0, 1]])
BOOK, STRIDED = (lambda: sparse_conv3d.rulebook(TWO)), (lambda: sparse_conv3d.strided_rulebook(TWO))
F, W = np.ones((2, 5), np.float32), np.ones((27, 5, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: sparse_conv3d.rulebook(TWO[[1, 0, 1]]),
            re.escape("voxels 0 and 2 are both at (0, 0, 1)"),
        ),
        (lambda: sparse_conv3d.rulebook(TWO - 1), "coordinates holds -1; its entries lie in 0"),
        (lambda: sparse_conv3d.rulebook(TWO + 2**20), "coordinates holds 1048577; its entries lie in 0 ... 1048575"),
        (lambda: sparse_conv3d.rulebook(np.float64(TWO)), "coordinates is float64"),
        (lambda: sparse_conv3d.rulebook(TWO[:, :2]), "columns of coordinates is 2, but the number of axes is 3"),
        (lambda: sparse_conv3d.rulebook(TWO[0]), re.escape("coordinates has shape (3,)")),
        (lambda: sparse_conv3d.rulebook(TWO, 2), "kernel_size is 2; .* 1, 3 or 5"),
        (lambda: sparse_conv3d.rulebook(TWO, 7), "kernel_size is 7; .* 1, 3 or 5"),
        (lambda: sparse_conv3d.rulebook(TWO, -1), "kernel_size is -1; .* 1, 3 or 5"),
        (lambda: sparse_conv3d.strided_rulebook(np.zeros((2, 3), int)), re.escape("voxels 0 and 1 are both at (0, 0, 0)")),
        (lambda: sparse_conv3d.rulebook(TWO, threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: sparse_conv3d.rulebook(TWO, 5).lines(), "kernel_size is 5; a mask of 32 bits holds the planes of at most 3"),
        (lambda: sparse_conv3d.inverse_rulebook(STRIDED(), TWO[:1]), "number of coordinates is 1, .* is 2"),
        (lambda: sparse_conv3d.strided_rulebook(TWO, 0), "kernel_size is 0; it is a whole number of at least 1"),
        (lambda: sparse_conv3d.strided_rulebook(TWO, 2, 0), "stride is 0; it is a whole number of at least 1"),
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
        (lambda: sparse_conv3d.surface_order(BOOK(), 0), "chunk is 0; it is a whole number of at least 1"),
        (lambda: sparse_conv3d.surface_order(STRIDED(), 8), "not submanifold; make it with rulebook"),
        (lambda: sparse_conv3d.distinct_inputs(BOOK(), 0), "tile is 0; it is a whole number of at least 1"),
        (
            lambda: sparse_conv3d.distinct_inputs(BOOK(), 8, np.array([0, 0])),
            "order has 2 entries; it holds each of 0 ... 1 once",
        ),
        (lambda: sparse_conv3d.distinct_inputs(BOOK(), 8, np.array([0])), "order has 1 entries; it holds each of 0 ... 1 once"),
        (lambda: sparse_conv3d.locality(BOOK(), 8, np.array([0, 2])), "order holds 2; its entries lie in 0 ... 1"),
        (lambda: sparse_conv3d.raster_order(np.float64(TWO)), "coordinates is float64"),
        (lambda: sparse_conv3d.morton_order(TWO - 1), "coordinates holds -1; its entries lie in 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
