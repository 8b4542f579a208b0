"""A figure as JupyterLab and the published page each need it.

In JupyterLab plotly's own view shows it. On the page there is no plotly script in the output: the figure travels as JSON
and one script of the site draws it, in the colours of the page's theme.
"""

import base64
import html
import json
import math
import os

import numpy as np
import plotly.graph_objects as go

from papernets.cards.present import typeset
from papernets.chapter._style import figure_template


def making_book() -> bool:
    """Whether this run makes the published page (``PAPERNETS_BOOK`` is set by the press)."""
    return bool(os.environ.get("PAPERNETS_BOOK"))


class Figure:
    """A plotly figure with the house's look and a sentence that says what it shows."""

    def __init__(self, figure: go.Figure, alt: str, name: str, height: int = 420):
        if not alt.strip():
            raise ValueError("alt is empty; it says in a sentence what the figure shows")
        if not figure.data:
            raise ValueError("the figure has no trace; a figure that draws blank is an error")
        self.figure, self.alt, self.name, self.height = figure, alt, name, height
        figure.update_layout(template=figure_template(), height=height)

    def _repr_mimebundle_(self, include=None, exclude=None):
        if making_book():
            return {"text/html": page_html(self.name, self.alt, self.height, {"figure": plain(self.figure)}),
                    "text/plain": repr(self)}
        return {"application/vnd.plotly.v1+json": json.loads(self.figure.to_json()), "text/plain": repr(self)}

    def __repr__(self):
        return f"Figure: {self.alt}"


def plain(figure: go.Figure) -> dict:
    """Data and layout as lists of short numbers, without the template (the page's script has its own); the title typeset."""
    found = figure.to_plotly_json()
    layout = {key: value for key, value in found["layout"].items() if key != "template"}
    if figure.layout.title.text:
        layout["title"] = layout["title"] | {"text": typeset(figure.layout.title.text)}
    return {"data": [_plain(trace) for trace in found["data"]], "layout": _plain(layout)}


def _plain(value):
    if isinstance(value, dict):
        if set(value) >= {"dtype", "bdata"}:
            array = np.frombuffer(base64.b64decode(value["bdata"]), np.dtype(value["dtype"]))
            shape = value.get("shape")
            array = array.reshape([int(n) for n in shape.split(",")] if isinstance(shape, str) else shape or -1)
            return _plain(array)
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in (value.tolist() if isinstance(value, np.ndarray) else value)]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        short = float(f"{value:.4g}")
        return int(short) if short.is_integer() and abs(short) < 1e15 else short
    return value


def page_html(name: str, alt: str, height: int, payload: dict, controls: str = "", note: str = "") -> str:
    """The figure on the page: a place to draw, its controls, its data. No text in it can end the script early."""
    data = json.dumps(payload, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    note = f'<p class="pn-note">{html.escape(note)}</p>' if note else ""
    return (f'<div class="pn-figure" id="{name}" role="group" aria-label="{html.escape(alt)}">{controls}'
            f'<div class="pn-plot" role="img" aria-label="{html.escape(alt)}" style="height:{height}px"></div>{note}'
            f'<script type="application/json">{data}</script></div>')
