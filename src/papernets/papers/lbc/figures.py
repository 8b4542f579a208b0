"""The figures of the chapter on LBC."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, SCALE, plots
from papernets.papers.lbc import method, networks
from papernets.papers.lbc.experiment import RACED
from papernets.training import scores

#: Patterns of the explorer, by the text of the control.
EXPLORED = {"2:4": (2, 4), "1:4": (1, 4), "2:8": (2, 8)}
ARM_NAMES = {"lbc": "LBC", "random": "random, fixed", "magnitude": "magnitudes", "ste": "magnitudes, dense gradients"}


def example_weight(rows: int = 16, columns: int = 16, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def two_halves() -> go.Figure:
    """Half of the weights removed twice: the smallest of the whole layer, and the smallest two of every four."""
    W = example_weight()
    free = W.abs() >= W.abs().flatten().sort(descending=True).values[W.numel() // 2 - 1]
    grouped = method.largest(method.to_groups(W, 4), 2).view(W.shape)
    counts = [method.to_groups(m, 4).sum(1) for m in (free, grouped)]
    figure = make_subplots(1, 2, horizontal_spacing=0.06, shared_yaxes=True)
    for column, M in enumerate((free, grouped), 1):
        figure.add_heatmap(z=np.where(M.numpy(), W.abs().numpy(), np.nan), colorscale=SCALE, zmin=0, zmax=2.5, showscale=False,
                           row=1, col=column, hovertemplate="output %{y}, input %{x}<br>|w| = %{z:.2f}<extra></extra>")
        for edge in range(4, 16, 4):
            figure.add_vline(x=edge - 0.5, line=dict(color="rgba(128,128,128,0.7)", width=1), row=1, col=column)
    for column, c in enumerate(counts, 1):
        kept = f"any, {int(c.min())} to {int(c.max())} of four" if c.min() != c.max() else f"2:4, {int(c.min())} of four"
        figure.update_xaxes(title=f"input ({kept})", showgrid=False, dtick=4, row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=4)
    figure.update_yaxes(title="output", row=1, col=1)
    figure.update_layout(title="Half of the weights twice: 2:4 puts two into every four")
    return figure


def removal(N: int = 2, M: int = 4, t_f: int = 60) -> go.Figure:
    """Supports left and the density that random survivors would have, by epoch."""
    n, epochs = method.number(N, M), range(t_f + 6)
    alive = [method.left(e, N, M, 0, t_f) for e in epochs]
    share = [100 * c / n for c in alive]
    held = [100 * method.expected_density(c, N, M) for c in alive]
    first = sum(d > 99.9 for d in held)
    figure = plots.lines({"supports left": share, "weights that count": held},
                         f"No weight is lost before epoch {first}; then {alive[first]} of {n} supports are left",
                         "epoch", "%", at=list(epochs), ours="weights that count")
    for trace in figure.data:
        trace.line.shape = "hv"
    figure.update_yaxes(range=[0, 106])
    return figure


@lru_cache(maxsize=64)
def rehearse(pattern: str, log_lr: float, noise: float, seed: int, groups: int = 200, t_f: int = 60):
    """The scores of ``groups`` groups whose weights have a harm of removal each, seen through noise.

    By epoch: ``alive`` (E, n), ``scores`` (E, n) and the accumulators ``a`` (E, M) of the first group, and the share of weights
    that count over all groups. The state of an epoch is that after its removal.
    """
    N, M = EXPLORED[pattern]
    A, draw, rate = method.supports(N, M), torch.Generator().manual_seed(seed), 10.0**log_lr
    harm = torch.randn(groups, M, generator=draw)
    s, a = torch.full((groups, len(A)), method.start(N, M)), torch.zeros(groups, M)
    alive = torch.ones_like(s, dtype=torch.bool)
    seen = {"alive": [], "scores": [], "a": [], "density": []}
    for epoch in range(t_f + 1):
        alive = method.remove(s, alive, method.left(epoch, N, M, 0, t_f))
        m = method.union(alive, A)
        for name, value in (("alive", alive[0]), ("scores", s[0].clone()), ("a", a[0].clone()), ("density", m.float().mean())):
            seen[name].append(value)
        step = rate * (harm + noise * torch.randn(groups, M, generator=draw))
        s = s + alive * (step @ A.T)
        a = a + m * step
    return {name: torch.stack(values) for name, values in seen.items()}


def explore_supports(pattern: str = "2:4", epoch: int = 16, noise: float = 2.0, log_lr: float = -2.0,
                     seed: int = 0) -> go.Figure:
    """Left, the supports of a group in the order of their scores, and the accumulators of its weights; right, all epochs."""
    N, M = EXPLORED[pattern]
    A, seen, n = method.supports(N, M), rehearse(pattern, log_lr, noise, seed), method.number(N, M)
    s, alive, a = seen["scores"][epoch], seen["alive"][epoch], seen["a"][epoch]
    rows = torch.argsort(s.masked_fill(~alive, -math.inf), descending=True, stable=True)
    z = torch.where(A[rows] > 0, alive[rows].float()[:, None], torch.nan).numpy()
    held = method.union(alive[None], A)[0]
    figure = make_subplots(2, 2, specs=[[{}, {"rowspan": 2}], [{}, None]], row_heights=[0.7, 0.3], vertical_spacing=0.13,
                           column_widths=[0.5, 0.5], horizontal_spacing=0.2)
    figure.add_heatmap(z=z, x=list(range(M)), y=list(range(n)), zmin=0, zmax=1, showscale=False, xgap=3, ygap=1 if n > 8 else 3,
                       colorscale=[[0, "rgba(138,138,138,0.35)"], [1, OURS]], row=1, col=1, hoverinfo="skip")
    every = range(0, n, 3 if n > 8 else 1)
    figure.update_yaxes(title="supports, by score", autorange="reversed", showgrid=False, tickvals=list(every), row=1, col=1,
                        ticktext=[f"{s[rows[i]]:.2f}" if alive[rows[i]] else "–" for i in every])
    figure.update_xaxes(title="place", showgrid=False, showticklabels=False, range=[-0.5, M - 0.5], row=1, col=1)
    figure.add_bar(x=list(range(M)), y=[round(value, 3) for value in a.tolist()], showlegend=False, row=2, col=1,
                   marker=dict(color=[OURS if h else BASELINE for h in held.tolist()]),
                   hovertemplate="place %{x}: %{y:.3f}<extra></extra>")
    figure.update_xaxes(title="place in the group", showgrid=False, dtick=1, range=[-0.5, M - 0.5], row=2, col=1)
    figure.update_yaxes(title="a<sub>j</sub>", nticks=4, row=2, col=1)
    last = len(seen["alive"]) - 1
    epochs = [e for e in range(last + 1) if e in (0, last) or method.left(e, N, M) != method.left(e - 1, N, M)]
    left = [method.left(e, N, M) for e in epochs]
    chance = [100 * method.expected_density(c, N, M) for c in left]
    for name, values, line in (
            ("supports left", [100 * c / n for c in left], dict(color=BASELINE, width=1.8, dash="dash")),
            ("random survivors", chance, dict(color=ACCENTS[0], width=1.8, dash="dot")),
            ("weights that count", [100 * float(seen["density"][e]) for e in epochs], dict(color=OURS, width=3))):
        figure.add_scatter(x=epochs, y=[round(value, 1) for value in values], name=name, mode="lines", row=1, col=2,
                           line=line | dict(shape="hv"))
    figure.add_vline(x=epoch, line=dict(color=ACCENTS[1], width=2), row=1, col=2)
    figure.update_xaxes(title="epoch", range=[0, last + 1], row=1, col=2)
    figure.update_yaxes(title="%", range=[0, 105], row=1, col=2)
    figure.update_layout(title=f"{int(alive.sum())} of {n} supports are left, {int(held.sum())} of {M} weights count")
    return figure


def score_memory() -> go.Figure:
    """Weights and scores of ResNet-50 by pattern."""
    patterns = ((1, 4), (1, 16), (2, 4), (2, 8), (4, 8))
    names = [f"{N}:{M}" for N, M in patterns]
    scores = [networks.counts("resnet50", N, M)["scores"] / 1e6 for N, M in patterns]
    weights = networks.counts("resnet50")["weights"] / 1e6
    figure = plots.bars(names, {"scores": scores}, f"At 4:8 the scores are {scores[-1] / weights:.2f} times the weights",
                        "pattern", "million scores", ours="scores")
    figure.add_hline(y=weights, line=dict(color=BASELINE, dash="dash"))
    figure.add_annotation(x=0, xref="paper", xanchor="left", y=0.97, yref="paper", yanchor="top", showarrow=False,
                          text=f"dashed: {weights:.1f} million weights")
    return figure


def _mean(rows: Sequence[dict], arm: str, pattern: tuple[int, int] | None = None) -> float:
    """Mean test accuracy over the seeds, in per cent."""
    return 100 * float(np.mean(scores(rows, arm, pattern)))


def accuracies(rows: Sequence[dict]) -> go.Figure:
    """Mean test accuracy of every arm by pattern."""
    patterns = list(dict.fromkeys(row["at"] for row in rows if row["arm"] == "lbc"))
    series = {ARM_NAMES[arm]: [_mean(rows, arm, pattern) for pattern in patterns]
              for arm in ("random", "magnitude", "ste", "lbc")}
    dense, (N, M) = _mean(rows, "dense"), patterns[-1]
    figure = plots.bars([f"{N}:{M}" for N, M in patterns], series,
                        f"At {N}:{M} LBC reaches {series['LBC'][-1]:.0f} %, a random pattern "
                        f"{series['random, fixed'][-1]:.0f} %", "pattern", "test accuracy (%)", ours="LBC")
    low = min(min(values) for values in series.values())
    figure.add_hline(y=dense, line=dict(color=BASELINE, dash="dash"))
    figure.add_annotation(x=1, xref="paper", xanchor="right", y=dense, yanchor="bottom", text=f"dense: {dense:.1f} %",
                          showarrow=False)
    figure.update_yaxes(range=[max(0.0, 5 * math.floor(low / 5 - 1)), 102])
    return figure


def densities(rows: Sequence[dict]) -> go.Figure:
    """The share of weights that count during the training of LBC, the mean over the seeds."""
    patterns = list(dict.fromkeys(row["at"] for row in rows if row["arm"] == "lbc"))
    series = {f"{N}:{M}": 100 * np.mean(scores(rows, "lbc", (N, M), "density"), axis=0) for N, M in patterns}
    epochs = len(next(iter(series.values())))
    figure = plots.lines(series, f"Dense at first, N:M from epoch {max(1, epochs // 2)} on", "epoch", "weights that count (%)",
                         at=list(range(epochs)), ours="2:4", colors=dict(zip(list(series)[1:], ACCENTS)))
    figure.update_yaxes(range=[0, 104])
    return figure


def better_in_words(claims: Sequence[dict]) -> str:
    """Against which arm, and at which patterns, LBC is shown to be better, and where it is worse."""
    better, worse = ({peer: [] for peer in ARM_NAMES if peer != "lbc"} for _ in range(2))
    for claim in claims:
        if claim["kind"] == "miniature":
            _, pattern, peer = claim["id"].split(".")
            if claim["verdict"] == "shown":
                better[peer].append(pattern.replace("_", ":"))
            elif claim["interval"][1] < 0:
                worse[peer].append(pattern.replace("_", ":"))
    said = [f"against {ARM_NAMES[peer]} at {', '.join(better[peer]) or 'no pattern'}"
            + (f" (and worse at {', '.join(worse[peer])})" if worse[peer] else "") for peer in better]
    return f"LBC is shown to be better {'; '.join(said)}."


def crossing(times: dict[str, list[float]], peer: str = "dense") -> str | None:
    """The densest pattern from which on the kernel is faster than ``peer``, or None."""
    faster = [ours < other for ours, other in zip(times["ours"], times[peer])]
    first = next((i for i in range(len(faster)) if all(faster[i:])), None)
    return None if first is None else "{}:{}".format(*RACED[first])


def speed(times: dict[str, list[float]]) -> go.Figure:
    """Time against the pattern, of ``times`` in seconds."""
    names = {"ours": "N:M (compiled kernel)", "dense": "dense product", "csr": "compressed rows (CSR)"}
    at = crossing(times)
    said = "N:M is never faster than the dense product" if at is None else f"N:M is faster than the dense product from {at} on"
    figure = plots.lines({names[key]: [1e3 * seconds for seconds in times[key]] for key in names}, f"On this machine {said}",
                         "pattern", "time of one layer (ms, log scale)", at=["{}:{}".format(*p) for p in RACED],
                         ours=names["ours"], colors={names["csr"]: ACCENTS[0]}, log_y=True)
    figure.update_xaxes(type="category")
    return figure


def speed_in_words(times: dict[str, list[float]]) -> str:
    half, quarter, least = (RACED.index(p) for p in ((2, 4), (1, 4), (1, 16)))
    gain = [times["dense"][i] / times["ours"][i] for i in (half, quarter, least)]
    return (f"In this run the dense product takes {gain[0]:.1f} times as long as 2:4, which has half of the arithmetic, "
            f"{gain[1]:.1f} times as long as 1:4, which has a quarter, and {gain[2]:.1f} times as long as 1:16. "
            f"The same weights in compressed rows take {times['csr'][half] / times['ours'][half]:.1f} times as long as 2:4.")


def storage_in_words() -> str:
    """The table of bits for each pattern; the last column has a code over the supports in place of the places."""
    lines = ["| pattern | dense | values and places | left | code |", "|---|---|---|---|---|"]
    for N, M in ((2, 4), (1, 4), (2, 8), (4, 8)):
        one = method.bits(N, M)
        code = 16 * N + method.code_bits(N, M)
        lines.append(f"| {N}:{M} | {16 * M} bits | {one} bits | {100 * one / (16 * M):.1f} % | {code} bits |")
    return "\n".join(lines)
