"""Low-rank Winograd: the claims."""

import pytest
from papers.lr_winograd.sample import compared

from papernets.cards import card
from papernets.papers.lr_winograd import claims

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_miniature_is_recorded_with_its_own_baseline():
    records = claims.records(compared(0) + compared(10), ([0.001, 0.0011], [0.002, 0.0021]))
    assert set(records) == {claim.id for claim in card("lr-winograd").claims if claim.kind == "miniature"}
    expected = {"mini.dense": ([90, 91], [80, 81]), "mini.prune25": ([80, 82], [70, 72]), "mini.prune50": ([60, 60], [50, 50]),
                "mini.importance25": ([80, 82], [70, 70]), "mini.importance50": ([60, 60], [40, 40]),
                "mini.time": ([1.0, 1.1], [2.0, 2.1])}
    for name, sides in expected.items():
        for one, other in zip(records[name], sides, strict=True):
            assert one == pytest.approx(other), name
