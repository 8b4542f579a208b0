"""Sub-bit kernels: the stream of ids by hand, and exact equality with the convolution by the expanded kernels."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_checks import PAIRS, SEARCH, SEEDS, assert_same, normal
from papernets_kernels import binary, reference, subbit

pytestmark = pytest.mark.xdist_group("numba")


def patterns(rng, n):
    """n different kernels (n, 3, 3) of +1 and -1."""
    codes = rng.permutation(512)[:n]
    return (2 * (codes[:, None] >> np.arange(9) & 1) - 1).astype(np.int8).reshape(n, 3, 3)


def test_the_stream_of_four_ids_of_five_bits():
    ids = np.array([[1, 2], [31, 16]])
    packed = subbit.pack_ids(ids, 5)
    # from the highest bit to the lowest 10000 11111 00010 00001, cut into bytes 1000 01111100 01000001
    assert_same(packed, np.array([0b01000001, 0b01111100, 0b1000], np.uint8))
    assert_same(subbit.unpack_ids(packed, 5, (2, 2)), ids.astype(np.uint16))


@SEARCH
@given(bits=st.integers(1, 9), shape=st.lists(st.integers(0, 9), max_size=3).map(tuple), seed=SEEDS)
def test_ids_come_back(bits, shape, seed):
    ids = np.random.default_rng(seed).integers(0, 2**bits, shape)
    packed = subbit.pack_ids(ids, bits)
    assert_same(packed, reference.subbit_pack_ids(ids, bits))
    assert len(packed) == -(-ids.size * bits // 8)
    assert_same(subbit.unpack_ids(packed, bits, shape), ids.astype(np.uint16))
    assert_same(reference.subbit_unpack_ids(packed, bits, shape), ids.astype(np.uint16))


def test_the_convolution_of_one_window():
    x = np.array([[[[1, -2, 3], [0, -0.0, -5], [np.nan, 7, 8]]]], np.float32)  # signs + - +, + + -, - + +
    codebook = np.stack([np.ones((3, 3)), -np.ones((3, 3)), [[1, -1, 1], [1, 1, -1], [-1, 1, 1]]])
    found = subbit.conv2d(x, np.array([[0], [1], [2]]), codebook)
    assert_same(found, np.array([3, -3, 9], np.int32).reshape(1, 3, 1, 1))


@SEARCH
@given(
    batch=st.integers(0, 2),
    outputs=st.sampled_from([0, 1, 2, 3, 31, 33, 70]),
    channels=st.sampled_from([0, 1, 2, 3, 9]),
    size=st.tuples(st.integers(0, 9), st.integers(0, 40)),
    n=st.sampled_from([1, 2, 3, 32, 64, 100, 256, 512]),
    stride=PAIRS[1],
    padding=PAIRS[0],
    seed=SEEDS,
)
def test_a_convolution_is_that_by_the_expanded_kernels(batch, outputs, channels, size, n, stride, padding, seed):
    pads = (padding, padding) if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= 3 for length, pad in zip(size, pads)))
    rng = np.random.default_rng(seed)
    x, codebook, ids = normal(rng, batch, channels, *size, share=0.9), patterns(rng, n), rng.integers(0, n, (outputs, channels))
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.05] = -0.0
    found = subbit.conv2d(x, ids, codebook, stride, padding)
    assert_same(found, reference.subbit_conv2d(x, ids, codebook, stride, padding))
    for threads in (2, 3):
        assert_same(subbit.conv2d(x, ids, codebook, stride, padding, threads=threads), found)


def test_many_channels_do_not_overflow_a_short_sum():
    x, ids = np.ones((1, 4000, 3, 3), np.float32), np.zeros((1, 4000), int)
    assert subbit.conv2d(x, ids, np.ones((1, 3, 3))).tolist() == [[[[36_000]]]]  # more than 32,767
    assert subbit.conv2d(-x, ids, np.ones((1, 3, 3)), 1, 1)[0, 0, 0].tolist() == [-16_000, -24_000, -16_000]


def test_equals_the_binary_kernel():
    rng = np.random.default_rng(0)
    x, codebook, ids = normal(rng, 2, 65, 7, 9), patterns(rng, 32), rng.integers(0, 32, (40, 65))
    assert_same(subbit.conv2d(x, ids, codebook, 2, 1), binary.conv2d(x, codebook[ids], 2, 1))


def test_a_weight_made_before_gives_the_same():
    rng = np.random.default_rng(0)
    x, codebook, ids = normal(rng, 1, 20, 6, 7), patterns(rng, 9), rng.integers(0, 9, (5, 20))
    weight = subbit.SharedWeight(ids, codebook)
    for stride, padding in ((1, 0), (2, 1)):
        assert_same(subbit.conv2d(x, weight, None, stride, padding), subbit.conv2d(x, ids, codebook, stride, padding))


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    x, codebook, ids = normal(rng, 5, 6, 3, 4).T[::2], patterns(rng, 8)[::2], rng.integers(0, 4, (6, 7)).T[:, ::2]
    expected = subbit.conv2d(x.copy(), ids.copy(), codebook.copy(), 1, 1)  # (2, 3, 6, 5) with (7, 3)
    assert_same(subbit.conv2d(x, ids, codebook, 1, 1), expected)
    assert_same(subbit.conv2d(x, ids.astype(np.uint8), np.float32(codebook), 1, 1), expected)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert_same(subbit.conv2d(fixed, ids, codebook, 1, 1), expected)
    assert_same(subbit.pack_ids(ids, 5), subbit.pack_ids(ids.copy(), 5))


X, IDS, BOOK = np.ones((1, 2, 5, 5), np.float32), np.array([[0, 1], [1, 0]]), np.ones((2, 3, 3))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: subbit.pack_ids(np.array([4]), 2), "ids holds 4; its entries lie in 0 ... 3"),
        (lambda: subbit.pack_ids(np.array([-1]), 2), "ids holds -1; its entries lie in 0 ... 3"),
        (lambda: subbit.pack_ids(np.array([1.0]), 2), "float64; whole numbers are expected"),
        (lambda: subbit.pack_ids(IDS, 0), "bits is 0; it is a whole number of at least 1"),
        (lambda: subbit.pack_ids(IDS, 10), "bits is 10; .* 1 to 9 are possible"),
        (lambda: subbit.unpack_ids(np.zeros(2, np.uint8), 5, (2, 2)), "bytes is 2, .* 4 numbers of 5 bits need is 3"),
        (lambda: subbit.unpack_ids(np.zeros(3, np.int64), 5, (2, 2)), "int64; uint8 is expected"),
        (lambda: subbit.conv2d(np.float64(X), IDS, BOOK), "x is float64; float32 is expected: give x.astype"),
        (lambda: subbit.conv2d(X[0], IDS, BOOK), re.escape("x has shape (2, 5, 5)")),
        (lambda: subbit.conv2d(X[:, :1], IDS, BOOK), "channels of x is 1, .* is 2"),
        (lambda: subbit.conv2d(X, IDS + 1, BOOK), "ids holds 2; its entries lie in 0 ... 1"),
        (lambda: subbit.conv2d(X, IDS - 1, BOOK), "ids holds -1; its entries lie in 0 ... 1"),
        (lambda: subbit.conv2d(X, np.float64(IDS), BOOK), "ids is float64; whole numbers are expected"),
        (lambda: subbit.conv2d(X, IDS[0], BOOK), re.escape("ids has shape (2,)")),
        (lambda: subbit.conv2d(X, IDS, 2 * BOOK), r"codebook holds 2.0; its entries are \+1 or -1"),
        (lambda: subbit.conv2d(X, IDS, BOOK[0]), re.escape("codebook has shape (3, 3)")),
        (lambda: subbit.conv2d(X, IDS, np.ones((2, 3, 2))), re.escape("codebook has shape (2, 3, 2)")),
        (
            lambda: subbit.conv2d(X, IDS, np.ones((513, 3, 3))),
            re.escape("codebook has shape (513, 3, 3); it is (n, 3, 3) with n from 1 to 512"),
        ),
        (lambda: subbit.conv2d(X, IDS, np.ones((0, 3, 3))), re.escape("codebook has shape (0, 3, 3)")),
        (lambda: subbit.conv2d(X, IDS), "give ids and a codebook, or a SharedWeight and none"),
        (lambda: subbit.conv2d(X, subbit.SharedWeight(IDS, BOOK), BOOK), "give ids and a codebook, or a SharedWeight and none"),
        (lambda: subbit.conv2d(X, IDS, BOOK, 0), "stride is 0; it is a whole number of at least 1"),
        (lambda: subbit.conv2d(X, IDS, BOOK, 1, -1), "padding is -1; it is a whole number of at least 0"),
        (
            lambda: subbit.conv2d(X[:, :, :2], IDS, BOOK),
            "the kernel is 3 long.* the padded input 2; padding must be at least 1",
        ),
        (lambda: subbit.conv2d(X, IDS, BOOK, threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: subbit.conv2d(X[:0], IDS, BOOK, threads=0), "threads is 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
