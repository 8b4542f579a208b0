"""Faster R-CNN on the features of VGG-16.

Ren, He, Girshick, Sun, "Faster R-CNN: Towards Real-Time Object Detection with Region Proposal Networks", arXiv 1506.01497;
the sizes and the numbers of samples are those of github.com/bubbliiiing/faster-rcnn-pytorch, which papers on compression use.

A small network (``rpn``) says at every position of the features which of nine *anchors*, boxes of fixed size, hold an object,
and how the box must move to fit. The best of these proposals are cut out of the features, brought to 7×7, and read by two
wide linear layers, which tell the class and move the box once more.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

from papernets.measure import overlaps
from papernets.nn._boxes import decode, encode, inside, suppress
from papernets.nn._check import widths_of
from papernets.nn._vgg import VGG16_WIDTHS, plain_features

#: One position of the features is as many pixels of the image.
STRIDE = 16
#: By what a step of the second stage is divided before it is learned, so that its parts are of one size.
_SPREAD = (0.1, 0.1, 0.2, 0.2)


def anchors(rows: int, columns: int, scales: Sequence[float] = (8, 16, 32), ratios: Sequence[float] = (0.5, 1, 2),
            stride: int = STRIDE) -> torch.Tensor:
    """(rows · columns · 9, 4): at every position boxes of area (16 · scale)² and of the given ratios of height to width."""
    shapes = [(16 * scale * ratio**0.5, 16 * scale / ratio**0.5) for ratio in ratios for scale in scales]  # (h, w)
    base = torch.tensor([(-w / 2, -h / 2, w / 2, h / 2) for h, w in shapes])
    y, x = torch.meshgrid(torch.arange(rows) * stride, torch.arange(columns) * stride, indexing="ij")
    return (torch.stack([x, y, x, y], 2)[:, :, None] + base).reshape(-1, 4)


def pool(features: torch.Tensor, boxes: torch.Tensor, side: int = 7) -> torch.Tensor:
    """(N, channels, side, side): the largest value in each of ``side``² parts of every box, in units of the features.

    ``features`` (channels, h, w) are those of one image. A box covers whole positions, at least one. Girshick, "Fast R-CNN",
    arXiv 1504.08083, section 2.1.
    """
    rows, columns = features.shape[1:]
    made = []
    for x1, y1, x2, y2 in boxes.round().long().tolist():
        left, top = min(max(x1, 0), columns - 1), min(max(y1, 0), rows - 1)
        part = features[:, top:max(y2, top) + 1, left:max(x2, left) + 1]
        made.append(F.adaptive_max_pool2d(part, side))  # its parts have the borders of the paper's, rounded outwards
    return torch.stack(made) if made else features.new_zeros(0, len(features), side, side)


def _some(among: torch.Tensor, most: int) -> torch.Tensor:
    """At most ``most`` of the indices ``among``, at random."""
    return among[torch.randperm(len(among), device=among.device)[:most]] if len(among) > most else among


def anchor_targets(boxes: torch.Tensor, truth: torch.Tensor, samples: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
    """What the first stage shall say of the anchors ``boxes`` (N, 4) of an image with objects ``truth`` (M, 4).

    Labels (N,): 1 for an anchor that overlaps an object by at least 0.7, or more than any other anchor does; 0 for one that
    overlaps none by 0.3; -1 for one that does not count. At most ``samples`` count, at most half of them with label 1. The
    steps (N, 4) lead to the object that belongs to the anchor.
    """
    labels = torch.full((len(boxes),), -1, device=boxes.device)
    if not len(truth):
        labels[:] = 0
        nearest = None
    else:
        found = overlaps(boxes, truth)
        most, nearest = found.max(1)
        best = found.argmax(0)  # for every object its anchor
        nearest[best] = torch.arange(len(truth), device=boxes.device)
        labels[most < 0.3] = 0
        labels[most >= 0.7] = 1
        labels[best] = 1
    right = _some(torch.where(labels == 1)[0], samples // 2)
    wrong = _some(torch.where(labels == 0)[0], samples - len(right))
    labels[:] = -1
    labels[right], labels[wrong] = 1, 0
    return labels, torch.zeros_like(boxes) if nearest is None else encode(boxes, truth[nearest])


def proposal_targets(boxes: torch.Tensor, truth: torch.Tensor, kinds: torch.Tensor,
                     samples: int = 128) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The boxes on which the second stage learns, their classes, and the steps to their objects.

    Of the proposals ``boxes`` and of the objects ``truth`` themselves at most ``samples`` are taken, at most half of which
    overlap an object by 0.5; these get its class plus 1, and all others class 0, the background.
    """
    boxes = torch.cat([boxes, truth])
    if not len(truth):
        boxes = boxes[_some(torch.arange(len(boxes), device=boxes.device), samples)]
        return boxes, torch.zeros(len(boxes), dtype=torch.long, device=boxes.device), torch.zeros_like(boxes)
    most, nearest = overlaps(boxes, truth).max(1)
    right = _some(torch.where(most >= 0.5)[0], samples // 2)
    wrong = _some(torch.where(most < 0.5)[0], samples - len(right))
    chosen = torch.cat([right, wrong])
    classes = kinds[nearest[chosen]] + 1
    classes[len(right):] = 0
    steps = encode(boxes[chosen], truth[nearest[chosen]]) / boxes.new_tensor(_SPREAD)
    return boxes[chosen], classes, steps


class FasterRCNN(nn.Module):
    """Faster R-CNN for ``classes`` kinds of objects; images (B, 3, h, w) whose sides are at least 16.

    In training the second argument holds for every image a mapping with ``boxes`` (M, 4) and ``labels`` (M,), and the result
    is the loss. In evaluation it is a list with, for every image, a mapping with ``boxes`` (K, 4), ``labels`` (K,) and
    ``scores`` (K,): all that score above ``least``, after the suppression of those that overlap by more than ``limit``.

    ``proposals`` are the numbers of boxes that go into and come out of the suppression of proposals, (in training,
    in evaluation); ``scales`` are those of the anchors, in sixteenths of their side.
    """

    def __init__(self, classes: int = 20, widths=VGG16_WIDTHS, hidden: int = 4096, *, scales: Sequence[float] = (8, 16, 32),
                 proposals: tuple[tuple[int, int], tuple[int, int]] = ((12000, 600), (3000, 300)), least: float = 0.02,
                 limit: float = 0.5):
        super().__init__()
        widths = widths_of(widths, 13, "Faster R-CNN")
        if classes < 1:
            raise ValueError(f"classes is {classes}; the smallest is 1")
        self.classes, self.scales, self.proposals, self.least, self.limit = classes, scales, proposals, least, limit
        self.features, deep = plain_features(widths), widths[-1]
        self.rpn = nn.Conv2d(deep, deep, 3, padding=1)
        self.objects, self.steps = nn.Conv2d(deep, 3 * len(scales) * 2, 1), nn.Conv2d(deep, 3 * len(scales) * 4, 1)
        self.head = nn.Sequential(nn.Linear(deep * 49, hidden), nn.ReLU(inplace=True), nn.Linear(hidden, hidden),
                                  nn.ReLU(inplace=True))
        self.scores, self.moves = nn.Linear(hidden, classes + 1), nn.Linear(hidden, 4 * (classes + 1))
        for layer, deviation in ((self.rpn, 0.01), (self.objects, 0.01), (self.steps, 0.01), (self.scores, 0.01),
                                 (self.moves, 0.001)):
            nn.init.normal_(layer.weight, std=deviation)
            nn.init.zeros_(layer.bias)

    def forward(self, images: torch.Tensor, truth: Sequence[Mapping[str, torch.Tensor]] | None = None):
        if self.training and truth is None:
            raise ValueError("training needs the boxes and labels of every image; call eval() to detect")
        features = self.features(images)
        hidden = F.relu(self.rpn(features))
        objects, steps = (layer(hidden).permute(0, 2, 3, 1).flatten(1).unflatten(1, (-1, size))  # (B, N, size)
                          for layer, size in ((self.objects, 2), (self.steps, 4)))
        grid = anchors(*features.shape[2:], self.scales).to(images)
        found = [self._propose(grid, one.detach(), score.detach(), images.shape[2:]) for one, score in zip(steps, objects)]
        if not self.training:
            return [self._detect(feature, boxes, images.shape[2:]) for feature, boxes in zip(features, found)]
        losses = [self._loss(*one, grid, images.shape[2:]) for one in zip(features, objects, steps, found, truth)]
        return torch.stack(losses).mean()

    def _propose(self, grid, steps, objects, size) -> torch.Tensor:
        """The proposals (N, 4) of one image: inside it, at least 16 pixels wide and high, without near duplicates."""
        before, after = self.proposals[not self.training]
        boxes, scores = inside(decode(grid, steps), *size), objects.softmax(1)[:, 1]
        large = ((boxes[:, 2:] - boxes[:, :2]) >= 16).all(1)
        boxes, scores = boxes[large], scores[large]
        first = scores.topk(min(before, len(scores))).indices
        return boxes[first[suppress(boxes[first], scores[first], 0.7, after)]]

    def _read(self, features, boxes, size) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (N, classes + 1) and steps (N, classes + 1, 4) of the boxes of one image."""
        down = boxes.new_tensor([features.shape[2] / size[1], features.shape[1] / size[0]]).repeat(2)
        hidden = self.head(pool(features, boxes * down).flatten(1))
        return self.scores(hidden), self.moves(hidden).unflatten(1, (-1, 4))

    def _loss(self, features, objects, steps, found, truth, grid, size) -> torch.Tensor:
        """The four losses of one image: is there an object, and where; which one is it, and where exactly."""
        wanted, kinds = truth["boxes"].to(grid), truth["labels"].to(grid.device)
        labels, goal = anchor_targets(grid, wanted)
        boxes, classes, moves = proposal_targets(found, wanted, kinds)
        scores, moved = self._read(features, boxes, size)
        moved = moved[torch.arange(len(boxes), device=boxes.device), classes]

        def near(ours: torch.Tensor, theirs: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
            return F.smooth_l1_loss(ours[counts], theirs[counts], reduction="sum") / counts.sum().clamp(min=1)

        return (F.cross_entropy(objects, labels, ignore_index=-1) + near(steps, goal, labels > 0)
                + F.cross_entropy(scores, classes) + near(moved, moves, classes > 0))

    def _detect(self, features, boxes, size) -> dict[str, torch.Tensor]:
        scores, moves = self._read(features, boxes, size)
        scores = scores.softmax(1)
        moved = decode(boxes[:, None].expand(-1, self.classes + 1, -1), moves * boxes.new_tensor(_SPREAD))
        parts = []
        for kind in range(1, self.classes + 1):
            which = torch.where(scores[:, kind] > self.least)[0]
            kept = which[suppress(moved[which, kind], scores[which, kind], self.limit)]
            parts.append((moved[kept, kind], torch.full_like(kept, kind - 1), scores[kept, kind]))
        return dict(zip(("boxes", "labels", "scores"), map(torch.cat, zip(*parts))))
