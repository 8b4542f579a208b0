"""How the tests over all papers apply this method, and what several tests of 1×N need."""

import torch
from paper_checks import EXAMPLE, Sample
from torch import nn

from papernets.papers.one_by_n import MaskedConv2d, OneByN, compact, mask, prune_
from papernets.papers.one_by_n.experiment import ARMS
from papernets.training import row

HAND = torch.tensor([[1, -4], [3, 0.5], [-2, 1], [0.25, 2]])[:, :, None, None]


def masked(conv: nn.Conv2d, p: float = 0.5, N: int = 4) -> MaskedConv2d:
    return MaskedConv2d(conv, mask(conv.weight, p, N), torch.arange(conv.out_channels), N)


def pruned(model: nn.Module, config: OneByN) -> nn.Module:
    prune_(model, config)
    return model


def rows_of(seed: int) -> list[dict]:
    """Rows as ``compare`` gives them, with a number of its own for every arm."""
    return [row(seed, "dense", 0.9), *(row(seed, name, 0.5 + 0.01 * i + 0.001 * seed, removed, before=0.1, norm=0.6 - 0.01 * i)
                                       for removed in (0.5, 0.8, 0.9) for i, name in enumerate(ARMS))]


SAMPLE = Sample(config=OneByN, treat=pruned, compact=lambda model: compact(model, EXAMPLE))
