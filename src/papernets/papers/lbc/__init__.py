"""Learning Best Combination for Efficient N:M Sparsity (LBC)."""

from papernets.papers.lbc.layers import (
    EPOCHS, LBC, RULES, PackedConv2d, PackedLinear, SparseConv2d, SparseLinear, compact, dense, density, refresh_,
    sparse_layers, sparsifiable, sparsify_, violations)
from papernets.papers.lbc.method import (
    LIMIT, bits, code_bits, expected_density, from_groups, largest, left, masked, number, remove, rerank_, start, supports,
    to_groups, union)
