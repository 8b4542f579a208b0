"""A figure with controls in a quick run, which has few states, and the moves of its live face."""

import pytest
from explorer_checks import explorer, line, payload, rebuilt

from papernets.chapter import Chapter, Choice, Explorer, Slider, Toggle


@pytest.mark.parametrize(("control", "kept"), [
    (Slider(1, 9, value=3), [3, 9]), (Slider(1, 9, value=9), [1, 9]), (Slider(1, 9), [1, 9]),
    (Slider(0, 2, step=0.5, value=0.9, page=(0.5, 1.0, 1.5)), [1.0, 1.5]), (Slider(1, 9, value=4, page=(4,)), [4]),
    (Choice("a", "b", "c", value="b"), ["b", "c"]), (Choice("a", "b", value="b"), ["a", "b"]), (Toggle(), ["False", "True"])])
def test_a_quick_run_has_two_values_of_each_control_with_the_first_of_them_chosen(control, kept):
    def draw(a, n):
        return line(n)

    few = payload(Explorer(draw, {"a": control, "n": Slider(1, 5, value=2)}, "A line.", "pn-odd-1", few=True))
    assert few["controls"].get("a", [str(kept[0])]) == [f"{one:g}" if isinstance(one, float) else str(one) for one in kept]
    assert few["controls"]["n"] == ["2", "5"] and len(few["states"]) == 2 * len(kept)
    assert rebuilt(few, 1)["data"][0]["y"] == [0, 5, 10]


def test_a_chapter_makes_few_states_in_a_quick_run_alone(monkeypatch):
    for profile, states in (("quick", 2), ("book", 5), ("evidence", 5)):
        chapter = Chapter("dcff", profile)
        one = chapter.explore(line, alt="A line.", n=Slider(1, 5))
        assert len(payload(one)["states"]) == states and chapter.explorers == [one]


def test_too_many_states_are_refused_in_a_quick_run_as_well():
    with pytest.raises(ValueError, match="300 states on the page, at most 256"):
        Explorer(line, {"n": Slider(1, 300)}, "A line.", "pn-odd-1", few=True).page()


def test_moving_all_tries_every_value_and_says_which_fails():
    seen = []

    def draw(n, m):
        seen.append((n, m))
        if (n, m) == (1, 5):
            raise ZeroDivisionError("at five")
        return line(n)

    one = explorer(draw, n=Slider(0, 2, value=1, page=(0, 1)), m=Choice(3, 4, 5))
    with pytest.raises(RuntimeError, match="pn-odd-1: m at 5 gives <b>ZeroDivisionError</b>: at five"):
        one.move_all()
    assert {(0, 3), (1, 3), (2, 3), (1, 4), (1, 5)} == set(seen)
