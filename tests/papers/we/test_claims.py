"""Weight Evolution: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.we.claims import facts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim_of_the_card_holds():
    paper, found = card("we"), facts()
    exact = {claim.id: claim for claim in paper.claims if claim.kind == "exact"}
    assert exact.keys() == found.keys()
    for name, claim in exact.items():
        assert abs(found[name] - claim.paper) <= claim.accept.absolute, name
