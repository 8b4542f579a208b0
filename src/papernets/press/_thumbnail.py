"""A small picture of a chapter, drawn from the data of its own figure."""

import math

_W, _H, _PAD = 160, 90, 6


def thumbnail(figure: dict) -> str:
    """An inline SVG of the points, lines, bars and cells of a figure's first panel; empty if it has none of these."""
    traces = [trace for trace in figure["data"] if trace.get("xaxis", "x") == "x"]
    points = [(x, y) for trace in traces if trace.get("type", "scatter") in ("scatter", "bar")
              for x, y in zip(trace.get("x") or (), trace.get("y") or ()) if _number(x) and _number(y)]
    if not points:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in zip(*points))

    def at(x, y) -> tuple[float, float]:
        across = (x - left) / ((right - left) or 1)
        up = (y - low) / ((high - low) or 1)
        return round(_PAD + across * (_W - 2 * _PAD), 1), round(_H - _PAD - up * (_H - 2 * _PAD), 1)

    shapes = []
    for trace in traces:
        xs, ys = trace.get("x") or (), trace.get("y") or ()
        marker, line = trace.get("marker") or {}, trace.get("line") or {}
        mode = trace.get("mode", "lines")
        color = next((c for c in (marker.get("color"), line.get("color")) if isinstance(c, str)), "#8A8A8A")
        if "lines" in mode:
            run: list[str] = []
            for x, y in [*zip(xs, ys), (None, None)]:
                if _number(x) and _number(y):
                    run.append("{},{}".format(*at(x, y)))
                    continue
                if len(run) > 1:
                    shapes.append(f'<polyline points="{" ".join(run)}" fill="none" stroke="{color}" '
                                  'stroke-width="1" stroke-opacity="0.6"/>')
                run = []
        if "markers" in mode:
            sizes = marker.get("size")
            for index, (x, y) in enumerate(zip(xs, ys)):
                if not (_number(x) and _number(y)):
                    continue
                size = sizes[index] if isinstance(sizes, list) else sizes or 6
                across, down = at(x, y)
                shapes.append(f'<circle cx="{across}" cy="{down}" r="{max(1.2, min(size / 5, 7)):.1f}" fill="{color}" '
                              'fill-opacity="0.8"/>')
    return (f'<svg class="pn-thumbnail" viewBox="0 0 {_W} {_H}" aria-hidden="true" focusable="false">'
            f'{"".join(shapes)}</svg>')


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
