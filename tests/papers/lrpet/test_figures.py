"""LRPET: the figures."""

import numpy as np
import pytest
import torch
from papers.lrpet.sample import GRADIENTS, compared

from papernets.papers import lrpet
from papernets.papers.lrpet import figures as draw


def values(*arguments):
    figure = draw.explore_projection(*arguments)
    before, after, bars = figure.data[:3]
    return np.array(before.y), np.array(after.y), dict(zip(bars.y, bars.x))


@pytest.mark.parametrize("q", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("spread", [0.0, 1.0])
@pytest.mark.parametrize("energy", [False, True])
@pytest.mark.parametrize("rectify", [False, True])
def test_the_explorer_counts_what_it_shows(q, spread, energy, rectify):
    before, after, bars = values(q, spread, 0.0, energy, rectify)
    r = lrpet.rank(16, q)
    assert int((after > 1e-9).sum()) == r
    assert bars["energy"] == pytest.approx(100 * (after**2).sum() / (before**2).sum())
    assert bars["multiply-adds"] == pytest.approx(100 * r * (16 + 36) / (16 * 36))
    W, a = draw.example_weight(), draw.example_scale(spread)
    projected = a[:, None] * lrpet.project(W, r, a if rectify else None, energy=energy)
    assert bars["error"] == pytest.approx(100 * float((projected - a[:, None] * W).norm() / (a[:, None] * W).norm()))


def test_what_the_text_on_the_explorer_says():
    """The transfer keeps the energy; the batch norm matters only if its scales differ; truncation is the nearest matrix."""
    assert values(0.75, 1.0, 0.0, True, True)[2]["energy"] == pytest.approx(100, abs=0.5)
    assert values(0.75, 1.0, 0.0, False, True)[2]["energy"] < 95
    assert abs(values(0.75, 1.0, 0.0, True, False)[2]["energy"] - 100) > 1
    same = [values(0.75, 0.0, 0.0, False, rectify)[2]["error"] for rectify in (False, True)]
    assert same[0] == pytest.approx(same[1], abs=0.01)
    nearest = values(0.75, 1.0, 0.0, False, True)[2]["error"]
    assert nearest < values(0.75, 1.0, 0.0, False, False)[2]["error"]
    assert nearest < values(0.75, 1.0, 0.0, True, True)[2]["error"]
    assert values(0.0, 0.5, 0.0, True, True)[2]["multiply-adds"] > 100


def test_bars_and_curves_are_those_of_the_runs():
    first, second = draw.accuracies(compared(0) + compared(2)).data
    assert list(first.x) == pytest.approx([11, 21, 31, 41, 51, 61]) and second.x[0] == pytest.approx(5.5)
    figure = draw.curves(compared(0), 0.8)
    assert "30 points at worst, 2.0 after the last epoch" in figure.layout.title.text
    assert {part.name: list(part.y) for part in figure.data}["after the projection"] == pytest.approx([20, 88])


def test_gradients_are_geometric_means():
    lines = {part.name: part.y for part in draw.gradients(GRADIENTS).data}
    assert lines["truncated"][-1] == pytest.approx(np.exp(-2.5)) and lines["energy given back"][0] == pytest.approx(np.exp(0.1))


def test_times_are_set_against_multiply_adds():
    times = {"a": {"rank": [1, 2], "ms": 0.5, "macs": [10.0, 20.0], "time": [30.0, 15.0]},
             "b": {"rank": [1], "ms": 1.0, "macs": [50.0], "time": [60.0]}}
    figure = draw.speed(times)
    assert figure.layout.title.text.startswith("In 2 of 3 cases") and list(figure.data[0].y) == [30, 15]
    assert draw.speed_in_words(times).splitlines()[0] == (
        "- a: rank 1 has 10 % of the multiply-adds and takes 30 % of the time of the full layer, which is 0.500 ms.")
    with torch.inference_mode():
        found = draw.layer_times((0.5,), at_least=0.001)
    assert found["16 channels, 32×32"]["macs"] == [pytest.approx(100 * 8 * 160 / (16 * 144))]


def test_the_printed_counts_are_explained_with_ours():
    said = draw.counts_in_words()
    for part in ("174 252 982 and 2 692 426", "126 422 032 and 1 973 668", "27.46 %", "27.34 %", "49.3 %", "30.2 %"):
        assert part in said.replace("\u202f", " ")
