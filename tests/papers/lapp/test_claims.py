"""LAPP: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.lapp.claims import facts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    found = facts()
    for claim in card("lapp").claims:
        if claim.kind == "exact" and not claim.id.startswith("control."):  # those are counted over trainings, see below
            assert found[claim.id] == pytest.approx(claim.paper, abs=max(claim.accept.absolute, 1e-9)), claim.id
            assert claim.ours is None or found[claim.id] == claim.ours
