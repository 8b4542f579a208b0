"""Weight Evolution: the figures."""

import json
import re

import numpy as np
import pytest
import torch
from papers.we.sample import rows

from papernets.chapter import OURS, Chapter, Choice, Slider
from papernets.papers import we
from papernets.papers.we import figures as draw
from papernets.tools import paths
from papernets.training import row

LOCALS, RATES, EPOCHS = (0, 0.1, 0.25), (0.05, 0.5), (59, 60)


@pytest.mark.parametrize("rule", draw.RULES)
@pytest.mark.parametrize("local", LOCALS)
@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("epoch", EPOCHS)
def test_the_explorer_shows_what_the_method_does(rule, rate, local, epoch):
    figure = draw.explore_evolution(rule, rate, local, epoch)
    bars, arrows, theta, line, cells, moved = figure.data
    kernel, mix = draw.RULES[rule]
    W = draw.example_layer(kernel)
    a = we.importance(W)
    share = np.array(bars.y)
    assert share == pytest.approx((100 * a / a.max()).numpy())
    every = sorted([*a.tolist(), *draw.other_layers(float(a.max())).tolist()])
    level = every[int(64 * rate * we.CIFAR(epoch))]
    g, l = int((a < level).sum()), int((share <= 100 * local).sum())
    evolved = [index for index, color in enumerate(bars.marker.color) if color == OURS]
    assert f"weak in the network {g}, in the layer {l}; {len(evolved)} evolve" in figure.layout.title.text
    assert len(evolved) == min(g, l, 16 - min(g, l)) and evolved == list(range(16 - min(g, l), 16 - min(g, l) + len(evolved)))
    assert theta.y[0] == pytest.approx(max(100 * level / float(a.max()), 0.4)) and line.y[0] == max(100 * local, 0.4)
    ends = [x for x, after in zip(arrows.x, [*arrows.x[1:], None]) if x is not None and after is None]
    assert ends == pytest.approx([o + 1 for o in evolved])
    changed = 0 if moved.x[0] is None else len(moved.x)
    assert changed == (0 if not evolved else 4 if kernel == "3×3" else 36)
    partner, before, after = (cells.z[4 * k : 4 * k + 3] for k in range(3))
    assert int((np.nan_to_num(np.array(before, float)) != np.nan_to_num(np.array(after, float))).sum()) <= changed
    if evolved:
        whole = np.nan_to_num(np.array(after, float))
        assert (whole.max() > 0.5 * np.nanmax(np.array(partner, float))) == (mix == "dominant")


def test_what_the_text_on_the_explorer_says():
    """A 1×1 filter nearly becomes its partner, and by the code's mix hardly anything happens."""
    def weights(rule):
        cells = np.nan_to_num(np.array(draw.explore_evolution(rule, 0.5, 0.25, 59).data[4].z, float))
        return cells[:3], cells[4:7], cells[8:11]
    partner, _, after = weights("1×1")
    assert np.abs(after - partner).max() < 0.1 * partner.max()
    _, before, after = weights("3×3, code's mix")
    assert 0 < np.abs(after - before).max() < 0.05
    q = [draw.explore_evolution("1×1", rate, 0.1, 59).layout.title.text for rate in (0.05, 0.5)]
    assert q[0] != q[1]
    evolve = [int(re.search(r"(\d+) evolve", draw.explore_evolution("1×1", 0.5, local, 59).layout.title.text)[1])
              for local in (0, 0.05, 0.25)]
    assert evolve == sorted(evolve) and len(set(evolve)) == 3


def test_the_explorer_fits_on_the_page():
    notebook = json.loads(paths.notebook("03-we").read_text(encoding="utf-8"))
    source = next("".join(cell["source"]) for cell in notebook["cells"] if "chapter.explore(" in "".join(cell["source"]))
    explorer = eval(source, {"chapter": Chapter("we"), "Choice": Choice, "Slider": Slider, "draw": draw})
    states = np.prod([len(control.values()) for control in explorer.controls.values()])
    assert states == 240 and len(explorer.page()) < 300_000


def test_the_first_picture_counts_weak_filters():
    dead = [row(0, "plain", 0.5, "dead", weak=3, relative=[0.01, 1.0, 0.05, 0.2], start=[1] * 4),
            row(0, "dominant", 0.5, "dead", weak=1, relative=[0.5, 1.0, 0.05, 0.2], start=[1] * 4)]
    figure = draw.sorted_importances(dead)
    assert figure.layout.title.text == "After training, 3 of 4 filters are weak; with evolution 1"
    assert [list(part.y) for part in figure.data] == [[100, 20, 5, 1], [100, 50, 20, 5]]


def test_mixtures_and_schedules():
    lines = {part.name: (np.array(part.x), np.array(part.y, float)) for part in draw.mixtures().data}
    q, ours = lines["strong prevails"]
    assert (np.abs(ours) <= 1 + 1e-12).all() and ours[np.abs(q).argmin()] == 1
    code = lines["code's mix"][1]
    assert np.isnan(code[(q < -0.7) & (q > -1)]).all() and code[q == 0.5] == pytest.approx(2 * 0.5 / 1.5)
    assert draw.mixtures().layout.title.text == "0.1 beside 1 becomes 0.92; by the code's mix 0.18"
    cifar, imagenet = draw.schedules().data
    assert (cifar.y[0], cifar.y[60], len(cifar.y)) == (pytest.approx(10), pytest.approx(4), 200)
    assert (imagenet.y[0], imagenet.y[30], len(imagenet.y)) == (pytest.approx(1), pytest.approx(0.5), 90)
    assert "from 10 to 20 %" in draw.schedules().layout.title.text


def test_histograms_are_means_over_runs():
    figure = draw.reactivated([*rows(10), *rows(20, seed=1)])
    plain = next(part for part in figure.data if part.name == "plain")
    assert list(plain.y) == [2, 0, 0, 1, 0, 1]
    assert figure.layout.title.text == "Of 4 filters, 15 stay below a tenth; with evolution 14"


def test_bars_are_means_over_the_seeds():
    figure = draw.accuracies([*rows(base=0.3), *rows(base=0.5, seed=1)])
    bars = dict(zip(figure.data[0].y, figure.data[0].x))
    assert bars["digits: plain"] == pytest.approx(40) and bars["digits: WE"] == pytest.approx(50)
    assert bars["dead start: new random"] == pytest.approx(84)
    assert figure.layout.title.text.startswith("From a dead start evolution brings +10.0 points; on healthy digits +10.0")


def test_who_is_overtaken():
    """Filters 2 and 3 end as weak; the third had been scaled down at the start, the other was left alone."""
    assert draw.scaled_start(rows()).layout.title.text == "2 filters end as weak; 1 of them were never touched"
    said = draw.overtaken_in_words(rows())
    assert "2.0 of 4 filters end below a tenth" in said and "1.0 had been scaled down, and 1.0 had been left" in said
    assert said.endswith("ends with 10 such filters, and 1 filters evolve in a whole run, 0 of them 1×1.")
    scaled, alone = draw.scaled_start(rows()).data
    assert list(scaled.x) == pytest.approx([0.1, 0.1]) and list(alone.x) == pytest.approx([100, 90])


def test_what_it_costs_in_words():
    said = draw.cost_in_words({"small": {"evolution": 1.26e-3, "epoch": 40.4e-3},
                               "mobilenetv2": {"evolution": 30.6e-3, "step": 80.2e-3}})
    assert "takes 1.3 ms" in said and "300 digits 40 ms" in said
    assert "MobileNetV2 takes 31 ms" in said and "images 80 ms" in said


def test_the_example_layer_falls_by_a_hundred():
    for kernel, shape in (("3×3", (16, 4, 3, 3)), ("1×1", (16, 36, 1, 1))):
        W = draw.example_layer(kernel)
        a = we.importance(W)
        assert W.shape == shape and torch.equal(a, a.sort(descending=True).values)
        assert float(a[0] / a[-1]) == pytest.approx(100)
