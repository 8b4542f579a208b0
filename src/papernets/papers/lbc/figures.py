"""The figures of the chapter on LBC."""

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, SCALE, plots
from papernets.papers.lbc import experiment, method, networks

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
    A, found, n = method.supports(N, M), rehearse(pattern, log_lr, noise, seed), method.number(N, M)
    s, alive, a = found["scores"][epoch], found["alive"][epoch], found["a"][epoch]
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
    last = len(found["alive"]) - 1
    epochs = [e for e in range(last + 1) if e in (0, last) or method.left(e, N, M) != method.left(e - 1, N, M)]
    left = [method.left(e, N, M) for e in epochs]
    chance = [100 * method.expected_density(c, N, M) for c in left]
    for name, values, line in (
            ("supports left", [100 * c / n for c in left], dict(color=BASELINE, width=1.8, dash="dash")),
            ("random survivors", chance, dict(color=ACCENTS[0], width=1.8, dash="dot")),
            ("weights that count", [100 * float(found["density"][e]) for e in epochs], dict(color=OURS, width=3))):
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


def accuracies(runs: Sequence[dict]) -> go.Figure:
    """Mean test accuracy of every arm by pattern."""
    patterns = list(runs[0]["arms"])
    series = {ARM_NAMES[arm]: [100 * np.mean([run["arms"][p][arm] for run in runs]) for p in patterns]
              for arm in ("random", "magnitude", "ste", "lbc")}
    dense = 100 * np.mean([run["dense"] for run in runs])
    last = patterns[-1]
    figure = plots.bars([f"{N}:{M}" for N, M in patterns], series,
                        f"At {last[0]}:{last[1]} LBC reaches {series['LBC'][-1]:.0f} %, a random pattern "
                        f"{series['random, fixed'][-1]:.0f} %", "pattern", "test accuracy (%)", ours="LBC")
    low = min(min(values) for values in series.values())
    figure.add_hline(y=dense, line=dict(color=BASELINE, dash="dash"))
    figure.add_annotation(x=1, xref="paper", xanchor="right", y=dense, yanchor="bottom", text=f"dense: {dense:.1f} %",
                          showarrow=False)
    figure.update_yaxes(range=[max(0.0, 5 * math.floor(low / 5 - 1)), 102])
    return figure


def densities(runs: Sequence[dict]) -> go.Figure:
    """The share of weights that count during the training of LBC."""
    series = {f"{N}:{M}": [100 * np.mean([run["density"][N, M][e] for run in runs]) for e in range(len(values))]
              for (N, M), values in runs[0]["density"].items()}
    epochs = len(next(iter(series.values())))
    figure = plots.lines(series, f"Dense at first, N:M from epoch {max(1, epochs // 2)} on", "epoch", "weights that count (%)",
                         at=list(range(epochs)), ours="2:4", colors=dict(zip(list(series)[1:], ACCENTS)))
    figure.update_yaxes(range=[0, 104])
    return figure


def _miniatures(claims: Sequence[dict]) -> list[dict]:
    return [row for row in claims if row["kind"] == "miniature"]


def _pair(identity: str) -> str:
    _, pattern, peer = identity.split(".")
    return f"{pattern.replace('_', ':')}: LBC − {ARM_NAMES[peer]}"


def evidence(claims: Sequence[dict]) -> go.Figure:
    """The paired differences of test accuracy."""
    compared = _miniatures(claims)
    shown = sum(row["verdict"] == "shown" for row in compared)
    names = [_pair(row["id"]).replace(": LBC − magnitudes, ", " − ").replace(": LBC", "") for row in compared]
    rows = [(name, row["ours"], *row["interval"]) for name, row in zip(names, compared)]
    return plots.intervals(rows, f"{shown} of {len(rows)} differences lie above zero, {compared[0]['seeds']} paired seeds",
                           "points (95 %)", "pair")


def evidence_in_words(claims: Sequence[dict]) -> str:
    """What the paired comparison says, a line a claim and a sentence for all."""
    parts, better, worse = [], {}, {}
    for row in _miniatures(claims):
        low, high = row["interval"]
        side = "better" if low > 0 else "worse" if high < 0 else "no difference that could be told"
        parts.append(f"- {_pair(row['id'])}: {row['ours']:+.2f} points ({low:+.2f} to {high:+.2f}), {side}: "
                     f"**{row['verdict']}**.")
        _, pattern, peer = row["id"].split(".")
        for found, holds in ((better, row["verdict"] == "shown"), (worse, high < 0)):
            found.setdefault(peer, []).extend([pattern.replace("_", ":")] if holds else [])
    said = [f"against {ARM_NAMES[peer]} at {', '.join(better[peer]) or 'no pattern'}"
            + (f" (and worse at {', '.join(worse[peer])})" if worse[peer] else "") for peer in better]
    return "\n".join([*parts, "", f"LBC is shown to be better {'; '.join(said)}."])


#: The patterns whose time is measured, from the densest to the sparsest.
RACED = ((7, 8), (3, 4), (2, 4), (1, 4), (1, 8), (1, 16))


def speed_by_pattern(seed: int = 0, repeats: int = 5) -> dict[str, list[float]]:
    """Milliseconds of a layer of 256 to 256 channels at 14×14, of the kernel and its peers, by pattern."""
    found: dict[str, list[float]] = {}
    for N, M in RACED:
        for name, value in experiment.race(seed, N=N, M=M, repeats=repeats).items():
            found.setdefault(name, []).append(value)
    return found


def crossing(times: dict[str, list[float]], peer: str = "dense") -> str | None:
    """The densest pattern from which on the kernel is faster than ``peer``, or None."""
    faster = [ours < other for ours, other in zip(times["ours"], times[peer])]
    first = next((i for i in range(len(faster)) if all(faster[i:])), None)
    return None if first is None else "{}:{}".format(*RACED[first])


def speed(times: dict[str, list[float]]) -> go.Figure:
    """Time against the pattern."""
    names = {"ours": "N:M (compiled kernel)", "dense": "dense product", "csr": "compressed rows (CSR)"}
    at = crossing(times)
    said = "N:M is never faster than the dense product" if at is None else f"N:M is faster than the dense product from {at} on"
    figure = plots.lines({names[key]: times[key] for key in names}, f"On this machine {said}", "pattern",
                         "time of one layer (ms, log scale)", at=["{}:{}".format(*p) for p in RACED], ours=names["ours"],
                         colors={names["csr"]: ACCENTS[0]}, log_y=True)
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
