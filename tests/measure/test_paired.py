"""The paired difference: hand cases, a slow oracle of the interval, its coverage, and the refusals."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from papernets.measure import paired_difference


def slow_interval(differences, confidence=0.95, resamples=20_000):
    """The BCa interval step by step (Efron, "Better Bootstrap Confidence Intervals", 1987)."""
    d = np.asarray(differences, float)
    rng = np.random.default_rng(7)
    means = np.array([d[rng.integers(0, len(d), len(d))].mean() for _ in range(resamples)])
    bias = norm.ppf(((means < d.mean()).mean() + (means <= d.mean()).mean()) / 2)
    without = np.array([np.delete(d, i).mean() for i in range(len(d))])
    gap = without.mean() - without
    skew = (gap**3).sum() / (6 * (gap**2).sum() ** 1.5)
    ends = []
    for share in ((1 - confidence) / 2, (1 + confidence) / 2):
        z = bias + norm.ppf(share)
        ends.append(np.quantile(means, norm.cdf(bias + z / (1 - skew * z))))
    return ends


def test_two_pairs_by_hand():
    """Resampled means of {0, 1} are 0, ½, ½, 1: the interval spans them all."""
    found = paired_difference([3, 5], [3, 4])
    assert (found.mean, found.low, found.high, found.pairs) == (0.5, 0, 1, 2)


def test_mean_is_ours_minus_baseline():
    found = paired_difference([0.9, 0.8, 0.7], [0.5, 0.6, 0.1])
    assert found.mean == pytest.approx((0.4 + 0.2 + 0.6) / 3)
    assert found.low < found.mean < found.high
    assert found.pairs == 3


@pytest.mark.parametrize("confidence", [0.8, 0.95])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
def test_slow_oracle(kind, confidence):
    rng = np.random.default_rng(3)
    d = rng.normal(2, 1, 11) if kind == "normal" else rng.exponential(1, 13)
    found = paired_difference(d, np.zeros_like(d), confidence)
    low, high = slow_interval(d, confidence)
    tolerance = 0.04 * (high - low)  # both are Monte Carlo
    assert found.low == pytest.approx(low, abs=tolerance)
    assert found.high == pytest.approx(high, abs=tolerance)


def test_only_differences_matter():
    rng = np.random.default_rng(0)
    ours, baseline, level = rng.integers(0, 100, (3, 11))  # whole numbers: their sums are exact
    assert paired_difference(ours + level, baseline + level) == paired_difference(ours, baseline)


def test_swapped_sides_mirror_the_interval():
    rng = np.random.default_rng(1)
    ours, baseline = rng.normal(size=11), rng.normal(size=11)
    found, swapped = paired_difference(ours, baseline), paired_difference(baseline, ours)
    assert swapped.mean == -found.mean
    assert (swapped.low, swapped.high) == pytest.approx((-found.high, -found.low), abs=0.02)


def test_units_scale_the_interval():
    rng = np.random.default_rng(2)
    ours = rng.normal(size=11)
    share, percent = paired_difference(ours, 0 * ours), paired_difference(100 * ours, 0 * ours)
    assert (percent.low, percent.high) == pytest.approx((100 * share.low, 100 * share.high))


def test_more_confidence_is_wider():
    d = np.random.default_rng(4).normal(size=11)
    narrow, wide = paired_difference(d, 0 * d, 0.5), paired_difference(d, 0 * d, 0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_pairing_removes_what_the_pairs_share():
    """Seeds far apart and a small steady gain: paired, the gain is certain; shuffled, it is not."""
    rng = np.random.default_rng(5)
    level = rng.normal(0, 10, 11)
    ours = level + 1 + rng.normal(0, 0.1, 11)
    assert paired_difference(ours, level).low > 0.9
    assert paired_difference(ours, level[::-1]).low < 0


def test_identical_scores_differ_by_nothing():
    found = paired_difference([0.1, 0.7, 0.3], [0.1, 0.7, 0.3])
    assert (found.mean, found.low, found.high, found.pairs) == (0, 0, 0, 3)


def test_a_constant_difference_has_no_width():
    baseline = np.array([0.1, 0.7, 0.3, 0.9, 0.2])
    found = paired_difference(baseline + 0.1, baseline)  # equal up to rounding
    assert found.low == found.high == found.mean == pytest.approx(0.1)
    assert all(math.isfinite(value) for value in (found.mean, found.low, found.high))


def test_one_odd_pair_still_gives_an_interval():
    found = paired_difference([0] * 10 + [1], [0] * 11)
    assert found.low <= found.mean == pytest.approx(1 / 11)
    assert found.high > found.mean


def test_deterministic():
    rng = np.random.default_rng(6)
    ours, baseline = rng.normal(size=11), rng.normal(size=11)
    first = paired_difference(ours, baseline)
    np.random.seed(1)  # noqa: NPY002  the global generator is not drawn from
    assert paired_difference(ours, baseline) == first


def test_coverage():
    """Of many 90 % intervals from skewed and normal samples, about nine in ten hold the true mean."""
    rng = np.random.default_rng(0)
    trials, held = 300, 0
    for trial in range(trials):
        d = rng.normal(0.3, 1, 23) if trial % 2 else rng.exponential(0.3, 23)
        found = paired_difference(d, np.zeros(23), 0.9, resamples=499)
        held += found.low <= 0.3 <= found.high
    assert 0.82 < held / trials < 0.96


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_failed_run_is_refused(wrong):
    for ours, baseline in (([0.1, wrong, 0.3], [0.1, 0.2, 0.3]), ([0.1, 0.2, 0.3], [0.1, 0.2, wrong])):
        with pytest.raises(ValueError, match="a score is not finite; a run that failed must not be averaged away"):
            paired_difference(ours, baseline)


def test_unequal_numbers_are_refused():
    with pytest.raises(ValueError, match=r"equal number; got \(3,\) and \(2,\)"):
        paired_difference([1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match=r"equal number; got \(1, 2\) and \(1, 2\)"):  # a table is no list of scores
        paired_difference([[1, 2]], [[1, 2]])


@pytest.mark.parametrize("scores", [[], [0.5]])
def test_too_few_pairs_are_refused(scores):
    with pytest.raises(ValueError, match=f"at least 2 pairs; got {len(scores)}"):
        paired_difference(scores, scores)
