"""The figures of the chapter on $name."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch

from papernets.chapter import plots
from papernets.papers.$module.experiment import ARMS
from papernets.training import scores


def explore(removed: float = 0.5) -> go.Figure:
    """The magnitudes of a layer's weights, and how many of them a share ``removed`` leaves: the picture to begin from."""
    W = torch.randn(256, generator=torch.Generator().manual_seed(0)).abs().sort(descending=True).values
    left = round(len(W) * (1 - removed))
    series = {"left": [*W[:left].tolist(), *[None] * (len(W) - left)], "removed": [*[None] * left, *W[left:].tolist()]}
    figure = plots.lines(series, f"{left} of {len(W)} weights are left", "weight, by magnitude", "|w|", ours="left")
    return figure.update_yaxes(range=[0, 1.05 * float(W[0])])


def accuracies(rows: Sequence[dict]) -> go.Figure:
    """Mean test accuracy of every arm in this run."""
    means = {arm: [100 * float(np.mean(scores(rows, arm)))] for arm in ARMS}
    return plots.bars(["digits"], means, "Test accuracy of every arm, this run", "task", "test accuracy (%)", ours="ours")
