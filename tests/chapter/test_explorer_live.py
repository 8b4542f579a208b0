"""A figure with controls in JupyterLab: what it shows after a change is what is drawn; errors are seen."""

import json

import plotly.graph_objects as go
import pytest
from explorer_checks import DRAWS, expected, explorer, line, numbers, without_null

from papernets.chapter import Explorer, Slider, Toggle
from papernets.chapter._figure import plain


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
