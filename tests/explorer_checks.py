"""What the tests of a figure with controls share: its page taken apart, and draws that change in every way a figure can."""

import copy
import json
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go

from papernets.chapter import Explorer, Slider
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
