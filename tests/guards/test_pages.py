"""The page checks see what they are for: each fault is planted in a page of its own."""

import json
from pathlib import Path

import plotly
import plotly.graph_objects as go
import pytest
from page_checks import size_problems, visit

from papernets.chapter import Figure
from papernets.chapter._figure import page_html, plain
from papernets.tools import paths

pytestmark = [pytest.mark.browser, pytest.mark.xdist_group("site")]


@pytest.fixture
def plant(tmp_path):
    """``plant(body)`` writes a page with the scripts of the site."""
    static = tmp_path / "_static"
    (static / "vendor").mkdir(parents=True)
    source = paths.root() / "book" / "_static"
    for name in ("papernets.js", "papernets.css"):
        (static / name).write_text((source / name).read_text())
    bundle = Path(plotly.__file__).parent / "package_data" / "plotly.min.js"
    (static / "vendor" / "plotly.min.js").symlink_to(bundle)

    def write(body):
        page = tmp_path / "page.html"
        page.write_text('<!doctype html><html data-theme="light"><head><meta charset="utf-8">'
                        '<link rel="stylesheet" href="_static/papernets.css"><script src="_static/papernets.js"></script>'
                        f"</head><body><article>{body}</article></body></html>")
        return page

    return write


def figure(**trace):
    drawn = go.Figure(go.Scatter(**trace), layout=dict(title="A line rises", xaxis_title="x (m)", yaxis_title="y (m)"))
    return page_html("pn-one", "A line", 300, {"figure": plain(drawn)})


def problems(screen, page):
    tab, found = visit(screen("desktop-light"), page, settle=4)
    tab.close()
    return found


def test_a_good_page_passes(plant, screen):
    assert problems(screen, plant("<p>Well.</p>" + figure(x=[1, 2], y=[3, 4]))) == []


def test_a_figure_that_draws_blank(plant, screen):
    found = problems(screen, plant(figure(x=[], y=[])))
    assert "figure pn-one is blank" in found


def solid(x, **axes):
    drawn = go.Figure(go.Scatter3d(x=x, y=x, z=x, mode="markers"), layout=dict(title="Three points", scene=axes))
    return page_html("pn-one", "Three points", 300, {"figure": plain(drawn)})


def test_a_scene_in_three_dimensions(plant, screen):
    named = {f"{axis}axis": {"title": f"{axis} (m)"} for axis in "xyz"}
    assert problems(screen, plant(solid([1, 2, 3], **named))) == []
    assert "the scene of figure pn-one is blank" in problems(screen, plant(solid([], **named)))
    assert problems(screen, plant(solid([1, 2, 3], **named | {"zaxis": {}}))) == ["the scene of figure pn-one has no ztitle"]


def test_a_figure_whose_data_are_broken(plant, screen):
    found = problems(screen, plant(figure(x=[1, 2], y=[3, 4]).replace('{"figure"', '{"figure')))
    assert any("blank" in line for line in found) and any("script error" in line for line in found)


def test_a_figure_without_a_trace_is_refused_before_it_is_shown():
    with pytest.raises(ValueError, match="draws blank"):
        Figure(go.Figure(), "Nothing", "pn-none")


@pytest.mark.parametrize("element", ['<img src="http://example.org/a.png">', '<script src="https://example.org/a.js"></script>',
                                     '<link rel="stylesheet" href="https://example.org/a.css">'])
def test_a_page_that_calls_another_host(plant, screen, element):
    assert any(line.startswith("calls another host: http") for line in problems(screen, plant(f"<p>Well.</p>{element}")))


def test_an_axis_without_a_name(plant, screen):
    drawn = go.Figure(go.Scatter(x=[1, 2], y=[1, 2]), layout=dict(title="A line", xaxis_title="x"))
    body = page_html("pn-one", "A line", 300, {"figure": plain(drawn)})
    assert "figure pn-one has no ytitle" in problems(screen, plant(body))


def test_text_that_cannot_be_read(plant, screen):
    assert any("contrast" in line for line in problems(screen, plant('<p style="color:#bbb">Pale.</p>')))


def test_a_page_wider_than_the_screen(plant, screen):
    found = problems(screen, plant('<p>Well.</p><div style="width:3000px">.</div>'))
    assert any("wider than the screen" in line for line in found)


def test_a_traceback_in_the_text(plant, screen):
    assert "the text holds Traceback" in problems(screen, plant("<pre>Traceback (most recent call last)</pre>"))


def test_a_formula_that_was_not_typeset(plant, screen):
    assert any("not typeset" in line for line in problems(screen, plant(r'<p>Well</p><span class="math">\(x^2\)</span>')))


def test_a_page_over_its_size(tmp_path):
    page = tmp_path / "big.html"
    page.write_text(json.dumps("x" * 600_000))
    assert size_problems(page) == [f"big.html has {page.stat().st_size} bytes, at most 600000"]
