"""1xN Pattern for Pruning Convolutional Neural Networks."""

from papernets.papers.one_by_n.method import (
    PATTERNS, MaskedConv2d, OneByN, PackedConv2d, compact, decode, dense, encode, groups, kept_norm, mask, norms, order,
    prunable, prune_, smallest, stored_bytes)
