"""What several tests of CC look at."""

import torch

from papernets.papers.cc.claims import THREE


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def some_batches(channels=3, side=8, number=2, classes=10):
    return [(torch.randn(6, channels, side, side), torch.randint(0, classes, (6,))) for _ in range(number)]


FITS = list(zip(THREE["a"], THREE["b"]))
