"""Orders of the voxels: what they save on a scene, and against their definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, assert_same
from papernets_kernels import reference, sparse_conv3d
from voxel_checks import BOOK, CORNERS, SHARES, SIDES, STRIDED, TWO, planes, voxels

pytestmark = pytest.mark.xdist_group("numba")


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


def test_a_tile_of_one_reads_every_pair_and_one_of_all_reads_every_voxel(scene):
    book = sparse_conv3d.rulebook(scene)
    assert sparse_conv3d.locality(book, 1) == book.arf
    assert sparse_conv3d.distinct_inputs(book, len(scene)) == sparse_conv3d.distinct_inputs(book, 10**6) == len(scene)


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


@pytest.mark.parametrize(
    ("call", "message"),
    [
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
