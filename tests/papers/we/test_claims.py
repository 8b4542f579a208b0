"""Weight Evolution: the claims."""

import pytest
from papers.we.sample import rows

from papernets.cards import card
from papernets.papers.we import claims, experiment

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim_of_the_card_holds():
    facts = claims.facts()
    exact = {claim.id: claim for claim in card("we").claims if claim.kind == "exact"}
    assert exact.keys() == facts.keys()
    for name, claim in exact.items():
        assert abs(facts[name] - claim.paper) <= claim.accept.absolute, name


def test_every_miniature_is_recorded_with_its_unit():
    records = claims.records([*rows(), *rows(20, seed=1)])
    wanted = {claim.id: claim for claim in card("we").claims if claim.kind == "miniature"}
    assert records.keys() == wanted.keys() == claims.PAIRS.keys()
    assert records["dead.copy"] == ([pytest.approx(64), pytest.approx(64)], [pytest.approx(84), pytest.approx(84)])
    assert records["reactivation.official"] == ([8, 18], [10, 20])
    for name, claim in wanted.items():
        where, one, other, key = claims.PAIRS[name]
        assert (claim.unit == "filter") == (key == "weak") == (name not in claims.GAINS)
        assert {one, other} <= set(experiment.EXPERIMENTS[where].get("arms", ("plain", "dominant")))
