"""Sub-bit networks: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.snn import claims

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim_of_the_card():
    facts = claims.facts()
    wanted = [claim for claim in card("snn").claims if claim.kind == "exact"]
    assert {claim.id for claim in wanted} == set(facts)
    for claim in wanted:
        if claim.differs:
            assert facts[claim.id] == pytest.approx(claim.ours, rel=1e-12)
            assert not claim.accept.allows(facts[claim.id], claim.paper)
        else:
            assert claim.accept.allows(facts[claim.id], claim.paper), claim.id
