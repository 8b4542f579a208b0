"""LBC: the functions on tensors."""

import math
from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from papernets.papers.lbc import (
    LBC,
    bits,
    code_bits,
    expected_density,
    from_groups,
    largest,
    left,
    masked,
    number,
    refresh_,
    remove,
    rerank_,
    sparsify_,
    start,
    supports,
    to_groups,
    union,
)

pytestmark = pytest.mark.usefixtures("one_thread")
W24 = torch.tensor([[0.5, -1, 2, 0.25]])
G24 = torch.tensor([[1, 0.5, -0.25, 2]])


@pytest.mark.parametrize(("N", "M"), [(2, 4), (1, 4), (2, 8), (4, 8), (1, 8), (1, 16), (3, 3), (3, 5)])
def test_supports(N, M):
    A = supports(N, M)
    assert A.shape == (math.comb(M, N), M) and len({tuple(row) for row in A.tolist()}) == len(A)
    assert (A.sum(1) == N).all() and (A.sum(0) == math.comb(M - 1, N - 1)).all()
    assert [tuple(torch.nonzero(row).flatten().tolist()) for row in A] == list(combinations(range(M), N))


def test_scores_of_the_start_add_up_to_one():
    assert [start(*p) for p in ((2, 4), (1, 4), (2, 8), (4, 8))] == pytest.approx([1 / 3, 1, 1 / 7, 1 / 35])
    for N, M in ((2, 4), (1, 16), (4, 8)):
        torch.testing.assert_close(torch.full((1, number(N, M)), start(N, M)) @ supports(N, M), torch.ones(1, M), atol=1e-6,
                                   rtol=0)


def test_the_published_schedule():
    removed = [6 - left(epoch, 2, 4) for epoch in range(70)]
    assert removed == [0] * 5 + [1] * 5 + [2] * 6 + [3] * 9 + [4] * 35 + [5] * 10


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(2, 4), (1, 4), (2, 8), (4, 8), (2, 2)]), st.integers(0, 9), st.integers(1, 40))
def test_the_schedule_falls_from_all_to_one(pattern, t_i, length):
    n, t_f = math.comb(pattern[1], pattern[0]), t_i + length
    found = [left(epoch, *pattern, t_i, t_f) for epoch in range(t_f + 5)]
    assert found[: t_i + 1] == [n] * (t_i + 1) and found[t_f:] == [1] * 5
    assert all(a >= b for a, b in pairwise(found)) and (n == 1 or found[t_f - 1] > 1)


def test_the_first_removals_of_long_patterns():
    """At epoch 0 all scores are equal, so nothing may go; after it, much soon does."""
    for pattern, first in (((2, 8), 1), ((1, 16), 2)):
        assert left(first - 1, *pattern) == number(*pattern) > left(first, *pattern)


def test_density_of_random_survivors():
    assert [expected_density(c, 2, 4) for c in range(1, 7)] == pytest.approx([0.5, 0.8, 0.95, 1, 1, 1])
    for N, M, c in ((2, 4, 2), (2, 5, 3), (1, 4, 3)):
        every = [supports(N, M)[list(rows)].sum(0).gt(0).float().mean() for rows in combinations(range(number(N, M)), c)]
        assert expected_density(c, N, M) == pytest.approx(float(torch.stack(every).mean()))


def test_bits_by_hand():
    assert [bits(*p) for p in ((2, 4), (1, 4), (2, 8), (4, 8))] == [36, 18, 38, 76]
    assert [code_bits(*p) for p in ((2, 4), (2, 8), (4, 8), (3, 3))] == [3, 5, 7, 0]
    assert bits(2, 4, 32) == 68


def test_a_group_is_neighbouring_inputs_of_one_output_and_tap():
    W = torch.randn(3, 10, 2, 3)
    w = to_groups(W, 5)
    assert w.shape == (3 * 2 * 3 * 2, 5)
    for o in range(3):
        for i in range(2):
            for j in range(3):
                for g in range(2):
                    assert torch.equal(w[((o * 2 + i) * 3 + j) * 2 + g], W[o, 5 * g : 5 * g + 5, i, j])
    assert torch.equal(from_groups(w, W.shape), W) and from_groups(w, W.shape).is_contiguous()
    V = torch.randn(3, 10)
    assert torch.equal(to_groups(V, 5)[3], V[1, 5:]) and torch.equal(from_groups(to_groups(V, 5), V.shape), V)


def test_the_example_by_hand():
    A, s, w = supports(2, 4), torch.full((1, 6), 1 / 3, requires_grad=True), W24.clone().requires_grad_()
    alive = torch.ones(1, 6, dtype=torch.bool)
    masked(w, s, alive, A).backward(G24)
    assert (W24 * G24).tolist() == [[0.5, -0.5, -0.5, 0.5]]
    assert s.grad.tolist() == [[0, 0, 1, -1, 0, 0]] and torch.equal(w.grad, G24)
    s = s.detach() - 0.1 * s.grad
    torch.testing.assert_close(s, torch.tensor([[1 / 3, 1 / 3, 0.7 / 3, 1.3 / 3, 1 / 3, 1 / 3]]))
    assert union(remove(s, alive, 1), A).tolist() == [[False, True, True, False]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(2, 4), (1, 3), (3, 5)]), st.integers(1, 6), st.integers(0, 99))
def test_gradients_against_loops(pattern, G, seed):
    draw = torch.Generator().manual_seed(seed)
    A = supports(*pattern)
    n, M = A.shape
    w, s = (torch.randn(G, width, generator=draw).requires_grad_() for width in (M, n))
    g, alive = torch.randn(G, M, generator=draw), torch.rand(G, n, generator=draw) < 0.4
    found = masked(w, s, alive, A)
    found.backward(g)
    places = [list(c) for c in combinations(range(M), pattern[0])]
    for group in range(G):
        held = {j for c in range(n) if alive[group, c] for j in places[c]}
        for j in range(M):
            assert found[group, j] == (w[group, j] if j in held else 0)
            assert w.grad[group, j] == (g[group, j] if j in held else 0)
        for c in range(n):
            expected = sum(float(w[group, j].detach() * g[group, j]) for j in places[c]) if alive[group, c] else 0.0
            assert float(s.grad[group, c]) == pytest.approx(expected, abs=1e-5)
            assert alive[group, c] or s.grad[group, c] == 0


def test_a_removed_support_learns_nothing():
    A, alive = supports(2, 4), torch.tensor([[True, False, False, False, False, False]])
    w, s = W24.clone().requires_grad_(), torch.zeros(1, 6, requires_grad=True)
    masked(w, s, alive, A).backward(G24)
    assert s.grad.tolist() == [[0.5 - 0.5, 0, 0, 0, 0, 0]] and w.grad.tolist() == [[1, 0.5, 0, 0]]


def test_removal_by_hand_with_ties():
    s, alive = torch.tensor([[3.0, 1, 2, 1, 1, 5]]), torch.ones(1, 6, dtype=torch.bool)
    assert remove(s, alive, 4).tolist() == [[True, False, True, False, True, True]]
    assert remove(s, remove(s, alive, 4), 1).tolist() == [[False] * 5 + [True]]
    assert torch.equal(remove(s, alive, 6), alive)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_a_removal_is_for_ever_and_leaves_the_best(G, stays, seed):
    draw, alive = torch.Generator().manual_seed(seed), torch.ones(G, 6, dtype=torch.bool)
    for stay in stays:
        s = torch.randn(G, 6, generator=draw)
        after = remove(s, alive, stay)
        assert not (after & ~alive).any()
        for row in range(G):
            was = [c for c in range(6) if alive[row, c]]
            expected = sorted(was, key=lambda c: -float(s[row, c]))[: min(stay, len(was))]
            assert {c for c in range(6) if after[row, c]} == set(expected)
        alive = after


def test_the_code_s_removal_lets_a_support_return():
    s = torch.tensor([[0.3, 0.1, 0.4, 0.2]])
    assert rerank_(s, 2).tolist() == [[True, False, True, False]]
    torch.testing.assert_close(s, torch.tensor([[0.3, 0.0, 0.4, 0.0]]))
    assert rerank_(s, 2).tolist() == [[True, False, True, False]]  # zeros count among the removed
    mixed = torch.tensor([[-0.3, 0.0, 0.4, 0.0]])  # a score below zero is not below those that are gone
    assert rerank_(mixed, 2).tolist() == [[True, False, True, False]]
    s += torch.tensor([[0, 0.5, 0, -0.5]])  # the momentum of the optimiser
    assert rerank_(s, 2).tolist() == [[False, True, True, False]]


def test_ties_of_magnitudes():
    assert largest(torch.tensor([[1.0, -1, 1, 0.5]]), 2).tolist() == [[True, True, False, False]]


def select(rerank=False, sign=1.0, epochs=16):
    """Only inputs 1 and 3 of four matter, and their weights begin as the smallest: which two of four are left?"""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, 0.1, -0.5, 0.1]]))
    sparsify_(model, LBC(t_f=12, rerank=rerank))
    optimizer, draw = torch.optim.SGD(model.parameters(), 0.05), torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        refresh_(model, epoch)
        for _ in range(10):
            x = torch.randn(32, 4, generator=draw)
            optimizer.zero_grad()
            (model(x)[:, 0] - x @ torch.tensor([0.0, 1, 0, -1])).square().mean().backward()
            model[0].scores.grad *= sign
            optimizer.step()
    return model


@pytest.mark.parametrize("rerank", [False, True])
def test_the_scores_find_the_inputs_that_matter(rerank):
    """By magnitude at the start inputs 0 and 2 would stay. With the sign of the gradient turned, they do."""
    model = select(rerank)
    assert model[0].mask.tolist() == [[False, True, False, True]]
    assert model(torch.eye(4)).flatten().tolist() == pytest.approx([0, 1, 0, -1], abs=0.02)
    assert rerank or select(sign=-1)[0].mask.tolist() == [[True, False, True, False]]


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: number(0, 4), "N is 0; it is a whole number of at least 1"),
     (lambda: number(2.0, 4), "N is 2.0; it is a whole number"),
     (lambda: number(2, True), "M is True; it is a whole number"),
     (lambda: number(5, 4), "N is 5 of M = 4; the largest N is 4"),
     (lambda: number(8, 16), r"8:16 has 12870 supports, and the limit is 2000: .* take 804 times the memory .* 4:8 takes 8.75"),
     (lambda: left(0, 2, 4, 5, 5), "t_f, where the removal ends, is 5; it is a whole number of at least 6"),
     (lambda: left(0, 2, 4, -1, 5), "t_i, where the removal starts, is -1; it is a whole number of at least 0"),
     (lambda: to_groups(torch.zeros(4, 6), 4), "M is 4, and 6 inputs are no multiple of it; the nearest M that divides is 3"),
     (lambda: to_groups(torch.zeros(4), 4), r"the weight has shape \(4,\); it is \(Co, Ci\) or"),
     (lambda: remove(torch.zeros(1, 6), torch.ones(1, 6, dtype=torch.bool), 0), "stay is 0; it is a whole number from 1 to 6"),
     (lambda: remove(torch.full((1, 6), math.nan), torch.ones(1, 6, dtype=torch.bool), 2), "s holds a value that is not"),
     (lambda: expected_density(7, 2, 4), "c is 7; it is a whole number from 1 to 6")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
