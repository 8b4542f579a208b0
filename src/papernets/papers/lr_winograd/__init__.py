"""Low-Rank Winograd Transformation for 3D Convolutional Neural Networks."""

from papernets.papers.lr_winograd.layers import (
    LowRankWinograd, PackedWinograd, Plan, WinogradConv, additions, compact, convertible, prune_, transform_, winograd)
from papernets.papers.lr_winograd.method import (
    MODES, SCORES, cubes, expand, factors, matrices, rate_at, removed, stored_numbers)
