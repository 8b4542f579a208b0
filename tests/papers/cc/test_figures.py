"""CC: the figures."""

import math

import pytest
import torch
from papers.cc.sample import compared

from papernets.papers import cc
from papernets.papers.cc import figures as draw


@pytest.mark.parametrize("mode", draw.MODES)
@pytest.mark.parametrize("removed", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("kernel", ["3×3", "1×1"])
def test_the_explorer_of_a_layer_counts_what_it_shows(mode, removed, kernel):
    figure = draw.explore_layer(mode, removed, 0.9, kernel)
    work, way, *lines = figure.data[:5]
    k = int(kernel[0])
    assert work.z[7][7] == 100 and work.z[7][3] == 50
    assert work.z[4][5] == pytest.approx(100 * 5 * (6 * k * k + 8) / (64 * k * k))
    assert (way.x[0], way.y[0]) == (8, 8) and all(a + b == c + d + 1 for a, b, c, d in zip(way.x, way.y, way.x[1:], way.y[1:]))
    assert set(way.x) == {8} if mode == "ranks" else True
    assert set(way.y) == {8} if mode == "channels" else True
    line = dict(zip(draw.MODES, lines))[mode]
    assert len(line.x) == len(way.x) and line.x[0] == line.y[0] == 0
    for x, y, c, r in zip(line.x[1:], line.y[1:], way.x[1:], way.y[1:]):
        assert x == pytest.approx(100 - work.z[r - 1][c - 1]) and 0 <= y <= 105
    shown = [(x, y, text) for cells in figure.data[5:] for x, y, text in zip(cells.x, cells.y, cells.text)]
    assert len(shown) == 64 and all(text == f"{work.z[y - 1][x - 1]:.0f}" for x, y, text in shown)
    assert lines[0].line.color == draw.OURS and line.line.width == 3


def test_what_the_text_on_the_explorer_says():
    """Ranks of a 1×1 layer go over dearer fields; at small targets both may leave the layer whole."""
    assert min(draw.explore_layer("ranks", 0.5, 0.9, "1×1").data[4].x) < -50
    assert "one layer" in draw.explore_layer("both", 0.2, 0.9, "1×1").layout.title.text
    title = draw.explore_layer("both", 0.5, 0.9, "3×3").layout.title.text
    assert "rank" in title and "54 % of the work gone" in title
    assert "no more can be had" in draw.explore_layer("ranks", 0.9, 0.9, "1×1").layout.title.text


@pytest.mark.parametrize("kernel", ["3×3", "1×1"])
def test_looking_ahead_changes_the_way_of_the_explorer(kernel):
    ways = [draw.explore_layer("both", 0.5, gamma, kernel).data[1] for gamma in (0.9, 2)]
    assert list(zip(ways[0].x, ways[0].y)) != list(zip(ways[1].x, ways[1].y))


def test_the_explorer_of_shares():
    equal, lagrange = (draw.explore_shares(0.3, 1.0, rule) for rule in ("equal marginal loss", "Lagrange"))
    assert [round(y / 100, 4) for y in equal.data[0].y] == [0.2424, 0.3463, 0.2053]
    assert [round(y / 100, 4) for y in lagrange.data[0].y] == [0.1318, 0.4396, 0]
    assert "Total loss 0.282" in equal.layout.title.text and "Total loss 0.241" in lagrange.layout.title.text
    steeper = draw.explore_shares(0.3, 3.0, "equal marginal loss").data[0].y
    assert steeper[0] < equal.data[0].y[0] and steeper[1] > equal.data[0].y[1]
    for line, point in zip(equal.data[1::2], equal.data[2::2]):
        assert min(line.y) <= point.y[0] <= max(line.y)


def test_the_first_picture_is_the_search():
    W, G = draw.example_layer()
    lines = draw.tradeoff(W, G)
    path = cc.search(W, G, 0.9)
    assert lines["joint"][0][1:] == pytest.approx([100 * (1 - step.cost / W.numel()) for step in path.steps])
    whole = cc.information_loss(W, G, torch.zeros_like(W))
    assert lines["joint"][1][-1] == pytest.approx(100 * path.steps[-1].loss / whole)
    title = draw.problem({"pruning": ([0, 40, 60], [0, 1, 2]), "decomposition": ([0, -5, 50], [0, 3, 4]),
                          "joint": ([0, 70], [0, 7])}).layout.title.text
    assert title == "Half of the work gone: pruning loses 2 %, decomposition 4 %, both together 7 %"


def test_curves_and_their_fits():
    shares = cc.Shares({"a": 1.0}, {"a": 0.5}, {"a": ([-0.1, 0.2, 1.0], [1.0, 2.0, 8.0])}, {"a": (0.5, 2.0)}, 1.0)
    points, line = draw.curves(shares).data
    assert list(points.x) == [20, 100] and list(points.y) == [0.25, 1] and line.y[-1] == pytest.approx(0.5 * math.exp(2))
    assert "b = 2.0 in layer 1" in draw.curves(shares).layout.title.text
    without = draw.curves(cc.Shares({"a": 1.0}, {"a": 0.5}, shares.curves, {"a": None}, 1.0))
    assert len(without.data) == 1


def test_bars_and_points_are_means_over_the_seeds():
    before, after = draw.accuracies(compared(0) + compared(10)).data
    assert list(before.x) == pytest.approx([50.5, 60.5, 70.5] * 2) and list(after.x) == pytest.approx([90, 91, 92] * 2)
    assert "pruning leaves 50 %" in draw.accuracies(compared(0) + compared(8)).layout.title.text
    figure = draw.orders(compared(0) + compared(4))
    assert list(figure.data[-1].y) == [12, 12, 20] and "12.0 % looking ahead, 12.0 % without" in figure.layout.title.text


def test_what_layers_give():
    rows = [{"units": units, "layer": f"blocks.0.conv{at}", "goal": 0.4, "gives": 0.4 + at / 20, "unit": 0.1, "whole": 0.52}
            for units in ("joint", "ranks") for at in (0, 1)]
    goal, gives = draw.overshoot(rows).data
    assert list(goal.x) == pytest.approx([40, 40]) and list(gives.x) == pytest.approx([40, 45])
    assert list(gives.y) == ["0, conv 0", "0, conv 1"]
    assert draw.overshoot(rows).layout.title.text.startswith("Every layer gives up to 5 points more than its share: 52.0 %")


def test_times():
    layer = {"dense": {"macs": 2e6, "seconds": 0.002}, "pruning": {"macs": 1e6, "seconds": 0.001},
             "decomposition": {"macs": 1e6, "seconds": 0.0016}, "joint": {"macs": 1e6, "seconds": 0.0012}}
    for name, rank in (("decomposition", 7), ("joint", 8)):
        layer[name] |= {"first": 0.0009, "second": 0.0003, "second.macs": 1e5, "rank": rank, "copy": 0.00003}
    first, second = draw.speed({"layer": layer}).data
    assert list(first.y) == pytest.approx([50, 60, 45]) and list(second.y) == pytest.approx([0, 20, 15])
    assert "joint takes 60 % of the time" in draw.speed({"layer": layer}).layout.title.text
    words = draw.speed_in_words({"layer": layer})
    assert "2.00 ms, 1 billion multiply-adds a second. That rate is 1 in the 3×3 layer to rank 7, and 0 in the 1×1" in words
    assert "takes 10 % of its time" in words and "memory does not limit it" in words
    layer["joint"]["copy"] = 0.00027
    assert "at most 90 %" in draw.speed_in_words({"layer": layer}) and "memory limits" in draw.speed_in_words({"layer": layer})


def test_estimates_and_distances():
    line = draw.estimates_in_words(compared(0) + compared(1)).splitlines()[0]
    assert "is 28.0 % of the layer's for both together and 29.0 % for decomposition" in line and "is 42.0 % and 41.0 %" in line
