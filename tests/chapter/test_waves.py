"""Waves and strips show what is in the trace, and refuse what is not."""

import numpy as np
import pytest
from papernets_kernels.hdl.simulate import Stimulus, simulate
from papernets_kernels.hdl.subbit import PlainBinary

from papernets.chapter import Figure
from papernets.chapter.waves import occupancy, waveform, waveform_height

TRACE = {"start": np.array([0, 1, 0, 0, 0, 0, 0, 0]), "state": np.array([0, 0, 1, 1, 1, 2, 0, 0]),
         "count": np.array([7, 7, 7, 1000, 1000, -3, -3, -3]), "y": np.stack([np.arange(8), np.zeros(8, int)], 1)}


def wave(figure, name):
    return next(trace for trace in figure.data if trace.name == name)


def level(figure, name, cycle, lane):
    """Whether the line of a bit is high in the middle of a cycle."""
    line = wave(figure, name)
    found = [y for (x0, x1, y) in zip(line.x[:-1], line.x[1:], line.y[:-1]) if x0 <= cycle + 0.5 < x1]
    assert len(found) == 1
    return found[0] > -lane


def test_a_bit_is_a_wave_with_its_edges_at_the_start_of_cycles():
    figure = waveform(TRACE, ["count", "start"], title="t")
    assert [level(figure, "start", t, 1) for t in range(8)] == (TRACE["start"] == 1).tolist()
    part = waveform(TRACE, ["start"], title="t", first=1, last=3)
    assert [level(part, "start", t, 0) for t in range(1, 4)] == [True, False, False]
    assert figure.layout.xaxis.title.text == "clock cycle" and list(figure.layout.xaxis.range) == [0, 8]
    assert list(figure.layout.yaxis.ticktext) == ["count", "start"] and list(figure.layout.yaxis.tickvals) == [0, -1]


def test_a_number_is_boxes_with_values():
    figure = waveform(TRACE, ["count"], title="t")
    boxes = wave(figure, "count")
    assert list(boxes.text) == ["7", "1000", "-3"] and list(boxes.x) == [1.5, 4.0, 6.5]
    assert [text.split("<br>") for text in boxes.hovertext] == [
        ["count = 7", "cycles 0 to 2"], ["count = 1000", "cycles 3 to 4"], ["count = -3", "cycles 5 to 7"]]
    outline = figure.data[0]
    assert [x for x, y in zip(outline.x, outline.y) if y == 0] == [0, 3, 0, 3, 5, 3, 5, 8, 5]


def test_a_value_that_does_not_fit_is_left_out_and_its_change_stays():
    trace = {"n": np.repeat([123456, 5], [1, 59])}
    figure = waveform(trace, ["n"], title="t")
    assert list(wave(figure, "n").text) == ["", "5"]
    narrow = waveform({"n": np.array([*[0, 1] * 40, 1, 1])}, ["n"], title="t", values={"n": ("IDLE", "WORK")})
    assert set(wave(narrow, "n").text) == {""}  # not even a letter
    assert "n = 123456<br>cycle 0" in wave(figure, "n").hovertext and figure.data[0].x[3] == 1


def test_names_of_states_and_signals_and_items_of_arrays():
    figure = waveform(TRACE, ["state", "y[0]"], title="t", first=2, last=6, labels={"state": "engine"},
                      values={"state": ("IDLE", "LOADING ALL THE WEIGHTS"), "y[0]": hex})
    assert list(wave(figure, "engine").text) == ["L", "2", "IDLE"]
    assert wave(figure, "engine").hovertext[0] == "engine = LOADING ALL THE WEIGHTS<br>cycles 2 to 4"
    assert list(wave(figure, "y[0]").text) == ["0x2", "0x3", "0x4", "0x5", "0x6"]
    assert list(figure.layout.yaxis.ticktext) == ["engine", "y[0]"] and list(figure.layout.xaxis.range) == [2, 7]
    assert list(wave(waveform(TRACE, ["start"], title="t", values={"start": {1: "go"}}), "start").text) == ["0", "go", "0"]


def test_what_a_core_leaves_can_be_drawn():
    core = PlainBinary(4, 4, 4)
    todo = Stimulus(core).drive(start=1, n_positions=2, n_channels=1, n_groups=3).wait("done")
    trace = simulate(core, todo, trace=True).trace
    figure = waveform(trace, ["start", "busy", "multiplying", "y[0]", "cycles"], title="Six sums")
    assert sum(level(figure, "busy", t, 1) for t in range(len(trace["busy"]))) == core.law(2, 1, 3) == 8
    busy = trace["busy"] == 1
    strips = occupancy({name: values[busy] for name, values in core.units(trace).items()}, title="Who works").data[0]
    assert list(strips.y) == ["Dot9<br>75 %", "adders<br>75 %"]
    assert np.array_equal(strips.z, [[0, 1, 1, 1, 1, 1, 1, 0], [0, 0, 1, 1, 1, 1, 1, 1]])
    assert len(Figure(figure, "alt", "x", waveform_height(5)).figure.data) == 4 * 2 + 2


def test_shares_of_long_runs_are_kept():
    rng = np.random.default_rng(0)
    busy = {"a": rng.random(1003) < 0.3, "b": np.ones(1003, bool), "c": np.zeros(1003), "d": np.arange(1003) == 5}
    strips = occupancy(busy, title="t").data[0]
    widths = np.diff(strips.x)
    assert len(widths) <= 240 and strips.x[0] == 0 and strips.x[-1] == 1003 and len(strips.z[0]) == len(widths)
    assert strips.z @ widths == pytest.approx([values.sum() for values in busy.values()])
    assert [name.split("<br>")[1] for name in strips.y] == [f"{100 * busy['a'].mean():.0f} %", "100 %", "0 %", "0.1 %"]
    part = occupancy(busy, title="t", first=4, last=7).data[0]
    assert list(part.x) == [4, 5, 6, 7, 8] and list(part.z[3]) == [0, 1, 0, 0] and part.y[3] == "d<br>25 %"


@pytest.mark.parametrize(("call", "message"), [
    (lambda: waveform(TRACE, ["stat"], title="t"), "no signal 'stat'; the nearest is 'state'; it has start, state, count, y"),
    (lambda: waveform(TRACE, [], title="t"), "signals is empty; name at least one of start"),
    (lambda: waveform(TRACE, ["y"], title="t"), r"y has 2 numbers; name one of them, such as 'y\[0\]'"),
    (lambda: waveform(TRACE, ["y[2]"], title="t"), r"such as 'y\[1\]'"),
    (lambda: waveform(TRACE, ["start[0]"], title="t"), "a single number; name it without an index: 'start'"),
    (lambda: waveform(TRACE, ["start"], title="t", first=8), "first is 8; the cycles are 0 to 7, and the nearest is 7"),
    (lambda: waveform(TRACE, ["start"], title="t", first=-1), "the nearest is 0"),
    (lambda: waveform(TRACE, ["start"], title="t", first=5, last=3), "last is 3 with first = 5; .* the nearest is 5"),
    (lambda: waveform(TRACE, ["start"], title="t", last=8), "last is 0 to 7, and the nearest is 7"),
    (lambda: waveform({"a": np.zeros(0, int)}, ["a"], title="t"), "the trace has no cycle"),
    (lambda: waveform(TRACE, ["start"], title="t", labels={"state": "s"}), "labels names 'state', which is not drawn"),
    (lambda: waveform(TRACE, ["start"], title="t", values={"state": hex}), "values names 'state', which is not drawn"),
    (lambda: occupancy({}, title="t"), "busy is empty"),
    (lambda: occupancy({"a": np.ones(3), "b": np.ones(4)}, title="t"), "the same cycles"),
    (lambda: occupancy({"a": np.ones((3, 2))}, title="t"), "the same cycles"),
    (lambda: occupancy({"a": np.array([0, 2])}, title="t"), "busy of 'a' holds 2; a cycle is True or False"),
    (lambda: occupancy({"a": np.ones(3)}, title="t", first=3), "first is 3; the cycles are 0 to 2, and the nearest is 2"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
