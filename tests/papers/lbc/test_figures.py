"""LBC: the figures."""

import numpy as np
import pytest
import torch

from papernets.papers import lbc
from papernets.papers.lbc import figures as draw
from papernets.training import row

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


def test_the_accuracies_are_means_over_the_seeds_in_per_cent():
    shares = {"lbc": 0.9, "random": 0.5, "magnitude": 0.8, "ste": 0.7}
    rows = [row(seed, arm, share - seed / 10, pattern) for seed in (0, 1) for pattern in ((1, 8), (2, 4))
            for arm, share in shares.items()]
    rows += [row(seed, "dense", 0.96) for seed in (0, 1)]
    figure = draw.accuracies(rows)
    assert {bar.name: list(bar.y) for bar in figure.data} == {
        draw.ARM_NAMES[arm]: pytest.approx([100 * share - 5] * 2) for arm, share in shares.items()}
    assert list(figure.data[0].x) == ["1:8", "2:4"] and figure.layout.annotations[0].text == "dense: 96.0 %"
    assert figure.layout.title.text == "At 2:4 LBC reaches 85 %, a random pattern 45 %"


def test_the_densities_are_means_over_the_seeds():
    rows = [row(seed, "lbc", 0.9, (2, 4), density=[1.0, 0.8 - seed / 10, 0.5, 0.5]) for seed in (0, 1)]
    figure = draw.densities([*rows, row(0, "dense", 0.9), row(0, "ste", 0.9, (2, 4), density=[0.5] * 4)])
    assert [trace.name for trace in figure.data] == ["2:4"] and list(figure.data[0].y) == pytest.approx([100, 75, 50, 50])
    assert figure.layout.title.text == "Dense at first, N:M from epoch 2 on"


def claim(identity, low, high, verdict):
    return {"kind": "miniature", "id": identity, "interval": [low, high], "verdict": verdict}


def test_a_sentence_says_on_which_side_the_intervals_lie():
    text = draw.better_in_words([claim("better.2_4.random", 0.1, 2, "shown"), claim("better.1_8.ste", -2, -0.1, "not shown"),
                                 claim("better.1_16.magnitude", -1, 1, "not shown"), {"kind": "exact", "id": "x"}])
    assert text == ("LBC is shown to be better against random, fixed at 2:4; against magnitudes at no pattern; against "
                    "magnitudes, dense gradients at no pattern (and worse at 1:8).")


def test_the_crossing_is_the_densest_pattern_from_which_on_it_is_faster():
    times = {"ours": [6, 5, 4, 3, 2, 1], "dense": [7, 4, 4.5, 3.5, 2.5, 1.5], "csr": [9] * 6}
    assert draw.crossing(times) == "2:4" and draw.crossing(times, "csr") == "7:8"
    assert draw.crossing(times | {"dense": [0] * 6}) is None
    assert "from 2:4 on" in draw.speed(times).layout.title.text
    assert "is never faster" in draw.speed(times | {"dense": [0] * 6}).layout.title.text
    assert "1.1 times as long as 2:4" in draw.speed_in_words(times)
    ours = next(trace for trace in draw.speed(times).data if trace.name.startswith("N:M"))
    assert list(ours.y) == [6000, 5000, 4000, 3000, 2000, 1000]  # seconds in, milliseconds out
