"""Packed weights that were made by hand, or read from a file: wrong parts are refused, and no memory is read with them."""

import dataclasses

import numpy as np
import pytest
from papernets_kernels import n_of_m, one_by_n, sparse_conv3d

rng = np.random.default_rng(0)
BLOCKS = one_by_n.pack(rng.standard_normal((8, 5, 3, 3)).astype(np.float32), 4)  # two groups of five blocks
GROUPS = n_of_m.pack(np.tile(np.float32([1, 0, 2, 0]), (4, 2)), 2, 4)
BOOK = sparse_conv3d.rulebook(np.argwhere(np.ones((2, 2, 2))))


@pytest.mark.parametrize(("packed", "parts", "says"), [
    (BLOCKS, dict(columns=BLOCKS.columns + 3), r"columns holds 7; its entries lie in 0 \.\.\. 4"),
    (BLOCKS, dict(columns=BLOCKS.columns[:-1]), "the number of columns is 9, but the number of blocks is 10"),
    (BLOCKS, dict(rows=BLOCKS.rows * 2), r"rows holds 20; its entries lie in 0 \.\.\. 10"),
    (BLOCKS, dict(rows=np.array([0, 5, 9])), "rows goes from 0 to 9; it begins at 0, never falls, and ends at 10"),
    (BLOCKS, dict(rows=np.array([0, 10])), "the number of rows is 2, but the number of groups and one is 3"),
    (BLOCKS, dict(values=BLOCKS.values.astype(float)), r"values is float64; float32 is expected: give values\.astype"),
    (BLOCKS, dict(values=BLOCKS.values[..., :3]), r"values has shape \(10, 3, 3, 3\); .* with an N that divides 8"),
    (GROUPS, dict(indices=GROUPS.indices + 2), r"indices holds 4; its entries lie in 0 \.\.\. 3"),
    (GROUPS, dict(indices=GROUPS.indices[..., ::-1]), "the indices of a group do not ascend"),
    (GROUPS, dict(indices=GROUPS.indices[:2]), r"indices has shape \(2, 2, 2\), and values \(4, 2, 2\)"),
    (GROUPS, dict(values=GROUPS.values.astype(float)), "values is float64; float32 is expected"),
    (BOOK, dict(pair_inputs=BOOK.pair_inputs + 8), r"pair_inputs holds 15; its entries lie in 0 \.\.\. 7"),
    (BOOK, dict(pair_outputs=BOOK.pair_outputs - 1), r"pair_outputs holds -1; its entries lie in 0 \.\.\. 7"),
    (BOOK, dict(pair_inputs=BOOK.pair_inputs[:-1]), "the number of pair_outputs is 64, but that of pair_inputs is 63"),
    (BOOK, dict(plane_pointers=BOOK.plane_pointers[::-1]), "plane_pointers goes from 64 to 0 and falls between; it begins"),
])
def test_wrong_parts_are_refused(packed, parts, says):
    with pytest.raises(ValueError, match=says):
        dataclasses.replace(packed, **parts)


def test_parts_in_another_order_of_memory_or_of_other_integers_give_the_same():
    other = dataclasses.replace(BLOCKS, values=np.asfortranarray(BLOCKS.values), columns=BLOCKS.columns.astype(np.int64),
                                rows=BLOCKS.rows.astype(np.uint8))
    x = rng.standard_normal((1, 5, 6, 7)).astype(np.float32)
    assert (one_by_n.conv2d(other, x) == one_by_n.conv2d(BLOCKS, x)).all()
    assert (other.values.flags.c_contiguous, other.columns.dtype, other.rows.dtype) == (True, np.int32, np.int64)
