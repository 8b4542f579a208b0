"""The difference between two methods over paired runs (same seed, same data, same budget), with its uncertainty."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean of the paired differences (ours minus baseline), its confidence interval, and how many pairs gave it."""

    mean: float
    low: float
    high: float
    pairs: int


def paired_difference(ours, baseline, confidence: float = 0.95, resamples: int = 9999) -> Difference:
    """Bias-corrected, accelerated bootstrap interval of the mean paired difference. Deterministic.

    ``ours`` and ``baseline`` are scores in the same order of seeds. Needs at least two pairs; ten are a fair minimum.
    """
    ours, baseline = np.asarray(ours, float), np.asarray(baseline, float)
    if ours.shape != baseline.shape or ours.ndim != 1:
        raise ValueError(f"paired scores come in equal number; got {ours.shape} and {baseline.shape}")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; it must be between 0 and 1, such as 0.95")
    if len(ours) < 2:
        raise ValueError(f"an interval needs at least 2 pairs; got {len(ours)}")
    if not (np.isfinite(ours).all() and np.isfinite(baseline).all()):
        raise ValueError("a score is not finite; a run that failed must not be averaged away")
    difference = ours - baseline
    mean = float(difference.mean())
    if np.ptp(difference) < 1e-12 * max(1.0, np.abs(difference).max()):  # all pairs agree: nothing to resample
        return Difference(mean, mean, mean, len(ours))
    from scipy import stats
    found = stats.bootstrap((difference,), np.mean, confidence_level=confidence, n_resamples=resamples,
                            method="BCa", rng=np.random.default_rng(0)).confidence_interval
    return Difference(mean, float(found.low), float(found.high), len(ours))
