"""How the tests over all papers apply this method, and what several tests of it look at."""

import torch
from paper_checks import Sample
from torch import nn

from papernets.papers.lr_winograd import LowRankWinograd, WinogradConv, compact, prune_, transform_
from papernets.training import row


def transformed(model, config):
    transform_(model, config)
    return model


SAMPLE = Sample(config=LowRankWinograd, treat=transformed, compact=compact,
                finish=lambda model, config: prune_(model, config=config))


def conv(Ci=6, Co=8, padding=1, bias=True, dtype=torch.float32):
    return nn.Conv3d(Ci, Co, 3, padding=padding, bias=bias, dtype=dtype)


def layer(mode="factor", rank=27, m=2, dtype=torch.float64, **options):
    return WinogradConv(conv(dtype=dtype, **options), LowRankWinograd(m=m, mode=mode, rank=rank))


def compared(seed):
    """Rows as of a comparison: three arms, without columns and with random ones of each."""
    rows = []
    for arm, base in (("low rank", 0.9), ("vanilla", 0.8), ("spatial", 0.85)):
        rows += [row(seed, arm, base + 0.001 * seed, 0.0), row(seed, arm, base - 0.1 + 0.002 * seed, 0.25),
                 row(seed, arm, base - 0.3, 0.5), row(seed, f"{arm}, random", base - 0.2, 0.25),
                 row(seed, f"{arm}, random", base - 0.5, 0.5)]
    return rows
