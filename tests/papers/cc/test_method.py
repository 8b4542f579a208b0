"""CC: units, what they cost, the metric, and what a layer is rebuilt from."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.cc.sample import normal

from papernets.papers.cc import (
    Layer,
    break_even,
    cost,
    directions,
    information_loss,
    method,
    ranks,
    rebuild,
    score,
    search,
)
from papernets.papers.cc.experiment import slow_forward

pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def test_the_cost_of_a_layer():
    assert cost(64, 64, 9) == 36864 and cost(64, 64, 9, p=16) == 64 * 48 * 9
    assert cost(64, 64, 9, p=16, z=24) == 48 * 9 * 40 + 40 * 64
    assert cost(64, 64, 9, z=1) > cost(64, 64, 9)  # the first removals cost
    assert [break_even(64, 64, 9), break_even(64, 256, 1), break_even(512, 512, 9)] == [57.6, 51.2, 460.8]
    R = ranks(64, 64, 9)
    assert cost(64, 64, 9, z=R - 58) > 36864 > cost(64, 64, 9, z=R - 57)
    assert ranks(7, 2, 3) == 6 and ranks(5, 2, 9) == 5


def test_the_first_example_by_hand():
    """All four units of a diagonal weight are alike."""
    found = score(matrix([2, 0], [0, 1]), matrix([0.5, 0.1], [0.2, 1]))
    for values, expected in ((found.channels, 1), (found.ranks, 1), (found.channels_forward, 5 / 3),
                             (found.ranks_forward, 5 / 3), (found.metric(0.9)[0], 2.5), (found.metric(0.9)[1], 2.5)):
        assert values.tolist() == pytest.approx([expected] * 2)


def test_the_second_example_by_hand():
    channels, by_rank = score(matrix([2, 1], [1, 2]), torch.ones(2, 2, 1, 1)).metric(0.9)
    assert channels.tolist() == pytest.approx([12.5, 12.5]) and by_rank.tolist() == pytest.approx([17.7, 7.3])
    step = search(matrix([2, 1], [1, 2]), torch.ones(2, 2, 1, 1), 0.4, step=0).steps[0]
    assert (step.kind, step.index) == ("rank", 1)  # the smaller singular value goes first


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_the_closed_forward_term_is_the_mean_over_what_is_left(Co, Ci, k, seed):
    W, G = normal(Co, Ci, k, k, seed=seed), normal(Co, Ci, k, k, seed=seed + 1000)
    if Ci + ranks(Co, Ci, k * k) < 3:
        return
    found = score(W, G)
    for closed, slow in zip((found.channels_forward, found.ranks_forward), slow_forward(W, G)):
        torch.testing.assert_close(closed, slow, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (9, 4, 1, 1), (4, 6, 1, 1)])
def test_in_the_middle_of_a_search_the_metric_is_still_the_definition(shape):
    """Two channels and a rank are gone: the brute force goes over the units that are left."""
    W, G = normal(*shape), normal(*shape, seed=1)
    Co, Ci = shape[:2]
    now = W.clone()
    now[:, [0, 2]] = 0
    P, Q = directions(now.flatten(1))
    left = min(ranks(Co, Ci, shape[2] ** 2) - 1, Q.shape[0] - 1)
    now = (P[:, :left] @ Q[:left]).view(shape)
    alive = torch.ones(Ci, dtype=torch.bool)
    alive[[0, 2]] = False
    found = score(W, G, now, alive, left)

    def without(K, kind, index):
        K = K.clone()
        if kind == "channel":
            K[:, index] = 0
            return K
        P, Q = directions(K.flatten(1))
        return K - (P[:, index:index + 1] @ Q[index:index + 1]).view(shape)

    every = [("channel", c) for c in alive.nonzero()[:, 0].tolist()]
    n = len(every) + left
    for kind, index in [*every, *(("rank", r) for r in range(left))]:
        K = without(now, kind, index)
        losses = [information_loss(W, G, without(K, *other)) for other in every if other != (kind, index)]
        losses += [information_loss(W, G, without(K, "rank", r)) for r in range(left - (kind == "rank"))]
        B, Fwd = (found.channels, found.channels_forward) if kind == "channel" else (found.ranks, found.ranks_forward)
        assert len(losses) == n - 1
        assert float(B[index]) == pytest.approx(information_loss(W, G, K), rel=1e-9)
        assert float(Fwd[index]) == pytest.approx(np.mean(losses), rel=1e-6)
    assert torch.isinf(found.channels[[0, 2]]).all()


@pytest.mark.parametrize("units", ["channels", "ranks"])
def test_one_kind_alone_averages_over_its_own_kind(units):
    W, G = normal(5, 4, 3, 3), normal(5, 4, 3, 3, seed=1)
    found = score(W, G, units=units)
    if units == "channels":
        assert len(found.ranks) == 0
        for c in range(4):
            K = W.clone()
            K[:, c] = 0
            losses = []
            for other in set(range(4)) - {c}:
                one = K.clone()
                one[:, other] = 0
                losses.append(information_loss(W, G, one))
            assert float(found.channels_forward[c]) == pytest.approx(np.mean(losses))
    else:
        U, S, Vt = torch.linalg.svd(W.flatten(1), full_matrices=False)
        for r in range(5):
            losses = [information_loss(W, G, (U * (S * torch.tensor([i not in (r, other) for i in range(5)]))
                                              @ Vt).view_as(W)) for other in set(range(5)) - {r}]
            assert float(found.ranks_forward[r]) == pytest.approx(np.mean(losses))


def test_many_candidates_are_made_in_parts():
    W, G = normal(6, 5, 3, 3), normal(6, 5, 3, 3, seed=1)
    flat, G2 = W.flatten(1), G.flatten(1).square()
    whole, parts = (method._squares(flat, G2, torch.arange(5), 9, budget) for budget in (1 << 24, 1))
    torch.testing.assert_close(whole, parts)


def test_full_rank_is_the_layer_itself():
    W = normal(6, 4, 3, 3)
    first, second = rebuild(W, Layer(range(4), 6))
    assert first.shape == (6, 4, 3, 3) and second.shape == (6, 6, 1, 1)
    torch.testing.assert_close((second[:, :, 0, 0] @ first.flatten(1)).view_as(W), W, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(first.flatten(1).norm(dim=1), second[:, :, 0, 0].norm(dim=0))  # both take a root of S


@pytest.mark.parametrize(("call", "message"), [
    (lambda: cost(4, 3, 9, p=4), "p = 4 channels of 3 and z = 0 ranks of 4 cannot be removed"),
    (lambda: score(torch.zeros(3, 3), torch.zeros(3, 3)), r"the weight has shape \(3, 3\); it is \(Co, Ci, k, k\)"),
    (lambda: score(torch.zeros(3, 3, 1, 1), torch.zeros(3, 2, 1, 1)), r"the gradient has shape \(3, 2, 1, 1\), and"),
    (lambda: score(torch.zeros(2, 2, 1, 1), torch.full((2, 2, 1, 1), math.inf)),
     "the gradient holds a value that is not finite"),
    (lambda: score(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), units="filters"),
     "units is 'filters'; choose from joint, channels, ranks"),
    (lambda: Layer(()), "the kept channels must be distinct, from 0 on, and at least one"),
    (lambda: Layer((1, 1)), "the kept channels must be distinct"),
    (lambda: Layer((0,), 0), "the rank is 0; it is a whole number of at least 1"),
    (lambda: rebuild(torch.zeros(2, 2, 1, 1), Layer((2,))), "channel 2 is kept, and the layer has 2")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
