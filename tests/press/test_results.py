"""The state of a paper follows from its files."""

import json

import pytest

from papernets.cards import card, cards, comparisons
from papernets.cards.present import header_html, table, typeset_html
from papernets.cards.provenance import own_hash
from papernets.cards.schema import _cards
from papernets.press import read_results, status
from papernets.press._pages import family_html, map_html, readme_table, results_html
from papernets.press._results import Status
from papernets.press._thumbnail import thumbnail

TOY = """number = 1
slug = "toy"
name = "Toy <b>"
title = "A toy & more"
authors = ["One", "Two", "Three", "Four"]
year = 2021
venue = "ICCV 2021"
family = "pruning"
summary = "A card for the tests of the pages."
[[claims]]
id = "sum"
quantity = "sum of <two> numbers"
paper = 3
unit = "one"
stated = "derived"
kind = "exact"
accept = { absolute = 0 }
how = "addition"
"""
FULL = """
[[claims]]
id = "all"
quantity = "accuracy"
paper = 90
unit = "%"
stated = "table"
kind = "full"
accept = { absolute = 0.5 }
how = "on the test images"
cost = "1 GPU hour"
"""
RESULTS = {"schema": 1, "chapter": "01-toy", "profile": "evidence", "made_by": {"hash": "?"},
           "claims": [{"id": "sum", "kind": "exact", "unit": "one", "paper": 3, "ours": 3, "verdict": "reproduced"}]}


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    papers = tmp_path / "src" / "papernets" / "papers"
    put(papers / "toy/card.toml", TOY)
    (tmp_path / "notebooks").mkdir()
    return tmp_path


def test_states(world):
    def state():
        return status(cards()[0]).state

    assert state() == "planned"
    put(world / "src/papernets/papers/toy/__init__.py", "")
    put(world / "src/papernets/papers/toy/method.py", "x = 1\n")
    assert state() == "method"
    (world / "notebooks/01-toy.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    assert state() == "chapter"
    file = world / "book/results/01-toy.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(RESULTS))
    assert state() == "stale"  # made from something else
    RESULTS["made_by"]["hash"] = own_hash(cards()[0])
    file.write_text(json.dumps(RESULTS))
    assert state() == "validated"
    assert status(cards()[0]).counts == {"reproduced": 0, "derived": 1, "differs": 0, "shown": 0, "not_shown": 0,
                                            "open": 0}
    put(world / "src/papernets/papers/toy/card.toml", TOY + FULL + 'recipe = ""\n')
    _cards.cache_clear()
    assert state() == "chapter"  # a claim with neither verdict nor command
    put(world / "src/papernets/papers/toy/card.toml", TOY + FULL + 'recipe = "papernets train toy --config all"\n')
    _cards.cache_clear()
    assert state() == "validated"
    file.write_text(json.dumps({**RESULTS, "profile": "book"}))
    assert state() == "stale"  # a page's run is no evidence
    put(world / "src/papernets/papers/toy/method.py", "x = 2\n")
    file.write_text(json.dumps(RESULTS))
    assert state() == "stale"  # the method changed


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema": 2}', '{"schema": 1, "claims": []}'])
def test_a_damaged_results_file_is_named(world, text):
    path = world / "01-toy.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"01-toy\.json: not a results file"):
        read_results(path)


@pytest.fixture
def found(world):
    return [Status(cards()[0], "validated", tuple(RESULTS["claims"]), {})]


def test_pages_escape_what_they_show_and_link_only_to_what_is_built(found):
    for built, links in ((frozenset({"01-toy"}), True), (frozenset(), False)):
        for page in (map_html(found, built, {}), family_html(found, built, "pruning"), results_html(found, built)):
            assert "Toy &lt;b&gt;" in page and "Toy <b>" not in page
            assert ("notebooks/01-toy.html" in page) is links
    page = results_html(found, frozenset())
    assert "sum of &lt;two&gt; numbers" in page
    assert 'data-verdict="derived"' in page and "<small>not printed:</small> 3 one</td>" in page and ">3 one</td>" in page
    assert "ICCV 2021 2021" not in family_html(found, frozenset(), "pruning")
    assert family_html(found, frozenset(), "motion") == ""


BOTH = """
slug = "both"
name = "Both?"
title = "Which <b>?"
family = "pruning"
summary = "Two methods on one network, for the same number of epochs."
methods = ["toy", "other"]
""" + TOY[TOY.index("[[claims]]"):]


@pytest.fixture
def compared(world):
    folder = world / "src" / "papernets" / "comparisons" / "both"
    put(folder / "card.toml", BOTH)
    put(folder / "__init__.py", "")
    put(folder / "experiment.py", "y = 1\n")
    papers = world / "src" / "papernets" / "papers"
    put(papers / "toy/__init__.py", "")
    put(papers / "toy/method.py", "x = 1\n")
    put(papers / "other/card.toml", TOY.replace('slug = "toy"', 'slug = "other"').replace("number = 1", "number = 2"))
    put(papers / "other/__init__.py", "")
    put(papers / "other/method.py", "x = 2\n")
    (world / "notebooks/both.ipynb").write_text('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}')
    _cards.cache_clear()
    return world


def test_a_comparison_is_stale_when_one_of_its_methods_changes(compared):
    one, = comparisons()
    assert card("both") is one and one.chapter == one.slug == "both" and one not in cards()
    file = compared / "book/results/both.json"
    file.parent.mkdir(parents=True)
    results = {**RESULTS, "chapter": "both", "made_by": {"hash": own_hash(one)}}
    file.write_text(json.dumps(results))
    assert status(one).state == "validated"
    for source in ("papers/toy/method.py", "papers/other/method.py", "comparisons/both/experiment.py"):
        path = compared / "src/papernets" / source
        before = path.read_text()
        path.write_text(before + "z = 3\n")
        assert status(one).state == "stale", source
        path.write_text(before)
    assert status(one).state == "validated"


def test_a_comparison_stands_with_the_families_of_its_methods_and_among_the_results(compared):
    one = status(comparisons()[0])
    page = family_html([status(cards()[0])], frozenset({"both"}), "pruning", [one])
    assert '<a href="../../notebooks/both.html">Which &lt;b&gt;?</a> Two methods' in page
    assert "both.html" not in family_html([status(cards()[0])], frozenset(), "pruning", [one])  # not in this site
    assert family_html([], frozenset({"both"}), "motion", [one]) == ""
    assert ">Both?</td>" in results_html([one], frozenset({"both"}))
    rows = [{"id": "sum", "kind": "exact", "unit": "one", "paper": 3, "ours": 3, "verdict": "reproduced"}]
    for page_of, head in ((one.card, "expected"), (cards()[0], "paper")):  # a comparison quotes no paper
        assert f"<th>{head}</th>" in table(rows, page_of) and f'data-label="{head}"' in table(rows, page_of)
    assert header_html(one.card, []).count("Two methods on one network") == 1


def test_the_table_of_the_readme(found):
    lines = readme_table(found).splitlines()
    assert len(lines) == 3
    assert lines[2] == ("| 01 | [Toy <b>](notebooks/01-toy.ipynb): A toy & more | Pruning and sparsity | validated "
                        "| 1 derived |")


def test_a_thumbnail_is_drawn_from_the_first_panel():
    picture = thumbnail({"data": [
        {"type": "scatter", "mode": "markers", "x": [0, 10, None], "y": [0, 5, 1],
         "marker": {"color": "#D55E00", "size": [20, 5, 5]}},
        {"type": "scatter", "mode": "lines", "x": [0, 10, None, 3], "y": [5, 0, None, 3], "line": {"color": "#0072B2"}},
        {"type": "heatmap", "xaxis": "x2", "z": [[1]]}]})
    assert picture.count("<circle") == 2 and picture.count("<polyline") == 1
    assert 'cx="6.0" cy="84.0" r="4.0"' in picture and 'cx="154.0" cy="6.0"' in picture
    assert thumbnail({"data": [{"type": "table"}]}) == ""


def test_a_thumbnail_of_a_scene_is_seen_from_the_side_of_the_camera():
    """Two points one behind the other: the near one is drawn last, and which is near depends on the camera."""
    trace = {"type": "scatter3d", "mode": "markers", "x": [0, 9, 0], "y": [0, 9, 9], "z": [0, 0, 5],
             "marker": {"color": [0, 1, 0], "colorscale": [[0, "#111111"], [1, "#222222"]], "cmin": 0, "cmax": 1}}
    front = thumbnail({"data": [trace], "layout": {"scene": {"camera": {"eye": {"x": 1, "y": 1}}}}})
    back = thumbnail({"data": [trace], "layout": {"scene": {"camera": {"eye": {"x": -1, "y": -1}}}}})
    assert front.count("h0") == back.count("h0") == 3
    assert [part[:7] for part in front.split('stroke="')[1:]] == ["#111111", "#222222"]
    assert [part[:7] for part in back.split('stroke="')[1:]] == ["#222222", "#111111"]
    many = {**trace, **{axis: list(range(2000)) for axis in "xyz"}, "marker": {"color": "#333333"}}
    assert 400 < thumbnail({"data": [many]}).count("h0") <= 600
    assert thumbnail({"data": [{**trace, "x": [], "y": [], "z": [], "marker": {}}]}) == ""


def test_a_heatmap_has_a_picture_of_its_cells():
    found = thumbnail({"data": [{"type": "heatmap", "z": [[0.0, 1.0, None], [0.5, float("nan"), 2.0]], "zmin": 0, "zmax": 2}]})
    assert found.count("h-") == 4  # cells with a number
    assert [part.split('"')[0] for part in found.split('fill-opacity="')[1:]] == ["0.09", "0.32", "0.55", "1.00"]
    assert "M21.5 6.0" in found and "M99.5 45.0" in found  # the first and the last cell


def test_an_empty_heatmap_has_no_picture():
    assert thumbnail({"data": [{"type": "heatmap", "z": [[None, None]]}]}) == ""
    assert thumbnail({"data": [{"type": "heatmap"}]}) == ""


@pytest.mark.parametrize(("text", "printed"), [
    ("<p>40.3 % less (-0.5 to -0.2)</p>", "<p>40.3\u00a0% less (\u22120.5 to \u22120.2)</p>"),
    ("<li>a, b: -3 points</li>", "<li>a, b: \u22123 points</li>"),
    ("<b>ResNet</b>-20", None),
    ("<td>3 x 3 kernels</td>", "<td>3\u00a0\u00d7\u00a03 kernels</td>"),
    ("<p>ResNet-20, 3-5, 1e-3, as -x, a %, 2 x as large, 0x1F</p>", None),
    ("<code>x[ -1] 5 %</code><pre>f( -1)\n<b>5 %</b> -1</pre>", None),
    ('<script>let a = " -1 5 %";</script><img alt="5 %, -1">', None),
    (r'<span class="math">\(x &lt; -1, 5 %\)</span><div>\[ -2 \]</div>', None),
    ("<svg><text>5 %</text></svg>", None),
])
def test_text_is_typeset_and_code_is_not(text, printed):
    assert typeset_html(text) == (text if printed is None else printed)
    assert typeset_html(typeset_html(text)) == typeset_html(text)
