"""A figure with controls on a page: its precomputed states against the figures themselves, its limits, and its text."""

import itertools
import json

import numpy as np
import plotly.graph_objects as go
import pytest
from explorer_checks import DRAWS, Page, expected, explorer, line, numbers, payload, rebuilt, traces, without_null

from papernets.chapter import Choice, Explorer, Slider, Toggle

# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
@pytest.mark.parametrize("start", [False, True])
def test_every_state_of_the_page_is_the_figure(draw, start):
    n, wide = Slider(1, 5, 2, value=3), Toggle(value=start)
    found = payload(explorer(draw, n=n, wide=wide))
    combinations = list(itertools.product([1, 3, 5], [False, True]))
    assert len(found["states"]) == len(combinations) == 6
    assert found["states"][0] == []
    for index, (number, flag) in enumerate(combinations):
        assert without_null(rebuilt(found, index)) == expected(draw, {"n": number, "wide": flag})
    assert all(states for states in found["states"][1:])  # the other states do differ
    assert found["controls"] == {"n": ["1", "3", "5"], "wide": ["False", "True"]}


def test_values_and_paths_are_written_once():
    found = payload(explorer(numbers, n=Slider(1, 9), wide=Toggle()))
    for pool in (found["paths"], found["pool"]):
        written = [json.dumps(item) for item in pool]
        assert len(written) == len(set(written))


def test_a_different_number_of_traces_replaces_them_all():
    found = payload(explorer(traces, n=Slider(1, 3), wide=Toggle()))
    assert ["data"] in found["paths"]
    assert [len(rebuilt(found, index)["data"]) for index in range(6)] == [1, 2, 2, 3, 3, 4]


def test_three_controls_make_the_product():
    def draw(n, kind, wide):
        return go.Figure(go.Scatter(x=[0, 1], y=[n, 2 * n], mode=kind, line=dict(width=4 if wide else 2)))

    found = payload(explorer(draw, n=Slider(1, 7), kind=Choice("lines", "markers", "text"), wide=Toggle()))
    assert len(found["states"]) == 7 * 3 * 2
    for index, values in enumerate(itertools.product(range(1, 8), ("lines", "markers", "text"), (False, True))):
        assert without_null(rebuilt(found, index)) == expected(draw, dict(zip(("n", "kind", "wide"), values)))


def test_page_values_of_a_slider():
    seen = []

    def draw(n, T):
        seen.append((n, T))
        return line(n * T)

    one = explorer(draw, n=Slider(0, 100, value=50, page=(3, 50, 7)), T=Slider(0.0, 1.0, 0.01, value=0.5, page=(0.5,)))
    seen.clear()
    found = payload(one)
    assert seen[-3:] == [(3, 0.5), (50, 0.5), (7, 0.5)]
    assert list(found["controls"]) == ["n"]  # a control of one value is not shown
    page = Page(one.page())
    assert [attributes["data-control"] for attributes in page.of("input")] == ["n"]
    assert page.of("input")[0]["value"] == "1"  # it starts where it was told to
    assert page.of("input")[0]["max"] == "2"
    note = "Precomputed for 3 states; in JupyterLab the same figure takes any value."
    assert note in one.page()  # and a page that lacks no value does not say so
    assert "Precomputed" not in explorer(line, n=Slider(1, 7)).page()


def test_controls_of_the_page():
    def draw(n, kind, on):
        return line(n)

    page = Page(explorer(draw, n=Slider(1, 5, value=4, label="Width & more"), kind=Choice("a<b", "c", value="c"),
                         on=Toggle("Show", value=True)).page())
    inputs = {attributes["data-control"]: attributes for attributes in page.of("input") + page.of("select")}
    assert sorted(inputs) == ["kind", "n", "on"]
    assert [inputs["n"][key] for key in ("type", "min", "max", "value")] == ["range", "0", "4", "3"]
    assert inputs["on"]["type"] == "checkbox"
    assert "checked" in inputs["on"]
    assert [("selected" in attributes) for attributes in page.of("option")] == [False, True]
    labelled = {attributes["for"] for attributes in page.of("label")}
    assert labelled == {attributes["id"] for attributes in inputs.values()}
    assert page.of("div")[0]["id"] == "pn-odd-1"
    assert page.of("div")[0]["aria-label"] == "A line."


# --- limits and text -------------------------------------------------------------------------------------------------


def test_256_states_are_allowed_and_257_are_not():
    assert len(payload(explorer(n=Slider(0, 255)))["states"]) == 256
    with pytest.raises(ValueError, match="pn-odd-1: 257 states on the page, at most 256; give sliders fewer page"):
        explorer(n=Slider(0, 256)).page()
    assert len(payload(explorer(n=Slider(0, 256, page=(0, 9, 256))))["states"]) == 3


def test_too_many_states_are_refused_before_any_is_drawn():
    calls = []

    def draw(n):
        calls.append(n)
        return line(n)

    one = explorer(draw, n=Slider(0, 1000))
    calls.clear()
    with pytest.raises(ValueError, match="1001 states"):
        one.page()
    assert calls == []


def test_300_kilobytes_are_the_limit():
    def draw(n):
        return go.Figure(go.Scatter(y=np.random.default_rng(n).normal(size=9000)))

    assert len(explorer(draw, n=Slider(0, 3)).page().encode()) < 300_000
    with pytest.raises(ValueError, match=r"pn-odd-1: \d{6} bytes on the page, at most 300000"):
        explorer(draw, n=Slider(0, 7)).page()


HOSTILE = ["</script><img src=x onerror=alert(1)>", "</SCRIPT >", '"><b>', "é 語", "<!-- no -->", "a</b"]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_breaks_out_of_the_page(text):
    def draw(n):
        return line(n).update_layout(title=f"{text}{n}")

    one = Explorer(draw, {"n": Slider(1, 3, label=text)}, f"Alt {text}", "pn-odd-1")
    page = Page(one.page())
    assert [name for name, _ in page.elements] == [
        "div", "div", "div", "label", "input", "output", "div", "script"]
    found = json.loads(page.scripts[0])
    assert found["figure"]["layout"]["title"]["text"] == f"{text}1"
    assert rebuilt(found, 2)["layout"]["title"]["text"] == f"{text}3"
    assert page.of("div")[0]["aria-label"] == f"Alt {text}"


def test_the_title_of_every_state_is_typeset():
    found = payload(explorer(lambda n: line(n).update_layout(title=f"{n} % less (-{n} points)"), n=Slider(1, 3)))
    assert [rebuilt(found, at)["layout"]["title"]["text"] for at in (0, 2)] == [
        "1\u00a0% less (\u22121 points)", "3\u00a0% less (\u22123 points)"]


def test_no_text_hides_the_end_of_the_script():
    """After ``<!--`` and ``<script`` a browser reads the next ``</script>`` as text."""
    one = explorer(lambda n: line(n).update_layout(title="<!--<script>"))
    page = one.page()
    data = page[page.index('<script type="application/json">') + 32:page.rindex("</script>")]
    assert json.loads(data)["figure"]["layout"]["title"]["text"] == "<!--<script>"
    assert "<!--" not in data or "<script" not in data


@pytest.mark.parametrize("text", ["</option></select><img src=x>", '" onclick="x'])
def test_no_choice_breaks_out_of_the_page(text):
    page = Page(explorer(lambda kind: line(), kind=Choice("plain", text, label=text)).page())
    assert page.of("img") == []
    assert len(page.of("option")) == 2
    assert "onclick" not in str(page.elements)


def test_book_and_lab_show_their_own_face(monkeypatch):
    one = explorer()
    monkeypatch.setenv("PAPERNETS_BOOK", "1")
    assert one._repr_mimebundle_() == {"text/html": one.page(), "text/plain": "Explorer of n: A line."}
    monkeypatch.delenv("PAPERNETS_BOOK")
    shown = one._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in shown
    assert "text/html" not in shown
