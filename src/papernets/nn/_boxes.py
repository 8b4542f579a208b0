"""Boxes (x1, y1, x2, y2) in pixels: how much they overlap, how one is described from another, which of many to keep."""

import functools
import math

import numpy as np
import torch

#: A size is multiplied by at most this: e to the power of a wild guess of an untrained network would overflow.
_MOST = math.log(1000 / 16)


def encode(boxes: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """What leads from ``boxes`` (N, 4) to ``wanted`` (N, 4): (N, 4) of the centre's shift in widths and heights, and the
    logarithms of the growth of both.

    Girshick, Donahue, Darrell, Malik, "Rich feature hierarchies for accurate object detection and semantic segmentation",
    arXiv 1311.2524, equations 6 to 9.
    """
    size, goal = boxes[:, 2:] - boxes[:, :2], wanted[:, 2:] - wanted[:, :2]
    shift = (wanted[:, :2] + wanted[:, 2:] - boxes[:, :2] - boxes[:, 2:]) / 2
    size = size.clamp(min=torch.finfo(size.dtype).eps)
    return torch.cat([shift / size, (goal / size).log()], 1)


def decode(boxes: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
    """The inverse of ``encode``: the boxes (…, 4) to which ``steps`` (…, 4) lead from ``boxes`` (…, 4)."""
    size = boxes[..., 2:] - boxes[..., :2]
    middle = (boxes[..., :2] + boxes[..., 2:]) / 2 + steps[..., :2] * size
    half = steps[..., 2:].clamp(max=_MOST).exp() * size / 2
    return torch.cat([middle - half, middle + half], -1)


def inside(boxes: torch.Tensor, height: float, width: float) -> torch.Tensor:
    """``boxes`` cut off at the border of an image."""
    limits = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp(min=0), limits)


def suppress(boxes: torch.Tensor, scores: torch.Tensor, limit: float, most: int | None = None) -> torch.Tensor:
    """Non-maximum suppression: indices into ``boxes`` (N, 4) of those to keep, the highest of ``scores`` (N,) first.

    A box is dropped if it overlaps one that is kept by more than ``limit``; after ``most`` kept ones the search ends.
    """
    if not 0 <= limit <= 1:
        raise ValueError(f"limit {limit} is outside [0, 1]; the nearest is {0 if limit < 0 else 1}")
    order = scores.argsort(descending=True, stable=True)
    kept = _compiled()(boxes[order].detach().cpu().double().numpy(), limit, len(boxes) if most is None else most)
    return order[torch.from_numpy(kept).to(order.device)]


@functools.cache
def _compiled():
    """``_suppress``, compiled when it is first used: importing the compiler takes a third of a second."""
    import numba
    return numba.njit(nogil=True)(_suppress)


def _suppress(boxes: np.ndarray, limit: float, most: int) -> np.ndarray:
    kept = np.empty(min(len(boxes), most), np.int64)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    count = 0
    for i in range(len(boxes)):
        if count == most:
            break
        free = True
        for at in range(count):
            j = kept[at]
            width = min(boxes[i, 2], boxes[j, 2]) - max(boxes[i, 0], boxes[j, 0])
            height = min(boxes[i, 3], boxes[j, 3]) - max(boxes[i, 1], boxes[j, 1])
            if width > 0 and height > 0:
                common = width * height
                if common > limit * (areas[i] + areas[j] - common):
                    free = False
                    break
        if free:
            kept[count] = i
            count += 1
    return kept[:count]
