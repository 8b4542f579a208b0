"""LAPP: the claims."""

import pytest
from papers.lapp.test_figures import rows

from papernets.cards import card
from papernets.papers.lapp import claims

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    learned = [row | {"above": False, "below": False} for row in rows() if row["arm"] in ("lapp", "plain")]
    facts = claims.facts(learned)
    exact = {claim.id: claim for claim in card("lapp").claims if claim.kind == "exact"}
    assert facts.keys() == exact.keys()
    for name, claim in exact.items():
        assert facts[name] == pytest.approx(claim.paper, abs=max(claim.accept.absolute, 1e-9)), name
        assert claim.ours is None or facts[name] == claim.ours


def test_control_is_counted_over_all_trainings_that_learn():
    control = [row | {"above": row["seed"] == 1 and row["at"] == 0.2, "below": False} for row in rows() if row["arm"] == "lapp"]
    facts = claims.facts([*rows(), *control])
    assert (facts["control.above"], facts["control.below"]) == (1, 0)


def test_every_miniature_is_recorded_with_its_own_baseline():
    records = claims.records(rows())
    assert set(records) == {claim.id for claim in card("lapp").claims if claim.kind == "miniature"}
    assert records["mini.bypass"] == (pytest.approx([92, 92.1]), pytest.approx([80, 80.1]))
    assert records["mini.bypass.p10"][0] == pytest.approx([91, 91.1])
    assert records["mini.uniform"][1] == pytest.approx([70, 70.1])
    assert records["mini.oneshot"][1] == pytest.approx([60, 60.1])
    assert records["mini.narrow"][1] == [50, 50] and records["mini.drop"] == (pytest.approx([94, 94.1]), [95, 95])
    assert records["mini.progressive"] == (pytest.approx([0.3, 0.3]), pytest.approx([0.6, 0.6]))
    assert records["mini.rates"] == ([0.375] * 2, [0.0] * 2)
