"""PASCAL VOC and SBD in their published formats, made small: boxes, masks, lists, random changes, and damaged files."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from voc_files import BOX, mask_of, write_boxes, write_masks

from papernets.data import VOC_CLASSES, VOID, VOCDetection, VOCSegmentation
from papernets.training import seed_everything


@pytest.fixture
def boxes(tmp_path):
    return write_boxes(tmp_path)


# --- boxes -----------------------------------------------------------------------------------------------------------


def test_a_test_image_has_the_wanted_short_side_and_its_boxes_move_along(boxes):
    data = VOCDetection(boxes, (("2007", "trainval"), ("2007", "test")), train=False, size=100)
    assert len(data) == 2 and data.classes == VOC_CLASSES
    image, truth = data[0]
    assert image.shape == (3, 120, 100) and 0 <= image.min() and image.max() <= 1
    torch.testing.assert_close(truth["boxes"], torch.tensor([[20.0, 24, 60, 80], [4, 6, 18, 40]]))
    assert [VOC_CLASSES[kind] for kind in truth["labels"]] == ["dog", "chair"]
    assert truth["difficult"].tolist() == [False, True]
    red = image[0] - image[1] > 0.4
    rows, columns = red.nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (24, 79, 20, 59)
    wide, truth = data[1]
    assert wide.shape == (3, 100, 200)
    torch.testing.assert_close(truth["boxes"], torch.tensor([[100.0, 25, 175, 75]]))


def test_the_folder_may_be_the_devkit_itself(boxes):
    parts = (("2007", "test"),)
    assert VOCDetection(boxes / "VOCdevkit", parts, False).files == VOCDetection(boxes, parts, False).files


def test_training_moves_image_and_boxes_together(boxes):
    """Whatever is drawn, the box of the dog is where the red is; the difficult chair is left out."""
    seed_everything(0)
    data, met = VOCDetection(boxes, (("2007", "trainval"),), train=True, size=96), 0
    for _ in range(40):
        image, truth = data[0]
        assert image.shape == (3, 96, 96)
        assert len(truth["labels"]) <= 1
        for box, kind in zip(truth["boxes"].tolist(), truth["labels"].tolist()):
            assert VOC_CLASSES[kind] == "dog"
            assert 0 <= box[0] < box[2] <= 96 and 0 <= box[1] < box[3] <= 96
            colour = image.amax(0) - image.amin(0)
            rows, columns = (colour > colour.max() / 2).nonzero().T
            if len(rows) < 100:
                continue
            met += 1
            found = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            assert all(abs(float(one) - other) <= 3 for one, other in zip(found, box)), (found, box)
    assert met > 20


def test_training_images_differ_and_follow_the_seed(boxes):
    data = VOCDetection(boxes, (("2007", "trainval"),), train=True, size=64)
    seed_everything(3)
    first = [data[0][0] for _ in range(5)]
    seed_everything(3)
    second = [data[0][0] for _ in range(5)]
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert len({image.numpy().tobytes() for image in first}) == 5


def test_an_image_without_objects(boxes):
    for train in (True, False):
        _, truth = VOCDetection(boxes, (("2012", "trainval"),), train, 64)[0]
        assert truth["boxes"].shape == (0, 4) and truth["labels"].shape == truth["difficult"].shape == (0,)


def test_images_are_stacked_and_boxes_are_listed(boxes):
    data = VOCDetection(boxes, (("2007", "trainval"), ("2012", "trainval")), train=True, size=64)
    images, truth = data.collate([data[0], data[1]])
    assert images.shape == (2, 3, 64, 64) and [len(one["labels"]) for one in truth][1] == 0


@pytest.mark.parametrize(("harm", "message"), [
    (lambda kit: (kit / "VOC2007/ImageSets/Main/test.txt").unlink(), r"test.txt is not there; the folder above VOCdevkit"),
    (lambda kit: (kit / "VOC2007/ImageSets/Main/test.txt").write_text("\n"), r"test.txt is empty; unpack the data set again"),
    (lambda kit: (kit / "VOC2007/JPEGImages/000007.jpg").unlink(), r"000007.jpg is not there, but is in the list"),
    (lambda kit: (kit / "VOC2007/JPEGImages/000007.jpg").write_bytes(b"no image"), r"000007.jpg: not a readable image"),
    (lambda kit: (kit / "VOC2007/Annotations/000007.xml").unlink(), r"000007.xml is not there, but is in the list"),
    (lambda kit: (kit / "VOC2007/Annotations/000007.xml").write_text("<annotation><obj"), r"000007.xml: not a readable list"),
    (lambda kit: (kit / "VOC2007/Annotations/000007.xml").write_text(
        (kit / "VOC2007/Annotations/000007.xml").read_text().replace("tvmonitor", "unicorn")), r"000007.xml: not a readable"),
    (lambda kit: (kit / "VOC2007/Annotations/000007.xml").write_text(
        (kit / "VOC2007/Annotations/000007.xml").read_text().replace("<xmin>40</xmin>", "")), r"000007.xml: not a readable")])
def test_damaged_boxes_are_named(harm, message, boxes):
    harm(boxes / "VOCdevkit")
    with pytest.raises(ValueError, match=message):
        VOCDetection(boxes, (("2007", "test"),), train=False, size=64)[0]


# --- masks -----------------------------------------------------------------------------------------------------------

@pytest.fixture
def masks(tmp_path):
    return write_masks(tmp_path)


def names(data):
    return [path.stem for path, _ in data.files]


def test_which_images_are_for_training(masks):
    """Both lists of SBD, without what is already there and without what is for testing."""
    assert names(VOCSegmentation(masks, True)) == ["2007_000032", "2007_000039", "2008_000002", "2008_000003"]
    assert names(VOCSegmentation(masks, True, sbd=False)) == ["2007_000032", "2007_000039"]
    assert names(VOCSegmentation(masks, False)) == ["2007_000033"]


def test_a_test_image_lies_in_the_middle_and_its_mask_is_as_published(masks):
    image, truth = VOCSegmentation(masks, False, size=120)[0]
    assert image.shape == (3, 120, 120)
    assert truth["window"] == (0, 120, 10, 110)
    assert torch.equal(truth["mask"], torch.from_numpy(mask_of(50, 60, BOX, 12)).long())
    torch.testing.assert_close(image[:, :, :10], torch.full((3, 120, 10), 128 / 255))
    rows, columns = (image[0] - image[1] > 0.4).nonzero().T
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (24, 80, 10 + 20, 10 + 60)


@pytest.mark.parametrize(("index", "kind"), [(0, 1), (1, 20), (2, 5), (3, 6)])
def test_training_moves_image_and_mask_together(index, kind, masks):
    seed_everything(0)
    data, met = VOCSegmentation(masks, True, size=96), 0
    for _ in range(16):
        image, mask = data[index]
        assert image.shape == (3, 96, 96) and mask.shape == (96, 96) and mask.dtype == torch.int64
        assert set(mask.unique().tolist()) <= {0, kind, VOID}
        colour = image.amax(0) - image.amin(0)
        bright = colour > colour.max() / 2
        if (mask == kind).sum() > 600:
            met += 1
            both = (bright & (mask == kind)).sum() / (bright | (mask == kind)).sum()
            assert both > 0.75
    assert met > 4


def test_batches(masks):
    train, val = VOCSegmentation(masks, True, 64), VOCSegmentation(masks, False, 64)
    images, found = train.collate([train[0], train[1]])
    assert images.shape == (2, 3, 64, 64) and found.shape == (2, 64, 64)
    images, found = val.collate([val[0]])
    assert images.shape == (1, 3, 64, 64) and found[0]["mask"].shape == (60, 50)


@pytest.mark.parametrize(("harm", "message"), [
    (lambda root: (root / "benchmark_RELEASE/dataset/val.txt").unlink(), "val.txt is not there; the folder above VOCdevkit"),
    (lambda root: (root / "benchmark_RELEASE/dataset/cls/2008_000002.mat").unlink(), "2008_000002.mat is not there"),
    (lambda root: (root / "benchmark_RELEASE/dataset/cls/2008_000002.mat").write_bytes(b"MATLAB"),
     "2008_000002.mat: not a readable mask"),
    (lambda root: savemat(root / "benchmark_RELEASE/dataset/cls/2008_000002.mat", {"other": 1}),
     "2008_000002.mat: not a readable mask"),
    (lambda root: savemat(root / "benchmark_RELEASE/dataset/cls/2008_000002.mat",
                          {"GTcls": {"Segmentation": np.full((60, 50), 21, np.uint8)}}),
     "2008_000002.mat holds class 21; there are 20, and 255 for what does not count"),
    (lambda root: savemat(root / "benchmark_RELEASE/dataset/cls/2008_000002.mat",
                          {"GTcls": {"Segmentation": np.zeros((10, 50), np.uint8)}}),
     "2008_000002.mat has 50 by 10 pixels and its image 50 by 60")])
def test_damaged_masks_are_named(harm, message, masks):
    harm(masks)
    with pytest.raises(ValueError, match=message):
        VOCSegmentation(masks, True, 64)[2]


def test_a_mask_in_colours_is_refused(masks):
    Image.new("RGB", (50, 60)).save(masks / "VOCdevkit/VOC2012/SegmentationClass/2007_000032.png")
    with pytest.raises(ValueError, match="has mode RGB; a mask is a PNG whose palette's numbers are the classes"):
        VOCSegmentation(masks, True, 64)[0]
