"""Verdicts: the arithmetic of ratios, shares and medians, and what is not judged."""

import pytest

from papernets.bench._race import OURS
from papernets.bench._targets import TARGETS, Target, compare, judge


def entry(ours=1.0, share=0.5, missing=(), **peers):
    times = {name: {"median": seconds} for name, seconds in {OURS: ours, **peers}.items()}
    return {"times": times, "peers": list(peers), "missing": dict(missing), "share": share}


def case(one=None, two=None, group="g"):
    return {"group": group, "threads": {name: row for name, row in (("1", one), ("2", two)) if row}}


def test_the_fastest_peer_counts():
    assert compare(entry(2.0, slow=9.0, fast=5.0)["times"], ["slow", "fast"]) == {"fastest": "fast", "ratio": 2.5}
    assert compare(entry(10.0, only=5.0)["times"], ["only"]) == {"fastest": "only", "ratio": 0.5}
    assert compare(entry()["times"], []) == {}


@pytest.mark.parametrize(("ratios", "measured", "verdict"), [
    ((3.0,), 3.0, "met"), ((2.999,), 2.999, "not met"), ((1.0, 3.0, 9.0), 3.0, "met"), ((2.0, 3.0), 2.5, "not met")])
def test_the_median_over_the_layers_is_held_against_the_target(ratios, measured, verdict):
    found = judge(Target("g", 3.0, aim=5.0), [case(entry(2.0, peer=2 * ratio)) for ratio in ratios])
    assert (found["measured"], found["verdict"], found["cases"]) == (measured, verdict, len(ratios))
    assert (found["lowest"], found["highest"], found["aim"]) == (min(ratios), max(ratios), 5.0)


def test_other_groups_do_not_count():
    assert judge(Target("g", 3.0), [case(entry(peer=4.0)), case(entry(peer=1.0), group="h")])["measured"] == 4.0


def test_at_the_peak_a_kernel_would_be_so_much_faster():
    rows = [case(entry(2.0, share=share, peer=6.0)) for share in (0.25, 0.5, 0.75)]
    assert judge(Target("g", 3.0), rows)["ceiling"] == 6.0  # three times as fast at half of the peak
    assert judge(Target("g", 0.1, "share"), rows)["ceiling"] is None


def test_a_share_of_the_peak():
    found = judge(Target("g", 0.6, "share"), [case(entry(share=share, peer=9.0)) for share in (0.5, 0.6, 0.7)])
    assert found["measured"] == 0.6 and found["verdict"] == "met" and found["two"] is None


def test_only_the_peers_asked_for_count():
    rows = [case(entry(1.0, **{"spconv": 5.0, "torch conv3d": 50.0, "torch conv3d, channels last": 40.0}))]
    assert judge(Target("g", 4.0, against="spconv"), rows)["measured"] == 5.0
    assert judge(Target("g", 41.0, against="torch conv3d"), rows)["verdict"] == "not met"
    assert judge(Target("g", 40.0, against="torch conv3d"), rows)["measured"] == 40.0


def test_a_target_is_not_judged_by_a_weaker_peer():
    rows = [case(entry(1.0, numpy=1000.0, missing={"faiss": "not installed"}))]
    found = judge(Target("g", 4.0, needs=("faiss",)), rows)
    assert (found["verdict"], found["measured"], found["why"]) == ("not judged", None, "faiss: not installed")
    assert judge(Target("g", 4.0), rows)["verdict"] == "met"


def test_nothing_measured_and_a_quick_run_are_not_judged():
    assert judge(Target("g", 4.0), [])["why"] == "no case was measured"
    quick = judge(Target("g", 4.0), [case(entry(peer=9.0))], judged=False)
    assert (quick["verdict"], quick["measured"]) == ("not judged", 9.0) and "quick" in quick["why"]


def test_two_threads_are_shown_and_not_judged():
    rows = [case(entry(1.0, peer=3.0), entry(1.0, peer=2.0)), case(entry(1.0, peer=3.0), entry(1.0, peer=1.0)),
            case(entry(1.0, peer=3.0), entry(1.0, missing={"spconv": "one thread"}))]
    found = judge(Target("g", 3.0), rows)
    assert found["verdict"] == "met" and found["two"] == 1.5


def test_every_target_is_of_a_group_that_is_measured():
    from papernets.bench._cases import cases
    full, quick = ({one.group for one in cases(quick)} for quick in (False, True))
    assert {target.group for target in TARGETS} <= full
    assert {target.group for target in TARGETS if not target.group.startswith("hamming")} <= quick
    assert len({(one.group, one.at) for one in cases()}) == len(cases())
