"""How good a labelling of pixels, voxels or points is."""

import torch


def mean_iou(found: torch.Tensor, labels: torch.Tensor, classes: int) -> float:
    """Intersection over union, the mean over the classes in ``found`` or ``labels`` (N,); labels below 0 do not count.

    Counts are pooled over all of N first.
    """
    known = labels >= 0
    found, labels = found[known], labels[known]
    table = torch.bincount(labels * classes + found, minlength=classes**2).reshape(classes, classes).double()
    both, either = table.diagonal(), table.sum(0) + table.sum(1) - table.diagonal()
    return float((both[either > 0] / either[either > 0]).mean())
