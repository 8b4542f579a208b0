"""Compact Model Training by Low-Rank Projection with Energy Transfer."""

from papernets.papers.lrpet.method import (
    DAMPING, DEAD, GONE, LRPET, Silent, break_even, compact, expected_improvement, factorise, norms, project, project_, rank,
    ranks, scale, search, short_training, transfer)
