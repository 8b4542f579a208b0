"""CC: the claims."""

import pytest
from papers.cc.sample import compared

from papernets.cards import card
from papernets.papers.cc import claims


def test_every_miniature_is_recorded_with_its_own_baseline():
    records = claims.records(compared(0) + compared(1))
    assert set(records) == {claim.id for claim in card("cc").claims if claim.kind == "miniature"}
    assert records["mini.prune.cut50"] == (pytest.approx([70, 70.1]), pytest.approx([50, 50.1]))
    assert records["mini.svd.cut70"][1] == pytest.approx([60, 60.1])
    assert records["mini.svd.tuned.cut50"] == (pytest.approx([92, 92]), pytest.approx([91, 91]))
    assert records["mini.random"] == ([10, 11], [20, 20]) and records["mini.onestep"][1] == [12, 12]
