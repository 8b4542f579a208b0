"""A labelled set in memory: indexing, length, and the one refusal."""

import pytest
import torch

from papernets.data import Split


def test_indexing_keeps_images_and_labels_together():
    split = Split(torch.arange(7.).view(7, 1, 1, 1), torch.arange(7) * 10, ("a",))
    assert len(split) == 7
    for index in (3, slice(1, 6, 2), [5, 0, 3]):
        images, labels = split[index]
        assert torch.equal(images.flatten() * 10, labels.flatten().float())


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match="7 images and 5 labels: the numbers must be equal"):
        Split(torch.zeros(7, 1, 1, 1), torch.zeros(5), ("a",))
