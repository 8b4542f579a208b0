"""Winograd in 3D: the transforms by hand, and the layer against the direct convolution and against the textbook."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_checks import SEARCH, SEEDS, TRANSFORMS, assert_near, assert_same, normal, winograd_size
from papernets_kernels import reference, winograd3d

pytestmark = pytest.mark.xdist_group("numba")

SHAPES = st.tuples(st.integers(1, 7), st.integers(1, 7), st.integers(1, 9))


def one_kernel(kernel):
    return winograd3d.pack(np.float32(kernel).reshape(1, 1, 3, 3, 3)).u.reshape(4, 4, 4)


def test_a_kernel_of_ones_becomes_the_product_of_three_vectors():
    line = np.array([1, 1.5, 0.5, 1])
    u = one_kernel(np.ones(27))
    assert_same(u, np.float32(line[:, None, None] * line[:, None] * line))
    assert (u[0, 0, 0], u[1, 1, 1], u[2, 2, 2]) == (1, 3.375, 0.125)


def test_a_kernel_with_a_centre_alone_has_eight_positions():
    u = one_kernel(np.eye(27)[13])
    assert np.count_nonzero(u) == 8 and set(np.abs(u[u != 0])) == {0.125}
    assert (u[1, 1, 1], u[1, 1, 2], u[1, 2, 2], u[2, 2, 2]) == (0.125, -0.125, 0.125, -0.125)


def test_one_tile_by_hand():
    x, ones = np.arange(64, dtype=np.float32).reshape(1, 1, 4, 4, 4), np.ones((1, 1, 3, 3, 3), np.float32)
    expected = [567, 594, 675, 702, 999, 1026, 1107, 1134]
    assert winograd3d.conv3d(x, ones).ravel().tolist() == expected
    assert reference.winograd3d(x, ones).ravel().tolist() == expected


def test_one_line_by_hand():
    d, g = np.array([1, 2, 3, 4]), np.array([1, 0, -1])
    assert (reference.B_T @ d).tolist() == [-2, 5, 1, -2] and (reference.G @ g).tolist() == [1, 0, 0, -1]
    assert (reference.A_T @ ((reference.B_T @ d) * (reference.G @ g))).tolist() == [-2, -2]


def test_the_kernels_reach_27_of_the_64_dimensions():
    weight = normal(np.random.default_rng(0), 7, 5, 3, 3, 3)
    assert np.linalg.matrix_rank(np.float64(winograd3d.pack(weight).u.reshape(64, 35)), tol=1e-4) == 27


@SEARCH
@given(
    batch=st.integers(0, 2),
    outputs=st.sampled_from([0, 1, 3, 8, 17]),
    inputs=st.sampled_from([0, 1, 2, 5, 16]),
    size=SHAPES,
    padding=st.one_of(st.integers(0, 2), st.tuples(*[st.integers(0, 2)] * 3)),
    seed=SEEDS,
)
def test_the_layer_is_the_direct_convolution(batch, outputs, inputs, size, padding, seed):
    pads = (padding,) * 3 if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= 3 for length, pad in zip(size, pads)))
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, batch, inputs, *size), normal(rng, outputs, inputs, 3, 3, 3)
    found = winograd3d.conv3d(x, weight, padding)
    assert_near(found, reference.conv3d(x, weight, padding), winograd_size(x, weight, padding), inputs + TRANSFORMS)
    for threads in (2, 3):
        assert_same(winograd3d.conv3d(x, weight, padding, threads=threads), found)
    assert_same(winograd3d.conv3d(x, winograd3d.pack(weight, range(64)), padding), found)


@SEARCH
@given(
    outputs=st.sampled_from([1, 3, 17]),
    inputs=st.sampled_from([1, 2, 16]),
    size=SHAPES,
    seed=SEEDS,
    columns=st.sets(st.integers(0, 63), min_size=1).map(sorted),
)
def test_of_a_layer_with_fewer_columns_the_others_count_as_zero(outputs, inputs, size, seed, columns):
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, 2, inputs, *size), normal(rng, outputs, inputs, 3, 3, 3)
    packed = winograd3d.pack(weight, columns)
    assert_same(packed.columns, np.array(columns))
    assert packed.u.shape == (len(columns), outputs, inputs)
    assert_near(
        packed.u,
        reference.winograd3d_pack(weight)[columns],
        np.abs(reference.cube(np.abs(reference.G))).sum(1).max() * np.abs(weight).sum((2, 3, 4)).max()
        + np.zeros(packed.u.shape),
        27,
    )
    found = winograd3d.conv3d(x, packed, 1)
    expected = reference.winograd3d(x, weight, 1, columns)
    assert_near(found, expected, winograd_size(x, weight, 1, columns), inputs + TRANSFORMS)
    for threads in (2, 3):
        assert_same(winograd3d.conv3d(x, packed, 1, threads=threads), found)


@pytest.mark.parametrize("removed", range(0, 64, 7))
def test_a_removed_column_is_not_read(removed):
    """An input that is seen by one position alone: without that position the output is zero."""
    rng = np.random.default_rng(0)
    seen = np.linalg.inv(reference.cube(reference.B_T))[:, removed].reshape(1, 1, 4, 4, 4)
    assert set(np.unique(np.abs(seen))) <= {0, 0.125, 0.25, 0.5, 1}
    x, weight = np.float32(seen), normal(rng, 3, 1, 3, 3, 3)
    rest = np.delete(np.arange(64), removed)
    assert (winograd3d.conv3d(x, winograd3d.pack(weight, rest)) == 0).all()
    alone = winograd3d.conv3d(x, winograd3d.pack(weight, [removed]))
    assert (alone != 0).any()
    assert_near(alone, reference.conv3d(x, weight), winograd_size(x, weight), 1 + TRANSFORMS)


def test_the_low_rank_factors_of_a_spatial_kernel_are_exact():
    rng = np.random.default_rng(0)
    weight = normal(rng, 5, 4, 3, 3, 3)
    p, q = weight.reshape(5, 4, 27), np.float32(reference.cube(reference.G).T)
    x, packed = normal(rng, 2, 4, 5, 6, 7), winograd3d.pack_low_rank(p, q)
    assert packed.columns.tolist() == list(range(64))
    assert_near(
        winograd3d.conv3d(x, packed, 1), reference.conv3d(x, weight, 1), winograd_size(x, weight, 1), 27 + 4 + TRANSFORMS
    )


@pytest.mark.parametrize("rank", [1, 5, 64])
def test_low_rank_keeps_the_columns_that_are_not_zero(rank):
    rng = np.random.default_rng(0)
    p, q = normal(rng, 7, 3, rank), normal(rng, rank, 64)
    q[:, rng.random(64) < 0.5] = 0
    kept = np.flatnonzero(q.any(0))
    assert 0 < len(kept) < 64
    packed = winograd3d.pack_low_rank(p, q)
    assert_same(packed.columns, kept)
    u = np.einsum("ocs,sp->poc", np.float64(p), np.float64(q))
    size = np.einsum("ocs,sp->poc", np.abs(p), np.abs(q))
    assert_near(packed.u, u[kept], size[kept], rank + 1)
    assert_near(winograd3d.pack_low_rank(p, q, [2, 63]).u, u[[2, 63]], size[[2, 63]], rank + 1)
    norms = winograd3d.column_norms(p, q)
    np.testing.assert_allclose(norms, reference.winograd3d_column_norms(p, q), rtol=(rank + 30) * 2.0**-23)
    assert norms.shape == (64,) and (np.flatnonzero(norms) == kept).all()
    x = normal(rng, 1, 3, 4, 5, 6)
    all_of_them = winograd3d.pack_low_rank(p, q, range(64))
    size = winograd_size(x, size)
    expected = reference.winograd3d(x, u)
    assert_near(winograd3d.conv3d(x, packed), expected, size, 3 + rank + TRANSFORMS)
    assert_near(winograd3d.conv3d(x, all_of_them), expected, size, 3 + rank + TRANSFORMS)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_stay_in_their_tiles(special):
    rng = np.random.default_rng(0)
    x, weight = normal(rng, 2, 3, 8, 9, 12), normal(rng, 5, 3, 3, 3, 3)
    clean = winograd3d.conv3d(x, weight)
    before, x[1, 2, 3, 4, 5] = (
        x[1, 2, 3, 4, 5],
        special,
    )  # in the windows of outputs 1..3, 2..4, 3..5, so in the tiles 0..1, 1..2, 1..2
    found = winograd3d.conv3d(x, weight)
    touched = np.zeros(clean.shape, bool)
    touched[1, :, 0:4, 2:6, 2:6] = True
    assert_same(found[~touched], clean[~touched])
    assert not np.isfinite(found[1, :, 1:4, 2:5, 3:6]).any()  # as the direct convolution
    x[1, 2, 3, 4, 5] = before
    assert_same(winograd3d.conv3d(x, weight), clean)  # and nothing of it stays in memory that is used again


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    x, weight = (
        normal(rng, 6, 5, 4, 3, 4).T[::2, :, ::2],
        normal(rng, 3, 3, 3, 6, 5).T[:, ::2],
    )  # (2, 3, 2, 5, 6), (5, 3, 3, 3, 3)
    expected = winograd3d.conv3d(x.copy(), weight.copy(), 1)
    assert_same(winograd3d.conv3d(x, weight, 1), expected)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert_same(winograd3d.conv3d(fixed, weight, 1), expected)


X, W = np.ones((1, 2, 4, 5, 6), np.float32), np.ones((3, 2, 3, 3, 3), np.float32)
P, Q = np.ones((3, 2, 4), np.float32), np.ones((4, 64), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: winograd3d.pack(np.float64(W)), "weight is float64; float32 is expected"),
        (lambda: winograd3d.pack(W[0]), re.escape("weight has shape (2, 3, 3, 3)")),
        (lambda: winograd3d.pack(np.ones((3, 2, 3, 3, 5), np.float32)), "the kernel is 3x3x5; .* takes 3x3x3"),
        (lambda: winograd3d.pack(W, [64]), "columns holds 64; its entries lie in 0 ... 63"),
        (lambda: winograd3d.pack(W, [-1]), "columns holds -1; its entries lie in 0 ... 63"),
        (lambda: winograd3d.pack(W, [3, 2]), re.escape("columns is [3, 2]; they ascend, each once")),
        (lambda: winograd3d.pack(W, [2, 2]), re.escape("columns is [2, 2]; they ascend")),
        (lambda: winograd3d.pack(W, []), "columns"),
        (lambda: winograd3d.pack(W, [1.0]), "columns is float64; whole numbers are expected"),
        (lambda: winograd3d.pack_low_rank(P, Q[:3]), "rows of q is 3, but the last axis of p is 4"),
        (lambda: winograd3d.pack_low_rank(P, Q[:, :63]), "columns of q is 63, .* is 64"),
        (lambda: winograd3d.pack_low_rank(np.float64(P), Q), "p is float64; float32 is expected"),
        (lambda: winograd3d.pack_low_rank(P, np.float64(Q)), "q is float64; float32 is expected"),
        (lambda: winograd3d.pack_low_rank(P, 0 * Q), "columns is empty; a layer keeps at least 1"),
        (lambda: winograd3d.column_norms(P, Q[:3]), "rows of q is 3, but the last axis of p is 4"),
        (lambda: winograd3d.conv3d(np.float64(X), W), "x is float64; float32 is expected: give x.astype"),
        (lambda: winograd3d.conv3d(X[0], W), re.escape("x has shape (2, 4, 5, 6)")),
        (lambda: winograd3d.conv3d(X[:, :1], W), "channels of x is 1, .* is 2"),
        (lambda: winograd3d.conv3d(X, W, -1), "padding is -1; it is a whole number of at least 0"),
        (lambda: winograd3d.conv3d(X, W, (1, 1)), re.escape("padding is (1, 1); it is one number, or 3")),
        (lambda: winograd3d.conv3d(X[:, :, :2], W), "the kernel is 3 long.* the padded input 2; padding must be at least 1"),
        (lambda: winograd3d.conv3d(X, W, threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: winograd3d.conv3d(X[:0], W, threads=0), "threads is 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
