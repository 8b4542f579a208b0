"""LAPP: the figures."""

import copy

import pytest
import torch

from papernets.cards import card
from papernets.chapter import BASELINE, OURS
from papernets.papers import lapp
from papernets.papers.lapp import claims, experiment, networks
from papernets.papers.lapp import figures as draw


@pytest.mark.parametrize("epoch", [0, 2])
@pytest.mark.parametrize("rho", [0.3, 0.6])
@pytest.mark.parametrize("delta", [0.2, 1.0])
def test_the_explorer_shows_what_the_training_did(found, epoch, rho, delta):
    figure = draw.explorer(found)(epoch, rho, delta)
    run = found[rho]
    *bars, line, dot, slopes = figure.data
    model = networks.small_net((2, 4, 8, 8))
    flops = lapp.attach_(model, lapp.LAPP(target=0.99), torch.zeros(1, 1, 8, 8))
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


def run(seed):
    def arm(accuracy, r, kept):
        return {"accuracy": accuracy + 0.001 * seed, "remaining": r, "kept": [[4, 8], kept]}
    arms = {rho: {"lapp": arm(0.9 + rho / 10, [1.0, 0.7, rho], [4, 2]), "plain": arm(0.8, [1.0, 0.8, rho], [4, 4]),
                  "uniform": arm(0.7, [1.0, 0.6, rho], [2, 4]), "one-shot": arm(0.6, [1.0, 1.0, rho], [2, 4]),
                  "narrow": {"accuracy": 0.5}} for rho in (0.4, 0.2, 0.1)}
    return {"seed": seed, "full": 0.95, "arms": arms,
            "control": {0.4: [{"above": False, "below": False}] * 2, 0.2: [{"above": seed > 0, "below": False}]}}


def test_every_miniature_is_recorded_with_its_own_baseline():
    found = claims.records([run(0), run(1)])
    assert set(found) == {claim.id for claim in card("lapp").claims if claim.kind == "miniature"}
    assert found["mini.bypass"] == (pytest.approx([92, 92.1]), pytest.approx([80, 80.1]))
    assert found["mini.bypass.p10"][0] == pytest.approx([91, 91.1])
    assert found["mini.uniform"][1] == pytest.approx([70, 70.1]) and found["mini.oneshot"][1] == pytest.approx([60, 60.1])
    assert found["mini.narrow"][1] == [50, 50] and found["mini.drop"] == (pytest.approx([94, 94.1]), [95, 95])
    assert found["mini.progressive"] == (pytest.approx([0.3, 0.3]), pytest.approx([0.6, 0.6]))
    assert found["mini.rates"] == ([0.375] * 2, [0.0] * 2)
    assert claims.control([run(0), run(1)]) == {"control.above": 1, "control.below": 0}


def test_titles_say_what_the_run_shows():
    runs = [run(0), run(2)]
    assert "at most 30 % of the network, one-shot pruning 60\u00a0%" in draw.falling(runs).layout.title.text
    assert draw.accuracies(runs).layout.title.text == "At 10 % of the multiply-adds LAPP has 91.1 %"
    other = copy.deepcopy(runs)
    for one in other:
        one["arms"][0.1]["narrow"]["accuracy"] = 0.99
    assert "narrow from the start has 99.0 %, LAPP 91.1 %" in draw.accuracies(other).layout.title.text
    figure = draw.rates(runs)
    assert list(figure.data[0].y) == [100, 25] and "keep 25 to 100 %" in figure.layout.title.text


def test_sentences_name_the_pair_and_the_verdict():
    def row(identity, low, high, verdict):
        return {"kind": "miniature", "id": identity, "ours": (low + high) / 2, "interval": [low, high], "seeds": 16,
                "verdict": verdict}
    rows = [row("mini.bypass", 1, 3, "shown"), row("mini.drop", -1, 0.5, "not shown"),
            row("mini.progressive", -0.5, -0.3, "shown"), {"kind": "exact", "id": "r20.macs"}]
    assert draw.evidence_in_words(rows).splitlines() == [
        "- 20 %: LAPP − no bypass: +2.00 points (+1.00 to +3.00): **shown**.",
        "- 40 %: LAPP − unpruned: −0.25 points (−1.00 to +0.50; the rule asks for more than −0.5): **not shown**.",
        "- Largest fall of r in one epoch, LAPP − one-shot: −0.40 (−0.50 to −0.30): **shown**."]
    scored = row("mini.narrow", -1, 1, "open") | {"scores": {"ours": [90, 91], "baseline": [95, 96]}}
    assert draw.evidence_in_words([scored]).splitlines()[-1] == (
        "Mean accuracies at 20 % of the multiply-adds: narrow from the start 95.50 %; LAPP 90.50 %.")
    assert draw.evidence(rows).layout.title.text == "Of 2 differences 1 lie above zero and 0 below, 16 paired seeds"


TIMES = {name: {"left": [4, 128], "full": 2.0, "bypass": 0.2, "full.macs": 1000, "bypass.macs": 14, "macs": [30, 514],
                "conv": [0.1, 1.0], "scatter": [0.1, 0.1], "index": [0.4, 1.3], "slice": [0.35, 1.25], "narrow": [0.08, 1.1]}
         for name in draw.LAYERS}


def test_times_are_stacked_and_stand_beside_the_counts():
    figure = draw.speed(TIMES)
    conv, bypass, adding, narrow, macs = figure.data[:5]
    assert list(conv.y) == [5, 50] and list(bypass.y) == [10, 10] and list(adding.y) == [5, 5]
    assert list(narrow.y) == [4, pytest.approx(55)] and list(macs.y) == [3, pytest.approx(51.4)]
    assert figure.layout.barmode == "stack"
    assert figure.layout.title.text == "The grouped bypass: 1.4 % of the plain layer's multiply-adds, 10 % of its time"


def test_the_words_on_time():
    first = draw.speed_in_words(TIMES).splitlines()[0]
    assert "1.4 % of the plain layer's multiply-adds and 10 % of its 2.00 ms" in first
    assert "With 4 filters left it has 47 % of the compact layer's multiply-adds and 50 % of its time" in first
    assert first.endswith("With 128 left: 1.300, 1.250 and 1.100 ms.")


def test_layers_are_measured_with_their_own_bypass():
    found = draw.layer_times(left=(8,), repeats=1)
    assert found["grouped bypass"]["bypass.macs"] == 196 * 256 * 32
    assert found["depthwise bypass"]["bypass.macs"] == 196 * 256 * 9
