"""Sub-bit networks: the claims."""

from papernets.cards import card
from papernets.papers.snn import claims
from papernets.training import row


def test_every_miniature_is_recorded_over_the_seeds():
    rows = []
    for seed in (1, 0):
        rows += [row(seed, arm, share + tau / 100 + seed / 1000, tau) for tau in (9, 5, 3, 2, 1)
                 for arm, share in {"kept": 0.2, "refined": 0.4, "frequent": 0.6, "random": 0.8}.items()]
        rows += [row(seed, arm, bits + seed, layer) for layer, bits in (("layer1", 8.0), ("layer2", 6.0))
                 for arm in ("entropy", "chance")]
    records = claims.records(rows)
    assert list(records) == [claim.id for claim in card("snn").claims if claim.kind == "miniature"]
    rounded = {id: tuple([round(score, 9) for score in scores] for scores in both) for id, both in records.items()}
    assert rounded["mini.tau5_3"] == ([25, 25.1], [23, 23.1])
    assert rounded["mini.refine.tau3"] == ([43, 43.1], [23, 23.1])
    assert rounded["mini.frequent.tau2"] == ([62, 62.1], [82, 82.1])
    assert rounded["mini.entropy.layer2"] == ([6, 7], [6, 7])
