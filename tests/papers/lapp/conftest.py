"""Fixtures of several tests of LAPP."""

import numpy as np
import pytest

from papernets.papers.lapp import Progress


@pytest.fixture(scope="module")
def snapshots():
    """Two made-up trainings of three layers of 4, 8 and 8 filters, two epochs each."""
    rng, names = np.random.default_rng(0), ("features.4", "features.7", "features.10")
    made = {}
    for rho in (0.3, 0.6):
        progress = Progress(remaining=[1.0, 0.8, 0.5 * rho])
        for epoch in range(3):
            z = {name: rng.normal(size=width).tolist() for name, width in zip(names, (4, 8, 8))}
            progress.z.append(z)
            progress.thresholds.append({name: float(epoch) - 1 for name in names})
            progress.masks.append({name: [float(value > epoch - 1) for value in values] for name, values in z.items()})
        made[rho] = progress
    return made
