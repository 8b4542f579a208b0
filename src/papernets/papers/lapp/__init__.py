"""LAPP: Layer Adaptive Progressive Pruning for Compressing CNNs from Scratch."""

from papernets.papers.lapp.compaction import compact, export, restore, slim
from papernets.papers.lapp.layers import (
    BYPASSES, LAPP, SCORES, CompactConv2d, ThresholdConv2d, attach_, bypass_of, flops_of, kept, objective, optimiser, pace,
    prunable, remaining, settle_, settled, step_thresholds_, uniform_)
from papernets.papers.lapp.learning import RULES, Progress, finish_, train
from papernets.papers.lapp.method import Flops, Term, bell, gate, kept_by, push, rho_of, runs, scores, standardise
