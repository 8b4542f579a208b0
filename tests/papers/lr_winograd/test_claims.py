"""Low-rank Winograd: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.lr_winograd.claims import facts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    found = facts()
    for claim in card("lr-winograd").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id
