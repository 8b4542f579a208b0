"""How good detections are: overlap, average precision, and its mean over the classes, by the rules of PASCAL VOC.

Everingham, Van Gool, Williams, Winn, Zisserman, "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import torch


def area(boxes: torch.Tensor) -> torch.Tensor:
    """(…,) of boxes (…, 4), each x1, y1, x2, y2."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def overlaps(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Intersection over union of every box of ``a`` (N, 4) with every box of ``b`` (M, 4): (N, M); 0 where both are empty."""
    low, high = torch.maximum(a[:, None, :2], b[:, :2]), torch.minimum(a[:, None, 2:], b[:, 2:])  # (N, M, 2)
    common = (high - low).clamp(min=0).prod(2)
    union = area(a)[:, None] + area(b) - common
    return torch.where(union > 0, common / union, 0.0)


def average_precision(scores: np.ndarray, right: np.ndarray, objects: int, *, points: int | None = None) -> float:
    """Area under precision as a function of recall, where precision is the best at this recall or a higher one.

    ``scores`` (N,) and ``right`` (N,) are of the detections of one class in all images, ``objects`` is how many there are.
    With ``points`` = 11 the mean at recalls 0, 0.1 … 1 instead, as until 2009. Not a number if there is no object.
    """
    if not objects:
        return float("nan")
    order = np.argsort(-np.asarray(scores, float), kind="stable")
    hits = np.cumsum(np.asarray(right, bool)[order])
    recall, precision = hits / objects, hits / np.arange(1, len(hits) + 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]  # at this recall or a higher one
    if points is None:
        return float(np.sum(np.diff(recall, prepend=0.0) * best))
    wanted = np.linspace(0, 1, points)
    at = np.searchsorted(recall, wanted - 1e-12)
    return float(np.mean([best[i] if i < len(best) else 0.0 for i in at]))


def mean_average_precision(found: Iterable[Mapping[str, torch.Tensor]], truth: Iterable[Mapping[str, torch.Tensor]],
                           classes: int, *, least: float = 0.5, points: int | None = None) -> float:
    """The mean, over the classes that have an object, of the average precision; a share.

    For every image ``found`` has ``boxes`` (K, 4), ``labels`` (K,) and ``scores`` (K,), and ``truth`` has ``boxes`` (M, 4),
    ``labels`` (M,) and, if some objects are too difficult to count, ``difficult`` (M,).

    Detections are taken by falling score. Each belongs to the object of its class that it overlaps most. It is right if the
    overlap is at least ``least`` and nothing was assigned to that object before; on a difficult object it counts neither way.
    """
    found, truth = list(found), list(truth)
    if len(found) != len(truth):
        raise ValueError(f"detections of {len(found)} images and objects of {len(truth)}: the numbers must be equal")
    scores, right = ([[] for _ in range(classes)] for _ in range(2))
    objects = np.zeros(classes, int)
    for ours, theirs in zip(found, truth):
        hard = theirs.get("difficult", torch.zeros(len(theirs["labels"]))).bool().cpu()
        for kind in set(ours["labels"].tolist()) | set(theirs["labels"].tolist()):
            mine, its = (one["labels"].cpu() == kind for one in (ours, theirs))
            easy = ~hard[its]
            objects[kind] += int(easy.sum())
            order = ours["scores"].cpu()[mine].argsort(descending=True, stable=True)
            common = overlaps(ours["boxes"].cpu()[mine][order].double(), theirs["boxes"].cpu()[its].double())
            used = set()
            for score, row in zip(ours["scores"].cpu()[mine][order].tolist(), common):
                at = int(row.argmax()) if len(row) else -1
                hit = at >= 0 and float(row[at]) >= least
                if hit and not easy[at]:
                    continue
                scores[kind].append(score)
                right[kind].append(hit and at not in used)
                if hit:
                    used.add(at)
    every = [average_precision(np.array(scores[kind]), np.array(right[kind]), int(objects[kind]), points=points)
             for kind in range(classes) if objects[kind]]
    if not every:
        raise ValueError(f"none of {len(truth)} images has an object that counts; there is no precision to average")
    return float(np.mean(every))
