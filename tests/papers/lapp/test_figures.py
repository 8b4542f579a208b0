"""LAPP: the figures."""

import pytest
import torch

from papernets.chapter import BASELINE, OURS
from papernets.papers import lapp
from papernets.papers.lapp import experiment, networks
from papernets.papers.lapp import figures as draw
from papernets.training import row


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("rho", [0.3, 0.6])
@pytest.mark.parametrize("delta", [0.2, 1.0])
def test_the_explorer_shows_what_the_training_did(snapshots, epoch, rho, delta):
    figure = draw.explorer(snapshots)(epoch, rho, delta)
    run = snapshots[rho]
    *bars, line, dot, slopes = figure.data
    model = networks.small_net((2, 4, 8, 8))
    flops = lapp.attach_(model, lapp.LAPP(removed=0.01), torch.zeros(1, 1, 8, 8))
    for trace, (name, z) in zip(bars, run.z[epoch].items(), strict=True):
        assert list(trace.y) == sorted((round(value, 2) for value in z), reverse=True)
        kept = sum(value > epoch - 1 for value in z)
        assert list(trace.marker.color) == [OURS] * kept + [BASELINE] * (len(z) - kept)
        index = list(run.z[epoch]).index(name)
        expected = gradient(flops, name, z, epoch - 1.0, delta)
        assert slopes.y[index] == pytest.approx(expected, abs=6e-4)
    assert list(line.y) == [100, 80, pytest.approx(50 * rho)] and dot.x == (epoch,) and dot.y[0] == line.y[epoch]


def gradient(flops, name, z, tau, delta):
    """∂r/∂τ of one layer by automatic differentiation."""
    at = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    masks = {other: torch.ones(C, dtype=torch.float64) for other, C in flops.widths.items()}
    masks[name] = lapp.gate(torch.tensor(z, dtype=torch.float64), at, delta)
    flops.share(masks).backward()
    return float(at.grad)


def test_what_the_text_on_the_explorer_says():
    """Thresholds wait at first, the targets' runs are the same until one is reached, and masks stay when they are final."""
    runs = experiment.snapshots(targets=(0.8, 0.3), epochs=14, images=300, widths=(8, 16, 16, 16))
    high, low = runs[0.8], runs[0.3]
    reached = next(i for i, r in enumerate(high.remaining) if r <= 0.8)
    assert high.remaining[0] > 1 and high.remaining[:reached] == low.remaining[:reached] and reached > 1
    assert all(masks == high.masks[reached] for masks in high.masks[reached:]) and high.z[-1] != high.z[reached]
    steep = {delta: min(draw.explorer(runs)(0, 0.3, delta).data[-1].y) for delta in (0.2, 1.0)}
    assert steep[1.0] < 5 * steep[0.2] < 0 or steep[0.2] == 0


def test_costs_of_filters():
    bars = draw.filter_costs().data[0]
    assert len(bars.y) == 18 and bars.y[0] == 9 * 16 * 1024 / 1e3 and bars.y[-1] == 9 * 64 * 64 / 1e3
    assert "from 18 to 147 thousand" in draw.filter_costs().layout.title.text


def rows(seeds=(0, 1)):
    """Three targets; LAPP is the better the more is left, and a little better with every seed."""
    def made(seed, rho, arm, score, **more):
        return row(seed, arm, score + (0 if arm in ("narrow", "full") else 0.001 * seed), rho, **more)

    def pruned(seed, rho, arm, score, r, left):
        r, kept = [1.0, r, rho], [[4, 8], left]
        return made(seed, rho, arm, score, remaining=r, kept=kept, steepest=max(1 - r[1], r[1] - rho),
                    spread=abs(left[0] / 4 - left[1] / 8) / 2)

    listed = []
    for seed in seeds:
        for rho in (0.4, 0.2, 0.1):
            listed += [pruned(seed, rho, "lapp", 0.9 + rho / 10, 0.7, [4, 2]), pruned(seed, rho, "plain", 0.8, 0.8, [4, 4]),
                       pruned(seed, rho, "uniform", 0.7, 0.6, [2, 4]), pruned(seed, rho, "one-shot", 0.6, 1.0, [2, 4]),
                       made(seed, rho, "narrow", 0.5), made(seed, rho, "full", 0.95)]
    return listed


def test_titles_say_what_the_run_shows():
    shown = rows((0, 2))
    assert "at most 30 % of the network, one-shot pruning 60\u00a0%" in draw.falling(shown).layout.title.text
    assert draw.accuracies(shown).layout.title.text == "At 10 % of the multiply-adds LAPP has 91.1 %"
    other = [one | {"score": 0.99} if (one["arm"], one["at"]) == ("narrow", 0.1) else one for one in shown]
    assert "narrow from the start has 99.0 %, LAPP 91.1 %" in draw.accuracies(other).layout.title.text
    figure = draw.rates(shown)
    assert list(figure.data[0].y) == [100, 25] and "keep 25 to 100 %" in figure.layout.title.text


def test_the_sentence_on_the_means():
    scored = {"kind": "miniature", "id": "mini.narrow", "scores": {"ours": [90, 91], "baseline": [95, 96]}}
    assert draw.means_in_words([scored, {"kind": "exact", "id": "r20.macs"}]) == (
        "Mean accuracies at 20 % of the multiply-adds: narrow from the start 95.50 %; LAPP 90.50 %.")


TIMES = {name: {"left": [4, 128], "full": 2e-3, "bypass": 2e-4, "full.macs": 1000, "bypass.macs": 14, "macs": [30, 514],
                "conv": [1e-4, 1e-3], "scatter": [1e-4, 1e-4], "index": [4e-4, 1.3e-3], "slice": [3.5e-4, 1.25e-3],
                "narrow": [8e-5, 1.1e-3]}
         for name in draw.LAYERS}


def test_times_are_stacked_and_stand_beside_the_counts():
    figure = draw.speed(TIMES)
    conv, bypass, adding, narrow, macs = figure.data[:5]
    assert list(conv.y) == pytest.approx([5, 50]) and list(bypass.y) == pytest.approx([10, 10])
    assert list(adding.y) == pytest.approx([5, 5]) and list(narrow.y) == pytest.approx([4, 55])
    assert list(macs.y) == [3, pytest.approx(51.4)]
    assert figure.layout.barmode == "stack"
    assert figure.layout.title.text == "The grouped bypass: 1.4 % of the plain layer's multiply-adds, 10 % of its time"


def test_the_words_on_time():
    first = draw.speed_in_words(TIMES).splitlines()[0]
    assert "1.4 % of the plain layer's multiply-adds and 10 % of its 2.00 ms" in first
    assert "With 4 filters left it has 47 % of the compact layer's multiply-adds and 50 % of its time" in first
    assert first.endswith("With 128 left: 1.300, 1.250 and 1.100 ms.")


def test_layers_are_measured_with_their_own_bypass():
    times = draw.layer_times(left=(8,), repeats=1)
    assert times["grouped bypass"]["bypass.macs"] == 196 * 256 * 32
    assert times["depthwise bypass"]["bypass.macs"] == 196 * 256 * 9
