"""The controls of a figure: their values, where they start, their widgets, and what they refuse."""

import ipywidgets
import pytest

from papernets.chapter import Choice, Slider, Toggle


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
