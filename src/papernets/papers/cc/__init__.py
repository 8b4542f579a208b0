"""Towards Compact CNNs via Collaborative Compression."""

from papernets.papers.cc.layers import (
    CC, Select, Shares, caps, compress, compressible, gradients, narrowed, plan, search_all, share_out, weight_of)
from papernets.papers.cc.method import (
    RULES, UNITS, Layer, Scores, allocate, break_even, check_weight, cost, curve, directions, fit_curve, information_loss,
    ranks, reachable, rebuild, restored, score)
from papernets.papers.cc.unit_search import Search, Step, search
