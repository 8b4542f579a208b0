"""Recording all claims of a kind at once, and showing the differences: complete or not at all."""

import plotly.graph_objects as go
import pytest

from papernets.cards import Card
from papernets.chapter import Chapter, Claims, _chapter
from papernets.chapter._verdicts import figure_of, lines_of, selected

CLAIM = {"quantity": "a quantity", "unit": "points", "stated": "table", "how": "counted"}
EXACT = [CLAIM | {"id": id, "kind": "exact", "paper": 100.0, "accept": {"absolute": 0.0}} for id in ("a", "b")]
PAIRED = [CLAIM | {"id": id, "kind": "miniature", "paper": "better", "baseline": "other", "accept": {"above": 0.0},
                   "short": short}
          for id, short in (("mini.one", "one − other"), ("mini.two", ""), ("time", "the time"))]
PAIRED[2]["unit"] = "ms"
CARD = Card(number=7, slug="odd", name="Odd", title="Odd Sizes", authors=["A. Writer"], year=2021, venue="arXiv",
            family="pruning", summary="A card that no paper has, of just the length a card needs.", claims=[*EXACT, *PAIRED])
UP, FLAT = ([float(n) + 1 for n in range(12)], [float(n % 2) for n in range(12)]), ([0.0, 1.0] * 6, [1.0, 0.0] * 6)
RECORDS = {"mini.one": UP, "mini.two": FLAT, "time": UP}


def test_all_exact_claims_at_once_but_for_those_that_are_recorded():
    claims = Claims(CARD, "quick")
    claims.record("a", 100)
    claims.record_exact({"b": 100})
    assert [row["verdict"] for row in claims.rows()] == ["reproduced", "reproduced"]


@pytest.mark.parametrize(("facts", "said"), [
    ({"a": 100}, "facts have no 'b', an exact claim of this card"),
    ({}, r"facts have no 'a', an exact claim of this card \(2 such claims\)"),
    ({"a": 100, "b": 100, "c": 1}, "an id of facts is 'c'; choose from a, b"),
    ({"a": 100, "b": 100, "mini.one": 1}, "an id of facts is 'mini.one'; choose from a, b")])
def test_facts_that_do_not_fit_record_nothing(facts, said):
    claims = Claims(CARD, "quick")
    with pytest.raises(ValueError, match=said):
        claims.record_exact(facts)
    assert claims.rows() == []


def test_miniatures_at_once_or_in_parts():
    claims = Claims(CARD, "evidence")
    claims.record_pairs({key: RECORDS[key] for key in ("mini.one", "mini.two")})
    claims.record_pairs({"time": UP})
    assert [row["verdict"] for row in claims.rows()] == ["shown", "not shown", "shown"]
    with pytest.raises(ValueError, match=r"an id of records is 'time'; choose from $"):  # it is recorded
        claims.record_pairs({"time": UP})
    claims = Claims(CARD, "evidence")
    with pytest.raises(ValueError, match=r"an id of records is 'mini.three'; choose from mini.one, mini.two, time"):
        claims.record_pairs(RECORDS | {"mini.three": UP})
    assert claims.rows() == []


@pytest.fixture
def recorded():
    claims = Claims(CARD, "evidence")
    claims.record_pairs(RECORDS)
    return claims.rows()


def test_a_difference_is_selected_by_how_its_id_begins_or_by_name(recorded):
    assert [claim.id for claim, _ in selected(CARD, recorded, "mini.")] == ["mini.one", "mini.two"]
    assert [claim.id for claim, _ in selected(CARD, recorded, ("time", "mini.one"))] == ["time", "mini.one"]
    with pytest.raises(ValueError, match=r"no miniature of this card begins with 'maxi'; there are mini.one, mini.two, time"):
        selected(CARD, recorded, "maxi")
    with pytest.raises(ValueError, match=r"claim is 'mini.three'; choose from"):
        selected(CARD, recorded, ["mini.three"])
    with pytest.raises(ValueError, match="claim 'time' has no result yet; record it before it is drawn"):
        selected(CARD, recorded[:2], "time")


def test_the_figure_names_what_is_shown_and_draws_every_interval(recorded):
    pairs = selected(CARD, recorded, "mini")
    figure = figure_of(pairs, "{shown} of {total} are shown, {seeds} seeds", "", "pair")
    assert isinstance(figure, go.Figure) and figure.layout.title.text == "1 of 2 are shown, 12 seeds"
    assert figure.layout.xaxis.title.text == "points (95 %)" and set(figure.data[0].y) == {"one − other", "a quantity"}
    means = dict(zip(figure.data[0].y, figure.data[0].x))
    assert means["one − other"] == pytest.approx(6.0) and means["a quantity"] == pytest.approx(0.0)
    with pytest.raises(ValueError, match="these differences have the units ms, points; a figure has one: select fewer"):
        figure_of(selected(CARD, recorded, ""), "", "", "")


def test_the_lines_say_mean_interval_and_verdict(recorded):
    first, second = lines_of(selected(CARD, recorded, "mini")).splitlines()
    assert first.startswith("- one − other: +6.00 points (+") and first.endswith("): **shown**.")
    assert second.startswith("- a quantity: +0.00 points (\u2212") and second.endswith("): **not shown**.")


def test_one_seed_is_a_point_without_an_interval():
    claims = Claims(CARD, "quick")
    claims.record("mini.one", ours=[3.0], baseline=[1.0])
    pairs = selected(CARD, claims.rows(), ["mini.one"])
    assert lines_of(pairs) == "- one − other: +2.00 points: **open**."
    assert figure_of(pairs, "", "", "").data[0].error_x.array[0] == 0


def compare(seed, arms=("ours",)):
    return [{"seed": seed, "arm": arm, "at": None, "score": seed} for arm in arms]


def test_rows_of_all_seeds_are_one_list_and_the_committed_evidence_is_judged(monkeypatch, recorded):
    monkeypatch.setattr(_chapter, "card", lambda name: CARD)
    chapter = Chapter("odd")
    rows = chapter.rows(compare, range(2), arms=("ours", "other"))
    assert [(row["seed"], row["arm"]) for row in rows] == [(0, "ours"), (0, "other"), (1, "ours"), (1, "other")]
    chapter.claims.record("mini.one", ours=[3.0], baseline=[1.0])
    assert [row["id"] for row in chapter.judged()] == ["mini.one"]
    assert chapter.verdicts(["mini.one"]).data.endswith("**open**.")
    monkeypatch.setattr(Chapter, "evidence", lambda self: recorded)
    assert chapter.verdicts("mini").data.count("**") == 4
    shown = chapter.differences("mini", alt="two differences")
    assert shown.height == 150 + 2 * 36 and shown.figure.layout.title.text == "1 of 2 differences are shown, 12 paired seeds"
