"""Recording claims: which call they take, which verdict they get, what must not be left out, and the table of a notebook."""

import json
import math

import numpy as np
import pytest
import torch
from claim_checks import BETTER, WORSE, exact, full, ledger, made, miniature

from papernets.cards.present import counted
from papernets.chapter import Claims

# --- exact -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "verdict"), [(100, "reproduced"), (98, "reproduced"), (102, "reproduced"),
                                                (102.01, "failed"), (97.99, "failed"), (-100, "failed")])
@pytest.mark.parametrize("profile", ["quick", "book", "evidence"])
def test_exact_is_held_to_the_tolerance_in_every_profile(value, verdict, profile):
    claims = ledger(exact(), profile=profile)
    row = claims.record("net.macs", value)
    assert row["verdict"] == verdict
    assert row["ours"] == value
    assert (claims.problems() == []) == (verdict == "reproduced")
    assert ("expected" in row) == (verdict == "failed")


@pytest.mark.parametrize(("value", "verdict"), [
    (101, "reproduced"), (101.0, "reproduced"), (100, "failed"), (102, "failed"), (101.0000001, "failed")])
def test_exact_with_ours_is_held_to_the_last_digit(value, verdict):
    row = ledger(exact(ours=101.0)).record("net.macs", value)
    assert row["verdict"] == verdict
    if verdict == "failed":
        assert row["expected"] == 101


@pytest.mark.parametrize("off", [-1, 0, 1])
def test_large_counts_are_held_to_the_last_unit(off):
    claim = exact(paper=1.49e9, ours=1_490_585_782, accept={"absolute": 5e6})
    assert ledger(claim).record("net.macs", 1_490_585_782 + off)["verdict"] == ("failed" if off else "reproduced")


@pytest.mark.parametrize(("value", "verdict"), [
    (92.72658437863629, "reproduced"), (92.72658437863629 * (1 + 1e-13), "reproduced"), (92.7265844, "reproduced"),
    (92.726585, "failed"), (92.73, "failed")])
def test_fractions_are_held_up_to_rounding(value, verdict):
    claim = exact(paper=92.73, ours=92.72658437863629, accept={"absolute": 0.005})
    assert ledger(claim).record("net.macs", value)["verdict"] == verdict


@pytest.mark.parametrize(("value", "verdict"), [(107, "differs"), (106, "failed"), (108, "failed"), (100, "failed")])
def test_differs_is_held_to_ours(value, verdict):
    """Even the paper's own number fails where ours is known to differ."""
    claims = ledger(exact(ours=107, differs="a misprint"))
    row = claims.record("net.macs", value)
    assert row["verdict"] == verdict
    assert row["why"] == "a misprint"
    assert bool(claims.problems()) == (verdict == "failed")


@pytest.mark.parametrize("value", [np.int64(101), np.float64(101), torch.tensor(101), torch.tensor([101.0])])
def test_values_of_any_library_are_written_as_plain_numbers(value):
    row = ledger(exact()).record("net.macs", value)
    assert type(row["ours"]) in (int, float)
    assert json.loads(json.dumps(row))["ours"] == 101


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float64("nan")])
def test_values_that_are_not_finite_are_refused(value):
    claims = ledger(exact())
    with pytest.raises(ValueError, match=r"'net\.macs'.*not a finite number"):
        claims.record("net.macs", value)
    assert claims.rows() == []


# --- miniature -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("profile", "pairs", "verdict"), [
    ("evidence", 10, "shown"), ("evidence", 9, "open"), ("book", 10, "open"), ("quick", 10, "open"),
    ("evidence", 2, "open")])
def test_verdict_needs_the_evidence_profile_and_ten_pairs(profile, pairs, verdict):
    row = ledger(miniature(), profile=profile).record("net.gain", ours=BETTER[:pairs], baseline=WORSE[:pairs])
    assert row["verdict"] == verdict
    assert row["seeds"] == pairs
    if profile == "quick":
        assert "interval" not in row  # it only shows that the chapter runs
    else:
        assert row["interval"][0] <= row["ours"] <= row["interval"][1]
    assert row["ours"] == pytest.approx(np.mean(BETTER[:pairs]) - np.mean(WORSE[:pairs]))


@pytest.mark.parametrize(("accept", "ours", "baseline", "verdict"), [
    ({"above": 0.0}, BETTER, WORSE, "shown"), ({"above": 0.0}, WORSE, BETTER, "not shown"),
    ({"above": 2.99}, BETTER, WORSE, "not shown"), ({"below": 0.0}, WORSE, BETTER, "shown"),
    ({"below": 0.0}, BETTER, WORSE, "not shown"), ({"within": (2.9, 3.1)}, BETTER, WORSE, "shown"),
    ({"within": (-1.0, 1.0)}, BETTER, WORSE, "not shown"), ({"within": (-1.0, 1.0)}, BETTER, BETTER, "shown"),
    ({"above": 0.0}, BETTER, BETTER, "not shown"),
    ({"above": 0.0}, [1, -1, 2, -2, 3, -3, 1, -1, 0, 2], [0] * 10, "not shown")])
def test_the_whole_interval_is_judged(accept, ours, baseline, verdict):
    claims = ledger(miniature(accept=accept))
    assert claims.record("net.gain", ours=ours, baseline=baseline)["verdict"] == verdict
    assert claims.problems() == []  # an effect that is not shown is a result and no failure


def test_one_pair_has_no_interval():
    row = ledger(miniature()).record("net.gain", ours=[91], baseline=[88.5])
    assert row["ours"] == 2.5
    assert row["verdict"] == "open"
    assert "interval" not in row


@pytest.mark.parametrize(("ours", "baseline"), [([1], [1, 2]), ([1, 2], [1]), ([1, 2, 3], [1, 2]), ([], []), ([], [1])])
def test_scores_come_in_pairs(ours, baseline):
    claims = ledger(miniature())
    with pytest.raises(ValueError, match="equal number"):
        claims.record("net.gain", ours=ours, baseline=baseline)
    assert claims.problems() == ["net.gain is in the card and was not recorded"]


@pytest.mark.parametrize("pairs", [1, 2, 10])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(pairs, bad):
    with pytest.raises(ValueError, match="finite"):
        ledger(miniature()).record("net.gain", ours=[*BETTER[:pairs - 1], bad], baseline=WORSE[:pairs])


# --- which call ------------------------------------------------------------------------------------------------------


def test_unknown_id_gives_the_nearest():
    with pytest.raises(ValueError, match=r"odd has no claim 'net.mac'; the nearest is 'net.macs'"):
        ledger(exact(), miniature()).record("net.mac", 100)


def test_a_claim_is_recorded_once():
    claims = ledger(exact())
    claims.record("net.macs", 100)
    with pytest.raises(ValueError, match="already recorded"):
        claims.record("net.macs", 101)
    assert claims.rows()[0]["ours"] == 100


@pytest.mark.parametrize("given", [{}, {"ours": [1], "baseline": [1]}, {"value": 100, "ours": [1]},
                                   {"value": 100, "baseline": [1]}, {"value": None}])
def test_exact_takes_one_value(given):
    claims = ledger(exact())
    with pytest.raises(ValueError, match="exact: record it by one value"):
        claims.record("net.macs", **given)
    assert claims.rows() == []


@pytest.mark.parametrize("given", [{}, {"value": 3}, {"ours": [1]}, {"baseline": [1]},
                                   {"value": 3, "ours": [1], "baseline": [1]}])
def test_miniature_takes_scores(given):
    claims = ledger(miniature())
    with pytest.raises(ValueError, match="miniature: record it by the scores"):
        claims.record("net.gain", **given)
    assert claims.rows() == []


@pytest.mark.parametrize("given", [{"value": 93.5}, {"ours": [1], "baseline": [1]}])
def test_full_stays_open(given):
    claims = ledger(full())
    with pytest.raises(ValueError, match="stays open here; it is run with: papernets train odd"):
        claims.record("net.top1", **given)
    assert [(row["id"], row["verdict"]) for row in claims.rows()] == [("net.top1", "open")]
    assert claims.problems() == []


# --- the whole -------------------------------------------------------------------------------------------------------


def test_problems_name_what_is_missing_and_what_failed():
    claims = ledger(exact("a"), exact("b"), miniature("c"), full("d"))
    claims.record("b", 107)
    problems = claims.problems()
    assert problems[:2] == ["a is in the card and was not recorded", "c is in the card and was not recorded"]
    assert len(problems) == 3
    assert problems[2].startswith("b is 107, expected 100 (within 2 of")
    claims.record("a", 100)
    claims.record("c", ours=[1], baseline=[2])
    assert len(claims.problems()) == 1


def test_rows_have_the_order_of_the_card():
    claims = ledger(exact("a"), full("b"), miniature("c"), exact("d"))
    claims.record("d", 100)
    claims.record("c", ours=[1], baseline=[0])
    claims.record("a", 100)
    assert [row["id"] for row in claims.rows()] == ["a", "b", "c", "d"]
    assert counted(claims.rows()) == {"reproduced": 2, "derived": 0, "differs": 0, "shown": 0, "not_shown": 0, "open": 2}
    assert counted(made(exact("a"), full("b")).claims)["open"] == 2
    assert [line.split()[0] for line in claims.text().splitlines()] == ["a", "b", "c", "d"]
    assert [line.split()[0] for line in claims.text("exact").splitlines()] == ["a", "d"]


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_cannot_be_broken_by_a_text():
    claims = ledger(exact("a", ours=107, differs="<script>alert(1)</script>", unit="<b>"),
                    miniature("c", paper="<i>more</i>"))
    claims.record("a", 107)
    claims.record("c", ours=BETTER, baseline=WORSE)
    found = claims._repr_html_()
    for tag in ("<script", "<b>", "<i>"):
        assert tag not in found
    assert "&lt;script&gt;" in found
    assert found.count("<tr id=") == 2


def test_the_table_shows_the_verdict_of_the_evidence_and_the_run_beside_it():
    from papernets.cards import card
    paper = card("dcff")
    evidence = [{"id": "fusion.l1", "kind": "miniature", "unit": "points", "paper": "better", "baseline": "wide",
                 "rule": "interval above 0", "seeds": 16, "ours": -0.5, "interval": [-1.25, 0.25], "verdict": "not shown"}]
    shown = Claims(paper, "book", evidence)
    shown.record("fusion.l1", ours=[3.0], baseline=[1.0])
    row = next(part for part in shown._repr_html_().split("<tr") if "claim-fusion-l1" in part)
    assert "\u22120.50 points" in row and "\u22121.25 to +0.25, 16 seeds" in row and "not shown" in row
    assert "(this run: +2.00, 1 seed)" in row
    assert shown.rows()[[r["id"] for r in shown.rows()].index("fusion.l1")]["verdict"] == "open"  # what is written
    alone = Claims(paper, "book")
    alone.record("fusion.l1", ours=[3.0], baseline=[1.0])
    row = next(part for part in alone._repr_html_().split("<tr") if "claim-fusion-l1" in part)
    assert "+2.00 points" in row and ">open<" in row and "this run" not in row


def test_the_table_says_where_a_command_is_missing():
    claims = ledger(exact(), full("a"), {**full("b"), "recipe": ""})
    claims.record(exact()["id"], 100)
    shown = claims._repr_html_()
    assert "2 claims need" in shown and "1 of them have no command yet" in shown and "no command yet, two hours" in shown
    with pytest.raises(ValueError, match="run with: a command that is not written yet"):
        claims.record("b", 1)
