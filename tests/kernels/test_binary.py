"""Products of signs: bits by hand, and exact equality with the products of the numbers +1 and -1."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from kernel_checks import COUNTS, PAIRS, SEARCH, SEEDS, assert_same, normal
from papernets_kernels import binary, reference

pytestmark = pytest.mark.xdist_group("numba")

LENGTHS = st.sampled_from([0, 1, 9, 63, 64, 65, 127, 128, 129, 200, 577])


def signs(rng, *shape):
    return rng.choice(np.array([-1, 1], np.int8), shape)


def test_the_bits_of_five_numbers():
    x = np.array([3, -2, 0.0, -0.0, np.nan, np.inf, -np.inf], np.float32)
    assert_same(binary.pack(x), np.array([0b0101101], np.uint64))
    assert_same(binary.unpack(binary.pack(x), 7), np.array([1, -1, 1, 1, -1, 1, -1], np.int8))
    assert binary.pack(np.ones(65)).tolist() == [2**64 - 1, 1]


@SEARCH
@given(
    rows=st.tuples(st.integers(0, 3), st.integers(0, 3)),
    k=LENGTHS,
    seed=SEEDS,
    dtype=st.sampled_from([np.float16, np.float32, np.float64, np.int8, np.int64, np.uint8, bool]),
)
def test_packing_keeps_the_signs(rows, k, seed, dtype):
    x = (4 * normal(np.random.default_rng(seed), *rows, k, share=0.9)).astype(dtype)
    words = binary.pack(x)
    assert_same(words, reference.binary_pack(x))
    assert_same(binary.unpack(words, k), reference.binary_unpack(words, k))
    assert_same(binary.unpack(words, k), reference.sign(x))


def test_two_words_that_agree_in_two_places_of_four():
    x, b = np.array([[1, 1, -1, -1]]), np.array([[1, -1, 1, -1]])
    assert binary.matmul(binary.pack(x), binary.pack(b), 4).tolist() == [[0]]
    assert 4 * (0b0011 & 0b0101).bit_count() - 2 * 0b0011.bit_count() == 4 - 2 * (0b0011 ^ 0b0101).bit_count() == 0


@SEARCH
@given(m=st.integers(0, 21), n=COUNTS, k=LENGTHS, seed=SEEDS)
def test_a_product_is_that_of_the_signs(m, n, k, seed):
    rng = np.random.default_rng(seed)
    a, b = signs(rng, m, k), signs(rng, n, k)
    found = binary.matmul(binary.pack(a), binary.pack(b), k)
    assert_same(found, reference.binary_matmul(a, b))
    for threads in (2, 3):
        assert_same(binary.matmul(binary.pack(a), binary.pack(b), k, threads=threads), found)


@pytest.mark.parametrize("k", [2, 64, 130])
def test_with_half_of_the_weights_positive_ands_suffice(k):
    """The form of SiMaN: with k/2 weights +1, ``dot = 4 popcount(x and b) - 2 popcount(x)``."""
    rng = np.random.default_rng(0)
    a = binary.pack(signs(rng, 5, k))
    b = binary.pack(rng.permuted(np.tile([-1, 1], (7, k // 2)), axis=1))
    both = np.bitwise_count(a[:, None] & b).sum(2, dtype=int)
    assert (binary.matmul(a, b, k) == 4 * both - 2 * np.bitwise_count(a).sum(1, dtype=int)[:, None]).all()


def test_extremes_of_a_long_product():
    a = np.ones((1, 100_003), np.int8)
    assert binary.matmul(binary.pack(a), binary.pack(np.concatenate([a, -a])), 100_003).tolist() == [[100_003, -100_003]]


@SEARCH
@given(
    batch=st.integers(0, 2),
    outputs=st.integers(0, 19),
    channels=st.sampled_from([0, 1, 2, 3, 63, 64, 65, 130]),
    size=st.tuples(st.integers(0, 7), st.integers(0, 19)),
    kernel=st.tuples(st.integers(1, 4), st.integers(1, 3)),
    stride=PAIRS[1],
    padding=PAIRS[0],
    seed=SEEDS,
)
def test_a_convolution_is_that_of_the_signs(batch, outputs, channels, size, kernel, stride, padding, seed):
    pads = (padding, padding) if isinstance(padding, int) else padding
    assume(all(length + 2 * pad >= k for length, pad, k in zip(size, pads, kernel)))
    rng = np.random.default_rng(seed)
    x, weight = normal(rng, batch, channels, *size, share=0.9), signs(rng, outputs, channels, *kernel)
    x[rng.random(x.shape) < 0.05] = np.nan
    x[rng.random(x.shape) < 0.05] = -0.0
    found = binary.conv2d(x, weight, stride, padding)
    assert_same(found, reference.binary_conv2d(x, weight, stride, padding))
    for threads in (2, 3):
        assert_same(binary.conv2d(x, binary.pack_weight(weight), stride, padding, threads=threads), found)


def test_a_place_outside_the_image_counts_as_zero():
    x, weight = np.full((1, 1, 2, 2), 5, np.float32), np.ones((1, 1, 3, 3), np.int8)
    assert binary.conv2d(x, weight, 1, 1).tolist() == [[[[4, 4], [4, 4]]]]
    assert binary.conv2d(x, weight, 2, 3)[0, 0].tolist() == [[0, 0, 0], [0, 4, 2], [0, 2, 1]]


def test_a_packed_weight_knows_its_shape():
    weight = signs(np.random.default_rng(0), 5, 70, 3, 2)
    packed = binary.pack_weight(np.float32(weight))
    assert packed.bits.shape == (5, 3, 2, 2) and packed.channels == 70 and packed.shape == (5, 70, 3, 2)
    assert_same(np.moveaxis(binary.unpack(packed.bits, 70), -1, 1), weight)


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    x, weight = normal(rng, 7, 9, 70, 4)[::2].transpose(3, 2, 0, 1)[::2], signs(rng, 3, 3, 70, 5).transpose(3, 2, 0, 1)
    expected = binary.conv2d(x.copy(), weight.copy(), 1, 1)  # (2, 70, 4, 9) with (5, 70, 3, 3)
    assert not x.flags.c_contiguous and not weight.flags.c_contiguous
    assert_same(binary.conv2d(x, weight, 1, 1), expected)
    fixed = x.copy()
    fixed.flags.writeable = False
    assert_same(binary.conv2d(fixed, weight, 1, 1), expected)
    rows = signs(rng, 130, 8)
    assert_same(binary.pack(rows.T), binary.pack(rows.T.copy()))
    words = binary.pack(rows.T)
    spread = np.repeat(words, 2, 0)[::2]
    assert_same(binary.matmul(spread, np.asfortranarray(words), 130), binary.matmul(words, words, 130))


A, X, W = binary.pack(np.ones((2, 70))), np.ones((1, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.int8)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: binary.pack(np.ones(3, complex)), "x is complex128"),
        (lambda: binary.pack(np.array(["a"])), "real numbers"),
        (lambda: binary.pack(np.float32(1)), "at least one axis"),
        (lambda: binary.unpack(A, 129), r"number of words is 2, .* is 3"),
        (lambda: binary.unpack(A, -1), "k is -1; it is a whole number of at least 0"),
        (lambda: binary.unpack(np.int64(A), 70), "words is int64; uint64 is expected"),
        (lambda: binary.matmul(A, A, 64), "words of a_bits is 2, but .* k = 64 is 1"),
        (lambda: binary.matmul(A, A[:, :1], 70), "words of b_bits is 1"),
        (lambda: binary.matmul(A, A, 69), "a_bits has a bit set behind k = 69"),
        (lambda: binary.matmul(A >> np.uint64(1), A, 69), "b_bits has a bit set behind k = 69"),
        (lambda: binary.matmul(A, A, 70.0), "k is 70.0; it is a whole number"),
        (lambda: binary.matmul(np.int64(A), A, 70), "a_bits is int64; uint64 is expected"),
        (lambda: binary.matmul(A[0], A, 70), re.escape("a_bits has shape (2,)")),
        (lambda: binary.matmul(A, A, 70, threads=0), "threads is 0; it is a whole number of at least 1"),
        (lambda: binary.pack_weight(np.zeros((1, 1, 1, 1))), "weight holds 0.0; its entries are \\+1 or -1"),
        (lambda: binary.pack_weight(np.full((1, 1, 1, 1), np.nan)), "weight holds nan"),
        (lambda: binary.pack_weight(W[0]), re.escape("weight has shape (2, 3, 3)")),
        (lambda: binary.conv2d(X, 2 * W), "weight holds 2; its entries are"),
        (lambda: binary.conv2d(np.float64(X), W), "x is float64; float32 is expected: give x.astype"),
        (lambda: binary.conv2d(X[0], W), re.escape("x has shape (2, 5, 5)")),
        (lambda: binary.conv2d(X[:, :1], W), "channels of x is 1, .* is 2"),
        (lambda: binary.conv2d(X, W, 0), "stride is 0; it is a whole number of at least 1"),
        (lambda: binary.conv2d(X, W, 1, (0, -1)), "padding is -1; it is a whole number of at least 0"),
        (lambda: binary.conv2d(X, W, 1, [1]), re.escape("padding is [1]; it is one number, or 2")),
        (lambda: binary.conv2d(X[:, :, :, :1], W), "the kernel is 3 long.* the padded input 1; padding must be at least 1"),
        (lambda: binary.conv2d(X[:0], W, threads=0), "threads is 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
