"""Rulebooks: by hand, on a scene, and against a dictionary of voxels."""

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, assert_same
from papernets_kernels import reference, sparse_conv3d
from voxel_checks import CORNERS, SHARES, SIDES, STRIDED, TWO, planes, voxels

pytestmark = pytest.mark.xdist_group("numba")


def assert_book(book, expected, inputs, outputs, kernel_size, stride):
    assert (book.inputs, book.outputs, book.kernel_size, book.stride) == (inputs, outputs, kernel_size, stride)
    assert (book.plane_pointers.dtype, book.pair_inputs.dtype, book.pair_outputs.dtype) == (np.int64, np.int32, np.int32)
    assert planes(book) == expected
    assert book.pairs == sum(map(len, expected)) and (not outputs or book.arf == book.pairs / outputs)


# --- by hand ---------------------------------------------------------------------------------------------------------


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


# --- against a dictionary of voxels -----------------------------------------------------------------------------------


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


# --- refusals --------------------------------------------------------------------------------------------------------


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
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
