"""LBC: the figures."""

import numpy as np
import pytest
import torch
from papers.lbc.samples import row

from papernets.papers import lbc
from papernets.papers.lbc import claims, experiment
from papernets.papers.lbc import figures as draw

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("pattern", draw.EXPLORED)
@pytest.mark.parametrize("epoch", [0, 1, 16, 59, 60])
def test_the_explorer_shows_the_supports_and_their_union(pattern, epoch):
    N, M = draw.EXPLORED[pattern]
    figure = draw.explore_supports(pattern, epoch)
    lattice, bars, *_ = figure.data
    z = np.asarray(lattice.z, float)
    stay = lbc.left(epoch, N, M)
    assert z.shape == (lbc.number(N, M), M) and (np.isfinite(z).sum(1) == N).all()
    assert (np.nansum(z, 1) == N).sum() == stay and (np.nansum(z, 1)[:stay] == N).all()  # the living ones on top
    held = np.nansum(z, 0) > 0
    assert [color == draw.OURS for color in bars.marker.color] == held.tolist()
    assert figure.layout.title.text == f"{stay} of {len(z)} supports are left, {held.sum()} of {M} weights count"


@pytest.mark.parametrize("pattern", draw.EXPLORED)
def test_the_text_on_the_explorer_holds(pattern):
    """Scores are sums of bars; the learning rate changes no order; weights are lost earlier than by chance."""
    N, M = draw.EXPLORED[pattern]
    A, found = lbc.supports(N, M), draw.rehearse(pattern, -2.0, 2.0, 0)
    for epoch in (0, 10, 25, 60):
        alive = found["alive"][epoch]
        torch.testing.assert_close(found["scores"][epoch][alive], (lbc.start(N, M) + found["a"][epoch] @ A.T)[alive], atol=1e-5,
                                   rtol=1e-5)
    for log_lr in (-3.0, -1.0):
        assert torch.equal(draw.rehearse(pattern, log_lr, 2.0, 0)["alive"][-1], found["alive"][-1])
    chance = torch.tensor([lbc.expected_density(lbc.left(e, N, M), N, M) for e in range(61)])
    assert (found["density"] <= chance + 1e-3).all() and found["density"][-1] == pytest.approx(N / M)
    if N > 1:
        assert (found["density"] < chance - 0.02).any()
    assert lbc.left(59, N, M) == 2


def test_the_picture_has_as_many_weights_twice():
    free, grouped = (np.isfinite(np.asarray(trace.z, float)) for trace in draw.two_halves().data)
    assert free.sum() == grouped.sum() == 128
    assert (grouped.reshape(16, 4, 4).sum(2) == 2).all() and not (free.reshape(16, 4, 4).sum(2) == 2).all()


def test_the_removal_is_the_schedule():
    count, held = (next(t for t in draw.removal().data if t.name == name) for name in ("supports left", "weights that count"))
    assert [round(value * 6 / 100) for value in count.y] == [lbc.left(e, 2, 4) for e in range(66)]
    assert list(held.y[:16]) == [100.0] * 16 and held.y[16] == pytest.approx(95) and held.y[60] == 50
    assert draw.removal().layout.title.text == "No weight is lost before epoch 16; then 3 of 6 supports are left"


def test_memory_is_counted():
    bars = draw.score_memory().data[0]
    assert bars.y[2] * 1e6 == pytest.approx(35_168_256) and bars.y[4] * 1e6 == pytest.approx(205_148_160)


def test_sentences_say_which_side_the_interval_lies():
    text = draw.evidence_in_words([row("better.2_4.random", 0.1, 2, "shown"), row("better.1_8.ste", -2, -0.1, "not shown"),
                                   row("better.1_16.magnitude", -1, 1, "not shown"), {"kind": "exact", "id": "x"}])
    assert text.splitlines() == [
        "- 2:4: LBC − random, fixed: +1.05 points (+0.10 to +2.00), better: **shown**.",
        "- 1:8: LBC − magnitudes, dense gradients: -1.05 points (-2.00 to -0.10), worse: **not shown**.",
        "- 1:16: LBC − magnitudes: +0.00 points (-1.00 to +1.00), no difference that could be told: **not shown**.", "",
        "LBC is shown to be better against random, fixed at 2:4; against magnitudes, dense gradients at no pattern (and worse "
        "at 1:8); against magnitudes at no pattern."]


def test_every_miniature_is_recorded():
    from papernets.cards import card
    arms = {p: {"lbc": 0.9, "random": 0.5, "magnitude": 0.8, "ste": 0.7} for p in experiment.PATTERNS}
    found = claims.records([{"arms": arms}, {"arms": arms}])
    assert set(found) == {claim.id for claim in card("lbc").claims if claim.kind == "miniature"}
    assert found["better.1_8.magnitude"] == ([90, 90], [80, 80]) and found["better.2_4.random"][1] == [50, 50]


def test_the_crossing_is_the_densest_pattern_from_which_on_it_is_faster():
    times = {"ours": [6, 5, 4, 3, 2, 1], "dense": [7, 4, 4.5, 3.5, 2.5, 1.5], "csr": [9] * 6}
    assert draw.crossing(times) == "2:4" and draw.crossing(times, "csr") == "7:8"
    assert draw.crossing(times | {"dense": [0] * 6}) is None
    assert "from 2:4 on" in draw.speed(times).layout.title.text
    assert "is never faster" in draw.speed(times | {"dense": [0] * 6}).layout.title.text
    assert "1.1 times as long as 2:4" in draw.speed_in_words(times)
