"""$name: the experiment, and what it answers to the card."""

from papernets.cards import card
from papernets.papers.$module import claims, experiment


def test_every_miniature_is_recorded():
    rows = experiment.compare(0, train=100, epochs=1)
    wanted = {claim.id for claim in card("$slug").claims if claim.kind == "miniature"}
    assert claims.records(rows).keys() == wanted


def test_every_exact_claim_has_its_number():
    wanted = {claim.id: claim for claim in card("$slug").claims if claim.kind == "exact"}
    numbers = claims.facts()
    assert numbers.keys() == wanted.keys()
    for id, claim in wanted.items():
        assert claim.accept.allows(numbers[id], claim.paper if not claim.differs else claim.ours), id
