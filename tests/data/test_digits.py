"""The digits: cut without overlap or loss, the same for the same seed."""

import pytest
import torch
from sklearn.datasets import load_digits

from papernets.data import digits


def test_shapes_and_range():
    train, test = digits()
    assert train.images.shape == (1200, 1, 8, 8)
    assert test.images.shape == (597, 1, 8, 8)
    assert train.images.dtype == torch.float32
    assert train.labels.dtype == torch.int64
    assert train.classes == test.classes == tuple("0123456789")
    assert train.images.min() == 0
    assert train.images.max() == 1


def test_every_digit_is_in_one_of_the_two_with_its_label():
    def rows(images, labels):
        return sorted((*image, label) for image, label in zip(images.tolist(), labels.tolist()))

    source = load_digits()
    train, test = digits(1009, seed=3)
    images = (torch.cat([train.images, test.images]) * 16).flatten(1).int()
    labels = torch.cat([train.labels, test.labels])
    assert rows(images, labels) == rows(torch.tensor(source.data).int(), torch.tensor(source.target))


def test_the_seed_decides():
    first, again, other = (digits(101, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, again.labels)
    assert not torch.equal(first.labels, other.labels)


def test_both_parts_hold_every_class():
    for part in digits(600, seed=5):
        assert len(part.labels.unique()) == 10


@pytest.mark.parametrize("train", [1, 1796])
def test_smallest_and_largest(train):
    first, second = digits(train)
    assert (len(first), len(second)) == (train, 1797 - train)


@pytest.mark.parametrize("train", [0, -1, 1797, 2000])
def test_wrong_sizes_are_refused(train):
    with pytest.raises(ValueError, match=f"train is {train}; it must be from 1 to 1796"):
        digits(train)
