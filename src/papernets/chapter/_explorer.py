"""A figure with controls, two faces from one function.

In JupyterLab the controls are widgets and ``draw`` runs for any value. On the published page there is no kernel: ``draw``
runs for a grid of values while the book is made, and the page's script shows the state that the controls select.
"""

import html
import itertools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import ipywidgets as widgets
import plotly.graph_objects as go

from papernets.chapter._figure import making_book, page_html, plain
from papernets.chapter._style import figure_template

#: Limits of what a page may carry for one explorer.
STATES, BYTES = 256, 300_000


@dataclass(frozen=True)
class Slider:
    """A number from ``low`` to ``high`` in steps of ``step``. ``page`` are the values the published page has.

    Left out, the page has them all; with one value the page shows no control and keeps to that value.
    """

    low: float
    high: float
    step: float = 1
    value: float | None = None
    label: str = ""
    page: tuple[float, ...] | None = None

    def __post_init__(self):
        if not (self.low < self.high and 0 < self.step <= self.high - self.low):
            raise ValueError(f"a slider from {self.low} to {self.high} by {self.step}: low must be below high, "
                             f"and the step from above 0 to {self.high - self.low}")
        if self.page is not None and not self.page:
            raise ValueError("page is empty; it holds at least one value, or is left out for all")
        for value in (*(self.page or ()), self.start):
            if not self.low <= value <= self.high:
                nearest = min(max(value, self.low), self.high)
                raise ValueError(f"{value} is outside {self.low} to {self.high}; the nearest is {nearest}")

    @property
    def start(self):
        return self.low if self.value is None else self.value

    @property
    def end(self):
        return self.high

    def values(self) -> list:
        if self.page is not None:
            return list(self.page)
        count = int((self.high - self.low) / self.step + 1e-9) + 1
        whole = all(float(v).is_integer() for v in (self.low, self.step))
        return [int(self.low + i * self.step) if whole else round(self.low + i * self.step, 10) for i in range(count)]

    def widget(self, name: str):
        whole = all(float(v).is_integer() for v in (self.low, self.high, self.step))
        kind, cast = (widgets.IntSlider, int) if whole else (widgets.FloatSlider, float)
        return kind(value=cast(self.start), min=cast(self.low), max=cast(self.high), step=cast(self.step),
                    description=self.label or name, continuous_update=True, style={"description_width": "initial"},
                    layout=widgets.Layout(width="95%", max_width="520px"))

    def page_input(self, id: str, name: str, values: list) -> str:
        at = _index(values, self.start)
        label = html.escape(self.label or name)
        return (f'<label for="{id}">{label}</label><input type="range" id="{id}" data-control="{name}" min="0" '
                f'max="{len(values) - 1}" step="1" value="{at}" aria-valuetext="{_label(values[at])}">'
                f'<output for="{id}">{_label(values[at])}</output>')


class Choice:
    """One of a few values."""

    def __init__(self, *options, label: str = "", value=None):
        if len(options) < 2 or len(set(options)) < len(options):
            raise ValueError(f"a choice needs at least two distinct options, got {options}")
        self.options, self.label, self.end = options, label, options[-1]
        self.start = options[0] if value is None else value
        if self.start not in options:
            raise ValueError(f"{value!r} is not one of {options}")

    def values(self) -> list:
        return list(self.options)

    def widget(self, name: str):
        return widgets.ToggleButtons(options=self.options, value=self.start, description=self.label or name,
                                     style={"description_width": "initial", "button_width": "auto"})

    def page_input(self, id: str, name: str, values: list) -> str:
        options = "".join(f'<option value="{i}"{" selected" if option == self.start else ""}>{html.escape(str(option))}'
                          "</option>" for i, option in enumerate(values))
        return (f'<label for="{id}">{html.escape(self.label or name)}</label>'
                f'<select id="{id}" data-control="{name}">{options}</select><output></output>')


class Toggle(Choice):
    """On or off."""

    def __init__(self, label: str = "", value: bool = False):
        super().__init__(False, True, label=label, value=value)

    def widget(self, name: str):
        return widgets.Checkbox(value=self.start, description=self.label or name, indent=False)

    def page_input(self, id: str, name: str, values: list) -> str:
        return (f'<label for="{id}">{html.escape(self.label or name)}</label><input type="checkbox" id="{id}" '
                f'data-control="{name}"{" checked" if self.start else ""}><output></output>')


Control = Slider | Choice | Toggle


class Explorer:
    """Made by ``Chapter.explore``. ``controls`` maps the arguments of ``draw`` to sliders, choices and toggles.

    With ``few`` the page has two values of each control, for a quick run.
    """

    def __init__(self, draw: Callable[..., go.Figure], controls: Mapping[str, Control], alt: str, name: str,
                 height: int = 460, few: bool = False):
        if not controls:
            raise ValueError("an explorer needs at least one control; a figure without any is chapter.figure")
        if not alt.strip():
            raise ValueError("alt is empty; it says in a sentence what the figure shows")
        self.draw, self.controls, self.alt, self.name, self.height, self.few = draw, dict(controls), alt, name, height, few
        self._widget: widgets.Widget | None = None
        self.state(**{key: control.start for key, control in self.controls.items()})  # an error shows here, not in a widget

    def state(self, **values) -> go.Figure:
        """The figure for these values, in the house's look."""
        figure = self.draw(**values)
        if not figure.data:
            raise ValueError(f"draw gave a figure without a trace for {values}")
        return figure.update_layout(template=figure_template(), height=self.height)

    @property
    def widget(self) -> widgets.Widget:
        """The live face: controls above a figure that follows them."""
        if self._widget is None:
            self._widget = self._live()
        return self._widget

    def _live(self):
        inputs = {key: control.widget(key) for key, control in self.controls.items()}
        view = go.FigureWidget(self.state(**{key: control.start for key, control in self.controls.items()}))
        message = widgets.HTML()

        def redraw(_change):
            try:
                figure = self.state(**{key: item.value for key, item in inputs.items()})
            except Exception as error:  # shown to the reader: a widget would swallow it
                message.value = f"<b>{type(error).__name__}</b>: {html.escape(str(error))}"
                return
            message.value = ""
            _show(view, figure)

        for item in inputs.values():
            item.observe(redraw, "value")
        box = widgets.VBox([*inputs.values(), view, message])
        box.inputs, box.view, box.message = inputs, view, message
        return box

    def move_all(self) -> None:
        """Move each control of the live face through its values; ``RuntimeError`` where a reader would see that one fails."""
        for key, control in self.controls.items():
            for value in (*control.values(), control.end, control.start):
                self.widget.inputs[key].value = value
                if self.widget.message.value:
                    raise RuntimeError(f"{self.name}: {key} at {value} gives {self.widget.message.value}")

    def page(self) -> str:
        """The published face: native inputs and the grid of all states, each as its difference from the first."""
        values = {key: control.values() for key, control in self.controls.items()}
        count = math.prod(map(len, values.values()))
        if count > STATES:
            raise ValueError(f"{self.name}: {count} states on the page, at most {STATES}; give sliders fewer page values")
        if self.few:
            values = {key: _two(options, self.controls[key].start) for key, options in values.items()}
            count = math.prod(map(len, values.values()))
        shown = {key: options for key, options in values.items() if len(options) > 1}
        paths, pool, states, base = _Pool(), _Pool(), [], None
        for combination in itertools.product(*values.values()):
            figure = plain(self.state(**dict(zip(values, combination))))
            if base is None:
                base = figure
            states.append([part for path, value in _changes(base, figure, ())
                           for part in (paths.index(path), pool.index(value))])
        labels = {key: [_label(value) for value in options] for key, options in shown.items()}
        payload = {"figure": base, "controls": labels, "paths": paths.items, "pool": pool.items, "states": states}
        controls = "".join(f'<div class="pn-control">{self.controls[key].page_input(f"{self.name}-{key}", key, options)}'
                           "</div>" for key, options in shown.items())
        thinned = any(getattr(control, "page", None) is not None for control in self.controls.values())
        note = f"Precomputed for {count} states; in JupyterLab the same figure takes any value." if thinned else ""
        found = page_html(self.name, self.alt, self.height, payload, f'<div class="pn-controls">{controls}</div>', note)
        if len(found.encode()) > BYTES:
            raise ValueError(f"{self.name}: {len(found.encode())} bytes on the page, at most {BYTES}; draw fewer points or "
                             "give sliders fewer page values")
        return found

    def _repr_mimebundle_(self, include=None, exclude=None):
        if making_book():
            return {"text/html": self.page(), "text/plain": repr(self)}
        return {**self.widget._repr_mimebundle_(), "text/plain": repr(self)}

    def __repr__(self):
        return f"Explorer of {', '.join(self.controls)}: {self.alt}"


def _show(view: go.FigureWidget, figure: go.Figure) -> None:
    """Bring a live view to the state of ``figure``; traces of the same kind and number are changed in place."""
    same = [trace.type for trace in view.data] == [trace.type for trace in figure.data]
    with view.batch_update():
        if same:
            for old, new in zip(view.data, figure.data):
                old.update(_whole(old, new), overwrite=True)
        view.update_layout(_whole(view.layout, figure.layout), overwrite=True)
    if not same:
        view.data = ()
        view.add_traces(figure.data)


def _whole(old, new) -> dict:
    """``new`` with every entry that only ``old`` has set to nothing."""
    wanted = new.to_plotly_json()
    return {**{key: None for key in old.to_plotly_json() if key not in wanted and key not in ("uid", "type")}, **wanted}


class _Pool:
    """Values written once and named by their index."""

    def __init__(self):
        self.items, self._seen = [], {}

    def index(self, value) -> int:
        key = json.dumps(value, sort_keys=True)
        if key not in self._seen:
            self._seen[key] = len(self.items)
            self.items.append(value)
        return self._seen[key]


def _changes(base, figure, path):
    """(path, value) wherever ``figure`` differs from ``base``; ``null`` means that the entry is gone."""
    if isinstance(base, dict) and isinstance(figure, dict):
        for key in [*base, *(key for key in figure if key not in base)]:
            yield from _changes(base.get(key), figure.get(key), (*path, key))
    elif path == ("data",) and len(base) == len(figure):
        for index, (one, other) in enumerate(zip(base, figure)):
            yield from _changes(one, other, (*path, index))
    elif base != figure:
        yield list(path), figure


def _two(values: list, start) -> list:
    """Of ``values`` that of the ``start`` and the last; if they are one, the first and the last."""
    first = values[values.index(start) if start in values else _index(values, start)]
    return list(dict.fromkeys((first if first != values[-1] else values[0], values[-1])))


def _index(values: list, wanted) -> int:
    return min(range(len(values)), key=lambda i: abs(values[i] - wanted))


def _label(value) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
