"""1xN sparsity: the claims."""

import pytest
from papers.one_by_n.sample import rows_of

from papernets.cards import card
from papernets.papers.one_by_n import claims, experiment


def test_every_miniature_is_recorded_with_its_own_baseline():
    races = [{"ours": 0.001, "dense": 0.002, "csr": 0.003}, {"ours": 0.0011, "dense": 0.002, "csr": 0.003}]
    found = claims.records([*rows_of(0), *rows_of(1)], races)
    assert set(found) == {claim.id for claim in card("1xn").claims if claim.kind == "miniature"}
    names = list(experiment.ARMS)
    ours, baseline = found["mini.order.p90.1x2_1x4"]
    assert ours == pytest.approx([100 * (0.5 + 0.01 * names.index("1x2") + 0.001 * s) for s in (0, 1)])
    assert baseline == pytest.approx([100 * (0.5 + 0.01 * names.index("1x4") + 0.001 * s) for s in (0, 1)])
    assert found["mini.norm.n16"][0] == pytest.approx([100 * (0.6 - 0.01 * names.index("1x16 rearranged"))] * 2)
    for given, milliseconds in zip(found["mini.speed.csr"], ([1.0, 1.1], [3.0, 3.0])):
        assert given == pytest.approx(milliseconds)
