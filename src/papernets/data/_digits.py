"""Handwritten digits, 8×8 pixels, 1797 of them: they ship with scikit-learn."""

import numpy as np
import torch

from papernets.data._split import Split


def digits(train: int = 1200, seed: int = 0) -> tuple[Split, Split]:
    """The digits, shuffled by ``seed`` and cut into ``train`` images and the rest; pixels in [0, 1]."""
    from sklearn.datasets import load_digits  # here: importing it takes a second
    found = load_digits()
    if not 1 <= train < len(found.target):
        raise ValueError(f"train is {train}; it must be from 1 to {len(found.target) - 1}, so that some are left to test")
    order = np.random.default_rng(seed).permutation(len(found.target))
    images = torch.tensor(found.images[order] / 16, dtype=torch.float32)[:, None]  # (1797, 1, 8, 8)
    labels = torch.tensor(found.target[order], dtype=torch.int64)
    names = tuple(str(name) for name in found.target_names)
    return Split(images[:train], labels[:train], names), Split(images[train:], labels[train:], names)
