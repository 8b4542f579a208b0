"""How the tests over all papers apply this method, and what several tests of it look at."""

import torch
from paper_checks import BATCHES, Sample

from papernets.papers.cc import CC, compress
from papernets.papers.cc.claims import THREE
from papernets.training import row

SAMPLE = Sample(config=CC, treat=lambda model, config: compress(model, BATCHES, config), options={"removed": 0.5},
                alone={"removed": 0.1})

FITS = list(zip(THREE["a"], THREE["b"]))


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_batches(channels=3, side=8, number=2, classes=10):
    return [(torch.randn(6, channels, side, side), torch.randint(0, classes, (6,))) for _ in range(number)]


def compared(seed):
    """Rows as of a comparison at two cuts, alike at both, and of the orders of removal."""
    rows = [row(seed, "dense", 0.99)]
    for cut in (0.5, 0.7):
        rows += [row(seed, name, 0.5 + 0.1 * at + 0.001 * seed, cut, tuned=0.9 + 0.01 * at, macs=0.5, estimate=30 - at,
                     distance=40.0 + at) for at, name in enumerate(("pruning", "decomposition", "joint"))]
    return rows + [row(seed, order, lost, "order") for order, lost in (("metric", 10.0 + seed), ("one step", 12.0),
                                                                      ("random", 20.0))]
