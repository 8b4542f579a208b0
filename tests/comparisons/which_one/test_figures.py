"""The comparison of eight methods: the figures."""

import pytest
from comparisons.which_one.samples import claim

from papernets.comparisons.which_one import figures as draw
from papernets.comparisons.which_one.experiment import METHODS, PAPERS, arms
from papernets.training import row


def rows(lead=5.0, seeds=3):
    """Method number i has 50 + i per cent, LAPP ``lead`` above the narrow network; seeds differ by a point."""
    made = []
    for seed in range(seeds):
        for index, (slug, budget) in enumerate(arms()):
            accuracy = 50 + index if slug not in ("lapp", "narrow") else 70 if slug == "narrow" else 70 + lead
            one = row(seed, slug, (accuracy + seed - 1) / 100, budget, macs=1_000_000 + index, params=10_000 + 100 * index,
                      bytes=40_000, seconds=2.0 + index, time=(4.0 + (index - 4) / 2) / 1e3)
            made += [one, {**one, "at": "params"}] if METHODS[slug].both else [one]
    return made


def test_means_and_intervals_over_the_seeds():
    found = draw.means(rows(), "narrow", "macs")
    assert found["accuracy"] == pytest.approx(70) and found["spread"] == pytest.approx(4.303 / 3**0.5, abs=1e-3)
    assert draw.means(rows(seeds=1), "narrow", "macs")["spread"] == 0
    assert [row["score"] for row in draw.chosen(rows(), "lbc", "params")] == [
        row["score"] for row in draw.chosen(rows(), "lbc", "macs")]
    assert len(draw.chosen(rows(), "cc", "params")) == 3
    assert {row["at"] for row in draw.chosen(rows(), "cc", "params")} == {"params"}


@pytest.mark.parametrize("budget", draw.BUDGETS)
@pytest.mark.parametrize("across", draw.ACROSS)
def test_every_network_is_a_point(budget, across):
    figure = draw.scatter(rows(), budget, across)
    points = {text: (x, y) for trace in figure.data for text, x, y in zip(trace.text, trace.x, trace.y)}
    assert set(points) == {method.name for method in METHODS.values()}
    key, unit, title = draw.ACROSS[across]
    expected = draw.means(rows(), "cc", draw.BUDGETS[budget])
    assert points["CC"] == (pytest.approx(expected[key] / unit, abs=1e-3), pytest.approx(expected["accuracy"], abs=0.01))
    low, high = figure.layout.xaxis.range
    assert all(low < x < high for x, _ in points.values()) and figure.layout.xaxis.title.text == title


def test_names_go_where_nothing_else_is():
    """A lone point has its name above on the right; at the border it goes left; a neighbour there sends it elsewhere."""
    def sides(*points, names=("one", "two", "three")):
        x, y = zip(*points)
        return draw.sides_of(names[:len(x)], x, y, [0.0] * len(x), (0.0, 10.0))

    assert sides((5, 50)) == ["top right"]
    assert sides((9.9, 50), (1, 60)) == ["top left", "top right"]
    assert sides((5, 50), (5.3, 51), (0, 80))[0] != "top right"
    many = [(5, 50 + i / 10) for i in range(3)] + [(0, 80)]
    found = sides(*many, names=("one", "two", "three", "four"))
    assert len(set(found[:3])) == 3 and not {"middle center"} & set(found)
    crossed = draw.sides_of(("one", "two"), (5, 5.4), (50, 80), (0, 40), (0.0, 10.0))
    assert crossed[0].endswith("left")  # an interval that is far from its marker


@pytest.mark.parametrize(("lead", "title"), [(5.0, "LAPP is 5.0 points above the narrow"), (1.5, "LAPP is 1.5 points above")])
def test_the_title_is_the_result(lead, title):
    assert title in draw.scatter(rows(lead)).layout.title.text
    assert "below the narrow network" in draw.scatter(rows(-40)).layout.title.text


def test_differences_name_those_that_are_shown():
    names = [f"{slug.removeprefix('lr-')}.macs.accuracy" for slug in PAPERS]
    none = [claim(name, -2, 1) for name in names]
    assert "nothing beats" in draw.against_narrow(none).layout.title.text
    one = [claim(names[0], 0.5, 1), *none[1:]]
    assert "LAPP beats" in draw.against_narrow(one).layout.title.text
    two = [claim(names[0], 0.5, 1), claim(names[1], 0.1, 1), *none[2:]]
    assert "LAPP and DCFF beat the" in draw.against_narrow(two).layout.title.text
    three = [claim(name, 0.5, 1) for name in names[:3]] + none[3:]
    assert "LAPP, DCFF and WE beat the" in draw.against_narrow(three).layout.title.text
    assert "8 of 8 beat" in draw.against_narrow([claim(name, 1, 2) for name in names]).layout.title.text
    figure = draw.against_narrow(one)
    assert figure.data[0].y[-1] == "LAPP" and figure.data[0].x[-1] == 0.75 and len(figure.data[0].y) == 8


def test_one_seed_is_a_point_and_beats_nobody():
    alone = [{"id": f"{slug.removeprefix('lr-')}.macs.accuracy", "kind": "miniature", "ours": 3.0} for slug in PAPERS]
    figure = draw.against_narrow(alone)
    assert "nothing beats" in figure.layout.title.text and set(figure.data[0].x) == {3.0}


def test_times_are_counted():
    names = [f"{slug.removeprefix('lr-')}.time" for slug in PAPERS]
    found = [claim(name, -2, -1) for name in names[:3]] + [claim(name, -2, 1) for name in names[3:]]
    assert "3 of 8 are faster" in draw.against_dense(found).layout.title.text


def test_the_table_has_the_best_first():
    lines = draw.table(rows(), "params").splitlines()
    assert len(lines) == 2 + len(METHODS) and lines[2].startswith("| LAPP | 75.0±")


def test_the_advice_is_made_of_the_numbers():
    names = [f"{slug.removeprefix('lr-')}.{budget}.accuracy" for slug in PAPERS for budget in ("macs", "params")]
    text = draw.advice(rows(), [claim(name, 1 if name == "lapp.macs.accuracy" else -1, 2) for name in names])
    assert "means over 3 seeds" in text and "At equal multiply-adds** the most accurate is LAPP with 75.0 %" in text
    assert "narrow network for: LAPP." in text and "narrow network for: none." in text
    assert "no time saved:** " in text and "The dearest training" in text
