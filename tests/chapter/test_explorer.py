"""A figure with controls: the page's precomputed states against the figures themselves, and the live face."""

import copy
import itertools
import json
from html.parser import HTMLParser

import ipywidgets
import numpy as np
import plotly.graph_objects as go
import pytest

from papernets.chapter import Choice, Explorer, Slider, Toggle
from papernets.chapter._figure import plain


def line(n=1, **rest):
    return go.Figure(go.Scatter(x=[0, 1, 2], y=[0, n, 2 * n]))


def explorer(draw=line, alt="A line.", height=460, name="pn-odd-1", **controls):
    return Explorer(draw, controls or {"n": Slider(1, 5)}, alt, name, height)


class Page(HTMLParser):
    """Elements of a page in order, and the text of its scripts."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.scripts, self._in = [], [], False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._in = True
            self.scripts.append("")

    def handle_endtag(self, tag):
        self._in = self._in and tag != "script"

    def handle_data(self, data):
        if self._in:
            self.scripts[-1] += data

    def of(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def payload(one):
    page = Page(one.page())
    assert len(page.scripts) == 1
    return json.loads(page.scripts[0])


def rebuilt(found, index):
    """State ``index`` from the first one and its changes: pairs of a path and a value, where null removes the entry."""
    figure = copy.deepcopy(found["figure"])
    flat = found["states"][index]
    assert len(flat) % 2 == 0
    for path, value in zip(flat[::2], flat[1::2]):
        *way, last = found["paths"][path]
        at = figure
        for key in way:
            at = at[key]
        if found["pool"][value] is None:
            at.pop(last, None)
        else:
            at[last] = copy.deepcopy(found["pool"][value])
    return figure


def without_null(value):
    if isinstance(value, dict):
        return {key: without_null(item) for key, item in value.items() if item is not None}
    return [without_null(item) for item in value] if isinstance(value, list) else value


def expected(draw, values, height=460):
    return without_null(json.loads(json.dumps(plain(draw(**values).update_layout(height=height)))))


# --- draws that change in every way a figure can ---------------------------------------------------------------------


def numbers(n, wide):
    """Values only."""
    x = np.linspace(0, 1, 7)
    return go.Figure([go.Scatter(x=x, y=x**n * (3 if wide else 1)), go.Bar(x=x, y=np.arange(7) * n)])


def titles(n, wide):
    """Layout that comes and goes: title, shapes, annotations, a nested entry."""
    figure = line(n).update_layout(xaxis=dict(range=[0, n]))
    if wide:
        figure.update_layout(title=f"n = {n}", shapes=[dict(type="line", x0=0, x1=n, y0=0, y1=1)], xaxis_title="x",
                             yaxis=dict(title="y", range=[0, 10]))
        figure.add_annotation(x=n, y=1, text="here")
    return figure


def optional(n, wide):
    """Entries of a trace that come and go."""
    figure = line(n)
    if wide:
        figure.data[0].update(text=["a", "b", "c"], marker=dict(color=[1, 2, n], size=n), name="wide")
    return figure


def traces(n, wide):
    """As many traces as n, and one of another kind."""
    figure = go.Figure([go.Scatter(x=[0, 1], y=[k, n]) for k in range(n)])
    if wide:
        figure.add_trace(go.Heatmap(z=[[n, 1], [2, 3]]))
    return figure


def kinds(n, wide):
    """The same number of traces, of different kinds."""
    return go.Figure(go.Bar(x=["a", "b"], y=[n, 2]) if wide else go.Scatter(x=[1, 2], y=[n, 2], mode="lines"))


def holes(n, wide):
    """Values that are no number, in a list and alone; float32 and int8."""
    y = np.array([1, np.nan, n, np.inf], np.float32)
    figure = go.Figure(go.Scatter(x=np.arange(4, dtype=np.int8), y=y if wide else y[::-1]))
    return figure.update_layout(xaxis=dict(range=[0, float(n)] if wide else None))


DRAWS = [numbers, titles, optional, traces, kinds, holes]


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


# --- live ------------------------------------------------------------------------------------------------------------


def live(one):
    """What the live view shows, in the form of :func:`plain`, without what only a live view has."""
    found = plain(go.Figure(one.widget.view.to_dict()))
    for trace in found["data"]:
        trace.pop("uid", None)
    return without_null(json.loads(json.dumps(found)))


def test_setting_a_control_changes_the_figure():
    one = explorer(n=Slider(1, 5, value=2))
    assert list(one.widget.view.data[0].y) == [0, 2, 4]
    one.widget.inputs["n"].value = 5
    assert list(one.widget.view.data[0].y) == [0, 5, 10]
    assert one.widget.message.value == ""
    assert one.widget is one.widget


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_the_live_figure_is_the_drawn_one_on_any_way(draw):
    """From state to state and back: nothing of an earlier state may stay."""
    one = explorer(draw, n=Slider(1, 3), wide=Toggle(value=True))
    inputs = one.widget.inputs
    assert live(one) == expected(draw, {"n": 1, "wide": True})
    for name, value in [("n", 3), ("wide", False), ("n", 2), ("wide", True), ("n", 1), ("wide", False), ("wide", True)]:
        inputs[name].value = value
        assert live(one) == expected(draw, {key: item.value for key, item in inputs.items()})


def test_traces_are_changed_in_place_where_their_kinds_stay():
    one = explorer(numbers, n=Slider(1, 3), wide=Toggle())
    before = [trace.uid for trace in one.widget.view.data]
    one.widget.inputs["n"].value = 3
    assert [trace.uid for trace in one.widget.view.data] == before


def test_an_error_in_draw_is_shown():
    def draw(n):
        if n == 3:
            raise ZeroDivisionError("n is <3> & bad")
        return line(n)

    one = explorer(draw)
    one.widget.inputs["n"].value = 2
    one.widget.inputs["n"].value = 3
    assert one.widget.message.value == "<b>ZeroDivisionError</b>: n is &lt;3&gt; &amp; bad"
    assert list(one.widget.view.data[0].y) == [0, 2, 4]
    one.widget.inputs["n"].value = 4
    assert one.widget.message.value == ""
    assert list(one.widget.view.data[0].y) == [0, 4, 8]


def test_a_blank_state_is_shown_as_an_error_and_stops_the_page():
    def draw(n):
        return go.Figure() if n == 3 else line(n)

    one = explorer(draw)
    one.widget.inputs["n"].value = 3
    assert "without a trace" in one.widget.message.value
    with pytest.raises(ValueError, match="without a trace"):
        one.page()


def test_an_error_at_the_start_is_not_hidden():
    def draw(n):
        raise ZeroDivisionError("at once")

    with pytest.raises(ZeroDivisionError, match="at once"):
        explorer(draw)
    with pytest.raises(ValueError, match="without a trace"):
        explorer(lambda n: go.Figure())
    with pytest.raises(TypeError):
        explorer(lambda m: line(m))


def test_explorer_refuses():
    with pytest.raises(ValueError, match="at least one control"):
        Explorer(line, {}, "A line.", "pn-odd-1")
    with pytest.raises(ValueError, match="alt is empty"):
        Explorer(line, {"n": Slider(1, 5)}, "  ", "pn-odd-1")


# --- controls --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("options", "values", "start"), [
    (dict(low=1, high=5), [1, 2, 3, 4, 5], 1), (dict(low=1, high=10, step=4), [1, 5, 9], 1),
    (dict(low=0, high=1, step=0.1), [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1], 0),
    (dict(low=-3, high=3, step=3, value=3), [-3, 0, 3], 3), (dict(low=0.5, high=2.5, value=1.5), [0.5, 1.5, 2.5], 1.5),
    (dict(low=0, high=9, page=(0, 7)), [0, 7], 0), (dict(low=-1, high=4, step=0.01, value=0, page=(0,)), [0], 0)])
def test_slider(options, values, start):
    slider = Slider(**options)
    assert slider.values() == values
    assert slider.start == start
    assert slider.widget("n").value == start


def test_whole_sliders_give_whole_numbers():
    assert all(isinstance(value, int) for value in Slider(1, 5).values())
    assert isinstance(Slider(1, 5).widget("n"), ipywidgets.IntSlider)
    assert isinstance(Slider(1, 5, 0.5).widget("n"), ipywidgets.FloatSlider)
    assert all(isinstance(value, float) for value in Slider(0, 1, 0.25).values())


@pytest.mark.parametrize(("options", "says"), [
    (dict(low=5, high=5), "low must be below high"), (dict(low=5, high=1), "low must be below high"),
    (dict(low=1, high=5, step=0), "the step from above 0"), (dict(low=1, high=5, step=-1), "the step from above 0"),
    (dict(low=1, high=5, step=5), "the step from above 0 to 4"), (dict(low=float("nan"), high=5), "low must be below"),
    (dict(low=1, high=5, value=6), "6 is outside 1 to 5; the nearest is 5"),
    (dict(low=1, high=5, value=0), "0 is outside 1 to 5; the nearest is 1"),
    (dict(low=1, high=5, page=(1, 7)), "7 is outside 1 to 5; the nearest is 5"),
    (dict(low=1, high=5, page=()), "page")])
def test_slider_refuses(options, says):
    with pytest.raises(ValueError, match=says):
        Slider(**options)


def test_choice():
    choice = Choice("a", "b", 3, value="b")
    assert choice.values() == ["a", "b", 3]
    widget = choice.widget("kind")
    assert (widget.value, widget.description, tuple(widget.options)) == ("b", "kind", ("a", "b", 3))
    assert Choice("a", "b").start == "a"


@pytest.mark.parametrize(("options", "value", "says"), [
    ((), None, "at least two"), (("a",), None, "at least two"), (("a", "a"), None, "distinct"),
    (("a", "b"), "c", "'c' is not one of")])
def test_choice_refuses(options, value, says):
    with pytest.raises(ValueError, match=says):
        Choice(*options, value=value)


def test_toggle():
    assert Toggle().values() == [False, True]
    assert Toggle().start is False
    widget = Toggle("Show", value=True).widget("on")
    assert isinstance(widget, ipywidgets.Checkbox)
    assert (widget.value, widget.description) == (True, "Show")
    with pytest.raises(ValueError, match="not one of"):
        Toggle(value="yes")
