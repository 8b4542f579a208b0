"""Low-Rank Winograd Transformation for 3D Convolutional Neural Networks."""

from papernets.papers.lr_winograd.layers import (
    LowRankWinograd, PackedWinograd, Plan, WinogradConv, additions, compact, convertible, prune_, transform_, winograd,
    winograd_layers)
from papernets.papers.lr_winograd.method import (
    MODES, SCORES, check_rank, columns_gone, cubes, expand, factors, matrices, removed_at, stored_numbers)
