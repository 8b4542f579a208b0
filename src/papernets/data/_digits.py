"""Handwritten digits, 8×8 pixels, 1797 of them: they ship with scikit-learn."""

import gzip
from functools import cache

import numpy as np
import torch

from papernets.data._sklearn_files import sklearn_file
from papernets.data._split import Split


@cache
def _rows() -> np.ndarray:
    """(1797, 65): 64 pixels from 0 to 16 and a label."""
    with gzip.open(sklearn_file("data/digits.csv.gz")) as file:
        return np.loadtxt(file, delimiter=",")


def digits(train: int = 1200, seed: int = 0) -> tuple[Split, Split]:
    """The digits, shuffled by ``seed`` and cut into ``train`` images and the rest; pixels in [0, 1]."""
    rows = _rows()
    if not 1 <= train < len(rows):
        raise ValueError(f"train is {train}; it must be from 1 to {len(rows) - 1}, so that some are left to test")
    rows = rows[np.random.default_rng(seed).permutation(len(rows))]
    images = torch.tensor(rows[:, :-1] / 16, dtype=torch.float32).view(-1, 1, 8, 8)
    labels = torch.tensor(rows[:, -1], dtype=torch.int64)
    names = tuple(str(number) for number in range(10))
    return Split(images[:train], labels[:train], names), Split(images[train:], labels[train:], names)
