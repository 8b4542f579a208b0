"""The inner steps of products, against numpy on one tile."""

import numba
import numpy as np
import pytest
from kernel_checks import normal
from papernets_kernels import simd
from papernets_kernels.simd import F32

rng = np.random.default_rng(0)


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

    weights, rows = normal(rng, 7, ROWS), normal(rng, 7, WIDTH * F32)
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

    features, weights, y = normal(rng, 11, 5), normal(rng, 5, WIDTH * F32), normal(rng, 7, WIDTH * F32)
    places, targets, count = np.array([10, 0, 4], np.int32), np.array([6, 1, 3], np.int32), F32 + 1
    expected = y.astype(np.float64)
    product = features[places].astype(np.float64) @ weights
    expected[targets] += product
    expected[targets, :count] += product[:, :count]
    scatter(features, places, weights, y, targets, count)
    assert np.abs(y - expected).max() < 1e-5
