"""The figures of the chapter on layer adaptive progressive pruning."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.measure import count_of
from papernets.papers.lapp import experiment, layers, method, networks
from papernets.papers.lapp.claims import PAIRS
from papernets.papers.lapp.learning import Progress
from papernets.training import scores

#: The arms as the figures call them.
NAMES = {"lapp": "LAPP", "plain": "LAPP without bypass", "uniform": "uniform rate", "one-shot": "one-shot L1",
         "narrow": "narrow from the start"}


def filter_costs() -> go.Figure:
    """What one filter of each convolution inside the blocks of ResNet-20 costs."""
    made = networks.NETWORKS["resnet20"]
    costs = count_of(made.build, made.shape)
    model = made.outline
    inside = [name for name in costs if name.startswith("blocks.") and ".conv" in name]
    each = [costs[name].macs / model.get_submodule(name).out_channels / 1e3 for name in inside]
    figure = go.Figure(go.Bar(x=list(range(1, len(each) + 1)), y=each, marker=dict(color=BASELINE), showlegend=False,
                              hovertext=inside, hovertemplate="%{hovertext}<br>%{y:.0f} thousand a filter<extra></extra>"))
    figure.update_layout(title=f"In {len(each)} layers one filter costs from {min(each):.0f} to {max(each):.0f} thousand "
                               "multiply-adds",
                         xaxis=dict(title="convolution of ResNet-20, in order", dtick=3, tick0=1),
                         yaxis=dict(title="multiply-adds of one filter (thousand)", rangemode="tozero"))
    return figure


def explorer(snapshots: Mapping[float, Progress]) -> Callable[..., go.Figure]:
    """The function behind the explorer of ``snapshots``, trainings by target: ``draw(epoch, rho, delta)``."""
    first = next(iter(snapshots.values()))
    widths = [len(values) for values in first.z[0].values()]
    model = networks.small_net((widths[0] // 2, *widths))
    flops = layers.attach_(model, layers.LAPP(removed=0.01), torch.zeros(1, 1, 8, 8))
    full = flops.count(flops.widths)
    share = {name: (full - flops.count(dict(flops.widths) | {name: C - 1})) / flops.whole for name, C in flops.widths.items()}

    def draw(epoch: int = 6, rho: float = 0.4, delta: float = 1.0) -> go.Figure:
        at = min(snapshots, key=lambda target: abs(target - rho))
        run = snapshots[at]
        e = min(epoch, len(run.z) - 1)
        traces, shapes, slopes, layout = [], [], [], {}
        for place, (name, values) in enumerate(run.z[e].items()):
            z, tau = torch.tensor(values), run.thresholds[e][name]
            slopes.append(-share[name] * float(method.bell(z - tau, delta).sum()))
            trace, lines, axes = _thresholded(place, len(run.z[e]), z, tau, run.masks[e][name], delta)
            traces.append(trace)
            shapes += lines
            layout |= axes
        r = [round(100 * value, 1) for value in run.remaining]
        traces += _beside(r, e, slopes)
        shapes.append(dict(type="line", xref="x8 domain", yref="y8", x0=0, x1=1, y0=100 * at, y1=100 * at,
                           line=dict(color=BASELINE, dash="dash")))
        right = [0.71, 1]
        layout |= {"xaxis8": dict(domain=right, anchor="y8", title=dict(text="epoch"), range=[-0.8, len(r) - 0.2], dtick=8),
                   "yaxis8": dict(domain=[0.5, 1], anchor="x8", title=dict(text="r (%)"), range=[0, 108]),
                   "xaxis9": dict(domain=right, anchor="y9", title=dict(text="layer"), type="category"),
                   "yaxis9": dict(domain=[0.06, 0.32], anchor="x9", title=dict(text="∂r/∂τ"), range=[-0.16, 0], dtick=0.1)}
        steepest = 2 + int(np.argmin(slopes))
        title = f"Epoch {e}: {r[e]:.0f} % is left of {100 * at:.0f} % wanted; layer {steepest} yields most"
        return go.Figure(dict(data=traces, layout=dict(layout, shapes=shapes, showlegend=False, bargap=0.1,
                                                       title=dict(text=title))))

    return draw


def _thresholded(place: int, count: int, z: torch.Tensor, tau: float, mask: Sequence[float],
                 delta: float) -> tuple[dict, list[dict], dict]:
    """The sorted scores of one of ``count`` layers, with its threshold: the bars, the lines over them, and their axes."""
    order, height = torch.argsort(z, descending=True, stable=True), 1 / count
    kept = [mask[i] > 0 for i in order.tolist()]
    number, top = place + 1 if place else "", 1 - place * height
    x, y = f"x{number}", f"y{number}"
    bars = dict(type="bar", x=list(range(1, len(z) + 1)), y=[round(v, 2) for v in z[order].tolist()], xaxis=x, yaxis=y,
                marker=dict(color=[OURS if one else BASELINE for one in kept]),
                hovertemplate="rank %{x}: z = %{y}<extra></extra>")
    line = round(max(-3.8, min(tau, 3.8)), 2)
    across = dict(xref=f"{x} domain", yref=y, x0=0, x1=1)
    lines = [dict(across, type="rect", y0=max(-4, line - delta), y1=min(4, line + delta), fillcolor=ACCENTS[0], opacity=0.18,
                  line=dict(width=0)),
             dict(across, type="line", y0=line, y1=line, line=dict(color=ACCENTS[0], width=2))]
    said = f"layer {place + 2}: {sum(kept)} of {len(z)}"
    axes = {f"xaxis{number}": dict(domain=[0, 0.42], anchor=y, showticklabels=False, ticks="",
                                   title=dict(text=said, standoff=2)),
            f"yaxis{number}": dict(domain=[max(0, top - 0.72 * height), top], anchor=x, range=[-4, 4], dtick=4,
                                   title=dict(text="score z"))}
    return bars, lines, axes


def _beside(r: Sequence[float], e: int, slopes: Sequence[float]) -> list[dict]:
    """r in per cent over the epochs, with a dot at epoch ``e``, and the slope of r by layer."""
    return [dict(type="scatter", x=list(range(len(r))), y=list(r), mode="lines", line=dict(color=OURS, width=2), xaxis="x8",
                 yaxis="y8", hovertemplate="epoch %{x}: %{y} %<extra></extra>"),
            dict(type="scatter", x=[e], y=[r[e]], mode="markers", marker=dict(color=OURS, size=11), xaxis="x8", yaxis="y8",
                 hovertemplate="%{y} %<extra></extra>"),
            dict(type="bar", x=[f"{place + 2}" for place in range(len(slopes))], y=[round(value, 3) for value in slopes],
                 marker=dict(color=ACCENTS[0]), xaxis="x9", yaxis="y9", hovertemplate="∂r/∂τ = %{y}<extra></extra>")]


def _targets(rows: Sequence[Mapping]) -> list[float]:
    return list(dict.fromkeys(row["at"] for row in rows))


def falling(rows: Sequence[Mapping], rho: float = 0.4) -> go.Figure:
    """r after every epoch, mean over the seeds."""
    series = {NAMES[arm]: (100 * np.mean(scores(rows, arm, rho, "remaining"), axis=0)).tolist() for arm in experiment.ARMS}
    steepest = {arm: np.mean(scores(rows, arm, rho, "steepest")) for arm in ("lapp", "one-shot")}
    figure = plots.lines(series, f"In one epoch LAPP loses at most {100 * steepest['lapp']:.0f} % of the network, one-shot "
                                 f"pruning {100 * steepest['one-shot']:.0f}\u00a0%", "epoch", "multiply-adds left, r (%)",
                         at=list(range(len(next(iter(series.values()))))), ours=NAMES["lapp"],
                         colors={NAMES["plain"]: ACCENTS[0], NAMES["uniform"]: ACCENTS[1]})
    figure.add_hline(y=100 * rho, line=dict(color=BASELINE, width=1, dash="dot"))
    figure.update_yaxes(range=[0, 108])
    return figure


def rates(rows: Sequence[Mapping], arm: str = "lapp") -> go.Figure:
    """The share of its filters that each layer keeps in the end, mean over the seeds, by target."""
    targets, figure = _targets(rows), go.Figure()
    widths = scores(rows, arm, targets[0], "kept")[0][0]
    shares = {rho: 100 * np.mean([kept[-1] for kept in scores(rows, arm, rho, "kept")], axis=0) / widths for rho in targets}
    for rho, color in zip(targets, (OURS, ACCENTS[0], ACCENTS[1])):
        figure.add_bar(x=[f"layer {i + 2}" for i in range(len(widths))], y=shares[rho].tolist(), marker=dict(color=color),
                       name=f"ρ = {rho:g}", text=[f"{value:.0f}" for value in shares[rho]], textposition="outside",
                       cliponaxis=False)
    first = shares[targets[0]]
    said = f"At ρ = {targets[0]:g} the layers keep {first.min():.0f} to {first.max():.0f} % of their filters"
    figure.update_layout(barmode="group", title=said,
                         xaxis=dict(title="pruned convolution"), yaxis=dict(title="filters kept (%)", range=[0, 108]))
    return figure


def accuracies(rows: Sequence[Mapping]) -> go.Figure:
    """Test accuracy of every arm at every target, mean over the seeds, and of the network that was never pruned."""
    targets = sorted(_targets(rows))
    series = {name: [100 * float(np.mean(scores(rows, arm, rho))) for rho in targets] for arm, name in NAMES.items()}
    full = 100 * np.mean(scores(rows, "full", targets[0]))
    at = {arm: series[name][0] for arm, name in NAMES.items()}
    best = max(at, key=at.get)
    figure = plots.lines(series, f"At {100 * targets[0]:.0f} % of the multiply-adds {NAMES[best]} has {at[best]:.1f} %"
                         + ("" if best == "lapp" else f", LAPP {at['lapp']:.1f} %"), "multiply-adds left, ρ (%)",
                         "test accuracy (%)", at=[100 * rho for rho in targets], ours=NAMES["lapp"],
                         colors=dict(zip((NAMES[arm] for arm in ("plain", "uniform", "one-shot")), ACCENTS[:3])))
    figure.add_hline(y=full, line=dict(color=BASELINE, width=1, dash="dot"))
    figure.add_annotation(x=1, xref="paper", xanchor="right", y=full, yanchor="bottom", text=f"never pruned: {full:.1f} %",
                          showarrow=False)
    figure.update_xaxes(tickvals=[100 * rho for rho in targets])
    return figure


def means_in_words(claims: Sequence[Mapping]) -> str:
    """The mean accuracies at 20 % of the multiply-adds, best first."""
    means = {}
    for row in claims:
        other, rho = PAIRS.get(row["id"], ("", 0))
        if rho == 0.2 and "scores" in row:
            means |= {"LAPP": np.mean(row["scores"]["ours"]), NAMES[other]: np.mean(row["scores"]["baseline"])}
    listed = "; ".join(f"{name} {value:.2f} %" for name, value in sorted(means.items(), key=lambda item: -item[1]))
    return f"Mean accuracies at 20 % of the multiply-adds: {listed}."


#: The layers that are timed: channels, side of the map, the bypass.
LAYERS = {"grouped bypass": (256, 14, "grouped"), "depthwise bypass": (256, 14, "depthwise")}
_PARTS = {"conv": ("narrow convolution", OURS), "bypass": ("bypass", ACCENTS[0]), "scatter": ("adding", ACCENTS[2])}


def layer_times(left: Sequence[int] = (4, 16, 64, 128), repeats: int = 5) -> dict[str, dict]:
    """Measured parts of a compact layer, by bypass and by the number of filters that are left."""
    return {name: experiment.layer_times(channels, side, left, bypass=bypass, repeats=repeats)
            for name, (channels, side, bypass) in LAYERS.items()}


def _percent(times: Mapping, part: str) -> list[float]:
    values = [times["bypass"]] * len(times["left"]) if part == "bypass" else times[part]
    return [100 * value / times["full"] for value in values]


def speed(times: Mapping[str, dict]) -> go.Figure:
    """The parts of a compact layer in % of the plain layer's time, beside its multiply-adds and a narrow plain layer."""
    figure = make_subplots(len(times), 1, vertical_spacing=0.17, shared_xaxes=False)
    for row, (name, layer) in enumerate(times.items(), 1):
        at = [f"{number} of {LAYERS[name][0]}" for number in layer["left"]]
        for part, (label, color) in _PARTS.items():
            figure.add_bar(x=at, y=_percent(layer, part), name=label, marker=dict(color=color), showlegend=row == 1,
                           legendgroup=part, row=row, col=1, hovertemplate=f"{label}: %{{y:.1f}} %<extra></extra>")
        for label, values, symbol in (("narrow plain layer, same multiply-adds", _percent(layer, "narrow"), "diamond"),
                                      ("multiply-adds", [100 * value / layer["full.macs"] for value in layer["macs"]], "x")):
            figure.add_scatter(x=at, y=values, name=label, mode="markers", showlegend=row == 1, legendgroup=label, row=row,
                               col=1, marker=dict(symbol=symbol, size=11, color=BASELINE, line=dict(width=1, color="white")),
                               hovertemplate=f"{label}: %{{y:.1f}} %<extra></extra>")
        figure.update_xaxes(title=f"filters left, {name}", type="category", row=row, col=1)
        figure.update_yaxes(title="% of the plain layer", rangemode="tozero", row=row, col=1)
    layer = next(iter(times.values()))
    macs, taken = 100 * layer["bypass.macs"] / layer["full.macs"], 100 * layer["bypass"] / layer["full"]
    said = f"The grouped bypass: {macs:.1f} % of the plain layer's multiply-adds, {taken:.0f} % of its time"
    figure.update_layout(title=said, barmode="stack", legend=dict(y=-0.14))
    return figure


def speed_in_words(times: Mapping[str, dict]) -> str:
    """What the bypass costs on paper and by the clock, a sentence a bypass."""
    parts = []
    for name, layer in times.items():
        few, most = layer["left"][0], layer["left"][-1]
        whole = layer["conv"][0] + layer["bypass"] + layer["scatter"][0]
        macs, own = layer["bypass.macs"], 100 * layer["bypass"] / whole
        ms = {part: [1e3 * value for value in layer[part]] for part in ("index", "slice", "narrow")}
        parts.append(
            f"- {name.capitalize()}: {100 * macs / layer['full.macs']:.1f} % of the plain layer's multiply-adds and "
            f"{100 * layer['bypass'] / layer['full']:.0f} % of its {1e3 * layer['full']:.2f} ms. With {few} filters left it "
            f"has {100 * macs / layer['macs'][0]:.0f} % of the compact layer's multiply-adds and {own:.0f} % of its time; the "
            f"compact layer takes {ms['index'][0]:.3f} ms with an index, {ms['slice'][0]:.3f} ms with a slice, and a "
            f"narrow plain layer of as many multiply-adds {ms['narrow'][0]:.3f} ms. With {most} left: "
            f"{ms['index'][-1]:.3f}, {ms['slice'][-1]:.3f} and {ms['narrow'][-1]:.3f} ms.")
    return "\n".join(parts)
