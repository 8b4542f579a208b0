"""The figures of the chapter on collaborative compression."""

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS
from papernets.papers.cc import experiment, layers, method
from papernets.papers.cc.claims import THREE
from papernets.papers.cc.unit_search import Search, search
from papernets.training import scores

#: What may be removed, as the explorer calls it, and the colours of the three.
MODES = {"both": "joint", "channels": "channels", "ranks": "ranks"}
COLORS = {"pruning": BASELINE, "decomposition": ACCENTS[0], "joint": OURS}
#: Shades on which the page's own text can be read in both themes.
FIELD = [[0, "rgba(86,180,233,0.04)"], [1, "rgba(86,180,233,0.5)"]]


@functools.cache
def example_layer(kernel: int = 3, seed: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """W and G (8, 8, k, k): a weight with strong and weak directions, inputs of unequal strength, and an uneven gradient.

    The seed is one with which looking ahead changes the way; with most it does not.
    """
    draw = torch.Generator().manual_seed(seed)
    U = torch.linalg.qr(torch.randn(8, 8, generator=draw, dtype=torch.float64))[0]
    V = torch.randn(8, 8 * kernel**2, generator=draw, dtype=torch.float64) / math.sqrt(8 * kernel**2)
    strength = torch.tensor([1.4, 0.3, 1.0, 0.15, 1.2, 0.6, 0.9, 0.4], dtype=torch.float64)
    W = (U * 0.7 ** torch.arange(8)) @ (V.view(8, 8, -1) * strength[:, None]).flatten(1)
    G = torch.randn(8, 8, kernel, kernel, generator=draw, dtype=torch.float64)
    return W.view(8, 8, kernel, kernel), G * torch.exp(1.5 * torch.randn(8, 8, 1, 1, generator=draw, dtype=torch.float64))


def _line(path: Search, W: torch.Tensor, G: torch.Tensor) -> tuple[list[float], list[float]]:
    """Work removed and loss after every step, in per cent of the layer; from nothing on."""
    dense, whole = W.numel(), method.information_loss(W, G, torch.zeros_like(W))
    return ([0.0, *(100 * (1 - step.cost / dense) for step in path.steps)],
            [0.0, *(100 * step.loss / whole for step in path.steps)])


def tradeoff(W: torch.Tensor, G: torch.Tensor, removed: float = 0.9) -> dict[str, tuple[list[float], list[float]]]:
    """Work removed and loss of a layer, by arm, while units go one after the other."""
    most = {units: method.reachable(*W.shape[:2], W[0, 0].numel(), units) for units in experiment.ARMS.values()}
    return {name: _line(search(W, G, min(removed, most[units]), units=units), W, G)
            for name, units in experiment.ARMS.items()}


def _at(line: tuple[list[float], list[float]], cut: float) -> float:
    """The loss when for the first time ``cut`` per cent of the work is gone."""
    return next(loss for gone, loss in zip(*line) if gone >= cut - 1e-9)


def problem(lines: Mapping[str, tuple[list[float], list[float]]]) -> go.Figure:
    """Loss of a trained layer against the work that is removed, for the three ways."""
    half = {name: _at(line, 50) for name, line in lines.items()}
    figure = go.Figure()
    for name, (gone, loss) in lines.items():
        figure.add_scatter(x=gone, y=loss, name=name, mode="lines+markers", marker=dict(size=5),
                           line=dict(color=COLORS[name], width=3 if name == "joint" else 1.8))
    figure.add_vline(x=0, line=dict(color=BASELINE, dash="dot"))
    figure.update_layout(title=f"Half of the work gone: pruning loses {half['pruning']:.0f} %, decomposition "
                               f"{half['decomposition']:.0f} %, both together {half['joint']:.0f} %")
    figure.update_xaxes(title="work removed (% of the layer)")
    figure.update_yaxes(title="loss (% of removing the layer)", rangemode="tozero")
    return figure


def explore_layer(mode: str = "both", removed: float = 0.5, gamma: float = 0.9, kernel: str = "3×3") -> go.Figure:
    """Left, the way through the plane of channels and ranks over the work that is left; right, the loss on the way."""
    k = int(kernel[0])
    W, G = example_layer(k)
    goal = {name: min(removed, method.reachable(8, 8, k * k, units)) for name, units in MODES.items()}
    paths = {name: search(W, G, goal[name], units=units, gamma=gamma) for name, units in MODES.items()}
    path = paths[mode]
    places = list(range(1, 9))
    work = [[100 * method.cost(8, 8, k * k, 8 - c, 8 - r) / W.numel() for c in places] for r in places]
    figure = make_subplots(1, 2, column_widths=[0.46, 0.54], horizontal_spacing=0.2)
    figure.add_heatmap(x=places, y=places, z=work, colorscale=FIELD, zmin=0, zmax=200 if k == 1 else 100, showscale=False,
                       row=1, col=1, hovertemplate="%{x} channels, rank %{y}<br>%{z:.0f} % of the work<extra></extra>")
    figure.add_scatter(x=[8, *(step.channels for step in path.steps)], y=[8, *(step.ranks for step in path.steps)],
                       mode="lines+markers", line=dict(color=OURS, width=3), marker=dict(size=7), showlegend=False,
                       hoverinfo="skip", row=1, col=1)
    for name, color in zip(MODES, (COLORS["joint"], COLORS["pruning"], COLORS["decomposition"])):
        gone, loss = _line(paths[name], W, G)
        figure.add_scatter(x=gone, y=loss, name=name, mode="lines+markers", marker=dict(size=6 if name == mode else 4),
                           line=dict(color=color, width=3 if name == mode else 1.8), opacity=1 if name == mode else 0.85,
                           row=1, col=2)
    cells = [(c, r, f"{value:.0f}") for r, line in zip(places, work) for c, value in zip(places, line)]
    figure.add_scatter(x=[c for c, _, _ in cells], y=[r for _, r, _ in cells], text=[text for _, _, text in cells], mode="text",
                       showlegend=False, hoverinfo="skip", textfont=dict(size=9), row=1, col=1)
    figure.add_vline(x=100 * removed, line=dict(color=BASELINE, dash="dash"), row=1, col=2)
    figure.update_xaxes(title="channels left", dtick=1, showgrid=False, row=1, col=1)
    figure.update_yaxes(title="rank left (8: one layer)", dtick=1, showgrid=False, row=1, col=1)
    figure.update_xaxes(title="work removed (%)", range=[-110 if k == 1 else -15, 100], row=1, col=2)
    figure.update_yaxes(title="loss (% of the layer)", rangemode="tozero", row=1, col=2)
    layer, new = path.layer, method.rebuild(W, path.layer)
    cut = 100 * (1 - sum(part.numel() for part in new) / W.numel())
    lost = 100 * method.information_loss(W, G, method.restored(W, layer)) / method.information_loss(W, G, torch.zeros_like(W))
    form = "one layer" if layer.rank is None else f"rank {layer.rank}"
    short = "" if goal[mode] >= removed else " (no more can be had)"
    channels = f"{len(layer.kept)} channel{'s' if len(layer.kept) > 1 else ''}"
    figure.update_layout(title=f"{channels}, {form}: {cut:.0f} % of the work gone{short}, loss {lost:.0f} %")
    return figure


def curves(shares: layers.Shares) -> go.Figure:
    """The measured loss of every layer against the work removed, and its fit."""
    figure, said = go.Figure(), []
    for at, (name, color) in enumerate(zip(shares.curves, (OURS, *ACCENTS)), 1):
        (c, loss), fit = shares.curves[name], shares.fits[name]
        points = [(100 * x, value / max(loss)) for x, value in zip(c, loss) if x > 0 and value > 0]
        figure.add_scatter(x=[x for x, _ in points], y=[y for _, y in points], mode="markers", name=f"layer {at}, measured",
                           marker=dict(color=color, size=5))
        if fit is not None:
            grid = np.linspace(0, 1, 21)
            figure.add_scatter(x=100 * grid, y=fit[0] * np.exp(fit[1] * grid), mode="lines", name=f"layer {at}, fit",
                               line=dict(color=color, width=2))
            said.append(f"b = {fit[1]:.1f} in layer {at}")
    figure.update_layout(title=f"The slopes of the fits are {', '.join(said)}" if said else "No layer can be fitted")
    figure.update_xaxes(title="work removed (% of the layer)")
    figure.update_yaxes(title="loss (share of largest, log)", type="log", exponentformat="power")
    return figure


def explore_shares(removed: float = 0.5, steeper: float = 1.0, rule: str = "equal marginal loss") -> go.Figure:
    """Left, what each of three layers gives; right, where that is on its curve."""
    b = (THREE["b"][0] * steeper, *THREE["b"][1:])
    fits, work = list(zip(THREE["a"], b)), THREE["F"]
    shares, x = method.allocate(fits, work, removed * sum(work), rule="lagrange" if rule == "Lagrange" else "equal_marginal")
    total = sum(a * math.exp(b * c) for (a, b), c in zip(fits, shares))
    names, colors = [f"layer {i}" for i in (1, 2, 3)], (OURS, ACCENTS[0], ACCENTS[1])
    figure = make_subplots(1, 2, column_widths=[0.4, 0.6], horizontal_spacing=0.2)
    figure.add_bar(x=names, y=[100 * c for c in shares], marker=dict(color=colors), showlegend=False, row=1, col=1,
                   text=[f"{100 * c:.0f} %" for c in shares], textposition="outside", cliponaxis=False)
    grid = np.linspace(0, 0.95, 20)
    for (a, steep), c, name, color in zip(fits, shares, names, colors):
        figure.add_scatter(x=100 * grid, y=a * np.exp(steep * grid), mode="lines", name=name, line=dict(color=color, width=2),
                           row=1, col=2)
        figure.add_scatter(x=[100 * c], y=[a * math.exp(steep * c)], mode="markers", showlegend=False,
                           marker=dict(color=color, size=12), row=1, col=2)
    figure.update_xaxes(title="layer", row=1, col=1)
    figure.update_yaxes(title="work removed (%)", range=[0, 110], row=1, col=1)
    figure.update_xaxes(title="work removed (%)", row=1, col=2)
    figure.update_yaxes(title="loss", range=[0, 1], row=1, col=2)
    level = "loss per unit of c" if rule != "Lagrange" else "loss per million multiply-adds"
    figure.update_layout(title=f"Total loss {total:.3f}; water level {x:.3g} {level}")
    return figure


def _cuts(rows: Sequence[dict]) -> list[float]:
    return list(dict.fromkeys(row["at"] for row in rows if row["arm"] == "joint"))


def accuracies(rows: Sequence[dict]) -> go.Figure:
    """Test accuracy of every arm at every cut, before and after the fine-tuning, mean over the seeds."""
    cuts = _cuts(rows)
    labels = [f"{name}, {100 * cut:.0f} %" for cut in cuts for name in experiment.ARMS]
    series = {when: [100 * np.mean(scores(rows, name, cut, key)) for cut in cuts for name in experiment.ARMS]
              for when, key in (("before fine-tuning", "score"), ("after fine-tuning", "tuned"))}
    dense = 100 * np.mean(scores(rows, "dense"))
    figure = go.Figure()
    for (name, values), color in zip(series.items(), (BASELINE, OURS)):
        figure.add_bar(x=values, y=labels, orientation="h", name=name, marker=dict(color=color),
                       text=[f"{value:.1f}" for value in values], textposition="outside", cliponaxis=False)
    first = dict(zip(labels, series["before fine-tuning"]))
    last = f", {100 * cuts[-1]:.0f} %"
    figure.update_layout(title=f"{100 * cuts[-1]:.0f} % gone, not yet tuned: pruning leaves {first['pruning' + last]:.0f} %, "
                               f"decomposition {first['decomposition' + last]:.0f} %, joint {first['joint' + last]:.0f} %; "
                               f"dense {dense:.0f} %", barmode="group")
    figure.update_xaxes(title="test accuracy (%)", range=[0, 125], dtick=50)
    figure.update_yaxes(title="arm, cut", autorange="reversed", automargin=True)
    return figure


def orders(rows: Sequence[dict]) -> go.Figure:
    """Loss of the rebuilt layer by the order of removal; a thin line a seed, and the means."""
    names = {"metric": "looking ahead", "one step": "not ahead", "random": "random order"}
    lost = [scores(rows, order, "order") for order in names]
    figure = go.Figure()
    for values in zip(*lost):
        figure.add_scatter(x=list(names.values()), y=list(values), mode="lines", showlegend=False,
                           line=dict(color=BASELINE, width=1), hoverinfo="skip")
    means = [float(np.mean(values)) for values in lost]
    figure.add_scatter(x=list(names.values()), y=means, mode="markers", marker=dict(color=OURS, size=12), name="mean",
                       showlegend=False)
    figure.update_layout(title=f"Loss of the layer: {means[0]:.1f} % looking ahead, {means[1]:.1f} % without, "
                               f"{means[2]:.1f} % in random order")
    figure.update_xaxes(title="order of removal", type="category")
    figure.update_yaxes(title="loss (% of removing the layer)", rangemode="tozero")
    return figure


def estimates_in_words(rows: Sequence[dict]) -> str:
    """What the estimate of the loss and the distance of the weights say of joint compression and decomposition."""
    parts = []
    for cut in _cuts(rows):
        mean = {(name, key): np.mean(scores(rows, name, cut, key)) for name in ("joint", "decomposition")
                for key in ("estimate", "distance")}
        parts.append(f"- {100 * cut:.0f} % cut: the estimated loss is {mean['joint', 'estimate']:.1f} % of the layer's for "
                     f"both together and {mean['decomposition', 'estimate']:.1f} % for decomposition; the squared distance "
                     "from the old weights is "
                     f"{mean['joint', 'distance']:.1f} % and {mean['decomposition', 'distance']:.1f} %.")
    return "\n".join(parts)


def overshoot(rows: Sequence[dict]) -> go.Figure:
    """What every layer of a network should give, and what it gives."""
    joint = [row for row in rows if row["units"] == "joint"]
    names = [row["layer"].removeprefix("blocks.").replace(".conv", ", conv ") for row in joint]
    figure = go.Figure()
    figure.add_scatter(x=[100 * row["goal"] for row in joint], y=names, mode="markers", name="its share of the target",
                       marker=dict(color=BASELINE, size=11, symbol="line-ns-open", line=dict(width=3)))
    figure.add_scatter(x=[100 * row["gives"] for row in joint], y=names, mode="markers", name="what it gives",
                       marker=dict(color=OURS, size=10),
                       error_x=dict(type="data", symmetric=False, array=[0] * len(joint),
                                    arrayminus=[100 * row["unit"] for row in joint], color=OURS, thickness=1.5, width=0))
    over = 100 * max(row["gives"] - row["goal"] for row in joint)
    whole = 100 * joint[0]["whole"]
    figure.update_layout(title=f"Every layer gives up to {over:.0f} points more than its share: {whole:.1f} % of the "
                               "network's work, for a target of 50 %")
    figure.update_xaxes(title="work removed (% of the layer)")
    figure.update_yaxes(title="block, layer", autorange="reversed", automargin=True, type="category")
    return figure


#: Channels and side of the layers that are timed.
LAYERS = {"16 channels, 32×32": (16, 32), "64 channels, 28×28": (64, 28)}


def layer_times(repeats: int = 15, inner: int = 9) -> dict[str, dict]:
    """``experiment.layer_times`` of every layer of ``LAYERS``, by name."""
    return {name: experiment.layer_times(channels, side, repeats=repeats, inner=inner)
            for name, (channels, side) in LAYERS.items()}


def speed(times: Mapping[str, dict]) -> go.Figure:
    """Time of the three forms as a per cent of the dense layer, and of the pairs which part the 1×1 layer takes."""
    figure = make_subplots(1, len(times), horizontal_spacing=0.16)
    for column, (name, layer) in enumerate(times.items(), 1):
        dense, arms = layer["dense"]["seconds"], list(experiment.ARMS)
        whole = [100 * layer[arm]["seconds"] / dense for arm in arms]
        # the two layers of a pair in proportion to their times alone
        part = [layer[arm]["second"] / (layer[arm]["first"] + layer[arm]["second"]) if "second" in layer[arm] else 0.0
                for arm in arms]
        for label, values, color in (("3×3 and selection", [w * (1 - p) for w, p in zip(whole, part)], OURS),
                                     ("1×1", [w * p for w, p in zip(whole, part)], ACCENTS[0])):
            figure.add_bar(x=arms, y=values, name=label, marker=dict(color=color), showlegend=column == 1, row=1, col=column)
        figure.add_hline(y=50, line=dict(color=BASELINE, dash="dash"), row=1, col=column)
        figure.update_xaxes(title=f"form<br><b>{name}</b>", row=1, col=column)
    ratios = [layer["joint"]["seconds"] / layer["dense"]["seconds"] for layer in times.values()]
    figure.update_yaxes(title="time (% of the dense layer)", rangemode="tozero")
    figure.update_layout(barmode="stack", title="Half of the multiply-adds (dashed): joint takes "
                                                f"{' and '.join(f'{100 * r:.0f} %' for r in ratios)} of the time",
                         legend=dict(y=-0.45))
    return figure


def speed_in_words(times: Mapping[str, dict]) -> str:
    """Multiply-adds a second of the parts, and how long it takes just to move the numbers of the 1×1 layer."""
    lines = []
    for name, layer in times.items():
        pair, dense = layer["decomposition"], layer["dense"]
        timed = ((dense["macs"], dense["seconds"]), (pair["macs"] - pair["second.macs"], pair["first"]),
                 (pair["second.macs"], pair["second"]))
        rates = [macs / seconds / 1e9 for macs, seconds in timed]
        lines.append(f"- {name}: the dense layer takes {1e3 * dense['seconds']:.2f} ms, {rates[0]:.0f} billion multiply-adds a "
                     f"second. That rate is {rates[1]:.0f} in the 3×3 layer to rank {pair['rank']}, and {rates[2]:.0f} in the "
                     "1×1 layer behind it. Just to copy as many numbers as the 1×1 layer reads and writes takes "
                     f"{100 * pair['copy'] / pair['second']:.0f} % of its time.")
    pairs = [layer[name] for layer in times.values() for name in ("decomposition", "joint")]
    most = max(100 * pair["copy"] / pair["second"] for pair in pairs)
    verdict = "does not limit" if most < 50 else "limits, in part at least,"
    lines.append(f"\nCopying takes at most {most:.0f} % of the time of a 1×1 layer here: on this machine memory {verdict} it.")
    return "\n".join(lines)
