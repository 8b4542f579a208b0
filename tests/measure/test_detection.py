"""Overlap and average precision: by hand, against a slow loop, and what may not count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from papernets.measure import average_precision, mean_average_precision, overlaps


def image(boxes=(), labels=(), **more):
    return {"boxes": torch.tensor(boxes, dtype=torch.float).view(-1, 4), "labels": torch.tensor(labels, dtype=torch.long),
            **{key: torch.tensor(value) for key, value in more.items()}}


def test_overlaps_by_hand():
    a = torch.tensor([[0.0, 0, 4, 2], [10, 10, 12, 12], [3, 3, 3, 9]])
    b = torch.tensor([[2.0, 0, 6, 2], [0, 0, 4, 2], [3, 3, 3, 9]])
    torch.testing.assert_close(overlaps(a, b), torch.tensor([[4 / 12, 1, 0], [0, 0, 0], [0, 0, 0]]))


def test_average_precision_by_hand():
    """Right, wrong, right, wrong of 3 objects: precision 1 up to recall 1/3, 2/3 up to 2/3, then nothing."""
    scores, right = np.array([0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, False])
    assert average_precision(scores, right, 3) == pytest.approx(1 / 3 + 2 / 9)
    assert average_precision(scores, right, 3, points=11) == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)
    assert average_precision(scores[::-1], right[::-1], 3) == average_precision(scores, right, 3)


def test_average_precision_at_its_ends():
    assert average_precision(np.array([]), np.array([]), 5) == 0
    assert average_precision(np.array([0.5]), np.array([True]), 1) == 1
    assert average_precision(np.array([0.5]), np.array([True]), 1, points=11) == 1
    assert math.isnan(average_precision(np.array([0.5]), np.array([False]), 0))


@settings(max_examples=80, deadline=None)
@given(right=st.lists(st.booleans(), max_size=20), missed=st.integers(0, 4))
def test_average_precision_against_its_definition(right, missed):
    """The area is a sum over the objects that were found: each adds 1/objects times the best precision from there on."""
    objects = sum(right) + missed
    if not objects:
        return
    scores = np.linspace(1, 0, len(right), endpoint=False)
    precision = [sum(right[:k + 1]) / (k + 1) for k in range(len(right))]
    slow = sum(max(precision[k:]) for k in range(len(right)) if right[k]) / objects
    assert average_precision(scores, np.array(right, bool), objects) == pytest.approx(slow)


def test_the_same_object_counts_once():
    truth = [image([[0, 0, 10, 10]], [0])]
    found = [image([[0, 0, 10, 9], [0, 0, 10, 10]], [0, 0], scores=[0.9, 0.8])]
    assert mean_average_precision(found, truth, 1) == 1  # the better-scored one is right; the double comes behind it
    truth = [image([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0])]
    found = [image([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60]], [0, 0, 0], scores=[0.9, 0.8, 0.7])]
    assert mean_average_precision(found, truth, 1) == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_a_detection_belongs_to_the_object_that_it_overlaps_most():
    """Both detections lie nearest to the first object; the second object is not found, though the overlap would do."""
    truth = [image([[0, 0, 10, 10], [0, 0, 10, 14]], [0, 0])]
    found = [image([[0, 0, 10, 10], [0, 0, 10, 11]], [0, 0], scores=[0.9, 0.8])]
    assert mean_average_precision(found, truth, 1) == pytest.approx(0.5)


def test_the_overlap_must_reach_the_threshold():
    truth, found = [image([[0, 0, 10, 10]], [0])], [image([[0, 0, 10, 5]], [0], scores=[0.9])]
    assert mean_average_precision(found, truth, 1, least=0.5) == 1
    assert mean_average_precision(found, truth, 1, least=0.51) == 0


def test_difficult_objects_count_neither_way():
    truth = [image([[0, 0, 10, 10], [50, 50, 60, 60]], [0, 0], difficult=[False, True])]
    found = [image([[50, 50, 60, 60], [0, 0, 10, 10]], [0, 0], scores=[0.9, 0.8])]
    assert mean_average_precision(found, truth, 1) == 1
    assert mean_average_precision([image()| {"scores": torch.zeros(0)}], truth, 1) == 0


def test_the_mean_is_over_classes_that_exist():
    truth = [image([[0, 0, 10, 10]], [0]), image([[0, 0, 10, 10]], [2])]
    found = [image([[0, 0, 10, 10], [0, 0, 5, 5]], [0, 1], scores=[0.9, 0.9]), image([[0, 0, 2, 2]], [2], scores=[0.4])]
    assert mean_average_precision(found, truth, 4) == 0.5  # 1 and 0; classes 1 and 3 have no object


def test_classes_are_not_mixed_and_scores_are_compared_across_images():
    truth = [image([[0, 0, 10, 10]], [0]), image([[0, 0, 10, 10]], [1])]
    swapped = [image([[0, 0, 10, 10]], [1], scores=[0.9]), image([[0, 0, 10, 10]], [0], scores=[0.9])]
    assert mean_average_precision(swapped, truth, 2) == 0
    truth = [image([[0, 0, 10, 10]], [0]), image([], [])]
    late = [image([[0, 0, 10, 10]], [0], scores=[0.3]), image([[0, 0, 10, 10]], [0], scores=[0.9])]
    assert mean_average_precision(late, truth, 1) == 0.5


def test_refusals():
    with pytest.raises(ValueError, match="detections of 1 images and objects of 2"):
        mean_average_precision([image() | {"scores": torch.zeros(0)}], [image(), image()], 1)
    with pytest.raises(ValueError, match="none of 1 images has an object that counts"):
        mean_average_precision([image() | {"scores": torch.zeros(0)}], [image()], 1)
