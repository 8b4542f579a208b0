"""Figures of what a core does, cycle by cycle: the waves at its ports, and how busy its parts are.

    trace = simulate(core, stimulus, trace=True).trace
    waveform(trace, ["start", "busy", "engine_state"], title="...", values={"engine_state": ENGINE})
    occupancy(core.units(trace), title="...")

A chapter that draws them uses about ``waveform_height(lanes)`` pixels.
"""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from papernets.chapter import ACCENTS, OURS

#: The width of the plot that the figures are laid out for, in pixels, that of a phone; of a sign in a box; bins of a strip.
PHONE, SIGN, BINS = 250, 7, 240
HIGH, LOW = 0.36, -0.36  # of a wave, above and below the middle of its lane
# More is farther from the ground, in both themes, and a little is already seen.
SHADES = [[0, "rgba(0,114,178,0.07)"], [0.02, "rgba(0,114,178,0.35)"], [1, "rgba(0,114,178,1)"]]

Names = Sequence[str] | Mapping[int, str] | Callable[[int], str]


def waveform(trace: Mapping[str, np.ndarray], signals: Sequence[str], *, title: str, first: int = 0, last: int | None = None,
             labels: Mapping[str, str] | None = None, values: Mapping[str, Names] | None = None) -> go.Figure:
    """Signals over the cycles ``first`` to ``last``, both included, one lane each; cycle t lasts from t to t + 1.

    trace: what ``simulate(..., trace=True)`` gives. A port of several numbers is named with its index, as ``"y[0]"``.
    A signal that is only 0 and 1 in the whole trace is a wave; all others are boxes with their value, where it fits on a phone.
    labels: what stands beside a lane, if not its signal's name.
    values: how numbers of a signal are written, by index, by value or by a function (``hex``); such a signal has boxes. Where
        a name does not fit, its first letter may.
    """
    if not signals:
        raise ValueError(f"signals is empty; name at least one of {', '.join(trace)}")
    lanes = {name: _signal(trace, name) for name in signals}
    for kind, given in (("labels", labels), ("values", values)):
        for name in given or ():
            if name not in lanes:
                raise ValueError(f"{kind} names {name!r}, which is not drawn; the signals are {', '.join(lanes)}")
    first, last = _window(first, last, len(next(iter(lanes.values()))))
    figure = go.Figure()
    for lane, (name, whole) in enumerate(lanes.items()):
        label, write = (labels or {}).get(name, name), (values or {}).get(name)
        part = whole[first:last + 1]
        if write is None and np.isin(whole, (0, 1)).all():
            _bit(figure, label, part, first, -lane)
        else:
            _number(figure, label, part, first, -lane, _writer(write), short=isinstance(write, Sequence | Mapping))
    names = [(labels or {}).get(name, name) for name in lanes]
    figure.update_layout(title=title, showlegend=False, hovermode="closest")
    figure.update_xaxes(title="clock cycle", range=[first, last + 1], tickformat="d", **_ticks(first, last))
    figure.update_yaxes(title="signal")
    figure.update_yaxes(tickvals=[-lane for lane in range(len(names))], ticktext=names, range=[0.6 - len(names), 0.6],
                        showgrid=False, ticks="", fixedrange=True, automargin=True)
    return figure


def occupancy(busy: Mapping[str, np.ndarray], *, title: str, unit: str = "of the cycles", first: int = 0,
              last: int | None = None) -> go.Figure:
    """One strip a part of a core, dark where it works; beside it the share of the cycles ``first`` to ``last`` it works in.

    busy: for each part, or each state, for every cycle whether it works, or is the state; as ``core.units(trace)`` gives.
    Where there are more cycles than a strip can show, a place is the mean of a few, and its shade their share.
    """
    parts = {name: np.asarray(values) for name, values in busy.items()}
    if not parts:
        raise ValueError("busy is empty; give at least one part with its cycles")
    cycles = {name: values.shape for name, values in parts.items()}
    if any(len(shape) != 1 for shape in cycles.values()) or len(set(cycles.values())) > 1:
        raise ValueError(f"busy has the shapes {cycles}; every part has one value for each of the same cycles")
    for name, values in parts.items():
        if not np.isin(values, (0, 1)).all():
            wrong = values[~np.isin(values, (0, 1))][0]
            raise ValueError(f"busy of {name!r} holds {wrong}; a cycle is True or False")
    first, last = _window(first, last, len(next(iter(parts.values()))))
    width = -(-(last + 1 - first) // BINS)  # cycles a place
    starts = np.arange(first, last + 1, width)
    ends = np.minimum(starts + width, last + 1)
    rows, names, shares = [], [], []
    for name, values in parts.items():
        sums = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
        rows.append((sums[ends] - sums[starts]) / (ends - starts))
        shares.append((sums[last + 1] - sums[first]) / (last + 1 - first))
        names.append(f"{name}<br>{_percent(shares[-1])}")
    figure = go.Figure(go.Heatmap(
        z=rows, x=[*starts.tolist(), last + 1], y=names, colorscale=SHADES, zmin=0, zmax=1, ygap=6,
        showscale=width > 1, colorbar=dict(title=dict(text="share"), tickformat=".0%", thickness=10, len=0.9),
        hovertemplate=f"%{{y}} {unit}<br>{'cycle' if width == 1 else f'{width} cycles about'} %{{x}}: %{{z:.0%}}"
        "<extra></extra>"))
    figure.update_layout(title=title)
    figure.update_yaxes(title=f"part of the core (% {unit})")
    figure.update_xaxes(title="clock cycle", range=[first, last + 1], showgrid=False,
                        tickformat="d", **_ticks(first, last))
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False, ticks="", fixedrange=True, automargin=True)
    return figure


def waveform_height(lanes: int) -> int:
    """Pixels in which so many lanes are read well; of ``occupancy`` too."""
    return 110 + 40 * lanes


# Lanes


def _bit(figure: go.Figure, label: str, values: np.ndarray, first: int, y: float) -> None:
    starts, ends, levels = _runs(values)
    xs = np.stack([starts, ends], 1).reshape(-1) + first
    ys = np.repeat(np.where(levels == 1, HIGH, LOW), 2) + y
    seen = [f"{label} = {level}<br>{_when(first + s, first + e)}" for level, s, e in zip(levels, starts, ends) for _ in "ab"]
    figure.add_scatter(x=[*xs.tolist(), int(xs[-1]), int(xs[0])], y=[*ys.tolist(), y + LOW, y + LOW], mode="none",
                       fill="toself", fillcolor="rgba(86,180,233,0.28)", hoverinfo="skip")
    figure.add_scatter(x=xs.tolist(), y=ys.tolist(), mode="lines", line=dict(color=ACCENTS[0], width=2), text=seen,
                       name=label, hovertemplate="%{text}<extra></extra>")


def _number(figure: go.Figure, label: str, values: np.ndarray, first: int, y: float, write: Callable[[int], str],
            short: bool) -> None:
    """Boxes; their slanted ends show that the value changes, even where it cannot be read."""
    starts, ends, levels = _runs(values)
    slant = min(0.15, len(values) / 60)
    xs, ys = [], []
    for s, e in zip((starts + first).tolist(), (ends + first).tolist()):
        xs += [s, s + slant, e - slant, e, e - slant, s + slant, s, None]
        ys += [y, y + HIGH, y + HIGH, y, y + LOW, y + LOW, y, None]
    texts = [write(level) for level in levels.tolist()]
    room = ((ends - starts) * PHONE / len(values) - 3) // SIGN  # signs
    shown = [text if len(text) <= signs else text[:1] if short and signs > 0 else "" for text, signs in zip(texts, room)]
    seen = [f"{label} = {text}<br>{_when(first + s, first + e)}" for text, s, e in zip(texts, starts, ends)]
    figure.add_scatter(x=xs, y=ys, mode="lines", line=dict(color=OURS, width=1.5), fill="toself",
                       fillcolor="rgba(213,94,0,0.10)", hoverinfo="skip")
    figure.add_scatter(x=((starts + ends) / 2 + first).tolist(), y=[y] * len(starts), mode="text", text=shown,
                       textfont=dict(size=11), hovertext=seen, hovertemplate="%{hovertext}<extra></extra>", name=label)


def _runs(values: np.ndarray):
    """(starts, ends, values) of the runs of equal values."""
    starts = np.concatenate([[0], np.flatnonzero(values[1:] != values[:-1]) + 1])
    return starts, np.append(starts[1:], len(values)), values[starts]


def _when(first: int, end: int) -> str:
    return f"cycle {first}" if end == first + 1 else f"cycles {first} to {end - 1}"


def _writer(names: Names | None) -> Callable[[int], str]:
    if names is None:
        return str
    if callable(names):
        return names
    known = names if isinstance(names, Mapping) else dict(enumerate(names))
    return lambda value: known.get(value, str(value))


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.095 <= share < 0.995 else f"{100 * share:.1f} %"


# What may be asked for


def _signal(trace: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """One signal of a trace; ``"y[2]"`` is number 2 of the port y."""
    found = re.fullmatch(r"(.*?)(?:\[(\d+)\])?", name)
    port, index = found[1], found[2]
    if port not in trace:
        near = difflib.get_close_matches(port, trace, 1, 0.4)
        hint = f"the nearest is {near[0]!r}; " if near else ""
        raise ValueError(f"the trace has no signal {port!r}; {hint}it has {', '.join(trace)}")
    values = np.asarray(trace[port])
    if values.ndim == 1:
        if index is not None:
            raise ValueError(f"signal {port!r} is a single number; name it without an index: {port!r}")
        return values
    if index is None or int(index) >= values.shape[1]:
        near = 0 if index is None else values.shape[1] - 1
        raise ValueError(f"signal {name!r}: {port} has {values.shape[1]} numbers; name one of them, such as '{port}[{near}]'")
    return values[:, int(index)]


def _window(first: int, last: int | None, cycles: int) -> tuple[int, int]:
    if not cycles:
        raise ValueError("the trace has no cycle; simulate at least one")
    last = cycles - 1 if last is None else last
    if not 0 <= first < cycles:
        raise ValueError(f"first is {first}; the cycles are 0 to {cycles - 1}, and the nearest is "
                         f"{min(max(first, 0), cycles - 1)}")
    if not first <= last < cycles:
        raise ValueError(f"last is {last} with first = {first}; last is {first} to {cycles - 1}, and the nearest is "
                         f"{min(max(last, first), cycles - 1)}")
    return first, last


def _ticks(first: int, last: int) -> dict:
    """A round number of cycles between ticks, about eight of them."""
    step = max(1, (last + 1 - first) / 8)
    size = 10 ** int(np.floor(np.log10(step)))
    return dict(tick0=0, dtick=int(next(k * size for k in (1, 2, 5, 10) if k * size >= step - 1e-9)))
