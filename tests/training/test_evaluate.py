"""How detection and segmentation are judged: by hand, in evaluation mode, and over all images at once."""

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from papernets.training import detection_score, segmentation_score

pytestmark = pytest.mark.usefixtures("one_thread")

FABRIC = Fabric(accelerator="cpu", devices=1)


class Fixed(nn.Module):
    """Gives the answers that it was made with, batch by batch, and notes in which mode it was asked."""

    def __init__(self, *answers):
        super().__init__()
        self.answers, self.modes = list(answers), []

    def forward(self, images):
        self.modes.append(self.training)
        return self.answers[len(self.modes) - 1]


def found(boxes, labels, scores):
    return {"boxes": torch.tensor(boxes).float().view(-1, 4), "labels": torch.tensor(labels), "scores": torch.tensor(scores)}


def test_detections_are_judged_over_all_batches():
    truth = [{"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])},
             {"boxes": torch.tensor([[0.0, 0, 10, 10]]), "labels": torch.tensor([0])}]
    model = Fixed([found([[0, 0, 10, 10]], [0], [0.6])], [found([[50, 50, 60, 60], [0, 0, 10, 9]], [0, 0], [0.9, 0.5])])
    batches = [(torch.zeros(1, 3, 8, 8), truth[:1]), (torch.zeros(1, 3, 8, 8), truth[1:])]
    # wrong, right, right by falling score: precision 2/3 up to recall 1
    assert detection_score(model.train(), batches, FABRIC, classes=1) == pytest.approx(2 / 3)
    assert model.modes == [False, False] and model.training


def scores(labels, classes=3):
    """Scores (1, classes, h, w) in which the given class of every pixel is the best."""
    return nn.functional.one_hot(torch.tensor(labels), classes).permute(2, 0, 1)[None].float() * 5


def test_pixels_are_judged_by_hand():
    """Truth 0 0 1 1 and one that does not count, found 0 1 1 1 0: IoU 1/2 and 2/3; class 2 is nowhere."""
    mask = torch.tensor([[0, 0, 1, 1, 255]])
    model = Fixed(scores([[0, 1, 1, 1, 0]]))
    score = segmentation_score(model, [(torch.zeros(1, 3, 1, 5), [{"mask": mask, "window": (0, 1, 0, 5)}])], FABRIC, classes=3)
    assert score == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_pixels_are_counted_over_all_images_and_not_image_by_image():
    masks = [torch.tensor([[0, 0, 0, 0]]), torch.tensor([[0, 1, 1, 1]])]
    model = Fixed(scores([[0, 0, 0, 0]]), scores([[1, 1, 1, 1]]))
    batches = [(torch.zeros(1, 3, 1, 4), [{"mask": mask, "window": (0, 1, 0, 4)}]) for mask in masks]
    assert segmentation_score(model, batches, FABRIC, classes=2) == pytest.approx((4 / 5 + 3 / 4) / 2)


def test_a_class_that_is_found_and_not_there_counts():
    model = Fixed(scores([[0, 2]]))
    batches = [(torch.zeros(1, 3, 1, 2), [{"mask": torch.tensor([[0, 0]]), "window": (0, 1, 0, 2)}])]
    assert segmentation_score(model, batches, FABRIC, classes=3) == pytest.approx((1 / 2 + 0) / 2)


def test_only_the_window_counts_and_it_is_brought_to_the_size_of_the_mask():
    """The image lies in the middle rows of a square; its mask is twice as large."""
    answers = [[2, 2, 2, 2], [0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2]]
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1]] * 4)
    model = Fixed(scores(answers))
    batches = [(torch.zeros(1, 3, 4, 4), [{"mask": mask, "window": (1, 3, 0, 4)}])]
    assert segmentation_score(model.train(), batches, FABRIC, classes=3) == 1
    assert model.modes == [False] and model.training
