"""Boxes: the description of one from another and its inverse, what is cut off, and suppression against a slow loop."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papernets.measure import overlaps
from papernets.nn._boxes import decode, encode, inside, suppress


def boxes(count, seed=0, side=50.0):
    draw = torch.Generator().manual_seed(seed)
    low = torch.rand(count, 2, generator=draw) * side
    return torch.cat([low, low + 1 + torch.rand(count, 2, generator=draw) * side], 1)


def test_a_box_from_another():
    """Twice as wide, half as high, one width to the right and a quarter of a height up."""
    a, b = torch.tensor([[10.0, 20, 30, 60]]), torch.tensor([[20.0, 20, 60, 40]])
    torch.testing.assert_close(encode(a, b), torch.tensor([[1.0, -0.25, math.log(2), math.log(0.5)]]))


def test_decoding_is_the_inverse():
    a, b = boxes(37, 0), boxes(37, 1)
    torch.testing.assert_close(decode(a, encode(a, b)), b, atol=1e-4, rtol=1e-5)


def test_decoding_many_steps_of_one_box():
    a, steps = boxes(5), torch.randn(5, 3, 4) * 0.1
    found = decode(a[:, None], steps)
    assert found.shape == (5, 3, 4)
    for kind in range(3):
        torch.testing.assert_close(found[:, kind], decode(a, steps[:, kind]))


def test_a_wild_guess_stays_finite():
    assert torch.isfinite(decode(boxes(3), torch.full((3, 4), 1e4))).all()


def test_boxes_are_cut_off_at_the_border():
    found = inside(torch.tensor([[-3.0, 5, 12, 99]]), height=30, width=10)
    assert found.tolist() == [[0, 5, 10, 30]]


def slow(given_boxes, scores, limit, most):
    """Take the best, drop what overlaps it, and so on."""
    left, kept = scores.argsort(descending=True, stable=True).tolist(), []
    while left and len(kept) < most:
        best = left.pop(0)
        kept.append(best)
        left = [i for i in left if overlaps(given_boxes[i:i + 1].double(), given_boxes[best:best + 1].double()) <= limit]
    return kept


@settings(max_examples=60, deadline=None)
@given(count=st.integers(0, 23), seed=st.integers(0, 999), limit=st.sampled_from([0.0, 0.3, 0.5, 0.7, 1.0]),
       most=st.sampled_from([1, 3, 100]))
def test_suppression_against_a_slow_loop(count, seed, limit, most):
    where = boxes(count, seed, side=12)
    scores = torch.rand(count, generator=torch.Generator().manual_seed(seed))
    assert suppress(where, scores, limit, most).tolist() == slow(where, scores, limit, most)


def test_equal_boxes_leave_the_first_of_the_best():
    where = torch.tensor([[0.0, 0, 4, 4]]).repeat(5, 1)
    assert suppress(where, torch.tensor([0.1, 0.9, 0.9, 0.2, 0.3]), 0.5).tolist() == [1]


def test_a_limit_that_is_no_share_is_refused():
    with pytest.raises(ValueError, match=r"limit 1.5 is outside \[0, 1\]; the nearest is 1"):
        suppress(boxes(2), torch.rand(2), 1.5)
