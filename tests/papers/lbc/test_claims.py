"""LBC: the claims."""

from papernets.cards import card
from papernets.papers.lbc import claims, experiment
from papernets.training import row


def test_every_miniature_is_recorded_in_points_over_the_seeds():
    shares = {"lbc": 0.9, "random": 0.5, "magnitude": 0.8, "ste": 0.7}
    rows = [row(seed, arm, share + seed / 100, pattern) for seed in (1, 0) for pattern in experiment.PATTERNS
            for arm, share in shares.items()]
    records = claims.records(rows)
    assert set(records) == {claim.id for claim in card("lbc").claims if claim.kind == "miniature"}
    assert records["better.1_8.magnitude"] == ([90, 91], [80, 81]) and records["better.2_4.random"][1] == [50, 51]
