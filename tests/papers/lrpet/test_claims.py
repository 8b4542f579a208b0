"""LRPET: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.lrpet.claims import facts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    found, compared = facts(), 0
    for claim in card("lrpet").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id
            compared += 1
    assert compared > 30
