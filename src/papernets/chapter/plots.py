"""Figures that more than one chapter draws."""

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from papernets.chapter._style import ACCENTS, BASELINE, OURS


def lines(series: Mapping[str, Sequence[float]], title: str, x: str, y: str, *, at: Sequence[float] | None = None,
          ours: str = "", colors: Mapping[str, str] | None = None, log_x: bool = False, log_y: bool = False) -> go.Figure:
    """One line a series, named at its end; ``ours`` in its colour and on top, the others in grey tones and dashes."""
    figure, dashes = go.Figure(), ("solid", "dash", "dot", "dashdot", "longdash")
    order = sorted(series, key=lambda name: name == ours)
    for index, name in enumerate(order):
        values = list(series[name])
        color = (colors or {}).get(name) or (OURS if name == ours else BASELINE)
        xs = list(at) if at is not None else list(range(1, len(values) + 1))
        figure.add_scatter(x=xs, y=values, name=name, mode="lines+markers" if len(values) < 40 else "lines",
                           line=dict(color=color, width=3 if name == ours else 1.8,
                                     dash="solid" if name == ours else dashes[index % len(dashes)]),
                           marker=dict(size=5, color=color))
    figure.update_layout(title=title, xaxis=dict(title=x, type="log" if log_x else "linear"),
                         yaxis=dict(title=y, type="log" if log_y else "linear"))
    return figure


def bars(groups: Sequence[str], series: Mapping[str, Sequence[float]], title: str, x: str, y: str, *,
         ours: str = "") -> go.Figure:
    """Groups of bars, ours in its colour and the others in grey and the accents."""
    figure, others = go.Figure(), iter((BASELINE, *ACCENTS))
    for name, values in series.items():
        figure.add_bar(x=list(groups), y=list(values), name=name, marker=dict(color=OURS if name == ours else next(others)))
    figure.update_layout(title=title, barmode="group", xaxis=dict(title=x, type="category"), yaxis=dict(title=y))
    return figure


def intervals(rows: Sequence[tuple[str, float, float, float]], title: str, x: str, y: str) -> go.Figure:
    """One line a row: (name, mean, low, high), against a vertical line at 0. Long names are broken behind their colon."""
    rows = [(name.replace(": ", ":<br>", 1) if len(name) > 26 else name, *rest) for name, *rest in rows][::-1]
    figure = go.Figure(go.Scatter(
        x=[mean for _, mean, _, _ in rows], y=[name for name, *_ in rows], mode="markers",
        marker=dict(size=11, color=OURS), showlegend=False,
        error_x=dict(type="data", symmetric=False, array=[high - mean for _, mean, _, high in rows],
                     arrayminus=[mean - low for _, mean, low, _ in rows], color=OURS, thickness=2, width=6)))
    figure.add_vline(x=0, line=dict(color=BASELINE, dash="dash"))
    figure.update_layout(title=title, xaxis=dict(title=x), yaxis=dict(title=y, automargin=True, range=[-0.6, len(rows) - 0.4]))
    return figure
