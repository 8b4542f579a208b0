"""LAPP: the experiments."""

import pytest

from papernets.measure import macs
from papernets.papers.lapp import experiment
from papernets.papers.lapp.experiment import compare, layer_times
from papernets.papers.lapp.networks import DIGIT, narrow_widths, small_net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_comparison():
    rows = compare(0, images=100, epochs=2, progressive=1, targets=(0.4, 0.1))
    assert [(row["at"], row["arm"]) for row in rows] == [
        (rho, arm) for rho in (0.4, 0.1) for arm in (*experiment.ARMS, "narrow", "full")]
    assert all(0 <= row["score"] <= 1 and row["seed"] == 0 for row in rows)
    for row in rows:
        if row["arm"] in experiment.ARMS:
            r = row["remaining"]
            assert r[-1] <= row["at"] and len(r) == 3 and row["steepest"] == max(r[0] - r[1], r[1] - r[2])
    learned = {(row["at"], row["arm"]): (row["above"], row["below"]) for row in rows if "above" in row}
    assert learned == {(rho, arm): (False, False) for rho in (0.4, 0.1) for arm in ("lapp", "plain")}
    assert len({row["score"] for row in rows if row["arm"] == "full"}) == 1
    whole = macs(small_net(), DIGIT)
    assert all(0.9 * rho < macs(small_net(narrow_widths(1 - rho)), DIGIT) / whole <= rho for rho in (0.4, 0.2, 0.1))


def test_times_come_with_their_counts():
    times = layer_times(16, 6, (2, 8), repeats=1)
    dense = 36 * 9 * 16 * 16
    assert times["full.macs"] == dense and times["bypass.macs"] == dense // 72
    assert times["macs"] == [dense // 8 + dense // 72, dense // 2 + dense // 72]
    assert all(value > 0 for part in ("conv", "scatter", "index", "slice", "narrow") for value in times[part])
    assert times["narrow.macs"] == pytest.approx(times["macs"], rel=0.25)


def test_snapshots_for_the_explorer():
    snapshots = experiment.snapshots(targets=(0.5,), epochs=3, images=100, widths=(4, 8, 8))
    assert list(snapshots) == [0.5] and len(snapshots[0.5].z) == 4 and len(snapshots[0.5].z[0]["features.4"]) == 8
