"""The figures of the chapter on Weight Evolution."""

from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, SCALE, plots
from papernets.papers.we import method
from papernets.training import scores

#: The arms as the figures call them.
NAMES = {"plain": "plain", "dominant": "WE", "official": "WE, code's mix", "copy": "copies", "renew": "new random",
         "wide": "WE, λ = 0.5", "falling": "WE, ρ falls to 0"}
#: The experiments in words.
WORDS = {"healthy": "digits", "long": "digits, 90 epochs", "patches": "patches", "scaled": "scaled start", "dead": "dead start",
         "dead mobile": "dead MobileNet"}


def _mean(rows: Sequence[Mapping], experiment: str, arm: str, key: str = "score") -> float:
    return float(np.mean(scores(rows, arm, experiment, key)))


def sorted_importances(rows: Sequence[Mapping]) -> go.Figure:
    """Every filter's share of its layer's largest importance, after plain training and with evolution, from a dead start."""
    ours = {arm: next(row for row in rows if (row["at"], row["arm"]) == ("dead", arm)) for arm in ("plain", "dominant")}
    weak = {arm: row["weak"] for arm, row in ours.items()}
    series = {name: sorted((100 * x for x in ours[arm]["relative"]), reverse=True)
              for name, arm in (("plain training", "plain"), ("with evolution", "dominant"))}
    filters = len(ours["plain"]["start"])
    figure = plots.lines(series, f"After training, {weak['plain']} of {filters} filters are weak; with evolution "
                         f"{weak['dominant']}", "filter, in order of importance", "importance (% of layer's largest)",
                         ours="with evolution", log_y=True)
    figure.add_hline(y=10, line=dict(color=BASELINE, dash="dot", width=1))
    figure.update_yaxes(dtick=1)
    return figure


def example_layer(kernel: str = "3×3", filters: int = 16, seed: int = 5) -> torch.Tensor:
    """W (filters, 4, 3, 3) or, for "1×1", (filters, 36, 1, 1), from strong to weak: importances fall by a factor of 100."""
    draw = torch.Generator().manual_seed(seed)
    W = torch.randn(filters, 36, generator=draw, dtype=torch.float64)
    W = W / W.abs().mean(1, keepdim=True) * (0.01 ** (torch.arange(filters) / (filters - 1))).double()[:, None]
    return W.view(filters, 4, 3, 3) if kernel == "3×3" else W.view(filters, 36, 1, 1)


def other_layers(largest: float, number: int = 48) -> torch.Tensor:
    """Importances of the filters of the other layers of the example: from ``largest`` down to a hundredth of it, too."""
    return largest * 0.01 ** ((torch.arange(number) + 0.5) / number).double()


#: What the explorer lets one choose: kernel and rule of the crossover.
RULES = {"3×3, strong prevails": ("3×3", "dominant"), "3×3, code's mix": ("3×3", "official"), "1×1": ("1×1", "dominant")}


def _cells(w: torch.Tensor) -> np.ndarray:
    """36 absolute values as four blocks of 3×3 with a gap between them: (3, 15)."""
    cells = np.full((3, 15), np.nan)
    for block, part in enumerate(w.abs().reshape(4, 3, 3).numpy()):
        cells[:, 4 * block : 4 * block + 3] = part
    return cells


def explore_evolution(rule: str = "3×3, strong prevails", rate: float = 0.2, local: float = 0.1, epoch: int = 0) -> go.Figure:
    """Left, the importances of a layer with both thresholds and who evolves; right, the weakest pair before and after."""
    kernel, mix = RULES[rule]
    W = example_layer(kernel)
    a, C = method.importance(W), len(W)
    rho = rate * method.CIFAR(epoch)
    theta = method.threshold(torch.cat([a, other_layers(float(a.max()))]), rho)
    q, _ = method.select(a, theta, local)
    superior, inferior = (part.tolist() for part in method.match(a, q))
    g, l = int((a < theta).sum()), int((a <= local * a.max()).sum())
    strong, weak = (superior[-1], inferior[-1]) if inferior else (0, C - 1)
    after = W[weak]
    if inferior:
        one, other = W[[weak]], W[[strong]]
        after = (method.cross_kernels(one, other, mix) if kernel == "3×3" else
                 method.cross_pointwise(one.flatten(1), other.flatten(1)))[0]
    colors = [OURS if o in inferior else ACCENTS[0] if o in superior else BASELINE for o in range(C)]
    share = 100 * a / a.max()
    figure = make_subplots(1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.13)
    figure.add_bar(x=list(range(1, C + 1)), y=share.numpy(), marker=dict(color=colors), showlegend=False, row=1, col=1,
                   hovertemplate="filter %{x}: %{y:.1f} %<extra></extra>")
    _add_arrows(figure, share, superior, inferior)
    lines = {"weak in the network": (100 * theta / float(a.max()), "dash"), "weak in the layer": (100 * local, "dot")}
    for name, (height, dash) in lines.items():
        figure.add_scatter(x=[0.4, C + 0.6], y=[max(height, 0.4)] * 2, mode="lines", name=f"below: {name}", row=1, col=1,
                           line=dict(color=ACCENTS[1] if dash == "dash" else ACCENTS[2], dash=dash, width=2))
    _add_cells(figure, W[strong], W[weak], after)
    inputs = "four 3×3 kernels of a filter" if kernel == "3×3" else "36 weights of a filter"
    figure.update_xaxes(title="filter", dtick=5, row=1, col=1)
    figure.update_yaxes(title="importance (% of largest)", type="log", range=[-0.4, 2.35], dtick=1, row=1, col=1)
    figure.update_xaxes(title=inputs, showgrid=False, showticklabels=False, ticks="", row=1, col=2)
    figure.update_yaxes(autorange="reversed", showgrid=False, tickvals=[1, 5, 9], ticks="",
                        ticktext=["partner", "before", "after"], row=1, col=2)
    figure.update_layout(title=f"ρ = {rho:.2f}: weak in the network {g}, in the layer {l}; {len(inferior)} evolve",
                         legend=dict(y=-0.2))
    return figure


def _add_arrows(figure: go.Figure, share: torch.Tensor, superior: Sequence[int], inferior: Sequence[int]) -> None:
    """Arcs above the bars, from each superior filter to its inferior one."""
    xs, ys = [], []
    for i, o in zip(superior, inferior):
        t = np.linspace(0, 1, 9)
        heights = (1 - t) * np.log10(float(share[i])) + t * np.log10(float(share[o])) + 2.2 * t * (1 - t)
        xs, ys = [*xs, *(i + 1 + t * (o - i)).tolist(), None], [*ys, *(10**heights).tolist(), None]
    figure.add_scatter(x=xs or [None], y=ys or [None], mode="lines+markers", showlegend=False, hoverinfo="skip", row=1, col=1,
                       line=dict(color=OURS, width=1.4, shape="spline"),
                       marker=dict(size=[9 if k % 10 == 8 else 0 for k in range(max(1, len(xs)))], symbol="arrow",
                                   angleref="previous", color=OURS))


def _add_cells(figure: go.Figure, partner: torch.Tensor, before: torch.Tensor, after: torch.Tensor) -> None:
    """The weights of a pair, and of the inferior filter afterwards; what changed is framed."""
    rows = np.full((11, 15), np.nan)
    for index, w in enumerate((partner, before, after)):
        rows[4 * index : 4 * index + 3] = _cells(w)
    figure.add_heatmap(z=np.round(rows, 3), colorscale=SCALE, zmin=0, zmax=2.5, showscale=False, row=1, col=2,
                       hovertemplate="|w| = %{z}<extra></extra>")
    moved = np.argwhere(np.nan_to_num(_cells(after)) != np.nan_to_num(_cells(before)))
    figure.add_scatter(x=[int(c) for _, c in moved] or [None], y=[int(r) + 8 for r, _ in moved] or [None], mode="markers",
                       name="changed", marker=dict(symbol="square-open", size=10, color=OURS, line=dict(width=2)),
                       hoverinfo="skip", row=1, col=2)


def mixtures(points: int = 400) -> go.Figure:
    """What replaces a weak element q beside a strong element p = 1, by both rules."""
    q = torch.linspace(-1, 1, points + 1, dtype=torch.float64)
    p = torch.ones_like(q)
    official = method.mixture(q, p, "official")
    shown = torch.where(official.abs() <= 3, official, torch.nan).tolist()
    tenth = float(method.mixture(torch.tensor(0.1), torch.tensor(1.0), "official"))
    strong = float(method.mixture(torch.tensor(0.1), torch.tensor(1.0)))
    return plots.lines({"strong prevails": method.mixture(q, p).tolist(), "code's mix": shown, "unchanged": q.tolist()},
                       f"0.1 beside 1 becomes {strong:.2f}; by the code's mix {tenth:.2f}", "weak element q, where p = 1",
                       "new value", at=q.tolist(), ours="strong prevails", colors={"code's mix": ACCENTS[0]})


def schedules() -> go.Figure:
    """The share ρ over the epochs of the two released scripts."""
    figure = go.Figure()
    for name, rate, stages, epochs, color in (("CIFAR, base rate 0.2", method.WE().weak, method.CIFAR, 200, OURS),
                                              ("ImageNet, base rate 0.02", method.WE_IMAGENET.weak, method.IMAGENET, 90,
                                               ACCENTS[0])):
        figure.add_scatter(x=list(range(epochs)), y=[100 * rate * stages(epoch) for epoch in range(epochs)], name=name,
                           mode="lines", line=dict(color=color, width=2.5))
    first, last = (100 * method.WE().weak * method.CIFAR(epoch) for epoch in (0, 59))
    figure.update_layout(title=f"The share that counts as weak: from {first:.0f} to {last:.0f} %, then far less",
                         xaxis=dict(title="epoch"), yaxis=dict(title="filters that count as weak (%)", rangemode="tozero"))
    return figure


def reactivated(rows: Sequence[Mapping]) -> go.Figure:
    """Histogram of the relative importances after training from a dead start."""
    arms = {"plain": BASELINE, "official": ACCENTS[0], "dominant": OURS}
    edges, figure = [0, 10, 20, 40, 60, 80, 100.001], go.Figure()
    for arm, color in arms.items():
        relative = scores(rows, arm, "dead", "relative")
        counts = np.histogram(100 * np.concatenate(relative), edges)[0] / len(relative)
        figure.add_bar(x=["0–10", "10–20", "20–40", "40–60", "60–80", "80–100"], y=counts, name=NAMES[arm],
                       marker=dict(color=color))
    plain, ours = (_mean(rows, "dead", arm, "weak") for arm in ("plain", "dominant"))
    filters = len(scores(rows, "plain", "dead", "start")[0])
    figure.update_layout(title=f"Of {filters} filters, {plain:.0f} stay below a tenth; with evolution {ours:.0f}",
                         barmode="group", xaxis=dict(title="importance (% of the layer's largest)", type="category"),
                         yaxis=dict(title="filters"))
    return figure


def accuracies(rows: Sequence[Mapping]) -> go.Figure:
    """Test accuracy of every arm from a dead start and from healthy ones, mean over the seeds."""
    pairs = dict.fromkeys((experiment, row["arm"]) for experiment in ("dead", "dead mobile", "healthy", "patches")
                          for row in rows if row["at"] == experiment)
    values = [100 * _mean(rows, *pair) for pair in pairs]
    names = [f"{WORDS[experiment]}: {NAMES[arm]}" for experiment, arm in pairs]
    figure = go.Figure(go.Bar(x=values, y=names, orientation="h", text=[f"{value:.0f}" for value in values],
                              textposition="outside", cliponaxis=False, showlegend=False,
                              marker=dict(color=[OURS if arm == "dominant" else BASELINE for _, arm in pairs])))
    gain = {experiment: 100 * (_mean(rows, experiment, "dominant") - _mean(rows, experiment, "plain"))
            for experiment in ("dead", "healthy")}
    figure.update_layout(title=f"From a dead start evolution brings {gain['dead']:+.1f} points; on healthy digits "
                               f"{gain['healthy']:+.1f}")
    figure.update_xaxes(title="test accuracy (%)", range=[0, 108])
    figure.update_yaxes(title="start, and what is done", autorange="reversed", automargin=True)
    return figure


def _from_scaled(rows: Sequence[Mapping]) -> list[tuple[np.ndarray, np.ndarray]]:
    """The importances of all filters at the start and at the end of plain training from a scaled start, by seed."""
    return [(np.array(start), np.array(end)) for start, end in zip(scores(rows, "plain", "scaled", "start"),
                                                                   scores(rows, "plain", "scaled", "relative"))]


def overtaken(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """After training from a scaled start: weak filters, and how many of them had been scaled down, as means over ``runs``."""
    weak = scaled = 0
    for start, end in runs:
        weak, scaled = weak + int((end <= 0.1).sum()), scaled + int(((end <= 0.1) & (start <= 0.1)).sum())
    return {"weak": weak / len(runs), "scaled": scaled / len(runs)}


def scaled_start(rows: Sequence[Mapping]) -> go.Figure:
    """Importance after plain training against that at the start, a point a filter, of the first seed."""
    first = _from_scaled(rows)[:1]
    start, end = (100 * part for part in first[0])
    ends, figure = overtaken(first), go.Figure()
    for name, inside, color in (("scaled down at the start", start <= 10, OURS), ("left as they were", start > 10, BASELINE)):
        figure.add_scatter(x=start[inside], y=end[inside], name=name, mode="markers",
                           marker=dict(color=color, size=8, opacity=0.7))
    figure.add_hline(y=10, line=dict(color=BASELINE, dash="dot", width=1))
    figure.update_layout(title=f"{ends['weak']:.0f} filters end as weak; {ends['weak'] - ends['scaled']:.0f} of them were "
                               "never touched",
                         xaxis=dict(title="importance at the start (% of largest)", type="log", dtick=1),
                         yaxis=dict(title="importance at the end (%)", type="log", dtick=1))
    return figure


def overtaken_in_words(rows: Sequence[Mapping]) -> str:
    """Which filters count as weak after plain training from a scaled start; and how few there are after a healthy one."""
    runs = _from_scaled(rows)
    ends = overtaken(runs)
    untouched = ends["weak"] - ends["scaled"]
    evolved, pointwise = (float(np.mean([np.sum(value) for value in scores(rows, "dominant", "healthy", key)]))
                          for key in ("evolved", "pointwise"))
    return (f"In these runs {ends['weak']:.1f} of {len(runs[0][0])} filters end below a tenth of the "
            f"largest of their layer, in the mean. Of these {ends['scaled']:.1f} had been scaled down, and {untouched:.1f} "
            "had been left alone. "
            f"From a healthy start plain training ends with {_mean(rows, 'healthy', 'plain', 'weak'):.0f} such filters, and "
            f"{evolved:.0f} filters evolve in a whole run, {pointwise:.0f} of them 1×1.")


def cost_in_words(seconds: Mapping[str, Mapping[str, float]]) -> str:
    """What one evolution takes beside training."""
    small, large = ({what: 1e3 * value for what, value in seconds[name].items()} for name in ("small", "mobilenetv2"))
    return (f"On the machine that made this page, one evolution of the small MobileNet takes {small['evolution']:.1f} ms and "
            f"an epoch of its training on 300 digits {small['epoch']:.0f} ms. One evolution of MobileNetV2 takes "
            f"{large['evolution']:.0f} ms, and a training step on two images {large['step']:.0f} ms; an epoch on CIFAR has 391 "
            "steps of 128 images.")
