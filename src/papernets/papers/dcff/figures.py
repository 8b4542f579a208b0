"""The figures of the chapter on DCFF."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from papernets_kernels import roofline
from plotly.subplots import make_subplots

from papernets.chapter import BASELINE, OURS, SCALE, plots
from papernets.measure import count_of, median_seconds, size_of
from papernets.nn import VGG16_WIDTHS
from papernets.papers.dcff import experiment, method
from papernets.papers.dcff.networks import NARROW, NETWORKS
from papernets.training import scores

ARM_NAMES = {"fused": "fused (DCFF)", "narrow": "narrow, trained directly", "l1": "wide, cut by L1, fine-tuned",
             "random": "fused, random filters kept"}


def cost_by_layer(name: str = "vgg16") -> go.Figure:
    """Multiply-accumulates of every convolution, dense and compact."""
    made = NETWORKS[name]
    dense, narrow = (count_of(build, made.shape) for build in (made.build, NARROW[name]))
    layers = [layer for layer in dense if dense[layer].macs and "classifier" not in layer]
    series = {"wide network": [dense[layer].macs / 1e6 for layer in layers],
              "compact network": [narrow[layer].macs / 1e6 for layer in layers]}
    share = sum(series["compact network"]) / sum(series["wide network"])
    return plots.bars([str(i + 1) for i in range(len(layers))], series,
                      f"The compact VGG-16 does {100 * share:.0f} % of the arithmetic",
                      "convolution", "million MACs", ours="compact network")


def schedule(epochs: int = 300) -> go.Figure:
    """The temperature over the epochs, as published and spread over the whole training."""
    at = np.arange(epochs + 1)
    series = {f"κ = 1 (published): T = {method.temperature(1, epochs):.0f} at epoch 1":
              [method.temperature(e, epochs) for e in at],
              f"κ = 10/E: T = {method.temperature(1, epochs, growth=10 / epochs):.0f} at epoch 1":
              [method.temperature(e, epochs, growth=10 / epochs) for e in at]}
    return plots.lines(series, "With κ = 1 the blend is a selection after one epoch", "epoch (log scale, epoch 0 at 0.5)",
                       "temperature T", at=[0.5, *at[1:].tolist()], ours=next(iter(series)), log_x=True, log_y=True)


def toy_filters(shift: float = 0.0) -> torch.Tensor:
    """Twelve filters of two weights: three groups of like ones and three outsiders; ``shift`` moves the last one."""
    rng = np.random.default_rng(4)
    centres = np.repeat([[-0.6, -0.4], [0.5, -0.5], [0.0, 0.6]], 3, axis=0)
    outsiders = np.array([[-1.0, 0.9], [1.1, 0.7], [0.1, -1.1]])
    filters = np.concatenate([centres + 0.11 * rng.standard_normal((9, 2)), outsiders])
    filters[-1, 0] += shift
    return torch.tensor(filters)  # (12, 2)


def explore_fusion(log_T: float = 0.0, m: int = 6, code: bool = False, shift: float = 0.0) -> go.Figure:
    """Left, filters as points with their importance and the blends they give; right, the proxies P."""
    W, T = toy_filters(shift), 10.0**log_T
    D = method.distances(W, torch.float32 if code else torch.float64)
    I = method.importance_of_code(D, T) if code else method.importance(D, T)
    finite = bool(torch.isfinite(I).all())
    S = method.select(I, m) if finite else torch.arange(0)
    P = method.proxy(D.double(), T)
    blends = method.fuse(W, P[S]) if finite else W[:0]
    share = (I / I.max()).clamp(min=0) if finite else torch.zeros(len(W))
    kept = [i in S.tolist() for i in range(len(W))]
    figure = make_subplots(1, 2, column_widths=[0.56, 0.44], horizontal_spacing=0.12)
    ties_x, ties_y = [], []
    for target, index in zip(blends.tolist(), S.tolist()):
        ties_x += [W[index, 0].item(), target[0], None]
        ties_y += [W[index, 1].item(), target[1], None]
    figure.add_scatter(x=ties_x or [None], y=ties_y or [None], mode="lines", name="from filter to blend", hoverinfo="skip",
                       line=dict(color=OURS, width=1), row=1, col=1, showlegend=False)
    figure.add_scatter(
        x=W[:, 0].tolist(), y=W[:, 1].tolist(), mode="markers+text", text=[str(i) for i in range(len(W))],
        textposition="top center", name="filters (area: importance)", row=1, col=1,
        marker=dict(size=[float(8 + 16 * s**0.5) for s in share], color=BASELINE, opacity=0.75,
                    line=dict(width=[2.5 if k else 0 for k in kept], color="#0072B2")))
    figure.add_scatter(x=blends[:, 0].tolist() or [None], y=blends[:, 1].tolist() or [None], mode="markers",
                       name="blends", marker=dict(symbol="x", size=9, color=OURS), row=1, col=1)
    figure.add_heatmap(z=P.numpy(), x=[str(i) for i in range(len(W))], y=[str(i) for i in range(len(W))],
                       colorscale=SCALE, zmin=0, zmax=1, colorbar=dict(title="P", thickness=10, len=0.9), row=1, col=2)
    title = (f"T = {T:.3g}: {_what(P[S] if len(S) else P, W, blends)}" if finite
             else f"T = {T:.3g}: a probability underflows, the importance is not a number")
    figure.update_layout(title=title)
    figure.update_xaxes(title="weight 1", range=[-1.5, 2.1], row=1, col=1)
    figure.update_yaxes(title="weight 2", range=[-1.5, 1.4], row=1, col=1)
    figure.update_xaxes(title="other filter k", type="category", showgrid=False, row=1, col=2)
    figure.update_yaxes(title="filter j", type="category", showgrid=False, autorange="reversed", row=1, col=2)
    return figure


def _what(phi: torch.Tensor, W: torch.Tensor, blends: torch.Tensor) -> str:
    own = float(phi.max(1).values.mean())
    if own > 0.99:
        return "every blend is a filter, fusion has become selection"
    spread = float((blends - blends.mean(0)).norm() / (W - W.mean(0)).norm() * (len(W) / max(len(blends), 1)) ** 0.5)
    return f"a blend takes {100 * own:.0f} % from its own filter, spread {100 * spread:.0f} %"


def underflow(temperatures: Sequence[float] = (1, 10, 30, 60, 100, 150, 200, 300, 1000)) -> go.Figure:
    """In how many of the first four layers of a new VGG-16 the importance is finite, by the code and in log space."""
    torch.manual_seed(0)
    convs = [module for module in NARROW["vgg16"]().modules() if isinstance(module, torch.nn.Conv2d)]
    layers = [method.FusedConv2d(conv, C) for conv, C in zip(convs[:4], VGG16_WIDTHS)]
    code, stable = [], []
    for T in temperatures:
        code.append(sum(bool(torch.isfinite(method.importance_of_code(
            method.distances(layer.weight, torch.float32), T)).all()) for layer in layers))
        stable.append(sum(bool(torch.isfinite(method.importance(method.distances(layer.weight), T)).all()) for layer in layers))
    return plots.lines({"log space (ours)": stable, "authors' code": code},
                       "The code's importance is NaN long before epoch 1, where T = 4622", "temperature T",
                       f"layers with finite importance (of {len(layers)})", at=temperatures, ours="log space (ours)",
                       log_x=True)


def learning(rows: Sequence[Mapping]) -> go.Figure:
    """Test accuracy after every epoch, mean over the seeds."""
    curves = {arm: scores(rows, arm, key="accuracies") for arm in experiment.ARMS}
    series = {ARM_NAMES[arm]: 100 * np.mean(curve, axis=0) for arm, curve in curves.items()}
    best = max(series, key=lambda name: series[name][-1])
    count = len(curves["fused"])
    seeds = f"{count} seed{'s' if count > 1 else ''}"
    return plots.lines(series, f"After the last epoch of this run ({seeds}): best is “{best}”", "epoch",
                       "test accuracy (%)", ours=ARM_NAMES["fused"],
                       colors={ARM_NAMES["l1"]: "#0072B2", ARM_NAMES["random"]: "#009E73"})


def selection_changes(rows: Mapping[str, Mapping], filters: int) -> go.Figure:
    """How many kept filters were exchanged at the start of each epoch; a row for each form of the method, by name."""
    changes = {name: row["exchanged"] for name, row in rows.items()}
    total = {name: sum(counts) for name, counts in changes.items()}
    title = f"Of {filters} kept filters, " + ", ".join(f"{total[name]} change ({name})" for name in changes)
    return plots.lines(changes, title, "epoch", "kept filters exchanged", ours=next(iter(changes)),
                       at=list(range(1, 1 + len(next(iter(changes.values()))))),
                       colors=dict(zip(list(changes)[1:], ("#0072B2", BASELINE))))


def layer_times(peak: roofline.Roofline, at_least: float = 0.05) -> dict[str, np.ndarray]:
    """Per convolution of VGG-16 at batch 1 on one thread, wide and compact (2, 13): MACs, roofline and measured seconds."""
    times = {"MACs": [], "roofline": [], "measured": []}
    for model in (NETWORKS["vgg16"].build(), NARROW["vgg16"]()):
        size, rows = 32, []
        for index, conv in enumerate(module for module in model.modules() if isinstance(module, torch.nn.Conv2d)):
            x = torch.randn(1, conv.in_channels, size, size)
            macs = size * size * conv.weight.numel()
            moved = 4 * (x.numel() + conv.weight.numel() + size * size * conv.out_channels)
            with torch.no_grad():
                seconds = median_seconds(lambda conv=conv, x=x: conv(x), 1, at_least)
            rows.append((macs, peak.seconds(macs, moved), seconds))
            size //= 2 if index in (1, 3, 6, 9) else 1
        for key, values in zip(times, zip(*rows)):
            times[key].append(values)
    return {key: np.array(values) for key, values in times.items()}


def measured_speed(times: dict[str, np.ndarray]) -> go.Figure:
    """How many times less every layer costs in the compact network: by MACs, by the roofline and by the clock."""
    whole = {key: values[0].sum() / values[1].sum() for key, values in times.items()}
    names = {"MACs": "fewer MACs", "roofline": "less time by the roofline", "measured": "less time, measured"}
    return plots.bars([str(i + 1) for i in range(13)], {names[key]: v[0] / v[1] for key, v in times.items()},
                      f"In all: {whole['MACs']:.1f} times fewer MACs, {whole['measured']:.1f} times less time",
                      "convolution", "wide over compact", ours=names["measured"])


def forms_in_words(rows: Mapping[str, Mapping]) -> str:
    """Accuracy and exchanged filters of each form of the method, for one seed."""
    parts = [f"{name}: {100 * row['score']:.1f} % and {sum(row['exchanged'])} exchanged" for name, row in rows.items()]
    return ("Test accuracy after the last epoch and filters exchanged in all, one seed: " + "; ".join(parts)
            + ". One seed is no verdict on accuracy; the number of exchanges is what the figure is about.")


def speed_in_words(times: dict[str, np.ndarray]) -> str:
    """What the clock says against the MACs, layer by layer and in all."""
    gain = {key: values[0] / values[1] for key, values in times.items()}
    whole = {key: values[0].sum() / values[1].sum() for key, values in times.items()}
    less = int((gain["measured"] < gain["MACs"]).sum())
    share = {key: 100 * times[key][0, 8:].sum() / times[key][0].sum() for key in ("MACs", "measured")}
    return (f"On this machine, one thread, batch 1: in {less} of 13 layers the clock gains less than the MACs. In all, MACs "
            f"fall {whole['MACs']:.1f} times and measured time {whole['measured']:.1f} times. The last five layers, where "
            f"most is cut, are {share['MACs']:.0f} % of the wide network's MACs and {share['measured']:.0f} % of its time: "
            "they read many weights for few pixels, so the sum depends most on them.")


def cost_in_words(name: str = "vgg16") -> str:
    """Parameters, bytes and MACs of the wide and the compact network."""
    made = NETWORKS[name]
    lines = ["| | parameters | bytes (float32) | MACs |", "|---|---:|---:|---:|"]
    for kind, build in (("wide", made.build), ("compact", NARROW[name])):
        size = size_of(build, made.shape)
        lines.append(f"| {kind} | {size['params']:,} | {4 * size['params']:,} | {size['macs']:,} |")
    return "\n".join(lines)
