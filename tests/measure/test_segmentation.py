"""Intersection over union by hand."""

import pytest
import torch

from papernets.measure import mean_iou


def test_counts_are_pooled_and_unknown_labels_do_not_count():
    found, labels = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 1, 1, 1, 2, -1])
    # class 0: 1 of 2, class 1: 2 of 3, class 2: 1 of 1; class 3 is nowhere
    assert mean_iou(found, labels, 4) == pytest.approx((1 / 2 + 2 / 3 + 1) / 3)
    assert mean_iou(labels.clamp(min=0), labels, 4) == 1.0
