"""How a network that detects objects, or labels every pixel, is judged during a run."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from papernets.measure import evaluating, mean_average_precision

if TYPE_CHECKING:  # importing it takes seconds
    from lightning_fabric import Fabric


def _gathered(rows: list, fabric: "Fabric") -> list:
    """The rows of all processes, one process after the other."""
    if fabric.world_size == 1:
        return rows
    parts = [None] * fabric.world_size
    torch.distributed.all_gather_object(parts, rows)
    return [row for part in parts for row in part]


def detection_score(model: nn.Module, batches: Iterable, fabric: "Fabric", *, classes: int) -> float:
    """The mean average precision, at an overlap of 0.5, of ``model``, which gives boxes, labels and scores in evaluation."""
    rows = []
    with evaluating(model):
        for images, truth in batches:
            for found, wanted in zip(model(images), truth):
                rows.append([{key: value.cpu() for key, value in one.items()} for one in (found, wanted)])
    rows = _gathered(rows, fabric)
    return mean_average_precision([found for found, _ in rows], [wanted for _, wanted in rows], classes)


def segmentation_score(model: nn.Module, batches: Iterable, fabric: "Fabric", *, classes: int, void: int = 255) -> float:
    """The mean intersection over union of ``model``, which gives (B, classes, h, w), counted over all pixels of all images.

    What lies in an image's ``window`` is brought to the size of its ``mask`` before the most likely class is taken. Pixels of
    class ``void`` do not count, and neither does a class that is nowhere, found or true.
    """
    from torchmetrics.classification import MulticlassJaccardIndex  # here, since no chapter should wait for it
    score = MulticlassJaccardIndex(classes, ignore_index=void).to(fabric.device)
    with evaluating(model):
        for images, truth in batches:
            for outputs, wanted in zip(model(images).softmax(1), truth):
                top, bottom, left, right = wanted["window"]
                mask = wanted["mask"].to(outputs.device)
                part = F.interpolate(outputs[None, :, top:bottom, left:right], mask.shape, mode="bilinear", align_corners=False)
                score.update(part.argmax(1), mask[None])
    return float(score.compute())
