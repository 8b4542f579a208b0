"""Compact Model Training by Low-Rank Projection with Energy Transfer."""

from papernets.papers.lrpet.method import (
    DAMPING, DEAD, GONE, LRPET, Silent, break_even, compact, factorise, norms, pair_of, project, project_, rank, ranks, scale,
    transfer)
from papernets.papers.lrpet.rank_search import expected_improvement, search, short_training
