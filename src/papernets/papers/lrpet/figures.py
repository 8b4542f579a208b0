"""The figures of the chapter on low-rank projection with energy transfer."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.papers.lrpet import experiment, method
from papernets.papers.lrpet.claims import facts
from papernets.training import scores

#: The arms as the figures call them.
NAMES = {"truncate": "truncated", "retrain": "truncated,<br>retrained", "factor": "factors<br>trained",
         "projection": "projected", "energy": "+ energy", "lrpet": "LRPET"}


def gradients(rows: Sequence[dict]) -> go.Figure:
    """The norm of a gradient through stacked layers, relative to that through the original ones."""
    mean = {name: np.exp(np.mean(scores(rows, name, key="logs"), 0)).tolist() for name in ("with", "without")}
    figure = plots.lines({"truncated": mean["without"], "energy given back": mean["with"]},
                         f"Through {len(mean['with'])} truncated layers a gradient keeps {mean['without'][-1]:.1g} of its norm",
                         "layers passed", "gradient norm, truncated / full", ours="energy given back", log_y=True)
    figure.update_yaxes(dtick=1)
    return figure


def example_weight(rows: int = 16, columns: int = 36, seed: int = 3) -> torch.Tensor:
    """W (rows, columns) with singular values that fall off like those of a trained layer."""
    draw = torch.Generator().manual_seed(seed)
    U, _, Vt = torch.linalg.svd(torch.randn(rows, columns, generator=draw, dtype=torch.float64), full_matrices=False)
    return (U * (3 * 0.85 ** torch.arange(rows))) @ Vt


def example_scale(spread: float, rows: int = 16, seed: int = 3) -> torch.Tensor:
    """a (rows,): scales of a batch norm whose logarithms have the standard deviation ``spread``."""
    draw = torch.Generator().manual_seed(seed)
    return torch.exp(spread * torch.randn(rows, generator=draw, dtype=torch.float64))


def explore_projection(q: float = 0.75, spread: float = 0.5, rho: float = 0.0, energy: bool = True,
                       rectify: bool = True) -> go.Figure:
    """Left, the singular values of the matrix that inference uses; right, what is left of it, and its cost."""
    W, a = example_weight(), example_scale(spread)
    m, d = W.shape
    r = method.rank(min(m, d), q)
    projected = method.project(W, r, a if rectify else None, energy=energy, rho=rho)
    merged, after = a[:, None] * W, a[:, None] * projected
    before_s, after_s = (torch.linalg.svdvals(M).tolist() for M in (merged, after))
    cost = 100 * r * (m + d) / (m * d)
    bars = {"energy": 100 * float(after.square().sum() / merged.square().sum()),
            "error": 100 * float((after - merged).norm() / merged.norm()), "multiply-adds": cost}
    figure = make_subplots(1, 2, column_widths=[0.55, 0.45], horizontal_spacing=0.24)
    places = list(range(1, m + 1))
    figure.add_bar(x=places, y=before_s, name="before", marker=dict(color=BASELINE), row=1, col=1)
    figure.add_bar(x=places, y=after_s, name="after", marker=dict(color=OURS), row=1, col=1)
    figure.add_bar(x=list(bars.values()), y=list(bars), orientation="h", showlegend=False, row=1, col=2,
                   marker=dict(color=[OURS, OURS, BASELINE]), text=[f"{value:.0f} %" for value in bars.values()],
                   textposition="outside", cliponaxis=False)
    figure.add_vline(x=100, line=dict(color=BASELINE, dash="dash"), row=1, col=2)
    figure.update_xaxes(title="singular value", dtick=4, row=1, col=1)
    figure.update_yaxes(title="size", row=1, col=1)
    figure.update_xaxes(title="% of the full layer", range=[0, 175], dtick=50, row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=2)
    figure.update_layout(title=f"Rank {r} of {m}: {bars['energy']:.0f} % of the energy, {cost:.0f} % of the multiply-adds",
                         barmode="group")
    return figure


def accuracies(rows: Sequence[dict]) -> go.Figure:
    """Test accuracy of every arm, mean over the seeds, at every share."""
    shares = list(dict.fromkeys(row["at"] for row in rows if row["at"] is not None))
    means = {q: [100 * np.mean(scores(rows, name, q)) for name in experiment.ARMS] for q in shares}
    full = 100 * np.mean(scores(rows, "full"))
    lead = dict(zip(experiment.ARMS, means[shares[0]]))
    figure = go.Figure()
    for q, color in zip(shares, (OURS, BASELINE)):
        figure.add_bar(x=means[q], y=[NAMES[name] for name in experiment.ARMS], orientation="h", name=f"{100 * q:.0f} % pruned",
                       marker=dict(color=color), text=[f"{value:.0f}" for value in means[q]], textposition="outside",
                       cliponaxis=False)
    figure.add_vline(x=full, line=dict(color=BASELINE, dash="dash"))
    figure.update_layout(title=f"At {100 * shares[0]:.0f} %, truncation leaves {lead['truncate']:.0f} %, LRPET "
                               f"{lead['lrpet']:.0f} %; the full network has {full:.0f} % (dashed)", barmode="group")
    figure.update_xaxes(title="test accuracy (%)", range=[0, 108])
    figure.update_yaxes(title="arm", autorange="reversed", automargin=True)
    return figure


def curves(rows: Sequence[dict], q: float) -> go.Figure:
    """Test accuracy of LRPET before and after the projection at the end of every epoch, of the first seed."""
    lines = {f"{when} the projection": [100 * value for value in scores(rows, "lrpet", q, when)[0]]
             for when in ("before", "after")}
    lost = np.subtract(*lines.values())
    return plots.lines(lines, f"A projection costs {lost.max():.0f} points at worst, {lost[-1]:.1f} after the last epoch",
                       "epoch", "test accuracy (%)", ours="after the projection")


#: Inputs, outputs and side of the layers that are timed: of the first and the last stage of ResNet-56, and a wide one.
LAYERS = {"16 channels, 32×32": (16, 16, 32), "64 channels, 8×8": (64, 64, 8), "256 channels, 14×14": (256, 256, 14)}


def layer_times(parts: Sequence[float] = (0.1, 0.2, 0.4, 0.6, 0.9), at_least: float = 0.05) -> dict[str, dict]:
    """Times and MACs of a pair of layers as a per cent of the dense one, by layer, at ranks that are ``parts`` of p.

    ``ms`` is what the dense one takes.
    """
    layers = {}
    for name, (inputs, outputs, side) in LAYERS.items():
        at = sorted({max(1, int(part * outputs)) for part in parts})
        times = experiment.layer_times(inputs, outputs, side, at, at_least=at_least)
        layers[name] = {"rank": at, "ms": 1e3 * times["dense"][0],
                        "macs": [100 * value / times["dense.macs"][0] for value in times["pair.macs"]],
                        "time": [100 * value / times["dense"][0] for value in times["pair"]]}
    return layers


def speed(times: dict[str, dict]) -> go.Figure:
    """Time of a pair against its multiply-adds, both as a per cent of the dense layer."""
    figure = go.Figure()
    for (name, layer), color in zip(times.items(), (ACCENTS[0], ACCENTS[1], OURS)):
        figure.add_scatter(x=layer["macs"], y=layer["time"], name=name, mode="lines+markers", line=dict(color=color, width=2),
                           customdata=layer["rank"], hovertemplate="rank %{customdata}<br>%{x:.0f} % of the multiply-adds, "
                           "%{y:.0f} % of the time")
    top = max(100, *(value for layer in times.values() for value in layer["macs"]))
    figure.add_scatter(x=[0, top], y=[0, top], name="time = multiply-adds", mode="lines",
                       line=dict(color=BASELINE, dash="dash"))
    later = sum(time > macs for layer in times.values() for time, macs in zip(layer["time"], layer["macs"]))
    total = sum(len(layer["time"]) for layer in times.values())
    figure.update_layout(title=f"In {later} of {total} cases the time falls less than the multiply-adds",
                         xaxis=dict(title="multiply-adds (% of the full layer)"), yaxis=dict(title="time (% of the full layer)",
                                                                                           rangemode="tozero"))
    return figure


def speed_in_words(times: dict[str, dict]) -> str:
    """The smallest rank of every layer: what it saves on paper and by the clock."""
    return "\n".join(f"- {name}: rank {layer['rank'][0]} has {layer['macs'][0]:.0f} % of the multiply-adds and takes "
                     f"{layer['time'][0]:.0f} % of the time of the full layer, which is {layer['ms']:.3f} ms."
                     for name, layer in times.items())


def counts_in_words() -> str:
    """Why the printed shares of the vision transformer differ from ours, and what is counted for the other two."""
    numbers = facts()
    full, wide = ([f"{numbers[f'vit.{which}{what}']:,}".replace(",", "\u202f") for what in ("flops", "params")]
                  for which in ("base.", ""))
    return ("The row of the vision transformer puts two networks side by side. The printed 174.25 million multiply-adds and "
            f"2.69 million parameters are of the full network with the ten classes of CIFAR-10 ({full[0]} and {full[1]}); "
            "the printed 126.42 and 1.97 million are of the compact one with the hundred of CIFAR-100 "
            f"({wide[0]} and {wide[1]}). With ten classes in both, {numbers['vit.flops_cut']:.2f} % of the multiply-adds and "
            f"{numbers['vit.params_cut']:.2f} % of the parameters go, where 27.4 % and 26.8 % are printed. The printed 50 % "
            f"for Faster R-CNN and 30 % for PSPNet are of the backbone alone; we count {numbers['frcnn.flops']:.1f} % and "
            f"{numbers['psp.flops']:.1f} %.")
