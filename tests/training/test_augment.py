"""Random changes of images: against slow loops, by hand, and by how often each happens."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from papernets.data import CIFAR10, Split
from papernets.training import (
    CIFAR10_POLICY,
    OPERATIONS,
    RANDOM_OPERATIONS,
    Pictures,
    RepeatedSampler,
    auto_augment,
    crop_and_flip,
    cutmix,
    erase,
    lighting,
    mixed,
    mixing,
    mixup,
    rand_augment,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# --- crops -----------------------------------------------------------------------------------------------------------


def slow_crop_and_flip(images, pad, tops, lefts, flips):
    """Pixel by pixel, from the same draws."""
    count, channels, height, width = images.shape
    made = torch.zeros_like(images)
    for b in range(count):
        for c in range(channels):
            for i in range(height):
                for j in range(width):
                    column = width - 1 - j if flips[b] else j
                    y, x = int(tops[b]) + i - pad, int(lefts[b]) + column - pad
                    if 0 <= y < height and 0 <= x < width:
                        made[b, c, i, j] = images[b, c, y, x]
    return made


@pytest.mark.parametrize("pad", [1, 2, 4])
def test_crop_and_flip_slow_oracle(pad):
    images = torch.randn(13, 3, 7, 5)
    torch.manual_seed(11)
    found = crop_and_flip(images, pad)
    torch.manual_seed(11)
    tops, lefts = torch.randint(0, 2 * pad + 1, (13, 1)), torch.randint(0, 2 * pad + 1, (13, 1))
    flips = torch.rand(13, 1) < 0.5
    assert torch.equal(found, slow_crop_and_flip(images, pad, tops, lefts, flips))


def test_every_offset_and_both_directions_are_met():
    """One white pixel in the middle of 5 × 7: it goes to every place the padding allows, as often mirrored as not."""
    torch.manual_seed(0)
    images = torch.zeros(2000, 1, 5, 7)
    images[:, 0, 2, 3] = 1
    images[:, 0, 2, 4] = 2  # to its right, or mirrored to its left
    found = crop_and_flip(images, 1)[:, 0]
    places = (found == 1).flatten(1).float().argmax(1)
    assert set(places.tolist()) == {7 * i + j for i in (1, 2, 3) for j in (2, 3, 4)}
    two = (found == 2).flatten(1).float().argmax(1)
    assert set((two - places).tolist()) == {1, -1}
    assert 850 < int((two < places).sum()) < 1150


def test_crop_and_flip_without_padding_only_mirrors():
    torch.manual_seed(0)
    images = torch.randn(17, 3, 5, 7)
    found = crop_and_flip(images, 0)
    kept = [torch.equal(a, b) for a, b in zip(found, images)]
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(found, images)]
    assert all(a != b for a, b in zip(kept, mirrored))
    assert any(kept)
    assert any(mirrored)


def test_each_image_has_its_own_draw_and_the_input_stays():
    torch.manual_seed(0)
    images = torch.randn(1, 3, 7, 5).repeat(11, 1, 1, 1)
    before = images.clone()
    found = crop_and_flip(images)
    assert len({image.numpy().tobytes() for image in found}) > 5
    assert torch.equal(images, before)
    assert found.shape == images.shape


# --- pictures --------------------------------------------------------------------------------------------------------


@pytest.fixture
def picture():
    """24 × 16 (width × height), with a bright spot right of the middle."""
    pixels = np.random.default_rng(0).integers(40, 90, (16, 24, 3)).astype(np.uint8)
    pixels[8, 14] = 255
    return Image.fromarray(pixels)


def spot(image):
    """Row and column of the brightest pixel."""
    pixels = np.asarray(image).astype(int).sum(2)
    return tuple(int(v) for v in np.unravel_index(pixels.argmax(), pixels.shape))


def test_every_operation_keeps_size_and_mode_and_does_something(picture):
    for name, operation in OPERATIONS.items():
        for sign in (1, -1):
            found = operation(picture, 9, sign)
            assert found.size == (24, 16) and found.mode == "RGB"
            assert np.asarray(found).tobytes() != np.asarray(picture).tobytes(), name


@pytest.mark.parametrize("name", sorted(OPERATIONS.keys() - {"autocontrast", "equalise", "invert", "solarise"}))
def test_strength_zero_changes_nothing(name, picture):
    assert np.asarray(OPERATIONS[name](picture, 0, 1)).tobytes() == np.asarray(picture).tobytes()


def test_what_moves_goes_as_far_as_it_should(picture):
    assert spot(picture) == (8, 14)
    far = round(150 / 331 * 24 * 4 / 9)
    assert spot(OPERATIONS["move x"](picture, 4, 1)) == (8, 14 - far)
    assert spot(OPERATIONS["move x"](picture, 4, -1)) == (8, 14 + far)
    assert spot(OPERATIONS["move y"](picture, 4, 1)) == (8 - round(150 / 331 * 16 * 4 / 9), 14)
    assert spot(OPERATIONS["shear x"](picture, 9, 1)) == (8, 14 - round(0.3 * 8.5))
    assert np.asarray(OPERATIONS["move x"](picture, 9, -1))[:, 0].tolist() == [[128] * 3] * 16  # grey comes in


def test_what_changes_colours(picture):
    pixels = np.asarray(picture).astype(int)
    assert np.array_equal(np.asarray(OPERATIONS["invert"](picture, 0, 1)), 255 - pixels)
    solarised = np.asarray(OPERATIONS["solarise"](picture, 7, 1)).astype(int)  # from 57 on
    assert np.array_equal(solarised, np.where(pixels < round(255 - 255 * 7 / 9), pixels, 255 - pixels))
    assert np.array_equal(np.asarray(OPERATIONS["posterise"](picture, 9, 1)), pixels & 0xF0)
    brighter = np.asarray(OPERATIONS["brightness"](picture, 5, 1)).astype(int)
    assert np.abs(brighter - np.clip(pixels * 1.5, 0, 255)).max() <= 1
    assert np.asarray(OPERATIONS["autocontrast"](picture, 0, 1)).min() == 0
    grey = np.asarray(OPERATIONS["colour"](picture, 9, -1)).astype(int)
    assert np.ptp(grey, axis=2).max() < np.ptp(pixels, axis=2).max() / 4


def test_the_policy_has_25_pairs_of_known_operations():
    assert len(CIFAR10_POLICY) == 25
    for pair in CIFAR10_POLICY:
        assert len(pair) == 2
        for name, chance, strength in pair:
            assert name in OPERATIONS and 0 <= chance <= 1 and strength in range(10)


def test_each_operation_happens_as_often_as_it_should(picture):
    """A policy of two pairs that leave marks: each pair half of the time, each operation with its own probability."""
    seen = Counter()

    def mark(name):
        return lambda image, strength, sign: seen.update([(name, strength, sign)]) or image

    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("invert", "rotate", "colour"):
            patch.setitem(OPERATIONS, name, mark(name))
        for _ in range(4000):
            auto_augment(picture, ((("invert", 1.0, 3), ("rotate", 0.25, 7)), (("colour", 0.5, 1), ("colour", 0.0, 2))))
    share = {key: count / 4000 for key, count in seen.items()}
    for key, expected in {("invert", 3): 0.5, ("rotate", 7): 0.125, ("colour", 1): 0.25}.items():
        both = [share.pop((*key, sign)) for sign in (1, -1)]
        assert sum(both) == pytest.approx(expected, abs=0.03)
        assert both[0] == pytest.approx(both[1], abs=0.03)
    assert share == {}


def test_what_goes_further_in_rand_augment(picture):
    pixels = np.asarray(picture).astype(int)
    assert len(RANDOM_OPERATIONS) == 15
    for strength, bits in ((0, 4), (2, 4), (3, 3), (8.1, 1), (9, 0)):
        kept = pixels >> (8 - bits) << (8 - bits)
        assert np.array_equal(np.asarray(RANDOM_OPERATIONS["posterise"](picture, strength, 1)), kept)
    lifted = np.where(pixels < 128, pixels + int(110 * 4 / 9), pixels)
    assert np.array_equal(np.asarray(RANDOM_OPERATIONS["solarise a part"](picture, 4, 1)), lifted)


def test_rand_augment_takes_each_operation_as_often_and_as_strongly_as_it_should(picture, monkeypatch):
    seen = {name: [] for name in RANDOM_OPERATIONS}
    for name in seen:
        monkeypatch.setitem(RANDOM_OPERATIONS, name, lambda image, strength, sign, name=name:
                            seen[name].append((strength, sign)) or image)
    torch.manual_seed(0)
    for _ in range(6000):
        rand_augment(picture, count=3, strength=8.0, spread=1.0, chance=0.25)
    assert [len(found) / 4500 for found in seen.values()] == pytest.approx([1 / 15] * 15, abs=0.02)
    strengths, signs = np.array([pair for found in seen.values() for pair in found]).T
    assert len(strengths) == pytest.approx(6000 * 3 * 0.25, rel=0.05)
    assert strengths.max() == 9.0 and (strengths == 9).mean() == pytest.approx(0.023, abs=0.01)  # 10 of 10 and no more
    assert np.median(strengths) == pytest.approx(7.2, abs=0.05) and strengths.std() == pytest.approx(0.9, abs=0.05)
    assert signs.mean() == pytest.approx(0, abs=0.05)
    for found in seen.values():
        found.clear()
    rand_augment(picture, count=5, chance=1.0, spread=0.0)
    assert [strength for found in seen.values() for strength, _ in found] == pytest.approx([8.1] * 5)
    assert rand_augment(picture, chance=0.0) is picture


def split(count=6):
    raw = torch.randint(0, 256, (count, 3, 5, 7), generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    return Split((raw / 255 - mean) / std, torch.arange(count), tuple("abcdef")), raw


def test_pictures_are_the_images_and_are_standardised_again():
    data, raw = split()
    seen = []
    found = Pictures(data, CIFAR10.mean, CIFAR10.std, lambda image: seen.append(np.asarray(image)) or image)
    for index in range(6):
        image, label = found[index]
        assert label == index
        torch.testing.assert_close(image, data.images[index], atol=1e-5, rtol=1e-5)
        assert np.array_equal(seen[index], raw[index].permute(1, 2, 0))


def test_pictures_are_changed():
    data, raw = split()
    image, _ = Pictures(data, CIFAR10.mean, CIFAR10.std, lambda image: OPERATIONS["invert"](image, 0, 1))[2]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (CIFAR10.mean, CIFAR10.std))
    torch.testing.assert_close(image * std + mean, 1 - raw[2] / 255, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("length", "repeats"), [(12, 3), (13, 3), (7, 1), (5, 9)])
def test_repeated_indices(length, repeats):
    torch.manual_seed(0)
    order = list(RepeatedSampler(range(length), repeats))
    assert len(order) == length == len(RepeatedSampler(range(length), repeats))
    runs = [order[at:at + repeats] for at in range(0, length, repeats)]
    assert all(len(set(run)) == 1 for run in runs)
    assert len({run[0] for run in runs}) == len(runs)
    assert order != list(RepeatedSampler(range(length), repeats)) or length < 7


# --- light -----------------------------------------------------------------------------------------------------------


def test_lighting_adds_one_colour_to_an_image():
    images = torch.zeros(4000, 3, 2, 2)
    lit = lighting(images)
    assert torch.equal(lit[..., :1, :1].expand_as(lit), lit) and not images.any()
    colours = lit[:, :, 0, 0] * torch.tensor([0.229, 0.224, 0.225])
    spread = torch.linalg.eigvalsh(torch.cov(colours.T)).sqrt().flip(0)
    assert spread.tolist() == pytest.approx([0.02175, 0.00188, 0.00045], rel=0.05)


# --- batches ---------------------------------------------------------------------------------------------------------


def test_rectangles_are_erased_in_the_wanted_share_of_images():
    torch.manual_seed(0)
    images = torch.ones(2000, 2, 16, 20)
    found = erase(images, chance=0.3)
    assert torch.equal(images, torch.ones_like(images))
    gone = (found == 0).any(1)
    hit = gone.flatten(1).any(1)
    assert hit.float().mean() == pytest.approx(0.3, abs=0.03)
    for one in gone[hit]:
        rows, columns = one.any(1).nonzero(), one.any(0).nonzero()
        h, w = int(rows.max() - rows.min() + 1), int(columns.max() - columns.min() + 1)
        assert one.sum() == h * w  # one rectangle
        assert 0.01 <= h * w / 320 <= 0.45
        assert 0.2 <= h / w <= 4.5
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(erase(images, chance=0.0), images)


def test_rectangles_of_noise():
    torch.manual_seed(0)
    images = torch.full((800, 2, 16, 20), 9.0)
    found = erase(images, chance=1.0, areas=(0.1, 0.3), noise=True)
    gone = found != 9
    shares = gone[:, 0].float().mean((1, 2))
    assert torch.equal(gone[:, 0], gone[:, 1]) and not torch.equal(found[:, 0], found[:, 1])
    assert 0.08 <= shares.min() and shares.max() <= 0.33
    assert found[gone].mean() == pytest.approx(0, abs=0.02) and found[gone].std() == pytest.approx(1, abs=0.02)


def test_mixup_by_hand():
    images = torch.tensor([0.0, 1, 2]).view(3, 1, 1, 1)
    assert mixup(images, torch.tensor([2, 0, 1]), 0.75).flatten().tolist() == [0.5, 0.75, 1.75]


def test_cutmix_takes_a_rectangle_and_tells_what_is_left():
    torch.manual_seed(0)
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 20, 30)
    order, shares = torch.tensor([1, 2, 0]), []
    for _ in range(200):
        found, share = cutmix(images, order, 0.75)
        other = found != images
        assert torch.equal(found[other], images[order][other])
        shares.append(share)
        assert other[0, 0].float().mean() == pytest.approx(1 - share, abs=1e-6)
        assert torch.equal(other[0], other[1]) and torch.equal(other[0, 0], other[0, 1])
        assert other[0, 0].sum() == other[0, 0].any(1).sum() * other[0, 0].any(0).sum()
    assert min(shares) == pytest.approx(1 - 10 * 14 / 600)  # half of each side, cut down to an even number of pixels
    assert max(shares) > 0.9  # at the border less is cut
    assert cutmix(images, order, 1.0)[1] == 1


def test_half_of_the_batches_are_mixed_in_either_way():
    torch.manual_seed(0)
    images, labels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16), torch.arange(8)
    plain = blended = cut = 0
    for _ in range(1500):
        found, others, share = mixed(images, labels)
        if share == 1 and torch.equal(others, labels):
            plain += 1
            assert torch.equal(found, images)
        elif torch.isclose(found, images).all() or not torch.isin(found, torch.arange(8.0)).all():
            blended += 1
            torch.testing.assert_close(found[:, 0, 3, 4], share * labels + (1 - share) * others)
        else:
            cut += 1
            torch.testing.assert_close(found.mean((1, 2, 3)), share * labels + (1 - share) * others)
    assert [count / 1500 for count in (plain, blended, cut)] == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


def test_every_batch_can_be_mixed_by_shares_of_a_beta_distribution():
    """Of mixup's alpha 8 the standard deviation is 1 / (2 sqrt(17)); of cutmix's alpha 1 it would be far larger."""
    torch.manual_seed(0)
    images, labels = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 16, 16), torch.arange(8)
    blended, cut = [], []
    for _ in range(1500):
        found, others, share = mixed(images, labels, chance=1.0, alpha=(8.0, 1.0))
        whole = torch.isin(found, torch.arange(8.0)).all() and not torch.equal(others, labels)
        (cut if whole else blended).append(share)
    assert len(blended) / 1500 == pytest.approx(0.5, abs=0.05)
    assert np.mean(blended) == pytest.approx(0.5, abs=0.02) and np.std(blended) == pytest.approx(1 / (2 * 17**0.5), abs=0.02)
    assert np.std(cut) > 0.15  # a rectangle beyond the border counts as far as it is inside


def test_a_step_weighs_the_loss_of_both_labels_by_their_shares(monkeypatch):
    images, labels, others = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), torch.tensor([1, 2])
    asked = []
    monkeypatch.setattr("papernets.training._augment.mixed",
                        lambda *arguments: asked.append(arguments) or (images + 1, others, 0.75))
    step = mixing(lambda outputs, wanted: (outputs * wanted).sum(), 0.3, (0.8, 1.0))
    value = step(lambda seen: seen.sum((1, 2, 3)), images, labels)  # outputs 16 and 16
    assert value == 0.75 * 16 * 1 + 0.25 * 16 * 3
    assert asked[0][2:] == (0.3, (0.8, 1.0))
