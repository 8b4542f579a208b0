"""The references themselves: dense convolutions against torch, the rest by hand."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_checks import PAIRS, SEARCH, SEEDS, assert_same
from papernets_kernels import reference
from torch.nn import functional as F

pytestmark = pytest.mark.xdist_group("numba")


def near(found, expected):
    assert found.dtype == np.float64 and found.shape == tuple(expected.shape)
    np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-12)


@SEARCH
@given(
    batch=st.integers(0, 3),
    outputs=st.integers(1, 3),
    inputs=st.integers(1, 3),
    size=st.tuples(st.integers(1, 7), st.integers(1, 9)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=PAIRS[1],
    padding=PAIRS[0],
    seed=SEEDS,
)
def test_conv2d_is_that_of_torch(batch, outputs, inputs, size, kernel, stride, padding, seed):
    pads = (padding, padding) if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= k for length, pad, k in zip(size, pads, kernel)))
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((batch, inputs, *size)), rng.standard_normal((outputs, inputs, *kernel))
    expected = F.conv2d(torch.from_numpy(x), torch.from_numpy(weight), stride=stride, padding=padding)
    near(reference.conv2d(x, weight, stride, padding), expected)
    signs = np.sign(weight)
    found = reference.binary_conv2d(x, signs, stride, padding)
    expected = F.conv2d(torch.from_numpy(np.sign(x)), torch.from_numpy(signs), stride=stride, padding=padding)
    assert_same(found, expected.numpy().astype(np.int32))


@SEARCH
@given(
    channels=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(*[st.integers(1, 7)] * 3),
    kernel=st.tuples(*[st.integers(1, 3)] * 3),
    padding=st.one_of(st.integers(0, 2), st.tuples(*[st.integers(0, 2)] * 3)),
    seed=SEEDS,
)
def test_conv3d_is_that_of_torch(channels, size, kernel, padding, seed):
    batch, outputs, inputs = channels
    pads = (padding,) * 3 if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= k for length, pad, k in zip(size, pads, kernel)))
    rng = np.random.default_rng(seed)
    x, weight = rng.standard_normal((batch, inputs, *size)), rng.standard_normal((outputs, inputs, *kernel))
    near(reference.conv3d(x, weight, padding), F.conv3d(torch.from_numpy(x), torch.from_numpy(weight), padding=padding))
    if kernel == (3, 3, 3):
        near(reference.winograd3d(x, weight, padding), torch.from_numpy(reference.conv3d(x, weight, padding)))


def test_winograd_in_float64_is_the_direct_convolution():
    rng = np.random.default_rng(0)
    for size, padding in (((5, 7, 4), 0), ((4, 3, 6), 1), ((1, 2, 3), (2, 1, 0))):
        x, weight = rng.standard_normal((2, 9, *size)), rng.standard_normal((5, 9, 3, 3, 3))
        expected = reference.conv3d(x, weight, padding)
        np.testing.assert_allclose(reference.winograd3d(x, weight, padding), expected, rtol=0, atol=1e-12)
        u = reference.winograd3d_pack(weight)
        assert u.shape == (64, 5, 9)
        u[[0, 40]] = 0
        np.testing.assert_allclose(
            reference.winograd3d(x, u, padding),
            reference.winograd3d(x, weight, padding, [p for p in range(64) if p not in (0, 40)]),
            rtol=0,
            atol=1e-12,
        )


def test_one_by_n_and_n_of_m_are_the_dense_product():
    rng = np.random.default_rng(0)
    weight, x = rng.standard_normal((6, 8)).astype(np.float32), rng.standard_normal((8, 5))
    weight[:3, 2] = weight[3:, [0, 7]] = 0
    np.testing.assert_allclose(reference.one_by_n_matmul(weight, 3, x), weight @ x, rtol=0, atol=1e-12)
    assert reference.one_by_n_pack(weight[:, :, None, None], 3)[2].tolist() == [0, 7, 13]
    weight.reshape(6, 2, 4)[:, :, [1, 2]] = 0
    np.testing.assert_allclose(reference.n_of_m_matmul(weight, 2, 4, x), weight @ x, rtol=0, atol=1e-12)


def test_signs_and_distances_by_hand():
    x = np.array([[1.0, -0.0, -2, np.nan]])
    assert reference.binary_pack(x).tolist() == [[0b0011]]
    assert_same(reference.binary_unpack(np.array([[0b0011]], np.uint64), 4), np.array([[1, 1, -1, -1]], np.int8))
    assert reference.binary_matmul(np.array([[1, 1, -1]]), np.array([[1, -1, -1], [-1, -1, 1]])).tolist() == [[1, -3]]
    assert reference.hamming_distances([[0, 1]], [[3, 1], [2**64 - 1, 0]]).tolist() == [[2, 65]]
    near_, places = reference.hamming_top_k([[0]], [[3], [1], [7], [2]], 3)
    assert near_.tolist() == [[1, 1, 2]] and places.tolist() == [[1, 3, 0]]


def test_orders_by_hand():
    """A Z curve over two cubes of 2^3; a chain of voxels, followed from its end."""
    cube = np.argwhere(np.ones((2, 2, 4)))
    order = reference.morton_order(cube)
    assert cube[order][:8].tolist() == np.argwhere(np.ones((2, 2, 2))).tolist()
    chain = np.array([[0, 0, 2], [0, 0, 0], [0, 0, 1], [0, 0, 3]])
    assert reference.raster_order(chain).tolist() == [1, 2, 0, 3]
    planes = reference.rulebook(chain)
    assert reference.surface_order(planes, 4, 2).tolist() == [1, 2, 0, 3]
    # tiles of two: voxels 0, 1 read 0..2, voxels 2, 3 read 1..3
    assert reference.distinct_inputs(planes, 4, 2, [1, 2, 0, 3]) == 6
    assert reference.lines(planes, 4)[2] == (1 << 12 | 1 << 13 | 1 << 14, [1, 2, 0])


def test_surface_order_goes_on_from_what_it_has_reached_or_is_filled_up():
    """Two lines of three, far apart: a chunk of four ends short after three, or takes one of the other line."""
    lines = np.array([[0, 0, x] for x in (0, 1, 2, 10, 11, 12)])
    planes = reference.rulebook(lines)
    assert reference.surface_order(planes, 6, 4).tolist() == [0, 1, 2, 3, 4, 5]
    middle = np.array([[0, 0, x] for x in (11, 0, 1, 2, 10, 12)])
    planes = reference.rulebook(middle)  # ends are 1 and 3, 4 and 5
    assert reference.surface_order(planes, 6, 2).tolist() == [1, 2, 3, 4, 0, 5]
    assert reference.surface_order(planes, 6, 4, filled=True).tolist() == [1, 2, 3, 4, 0, 5]


def test_strided_pairs_by_hand():
    planes, outputs = reference.strided_rulebook([[1, 0, 3], [0, 0, 0], [1, 1, 2]])
    assert planes == [[(1, 0)], [], [], [], [], [(0, 1)], [(2, 1)], []] and outputs.tolist() == [[0, 0, 0], [0, 0, 1]]
    assert reference.strided_rulebook([[0, 0, 1]], 3, 2)[0][1] == [(0, 0)]  # no output at -1
    found = reference.convolve(np.array([[1.0], [2], [3]]), planes, 2, np.arange(8.0).reshape(8, 1, 1), np.array([0.5]))
    assert found.tolist() == [[0.5], [5 + 18 + 0.5]]
