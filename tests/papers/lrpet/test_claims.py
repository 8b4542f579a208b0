"""LRPET: the claims."""

import pytest
from papers.lrpet.sample import GRADIENTS, compared

from papernets.cards import card
from papernets.papers.lrpet import claims


def test_every_miniature_is_recorded_with_its_own_baseline():
    records = claims.records(compared(0) + compared(1), GRADIENTS)
    assert set(records) == {claim.id for claim in card("lrpet").claims if claim.kind == "miniature"}
    assert records["mini.factor.q80"] == (pytest.approx([60, 61]), pytest.approx([30, 31]))
    assert records["mini.energy.q90"] == (pytest.approx([25, 25.5]), pytest.approx([20, 20.5]))
    assert records["mini.rectify.q80"] == (pytest.approx([60, 61]), pytest.approx([50, 51]))
    assert records["mini.gradient"] == ([0.3, 0.5], [2.0, 3.0])
