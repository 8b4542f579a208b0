"""LAPP: the experiments."""

import pytest
from papers.lapp.samples import DIGIT

from papernets.measure import macs
from papernets.papers.lapp import experiment
from papernets.papers.lapp.experiment import compare, layer_times
from papernets.papers.lapp.networks import narrow_widths, small_net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_comparison():
    found = compare(0, images=100, epochs=2, progressive=1, targets=(0.4, 0.1))
    for rho, arms in found["arms"].items():
        assert set(arms) == {*experiment.ARMS, "narrow"} and all(0 <= arm["accuracy"] <= 1 for arm in arms.values())
        for name in experiment.ARMS:
            assert arms[name]["remaining"][-1] <= rho and len(arms[name]["remaining"]) == 3
    assert found["control"] == {rho: [{"above": False, "below": False}] * 2 for rho in (0.4, 0.1)}
    whole = macs(small_net(), DIGIT)
    assert all(0.9 * rho < macs(small_net(narrow_widths(rho)), DIGIT) / whole <= rho for rho in (0.4, 0.2, 0.1))


def test_times_come_with_their_counts():
    found = layer_times(16, 6, (2, 8), repeats=1)
    dense = 36 * 9 * 16 * 16
    assert found["full.macs"] == dense and found["bypass.macs"] == dense // 72
    assert found["macs"] == [dense // 8 + dense // 72, dense // 2 + dense // 72]
    assert all(value > 0 for part in ("conv", "scatter", "index", "slice", "narrow") for value in found[part])
    assert found["narrow.macs"] == pytest.approx(found["macs"], rel=0.25)


def test_snapshots_for_the_explorer():
    found = experiment.snapshots(targets=(0.5,), epochs=3, images=100, widths=(4, 8, 8))
    assert list(found) == [0.5] and len(found[0.5].z) == 4 and len(found[0.5].z[0]["features.4"]) == 8
