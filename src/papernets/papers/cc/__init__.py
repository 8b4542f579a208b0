"""Towards Compact CNNs via Collaborative Compression."""

from papernets.papers.cc.layers import (
    CC, Select, Shares, clipped, compact, compress, compressible, gradients, plan, reestimate_, search_all, share_out)
from papernets.papers.cc.method import (
    RULES, UNITS, Layer, Scores, Search, Step, allocate, break_even, cost, curve, directions, fit_curve, information_loss,
    ranks, reachable, rebuild, restored, score, search)
