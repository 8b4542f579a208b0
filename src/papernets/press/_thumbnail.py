"""A small picture of a chapter, drawn from the data of its own figure."""

import math

_W, _H, _PAD = 160, 90, 6


def thumbnail(figure: dict) -> str:
    """An inline SVG of a figure's first panel: points and lines, a table of numbers or a scene; empty if it has none."""
    if figure["data"] and figure["data"][0].get("type") == "scatter3d":
        scene = figure.get("layout", {}).get("scene", {})
        return _solid(figure["data"][0], scene.get("camera", {}).get("eye", {}))
    traces = [trace for trace in figure["data"] if trace.get("xaxis", "x") == "x"]
    if traces and traces[0].get("type") == "heatmap":
        return _cells(traces[0])
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
    return _svg(shapes)


def _cells(trace: dict, levels: int = 4) -> str:
    """A table of numbers as squares, the first row on top, the darker the larger; nothing where a number is missing."""
    rows = [list(row) for row in trace.get("z") or ()]
    known = [value for row in rows for value in row if _number(value)]
    if not known:
        return ""
    low, high = (trace[key] if _number(trace.get(key)) else extreme(known) for key, extreme in (("zmin", min), ("zmax", max)))
    columns = max(map(len, rows))
    side = min((_W - 2 * _PAD) / columns, (_H - 2 * _PAD) / len(rows))
    left, top = (_W - side * columns) / 2, (_H - side * len(rows)) / 2
    paths = [""] * (levels + 1)
    for y, row in enumerate(rows):
        for x, value in enumerate(row):
            if _number(value):
                level = round(levels * min(max((value - low) / ((high - low) or 1), 0), 1))
                paths[level] += f"M{left + x * side:.1f} {top + y * side:.1f}h{side:.1f}v{side:.1f}h-{side:.1f}z"
    return _svg([f'<path fill="#0072B2" fill-opacity="{(level + 0.4) / (levels + 0.4):.2f}" d="{path}"/>'
                 for level, path in enumerate(paths) if path])


def _solid(trace: dict, eye: dict, most: int = 600) -> str:
    """Points in three dimensions in parallel perspective from the side of ``eye``, the far ones first.

    Of more than ``most`` points every second, third, … is drawn.
    """
    right_way, this_way = (-1 if eye.get(axis, 1) < 0 else 1 for axis in "xy")
    points = [(right_way * x, this_way * y, z, color)
              for x, y, z, color in zip(trace["x"], trace["y"], trace["z"], _colors(trace))]
    points = sorted(points[:: -(-len(points) // most)], key=lambda p: (p[0] + p[1], p[2])) if points else []
    flat = [((y - x) * 0.866 * right_way * this_way, z - (x + y) * 0.5, color) for x, y, z, color in points]
    if not flat:
        return ""
    (left, right), (low, high) = ((min(axis), max(axis)) for axis in list(zip(*flat))[:2])
    scale = min((_W - 2 * _PAD) / ((right - left) or 1), (_H - 2 * _PAD) / ((high - low) or 1))
    shapes, before = [], None
    for across, up, color in flat:
        at = f"M{_W / 2 + (across - (left + right) / 2) * scale:.0f} {_H / 2 - (up - (low + high) / 2) * scale:.0f}h0"
        if color == before:
            shapes[-1] += at
        else:
            shapes.append(f'<path stroke="{color}" d="{at}')
        before = color
    return _svg(['<g fill="none" stroke-width="3" stroke-linecap="square">', *(f'{shape}"/>' for shape in shapes), "</g>"])


def _colors(trace: dict) -> list[str]:
    """A colour for each point of a trace: that of all, or the nearest of its scale."""
    marker = trace.get("marker") or {}
    color, scale = marker.get("color"), marker.get("colorscale")
    if not isinstance(color, list) or not isinstance(scale, list):
        return [color if isinstance(color, str) else "#8A8A8A"] * len(trace["x"])
    low, high = marker.get("cmin", min(color, default=0)), marker.get("cmax", max(color, default=1))
    return [min(scale, key=lambda stop: abs(stop[0] - (value - low) / ((high - low) or 1)))[1] for value in color]


def _svg(shapes: list[str]) -> str:
    return (f'<svg class="pn-thumbnail" viewBox="0 0 {_W} {_H}" aria-hidden="true" focusable="false">'
            f'{"".join(shapes)}</svg>')


def _number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
