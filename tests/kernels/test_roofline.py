"""The roofline: the larger of two least times."""

import numpy as np
import pytest
from papernets_kernels import roofline
from papernets_kernels.roofline import Roofline


@pytest.mark.parametrize(("macs", "moved", "seconds"), [(100, 0, 10), (0, 100, 20), (200, 100, 20), (201, 100, 20.1)])
def test_the_larger_time_counts(macs, moved, seconds):
    assert Roofline(macs=10.0, bytes=5.0).seconds(macs, moved) == pytest.approx(seconds)


def test_the_triad_adds_what_it_says():
    b, c = np.arange(13, dtype=np.float32), np.arange(13, dtype=np.float32)[::-1].copy()
    a = np.full(13, np.nan, np.float32)
    roofline._triad(a, b, c)
    assert a.tolist() == [i + 3.0 * (12 - i) for i in range(13)]


def test_a_measurement_gives_rates():
    found = roofline.measure(size=64, megabytes=1, repeats=1)
    assert np.isfinite([found.macs, found.bytes]).all() and found.macs > 0 and found.bytes > 0


@pytest.mark.parametrize("options", [dict(size=15), dict(megabytes=0), dict(repeats=0)])
def test_sizes_that_measure_nothing_are_refused(options):
    with pytest.raises(ValueError, match="the smallest are 16, 1 and 1"):
        roofline.measure(**options)
