"""Patches of photographs: where they are cut from, equal classes, statistics, seeds.

Positions are read off photographs made for the test, whose colours say the column and the row.
"""

import numpy as np
import pytest
import torch

from papernets.data import PHOTOGRAPHS, _patches, photograph_patches, photographs

HEIGHT, WIDTH, BORDER = 37, 101, 65  # 65 % of 101, rounded down


@pytest.fixture
def ramps(monkeypatch):
    """Ten photographs, red the column, green the row, blue the photograph."""
    column, row = np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT))
    made = {name: np.stack([column, row, np.full_like(row, 20 * index)], 2).astype(np.uint8)
            for index, name in enumerate(PHOTOGRAPHS)}
    monkeypatch.setattr(_patches, "photographs", lambda: made)
    return made


def levels(images):
    """Distinct values, those closer than a tenth of a grey level counted as one."""
    values = np.unique(images.double().numpy())
    step = np.diff(values).max()
    return values[np.diff(values, prepend=values[0] - step) > step / 10]


def test_training_left_and_test_right_without_a_shared_column(ramps):
    train, test = photograph_patches(2000, 1000)
    left, right = levels(train.images[:, 0]), levels(test.images[:, 0])
    assert len(left) == BORDER  # every column left of the border is met, and none else:
    assert len(right) == WIDTH - BORDER
    assert left.max() < right.min()
    both = np.concatenate([left, right])  # with the two together, all columns in equal steps
    np.testing.assert_allclose(np.diff(both), np.diff(both).mean(), rtol=1e-3)


def test_every_row_is_met_in_both(ramps):
    for part in photograph_patches(2000, 1000):
        assert len(levels(part.images[:, 1])) == HEIGHT


def test_patches_are_whole_and_upright(ramps):
    """Column by column one step to the right, row by row one step down, over 32 pixels."""
    train, _ = photograph_patches(500, 10)
    step = np.diff(levels(train.images[:, 0])).mean()
    ramp = torch.arange(32) * step
    red, green = train.images[:, 0], train.images[:, 1]
    torch.testing.assert_close(red - red[:, :, :1], ramp.float().expand_as(red), atol=1e-3, rtol=0)
    step = np.diff(levels(green)).mean()
    ramp = (torch.arange(32) * step)[:, None]
    torch.testing.assert_close(green - green[:, :1], ramp.float().expand_as(green), atol=1e-3, rtol=0)


def test_the_label_names_the_photograph(ramps):
    for part in photograph_patches(70, 30):
        blue = part.images[:, 2]
        order = [blue[part.labels == label].unique() for label in range(10)]
        assert all(len(values) == 1 for values in order)
        assert order == sorted(order)  # blue rises with the index
        assert part.classes == PHOTOGRAPHS


def test_no_patch_of_the_real_photographs_is_in_both():
    """Patches that equal their mirror image aside: the black around the retina is the same everywhere."""
    seen, unseen = ({image.numpy().tobytes() for image in part.images if not torch.equal(image, image.flip(2))}
                    for part in photograph_patches(300, 300))
    assert not seen & unseen
    assert min(len(seen), len(unseen)) > 250


def test_equal_classes():
    train, test = photograph_patches(130, 70)
    assert torch.bincount(train.labels).tolist() == [13] * 10
    assert torch.bincount(test.labels).tolist() == [7] * 10


def test_standardised_by_the_training_patches():
    train, test = photograph_patches(300, 100)
    assert train.images.shape == (300, 3, 32, 32)
    assert test.images.shape == (100, 3, 32, 32)
    assert train.images.dtype == test.images.dtype == torch.float32
    assert train.labels.dtype == torch.int64
    torch.testing.assert_close(train.images.double().mean((0, 2, 3)), torch.zeros(3).double(), atol=1e-4, rtol=0)
    torch.testing.assert_close(train.images.double().std((0, 2, 3)), torch.ones(3).double(), atol=1e-3, rtol=0)
    assert test.images.mean().abs() > 1e-3  # not by its own


def test_the_seed_decides():
    first, again, other = (photograph_patches(50, 20, seed) for seed in (3, 3, 4))
    for part, same, different in zip(first, again, other):
        assert torch.equal(part.images, same.images)
        assert not torch.equal(part.images, different.images)
        assert torch.equal(part.labels, different.labels)  # the classes are in the same order


def test_the_photographs_are_colour_and_cannot_be_changed():
    found = photographs()
    assert tuple(found) == PHOTOGRAPHS
    assert len(set(PHOTOGRAPHS)) == 10
    for name, photo in found.items():
        assert photo.dtype == np.uint8, name
        assert photo.shape[2:] == (3,), name
        assert photo.shape[0] >= 32, name
        assert photo.shape[1] - int(photo.shape[1] * 0.65) >= 32, name
        with pytest.raises(ValueError, match="read-only"):
            photo[0, 0, 0] = 0


@pytest.mark.parametrize(("size", "nearest"), [(0, 10), (-20, 10), (5, 10), (14, 10), (16, 20), (1234, 1230),
                                               (1237, 1240)])
@pytest.mark.parametrize("which", ["train", "test"])
def test_sizes_that_do_not_divide_are_refused_with_the_nearest(which, size, nearest):
    with pytest.raises(ValueError, match=f"{which} is {size}; .* a multiple of 10, such as {nearest}$"):
        photograph_patches(**{"train": 10, "test": 10, which: size})
