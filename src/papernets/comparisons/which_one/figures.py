"""The figures of the comparison of eight methods on one network."""

import functools
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from scipy import stats

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.comparisons.which_one.claims import claim_of
from papernets.comparisons.which_one.experiment import METHODS, PAPERS

#: What the reader chooses, and what the rows call it.
BUDGETS = {"multiply-adds": "macs", "parameters": "params"}
#: Of each quantity: its key, what a unit of the axis is in those of the rows, and the title of the axis.
ACROSS = {"time": ("time", 1e-3, "time of one image (ms)"), "parameters": ("params", 1e3, "parameters (thousands)"),
          "multiply-adds": ("macs", 1e6, "multiply-adds of one image (millions)"),
          "training": ("seconds", 1, "seconds of training")}


def chosen(rows: Sequence[dict], slug: str, budget: str) -> list[dict]:
    """The rows of a method at a budget, one a seed."""
    return [row for row in rows if (row["arm"], row["at"]) == (slug, budget)]


def means(rows: Sequence[dict], slug: str, budget: str) -> dict[str, float]:
    """Means over the seeds of a method at a budget, and half of the 95 % interval of the accuracy in per cent."""
    each = chosen(rows, slug, budget)
    averages = {what: float(np.mean([row[what] for row in each])) for what in ("macs", "params", "bytes", "seconds", "time")}
    accuracies = 100 * np.array([row["score"] for row in each])
    spread = stats.t.ppf(0.975, len(each) - 1) * accuracies.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else 0.0
    return averages | {"accuracy": float(accuracies.mean()), "spread": float(spread)}


def _color(slug: str) -> str:
    layers = METHODS[slug].layers
    if slug in ("dense", "narrow"):
        return BASELINE
    return OURS if layers.startswith("ordinary") else ACCENTS[0]


def sides_of(names: Sequence[str], x: Sequence[float], y: Sequence[float], spread: Sequence[float],
             across: tuple[float, float]) -> list[str]:
    """Where each point's name can be read: apart from the other names, from markers, from intervals and from the border.

    A name, a marker and an interval are rectangles on the plot of a desktop and on that of a phone. Names are moved one after
    the other to where they share the least area with all others, until none moves.
    """
    low, high = min(np.subtract(y, spread)), max(np.add(y, spread))
    screens = []
    for width, height in ((560, 300), (240, 230)):  # pixels
        left = (np.array(x) - across[0]) / (across[1] - across[0]) * width
        top, half = (high - np.array(y)) / (high - low or 1) * height, np.array(spread) / (high - low or 1) * height
        fixed = [(a - 5, b - 5, a + 5, b + 5) for a, b in zip(left, top)]
        fixed += [(a - 2, b - c, a + 2, b + c) for a, b, c in zip(left, top, half)]
        fixed += 5 * [(-1e3, -1e3, 0, 1e3), (width, -1e3, 1e3, 1e3)]  # a name that is cut off is worse than two that touch
        screens.append((left, top, fixed))
    choices = [f"{v} {h}" for v in ("top", "bottom", "middle") for h in ("right", "left", "center")]

    def box(left: float, top: float, name: str, side: str) -> tuple[float, float, float, float]:
        v, h = side.split()
        wide, line = 7.5 * len(name), 14
        x0 = left + {"right": 5, "left": -5 - wide, "center": -wide / 2}[h]
        y0 = top + {"top": -5 - line, "bottom": 5, "middle": -line / 2}[v]
        return x0, y0, x0 + wide, y0 + line

    def shared(at: int, side: str) -> float:
        area = 0.0
        for left, top, fixed in screens:
            one = box(left[at], top[at], names[at], side)
            others = [box(*rest) for i, rest in enumerate(zip(left, top, names, sides)) if i != at]
            for a, b, c, d in (*fixed, *others):
                area += max(0, min(one[2], c) - max(one[0], a)) * max(0, min(one[3], d) - max(one[1], b))
        return area

    sides, before = [choices[0]] * len(names), None
    while sides != before:
        before = list(sides)
        for at in range(len(names)):
            better = min(choices, key=functools.partial(shared, at))
            if shared(at, better) < shared(at, sides[at]):  # the sum over all falls, so this comes to an end
                sides[at] = better
    return sides


def scatter(rows: Sequence[dict], budget: str = "multiply-adds", across: str = "time") -> go.Figure:
    """Accuracy of all methods at one budget against what they cost, with 95 % intervals over the seeds."""
    key, unit, axis = ACROSS[across]
    found = {slug: means(rows, slug, BUDGETS[budget]) for slug in METHODS}
    best = max(PAPERS, key=lambda slug: found[slug]["accuracy"])
    lead = found[best]["accuracy"] - found["narrow"]["accuracy"]
    low, high = (pick(one[key] for one in found.values()) / unit for pick in (min, max))
    pad = 0.12 * (high - low) or 0.3 * high
    sides = dict(zip(found, sides_of([METHODS[slug].name for slug in found], [one[key] / unit for one in found.values()],
                                     [one["accuracy"] for one in found.values()], [one["spread"] for one in found.values()],
                                     (low - pad, high + pad))))
    groups = {"ordinary layers": [slug for slug in PAPERS if _color(slug) == OURS],
              "layers with a kernel of their own": [slug for slug in PAPERS if _color(slug) != OURS],
              "to compare with": ["dense", "narrow"]}
    figure = go.Figure()
    for name, slugs in groups.items():
        figure.add_scatter(x=[round(found[slug][key] / unit, 4) for slug in slugs],
                           y=[round(found[slug]["accuracy"], 2) for slug in slugs],
                           error_y=dict(array=[round(found[slug]["spread"], 2) for slug in slugs], thickness=1, width=3),
                           text=[METHODS[slug].name for slug in slugs], textposition=[sides[slug] for slug in slugs],
                           mode="markers+text", name=name,
                           marker=dict(color=_color(slugs[0]), size=9, symbol="diamond" if "kernel" in name else "circle"),
                           hovertemplate="%{text}<br>%{y:.1f} % right<br>%{x:.3g}<extra></extra>")
    figure.update_layout(title=f"At equal {budget} {METHODS[best].name} is {abs(lead):.1f} points "
                               f"{'above' if lead >= 0 else 'below'} the narrow network", legend=dict(y=-0.3))
    figure.update_xaxes(title=axis, range=[low - pad, high + pad])
    figure.update_yaxes(title="test accuracy (%)")
    return figure


def _rows(claims: Sequence[dict], end: str) -> list[tuple[str, dict]]:
    """(method, claim) of all claims that end so. A run of one seed has no interval; what it found is a point then."""
    by_id = {row["id"]: {"interval": [row["ours"]] * 2, "seeds": 1, **row} for row in claims if row["kind"] == "miniature"}
    return [(METHODS[slug].name, by_id[f"{claim_of(slug)}.{end}"]) for slug in PAPERS]


def _better(rows: Sequence[tuple[str, dict]]) -> list[str]:
    """Methods whose whole interval lies above zero."""
    return [name for name, row in rows if row["seeds"] > 1 and row["interval"][0] > 0]


def against_narrow(claims: Sequence[dict], budget: str = "macs") -> go.Figure:
    """Paired differences of accuracy to the narrow network."""
    rows = _rows(claims, f"{budget}.accuracy")
    shown = _better(rows)
    what = "multiply-adds" if budget == "macs" else "parameters"
    names = " and ".join(filter(None, [", ".join(shown[:-1]), *shown[-1:]])) or "nothing"
    title = f"At equal {what} {names} beat{'s' * (len(shown) < 2)} the narrow network"
    return plots.intervals([(name, row["ours"], *row["interval"]) for name, row in rows],
                           title if len(shown) < 4 else f"At equal {what} {len(shown)} of {len(rows)} beat the narrow network",
                           "points (95 %)", "method")


def against_dense(claims: Sequence[dict]) -> go.Figure:
    """Paired differences of the time of an image to the dense network."""
    rows = _rows(claims, "time")
    faster = sum(row["seeds"] > 1 and row["interval"][1] < 0 for _, row in rows)
    return plots.intervals([(name, row["ours"], *row["interval"]) for name, row in rows],
                           f"{faster} of {len(rows)} are faster than the dense network", "ms for one image (95 %)", "method")


def table(rows: Sequence[dict], budget: str = "macs") -> str:
    """What each method ends with at a budget, best accuracy first, as markdown."""
    found = {slug: means(rows, slug, budget) for slug in METHODS}
    lines = ["| method | % right | M MACs | k params | ms | s training |", "|---|---|---|---|---|---|"]
    for slug in sorted(found, key=lambda slug: -found[slug]["accuracy"]):
        one = found[slug]
        lines.append(f"| {METHODS[slug].name} | {one['accuracy']:.1f}±{one['spread']:.1f} | {one['macs'] / 1e6:.2f} | "
                     f"{one['params'] / 1e3:.1f} | {1e3 * one['time']:.1f} | {one['seconds']:.0f} |")
    return "\n".join(lines)


def advice(rows: Sequence[dict], claims: Sequence[dict]) -> str:
    """What follows from the runs for somebody who must choose, in sentences whose numbers are theirs."""
    seeds = len(chosen(rows, "dense", "macs"))
    parts = [f"All numbers are means over {seeds} seed{'s' * (seeds > 1)}."]
    dense = means(rows, "dense", "macs")
    for words, budget in BUDGETS.items():
        found = {slug: means(rows, slug, budget) for slug in METHODS}
        best = max(PAPERS, key=lambda slug: found[slug]["accuracy"])
        quick = min((slug for slug in METHODS if slug != "dense"), key=lambda slug: found[slug]["time"])
        shown = _better(_rows(claims, f"{budget}.accuracy"))
        beaten = ", ".join(shown) if shown else "none"
        parts.append(f"- **At equal {words}** the most accurate is {METHODS[best].name} with {found[best]['accuracy']:.1f} %, "
                     f"where the narrow network has {found['narrow']['accuracy']:.1f} % and the dense one "
                     f"{dense['accuracy']:.1f} %. The whole interval lies above the narrow network for: {beaten}. "
                     f"The fastest is {METHODS[quick].name} with {1e3 * found[quick]['time']:.1f} ms; the dense network takes "
                     f"{1e3 * dense['time']:.1f} ms.")
    slow = [METHODS[slug].name for slug in PAPERS if means(rows, slug, "macs")["time"] > dense["time"]]
    if slow:
        parts.append(f"- **Fewer multiply-adds, and no time saved:** {', '.join(slow)}.")
    dear = max(PAPERS, key=lambda slug: means(rows, slug, "macs")["seconds"])
    cost = means(rows, dear, "macs")["seconds"] / means(rows, "narrow", "macs")["seconds"]
    parts.append(f"- **The dearest training** is that of {METHODS[dear].name}: {cost:.1f} times as long as that of the narrow "
                 "network.")
    return "\n".join(parts)
