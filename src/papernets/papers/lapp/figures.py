"""The figures of the chapter on layer adaptive progressive pruning."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.measure import count
from papernets.papers.lapp import experiment, layers, method, networks
from papernets.papers.lapp.claims import PAIRS, _steepest
from papernets.papers.lapp.compaction import Progress

#: The arms as the figures call them.
NAMES = {"lapp": "LAPP", "plain": "LAPP without bypass", "uniform": "uniform rate", "one-shot": "one-shot L1",
         "narrow": "narrow from the start"}
WORDS = {"mini.bypass": "LAPP − no bypass", "mini.bypass.p10": "LAPP − no bypass", "mini.uniform": "LAPP − uniform",
         "mini.oneshot": "LAPP − one-shot", "mini.narrow": "LAPP − narrow", "mini.drop": "LAPP − unpruned"}


def filter_costs() -> go.Figure:
    """What one filter of each convolution inside the blocks of ResNet-20 costs."""
    with torch.device("meta"):
        model = networks.NETWORKS["resnet20"].build()
        costs = count(model, torch.empty(1, 3, 32, 32))
    inside = [name for name in costs if name.startswith("blocks.") and ".conv" in name]
    each = [costs[name].macs / model.get_submodule(name).out_channels / 1e3 for name in inside]
    figure = go.Figure(go.Bar(x=list(range(1, len(each) + 1)), y=each, marker=dict(color=BASELINE), showlegend=False,
                              hovertext=inside, hovertemplate="%{hovertext}<br>%{y:.0f} thousand a filter<extra></extra>"))
    figure.update_layout(title=f"In {len(each)} layers one filter costs from {min(each):.0f} to {max(each):.0f} thousand "
                               "multiply-adds",
                         xaxis=dict(title="convolution of ResNet-20, in order", dtick=3, tick0=1),
                         yaxis=dict(title="multiply-adds of one filter (thousand)", rangemode="tozero"))
    return figure


def explorer(found: Mapping[float, Progress]) -> Callable[..., go.Figure]:
    """The function behind the explorer of ``found``, trainings by target: ``draw(epoch, rho, delta)``."""
    first = next(iter(found.values()))
    widths = [len(values) for values in first.z[0].values()]
    model = networks.small_net((widths[0] // 2, *widths))
    flops = layers.attach_(model, layers.LAPP(target=0.99), torch.zeros(1, 1, 8, 8))
    full = flops.count(flops.widths)
    share = {name: (full - flops.count(dict(flops.widths) | {name: C - 1})) / flops.whole for name, C in flops.widths.items()}

    def draw(epoch: int = 6, rho: float = 0.4, delta: float = 1.0) -> go.Figure:
        at = min(found, key=lambda target: abs(target - rho))
        run = found[at]
        e = min(epoch, len(run.z) - 1)
        names, traces, shapes, slopes = list(run.z[e]), [], [], []
        left, right, height = [0, 0.42], [0.71, 1], 1 / len(run.z[e])
        layout: dict = {}
        for place, name in enumerate(names):
            z, tau = torch.tensor(run.z[e][name]), run.thresholds[e][name]
            order = torch.argsort(z, descending=True, stable=True)
            kept = [run.masks[e][name][i] > 0 for i in order.tolist()]
            slopes.append(-share[name] * float(method.bell(z - tau, delta).sum()))
            number, top = place + 1 if place else "", 1 - place * height
            x, y = f"x{number}", f"y{number}"
            traces.append(dict(type="bar", x=list(range(1, len(z) + 1)), y=[round(v, 2) for v in z[order].tolist()], xaxis=x,
                               yaxis=y, marker=dict(color=[OURS if one else BASELINE for one in kept]),
                               hovertemplate="rank %{x}: z = %{y}<extra></extra>"))
            line = round(max(-3.8, min(tau, 3.8)), 2)
            across = dict(xref=f"{x} domain", yref=y, x0=0, x1=1)
            shapes += [dict(across, type="rect", y0=max(-4, line - delta), y1=min(4, line + delta), fillcolor=ACCENTS[0],
                            opacity=0.18, line=dict(width=0)),
                       dict(across, type="line", y0=line, y1=line, line=dict(color=ACCENTS[0], width=2))]
            layout[f"xaxis{number}"] = dict(domain=left, anchor=y, showticklabels=False, ticks="", title=dict(
                text=f"layer {place + 2}: {sum(kept)} of {len(z)}", standoff=2))
            layout[f"yaxis{number}"] = dict(domain=[max(0, top - 0.72 * height), top], anchor=x, range=[-4, 4], dtick=4,
                                               title=dict(text="score z"))
        r = [round(100 * value, 1) for value in run.remaining]
        traces += [dict(type="scatter", x=list(range(len(r))), y=r, mode="lines", line=dict(color=OURS, width=2), xaxis="x8",
                        yaxis="y8", hovertemplate="epoch %{x}: %{y} %<extra></extra>"),
                   dict(type="scatter", x=[e], y=[r[e]], mode="markers", marker=dict(color=OURS, size=11), xaxis="x8",
                        yaxis="y8", hovertemplate="%{y} %<extra></extra>"),
                   dict(type="bar", x=[f"{place + 2}" for place in range(len(names))], y=[round(value, 3) for value in slopes],
                        marker=dict(color=ACCENTS[0]), xaxis="x9", yaxis="y9", hovertemplate="∂r/∂τ = %{y}<extra></extra>")]
        shapes.append(dict(type="line", xref="x8 domain", yref="y8", x0=0, x1=1, y0=100 * at, y1=100 * at,
                           line=dict(color=BASELINE, dash="dash")))
        layout |= {"xaxis8": dict(domain=right, anchor="y8", title=dict(text="epoch"), range=[-0.8, len(r) - 0.2], dtick=8),
                   "yaxis8": dict(domain=[0.5, 1], anchor="x8", title=dict(text="r (%)"), range=[0, 108]),
                   "xaxis9": dict(domain=right, anchor="y9", title=dict(text="layer"), type="category"),
                   "yaxis9": dict(domain=[0.06, 0.32], anchor="x9", title=dict(text="∂r/∂τ"), range=[-0.16, 0], dtick=0.1)}
        steepest = 2 + int(np.argmin(slopes))
        title = f"Epoch {e}: {r[e]:.0f} % is left of {100 * at:.0f} % wanted; layer {steepest} yields most"
        return go.Figure(dict(data=traces, layout=dict(layout, shapes=shapes, showlegend=False, bargap=0.1,
                                                       title=dict(text=title))))

    return draw


def _mean(runs: Sequence[dict], rho: float, name: str, key: str) -> np.ndarray:
    return np.mean([run["arms"][rho][name][key] for run in runs], axis=0)


def falling(runs: Sequence[dict], rho: float = 0.4) -> go.Figure:
    """r after every epoch, mean over the seeds."""
    series = {NAMES[name]: (100 * _mean(runs, rho, name, "remaining")).tolist() for name in experiment.ARMS}
    steepest = {name: np.mean([_steepest(run, rho, name) for run in runs]) for name in ("lapp", "one-shot")}
    figure = plots.lines(series, f"In one epoch LAPP loses at most {100 * steepest['lapp']:.0f} % of the network, one-shot "
                                 f"pruning {100 * steepest['one-shot']:.0f}\u00a0%", "epoch", "multiply-adds left, r (%)",
                         at=list(range(len(next(iter(series.values()))))), ours=NAMES["lapp"],
                         colors={NAMES["plain"]: ACCENTS[0], NAMES["uniform"]: ACCENTS[1]})
    figure.add_hline(y=100 * rho, line=dict(color=BASELINE, width=1, dash="dot"))
    figure.update_yaxes(range=[0, 108])
    return figure


def rates(runs: Sequence[dict], name: str = "lapp") -> go.Figure:
    """The share of its filters that each layer keeps in the end, mean over the seeds, by target."""
    targets, figure = list(runs[0]["arms"]), go.Figure()
    widths = runs[0]["arms"][targets[0]][name]["kept"][0]
    shares = {rho: 100 * np.mean([run["arms"][rho][name]["kept"][-1] for run in runs], axis=0) / widths for rho in targets}
    for rho, color in zip(targets, (OURS, ACCENTS[0], ACCENTS[1])):
        figure.add_bar(x=[f"layer {i + 2}" for i in range(len(widths))], y=shares[rho].tolist(), marker=dict(color=color),
                       name=f"ρ = {rho:g}", text=[f"{value:.0f}" for value in shares[rho]], textposition="outside",
                       cliponaxis=False)
    first = shares[targets[0]]
    said = f"At ρ = {targets[0]:g} the layers keep {first.min():.0f} to {first.max():.0f} % of their filters"
    figure.update_layout(barmode="group", title=said,
                         xaxis=dict(title="pruned convolution"), yaxis=dict(title="filters kept (%)", range=[0, 108]))
    return figure


def accuracies(runs: Sequence[dict]) -> go.Figure:
    """Test accuracy of every arm at every target, mean over the seeds, and of the network that was never pruned."""
    targets = sorted(runs[0]["arms"])
    series = {NAMES[name]: [100 * float(_mean(runs, rho, name, "accuracy")) for rho in targets] for name in NAMES}
    full = 100 * np.mean([run["full"] for run in runs])
    at = dict(zip(NAMES, (values[0] for values in series.values())))
    best = max(at, key=at.get)
    figure = plots.lines(series, f"At {100 * targets[0]:.0f} % of the multiply-adds {NAMES[best]} has {at[best]:.1f} %"
                         + ("" if best == "lapp" else f", LAPP {at['lapp']:.1f} %"), "multiply-adds left, ρ (%)",
                         "test accuracy (%)", at=[100 * rho for rho in targets], ours=NAMES["lapp"],
                         colors=dict(zip((NAMES[name] for name in ("plain", "uniform", "one-shot")), ACCENTS[:3])))
    figure.add_hline(y=full, line=dict(color=BASELINE, width=1, dash="dot"))
    figure.add_annotation(x=1, xref="paper", xanchor="right", y=full, yanchor="bottom", text=f"never pruned: {full:.1f} %",
                          showarrow=False)
    figure.update_xaxes(tickvals=[100 * rho for rho in targets])
    return figure


def _points(claims: Sequence[dict]) -> list[dict]:
    return [row for row in claims if row["id"] in PAIRS]


def _interval(row: dict) -> tuple[float, float]:
    return tuple(row.get("interval") or (row["ours"], row["ours"]))


def _name(row: dict) -> str:
    return f"{100 * PAIRS[row['id']][1]:.0f} %: {WORDS[row['id']]}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def evidence(claims: Sequence[dict]) -> go.Figure:
    """The paired differences of test accuracy."""
    compared = _points(claims)
    above = sum(_interval(row)[0] > 0 for row in compared)
    below = sum(_interval(row)[1] < 0 for row in compared)
    seeds = compared[0]["seeds"]
    return plots.intervals([(_name(row), row["ours"], *_interval(row)) for row in compared],
                           f"Of {len(compared)} differences {above} lie above zero and {below} below, {seeds} paired "
                           f"seed{'s' if seeds > 1 else ''}", "points (95 %)", "pair")


def evidence_in_words(claims: Sequence[dict]) -> str:
    """What the paired comparison says, a sentence a claim."""
    parts = []
    for row in _points(claims):
        low, high = _interval(row)
        rule = "; the rule asks for more than −0.5" if row["id"] == "mini.drop" else ""
        parts.append(f"- {_name(row)}: {_signed(row['ours'])} points ({_signed(low)} to {_signed(high)}{rule}): "
                     f"**{row['verdict']}**.")
    other = {"mini.progressive": "Largest fall of r in one epoch, LAPP − one-shot",
             "mini.rates": "Spread of the kept shares over the layers, LAPP − uniform"}
    for row in claims:
        if row["id"] in other:
            low, high = _interval(row)
            parts.append(f"- {other[row['id']]}: {_signed(row['ours'])} ({_signed(low)} to {_signed(high)}): "
                         f"**{row['verdict']}**.")
    means = {}
    for row in _points(claims):
        other, rho = PAIRS[row["id"]]
        if rho == 0.2 and "scores" in row:
            means |= {"LAPP": np.mean(row["scores"]["ours"]), NAMES[other]: np.mean(row["scores"]["baseline"])}
    if means:
        listed = "; ".join(f"{name} {value:.2f} %" for name, value in sorted(means.items(), key=lambda item: -item[1]))
        parts += ["", f"Mean accuracies at 20 % of the multiply-adds: {listed}."]
    return "\n".join(parts)


#: The layers that are timed: channels, side of the map, the bypass.
LAYERS = {"grouped bypass": (256, 14, "grouped"), "depthwise bypass": (256, 14, "depthwise")}
_PARTS = {"conv": ("narrow convolution", OURS), "bypass": ("bypass", ACCENTS[0]), "scatter": ("adding", ACCENTS[2])}


def layer_times(left: Sequence[int] = (4, 16, 64, 128), repeats: int = 5) -> dict[str, dict]:
    """Measured parts of a compact layer, by bypass and by the number of filters that are left."""
    return {name: experiment.layer_times(channels, side, left, bypass=bypass, repeats=repeats)
            for name, (channels, side, bypass) in LAYERS.items()}


def _percent(found: dict, part: str) -> list[float]:
    values = [found["bypass"]] * len(found["left"]) if part == "bypass" else found[part]
    return [100 * value / found["full"] for value in values]


def speed(times: Mapping[str, dict]) -> go.Figure:
    """The parts of a compact layer in % of the plain layer's time, beside its multiply-adds and a narrow plain layer."""
    figure = make_subplots(len(times), 1, vertical_spacing=0.17, shared_xaxes=False)
    for row, (name, found) in enumerate(times.items(), 1):
        at = [f"{number} of {LAYERS[name][0]}" for number in found["left"]]
        for part, (label, color) in _PARTS.items():
            figure.add_bar(x=at, y=_percent(found, part), name=label, marker=dict(color=color), showlegend=row == 1,
                           legendgroup=part, row=row, col=1, hovertemplate=f"{label}: %{{y:.1f}} %<extra></extra>")
        for label, values, symbol in (("narrow plain layer, same multiply-adds", _percent(found, "narrow"), "diamond"),
                                      ("multiply-adds", [100 * value / found["full.macs"] for value in found["macs"]], "x")):
            figure.add_scatter(x=at, y=values, name=label, mode="markers", showlegend=row == 1, legendgroup=label, row=row,
                               col=1, marker=dict(symbol=symbol, size=11, color=BASELINE, line=dict(width=1, color="white")),
                               hovertemplate=f"{label}: %{{y:.1f}} %<extra></extra>")
        figure.update_xaxes(title=f"filters left, {name}", type="category", row=row, col=1)
        figure.update_yaxes(title="% of the plain layer", rangemode="tozero", row=row, col=1)
    found = next(iter(times.values()))
    macs, taken = 100 * found["bypass.macs"] / found["full.macs"], 100 * found["bypass"] / found["full"]
    said = f"The grouped bypass: {macs:.1f} % of the plain layer's multiply-adds, {taken:.0f} % of its time"
    figure.update_layout(title=said, barmode="stack", legend=dict(y=-0.14))
    return figure


def speed_in_words(times: Mapping[str, dict]) -> str:
    """What the bypass costs on paper and by the clock, a sentence a bypass."""
    parts = []
    for name, found in times.items():
        few, most = found["left"][0], found["left"][-1]
        whole = found["conv"][0] + found["bypass"] + found["scatter"][0]
        macs, own = found["bypass.macs"], 100 * found["bypass"] / whole
        parts.append(
            f"- {name.capitalize()}: {100 * macs / found['full.macs']:.1f} % of the plain layer's multiply-adds and "
            f"{100 * found['bypass'] / found['full']:.0f} % of its {found['full']:.2f} ms. With {few} filters left it has "
            f"{100 * macs / found['macs'][0]:.0f} % of the compact layer's multiply-adds and {own:.0f} % of its time; the "
            f"compact layer takes {found['index'][0]:.3f} ms with an index, {found['slice'][0]:.3f} ms with a slice, and a "
            f"narrow plain layer of as many multiply-adds {found['narrow'][0]:.3f} ms. With {most} left: "
            f"{found['index'][-1]:.3f}, {found['slice'][-1]:.3f} and {found['narrow'][-1]:.3f} ms.")
    return "\n".join(parts)
