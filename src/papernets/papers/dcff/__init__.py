"""Training Compact CNNs for Image Classification using Dynamic-coded Filter Fusion (DCFF)."""

from papernets.papers.dcff.method import (
    DCFF, FusedConv2d, compact, distances, fuse, fuse_, fuse_narrow_, importance, importance_of_code, kept_width, log_proxy,
    places, proxy, refresh_, select, temperature)
