"""The roofline: the larger of two least times."""

import numpy as np
import pytest
from papernets_kernels import roofline, simd
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


def test_the_sums_of_the_probe_are_what_it_counts():
    lanes = roofline.ROWS * roofline.WIDTH * simd.F32
    x, y = np.ones(lanes, np.float32), np.zeros(lanes, np.float32)
    roofline._multiply_adds(7, x, y)
    assert (y == 7).all()  # ROWS * WIDTH registers, each with one multiply-add a step
    words, counts = np.zeros(16 * simd.BYTES, np.int64), np.ones(roofline.ROWS * roofline.WIDTH * simd.I64, np.int64)
    roofline._counts(7, words, counts)
    assert not counts.any()


def test_peaks_are_rates_and_bits_are_counted_faster_than_numbers_are_multiplied():
    floats, bits = roofline.fma_peak(10_000, 2), roofline.popcount_peak(10_000, 2)
    assert 1e8 < floats < 1e13 and floats < bits < 1e15
    assert 1e8 < roofline.bandwidth(2**15, 2) < 1e13


def test_a_bandwidth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="size is 4095 bytes; the smallest is 4096"):
        roofline.bandwidth(4095)
