"""Hamming distances: by hand, and exact equality with the counted bits and the stable sort."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernel_checks import COUNTS, SEARCH, SEEDS, assert_same
from papernets_kernels import binary, hamming, reference

pytestmark = pytest.mark.xdist_group("numba")

ALL = np.uint64(2**64 - 1)


def codes(rng, *shape, bits=64):
    """Random words of which the low ``bits`` are used: with few bits many distances are equal."""
    return (
        rng.integers(0, 2**bits, shape, np.uint64, endpoint=False)
        if bits < 64
        else rng.integers(0, ALL, shape, np.uint64, True)
    )


def test_distances_by_hand():
    found = hamming.distances(np.array([0, 5], np.uint64), np.array([0, ALL, 4, 6], np.uint64))
    assert_same(found, np.array([[0, 64, 1, 2], [2, 62, 1, 2]], np.uint16))


def test_the_nearest_by_hand_with_ties_in_the_order_of_the_indices():
    distances, indices = hamming.top_k(np.array([0], np.uint64), np.array([6, 1, ALL, 2, 0, 3], np.uint64), 6)
    assert_same(distances, np.array([[0, 1, 1, 2, 2, 64]], np.uint16))
    assert_same(indices, np.array([[4, 1, 3, 0, 5, 2]]))


@SEARCH
@given(q=st.integers(0, 9), n=COUNTS, words=st.integers(1, 5), seed=SEEDS)
def test_distances_are_counts_of_bits(q, n, words, seed):
    rng = np.random.default_rng(seed)
    queries, stored = codes(rng, q, words), codes(rng, n, words)
    found = hamming.distances(queries, stored)
    assert_same(found, reference.hamming_distances(queries, stored))
    for threads in (2, 3):
        assert_same(hamming.distances(queries, stored, threads=threads), found)


@SEARCH
@given(
    q=st.integers(0, 9),
    n=COUNTS.filter(bool),
    words=st.integers(1, 3),
    bits=st.sampled_from([1, 4, 64]),
    seed=SEEDS,
    share=st.floats(0, 1),
)
def test_the_nearest_are_those_of_a_stable_sort(q, n, words, bits, share, seed):
    rng = np.random.default_rng(seed)
    queries, stored = codes(rng, q, words, bits=bits), codes(rng, n, words, bits=bits)
    k = 1 + int(share * (n - 1))
    distances, indices = hamming.top_k(queries, stored, k)
    expected = reference.hamming_top_k(queries, stored, k)
    assert_same(distances, expected[0])
    assert_same(indices, expected[1])
    for threads in (2, 3):
        for found, one in zip(hamming.top_k(queries, stored, k, threads=threads), (distances, indices)):
            assert_same(found, one)


@pytest.mark.parametrize("k", [1, 20, 999, 1000])
def test_a_thousand_codes_with_ties_and_duplicates(k):
    rng = np.random.default_rng(0)
    stored = codes(rng, 1000, bits=16)
    stored[500:520] = stored[3]
    queries = np.append(codes(rng, 5, bits=16), stored[3])
    distances, indices = hamming.top_k(queries, stored, k)
    expected = np.bitwise_count(queries[:, None] ^ stored).astype(np.uint16)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    assert_same(indices, order)
    assert_same(distances, np.take_along_axis(expected, order, 1))
    if k >= 20:
        assert indices[5, :20].tolist() == [3, *range(500, 519)]


@pytest.mark.parametrize(("words", "k"), [(1, 1), (1, 64), (2, 65), (1, 2500), (3, 3101)])
def test_the_parts_of_several_threads_are_joined_in_order(words, k):
    rng = np.random.default_rng(0)
    stored, queries = codes(rng, 3101, words, bits=6), codes(rng, 5, words, bits=6)
    expected = np.bitwise_count(queries[:, None] ^ stored).sum(2, dtype=np.uint16)
    order = np.argsort(expected, axis=1, kind="stable")[:, :k]
    for threads in (1, 2, 3):
        distances, indices = hamming.top_k(queries, stored, k, threads=threads)
        assert_same(indices, order)
        assert_same(distances, np.take_along_axis(expected, order, 1))
        assert_same(hamming.distances(queries, stored, threads=threads), expected)


def test_distances_follow_the_laws_of_a_metric_and_of_the_signs():
    """``d(x, y) = (r - b(x) . b(y)) / 2`` for codes of r signs."""
    stored = codes(np.random.default_rng(0), 31, 2)
    d = hamming.distances(stored, stored).astype(int)
    assert (np.diag(d) == 0).all() and (d == d.T).all() and (d[:, None] <= d[:, :, None] + d[None]).all()
    assert_same(d, (128 - binary.matmul(stored, stored, 128).astype(int)) // 2)
    flipped = stored ^ np.uint64(1 << 17)  # one bit of every code, as the sign of one column of the projection
    assert_same(hamming.distances(flipped, flipped).astype(int), d)


def test_the_largest_distance_fits():
    found = hamming.distances(np.zeros((1, 1023), np.uint64), np.full((1, 1023), ALL))
    assert_same(found, np.array([[65472]], np.uint16))


def test_agrees_with_faiss():
    faiss = pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    stored, queries = codes(rng, 500), codes(rng, 50)
    index = faiss.IndexBinaryFlat(64)
    index.add(stored[:, None].view(np.uint8))
    theirs, _ = index.search(queries[:, None].view(np.uint8), 20)
    ours, indices = hamming.top_k(queries, stored, 20)
    assert (ours == theirs).all()
    assert_same(np.take_along_axis(hamming.distances(queries, stored), indices, 1), ours)
    far, missing = index.search(queries[:, None].view(np.uint8), 501)
    assert (missing[:, 500] == -1).all() and (far[:, :500] >= 0).all()  # Faiss pads, we refuse
    with pytest.raises(ValueError, match="k is 501"):
        hamming.top_k(queries, stored, 501)


def test_a_code_of_64_bits_takes_eight_bytes_and_one_of_16_no_fewer():
    rng = np.random.default_rng(0)
    assert binary.pack(rng.standard_normal((1797, 64))).nbytes == binary.pack(rng.standard_normal((1797, 16))).nbytes == 14_376


def test_views_and_arrays_that_cannot_be_written_give_the_same():
    rng = np.random.default_rng(0)
    queries, stored = codes(rng, 3, 9)[:, ::3].T, codes(rng, 3, 140)[:, ::-2].T  # (3, 3), (70, 3)
    expected = hamming.top_k(queries.copy(), stored.copy(), 7)
    fixed = stored.copy()
    fixed.flags.writeable = False
    for given_codes in (stored, fixed):
        assert_same(hamming.distances(queries, given_codes), hamming.distances(queries.copy(), stored.copy()))
        for found, one in zip(hamming.top_k(queries, given_codes, 7), expected):
            assert_same(found, one)
    assert_same(hamming.distances(queries[:, 0], stored[:, 0]), hamming.distances(queries[:, :1], stored[:, :1]))


Q, N = codes(np.random.default_rng(0), 2, 3), codes(np.random.default_rng(1), 5, 3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: hamming.distances(np.int64(Q), N), "queries is int64; uint64 is expected"),
        (lambda: hamming.distances(Q, np.float64(N)), "codes is float64; uint64 is expected"),
        (lambda: hamming.distances(Q, N[:, :2]), "words of a query is 3, but .* a code is 2"),
        (lambda: hamming.distances(Q[:, :0], N[:, :0]), "a code has 0 words; 1 to 1023 are possible"),
        (lambda: hamming.distances(Q[None], N), re.escape("queries has shape (1, 2, 3)")),
        (lambda: hamming.distances(Q, N, threads=0), "threads is 0; it is a whole number of at least 1"),
        (
            lambda: hamming.distances(np.zeros((1, 1024), np.uint64), np.zeros((1, 1024), np.uint64)),
            "a code has 1024 words; 1 to 1023",
        ),
        (lambda: hamming.top_k(Q, N, 0), "k is 0"),
        (lambda: hamming.top_k(Q, N, 6), "k is 6, and there are 5 codes; the largest k is 5"),
        (lambda: hamming.top_k(Q, N, 2.0), "k is 2.0"),
        (lambda: hamming.top_k(Q, N[:0], 1), "k is 1"),
        (lambda: hamming.top_k(Q, N, 2, threads=-1), "threads is -1"),
        (lambda: hamming.top_k(Q[:0], N, 2, threads=0), "threads is 0"),
    ],
)
def test_refusals_name_the_value_and_the_rule(call, message):
    with pytest.raises(ValueError, match=message):
        call()
