"""Recording claims: which call they take, which verdict they get, what must not be left out, what is written."""

import json
import math
import os

import numpy as np
import pytest
import torch

from papernets.cards import Card
from papernets.cards.present import amount, counted, number_text, table, unit_text
from papernets.chapter import Chapter, ClaimError, Claims, _chapter
from papernets.tools import files


def exact(id="net.macs", **options):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "MAC", "stated": "table", "how": "counted",
            "kind": "exact", "paper": 100.0, "accept": {"absolute": 2.0}, **options}


def miniature(id="net.gain", accept=None, **options):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "points", "stated": "abstract", "how": "paired",
            "kind": "miniature", "paper": "better", "baseline": "the other method",
            "accept": accept or {"above": 0.0}, **options}


def full(id="net.top1"):
    return {"id": id, "quantity": f"quantity of {id}", "unit": "%", "stated": "abstract", "how": "on the test images",
            "kind": "full", "paper": 93.5, "accept": {"absolute": 0.3}, "recipe": "papernets train odd",
            "cost": "two hours"}


def made(*claims):
    return Card(number=7, slug="odd", name="Odd", title="Odd Sizes", authors=["A. Writer"], year=2021, venue="arXiv",
                family="pruning", summary="A card that no paper has, of just the length a card needs.", claims=claims)


def ledger(*claims, profile="evidence"):
    return Claims(made(*claims), profile)


# --- exact -----------------------------------------------------------------------------------------------------------


def test_what_is_printed_nowhere_is_not_called_reproduced():
    """In the counts, as a line, and in the table; with results that were written before they said where a number stands."""
    claims = ledger(exact("a"), exact("b", stated="derived"), exact("c", stated="derived", ours=107, differs="a reason"))
    for id, value in (("a", 100), ("b", 100), ("c", 107)):
        claims.record(id, value)
    rows = claims.rows()
    old = [{key: value for key, value in row.items() if key != "stated"} for row in rows]
    for found in (counted(rows), counted(old, claims.card)):
        assert (found["reproduced"], found["derived"], found["differs"]) == (1, 1, 1)
    assert [line.split()[-1] for line in claims.text().splitlines()] == ["reproduced", "derived", "differs"]
    assert [" paper " in line for line in claims.text().splitlines()] == [True, False, False]
    for page in (table(rows, claims.card), table(old, claims.card)):
        printed = [cell.split("</td>")[0] for cell in page.split('data-label="paper"')[1:]]
        assert ["not printed" in cell for cell in printed] == [False, True, True]
        assert page.count("pn-derived") == page.count("pn-reproduced") == page.count("pn-differs") == 1


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

BETTER = [90 + 0.1 * i for i in range(10)]
WORSE = [score - 3 + 0.05 * (i % 3) for i, score in enumerate(BETTER)]


@pytest.mark.parametrize(("profile", "pairs", "verdict"), [
    ("evidence", 10, "shown"), ("evidence", 9, "open"), ("book", 10, "open"), ("quick", 10, "open"),
    ("evidence", 2, "open")])
def test_verdict_needs_the_evidence_profile_and_ten_pairs(profile, pairs, verdict):
    row = ledger(miniature(), profile=profile).record("net.gain", ours=BETTER[:pairs], baseline=WORSE[:pairs])
    assert row["verdict"] == verdict
    assert row["seeds"] == pairs
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


def test_numbers_and_units_as_one_writes_them():
    assert [number_text(value) for value in (0, 1e-17, 16342069.12, 123456789, 99999.5, 0.25, 2.5e-5, "many")] == [
        "0", "0", "16\u202f342\u202f069", "123\u202f456\u202f789", "99999.5", "0.25", "2.5e-05", "many"]
    for value, unit, text in ((1, "layer", "layer"), (2, "layer", "layers"), (0, "layer", "layers"), (3, "class", "classes"),
                              (2, "patch", "patches"), (5, "entry", "entries"), (2, "%", "%"), (2, "ratio", "ratio"),
                              (1.5, "million MAC", "million MACs"), ("more", "layer", "layer"), (4, "", "")):
        assert unit_text(value, unit) == text
    assert [amount(-2, "layer"), amount(1.5, "<b>"), amount("<i>", "layer"), amount(None, "layer"), amount(-2.5e-5, "")] == [
        "\u22122 layers", "1.5 &lt;b&gt;", "&lt;i&gt;", "", "\u22122.5e\u221205"]


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


@pytest.fixture
def chapter(monkeypatch):
    def build(*claims, profile="quick", seed=0):
        monkeypatch.setattr(_chapter, "card", lambda name: made(*claims))
        return Chapter("odd", profile, seed)
    return build


def test_close_raises_for_a_claim_that_was_left_out(chapter):
    one = chapter(exact("a"), exact("b"), full("c"))
    one.claims.record("a", 100)
    with pytest.raises(ClaimError, match=r"^07-odd: b is in the card and was not recorded$"):
        one.close()
    one.claims.record("b", 100)
    assert one.close() is one.claims


def test_close_raises_for_an_exact_claim_that_does_not_hold(chapter):
    one = chapter(exact("a"))
    one.claims.record("a", 103)
    with pytest.raises(ClaimError, match="a is 103, expected 100"):
        one.close()
    assert issubclass(ClaimError, AssertionError)


def test_close_writes_where_it_is_told(chapter, tmp_path, monkeypatch):
    target = tmp_path / "deep" / "er" / "result.json"
    monkeypatch.setenv("PAPERNETS_RESULT", str(target))
    one = chapter(exact("a", ours=107, differs="größer"), miniature("c"), full("d"), profile="evidence", seed=11)
    one.claims.record("a", 107)
    one.claims.record("c", ours=BETTER, baseline=WORSE)
    one.close()
    found = json.loads(target.read_text(encoding="utf-8"))
    assert {key: found[key] for key in ("schema", "chapter", "profile", "seed")} == {
        "schema": 1, "chapter": "07-odd", "profile": "evidence", "seed": 11}
    assert [(row["id"], row["kind"], row["verdict"]) for row in found["claims"]] == [
        ("a", "exact", "differs"), ("c", "miniature", "shown"), ("d", "full", "open")]
    assert found["claims"][0]["why"] == "größer"
    assert found["claims"][1]["scores"] == {"ours": BETTER, "baseline": WORSE}
    assert [file.name for file in target.parent.iterdir()] == ["result.json"]


def test_close_writes_even_if_it_then_raises(chapter, tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERNETS_RESULT", str(tmp_path / "result.json"))
    one = chapter(exact("a"), exact("b"))
    one.claims.record("a", 103)
    with pytest.raises(ClaimError):
        one.close()
    found = json.loads((tmp_path / "result.json").read_text())["claims"]
    assert [(row["id"], row["verdict"], row["expected"]) for row in found] == [("a", "failed", 100)]


def test_nothing_is_written_unless_asked(chapter, tmp_path, monkeypatch):
    monkeypatch.delenv("PAPERNETS_RESULT", raising=False)
    monkeypatch.chdir(tmp_path)
    one = chapter(exact("a"))
    one.claims.record("a", 100)
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_reader_never_meets_half_a_file(chapter, tmp_path, monkeypatch):
    """What is renamed into place is whole; a writer that dies before leaves the old file as it was."""
    target = tmp_path / "result.json"
    target.write_text("old")
    monkeypatch.setenv("PAPERNETS_RESULT", str(target))
    one = chapter(exact("a"))
    one.claims.record("a", 100)
    rename, seen = os.replace, []

    def watch(part, to):
        seen.append((json.loads(open(part).read())["claims"][0]["id"], target.read_text()))
        rename(part, to)

    monkeypatch.setattr(files.os, "replace", watch)
    one.close()
    assert seen == [("a", "old")]
    assert json.loads(target.read_text())["claims"][0]["ours"] == 100

    def die(part, to):
        raise KeyboardInterrupt

    monkeypatch.setattr(files.os, "replace", die)
    before = target.read_text()
    with pytest.raises(KeyboardInterrupt):
        one.close()
    assert target.read_text() == before


@pytest.mark.parametrize(("profile", "seed", "says"), [
    ("fast", 0, "profile 'fast'.*quick, book, evidence"), ("quick", -1, "seed is -1"), ("quick", 1.5, "seed is 1.5"),
    ("quick", "0", "seed is '0'")])
def test_chapter_refuses(profile, seed, says):
    with pytest.raises(ValueError, match=says):
        Chapter("dcff", profile, seed)


@pytest.mark.parametrize(("profile", "picked"), [("quick", 1), ("book", 2), ("evidence", 3)])
def test_pick(profile, picked, chapter):
    assert chapter(exact(), profile=profile).pick(quick=1, book=2, evidence=3) == picked


@pytest.mark.parametrize("profile", ["quick", "book"])
def test_map_keeps_the_order(profile, chapter):
    assert chapter(exact(), profile=profile).map(pow, iter([3, 5, 2]), exp=2) == [9, 25, 4]


def test_map_of_an_evidence_run_on_one_job(chapter, monkeypatch):
    monkeypatch.setenv("PAPERNETS_JOBS", "1")
    assert chapter(exact(), profile="evidence").map(lambda value, plus: value + plus, [3, 5, 2], plus=7) == [10, 12, 9]


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
