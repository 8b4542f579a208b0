"""The figures of the chapter on 1xN sparsity."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, SCALE, plots
from papernets.papers.one_by_n import experiment, method, networks
from papernets.papers.one_by_n.claims import CORTEX
from papernets.training import scores

#: What is removed at a time, as the explorer and the figures call it.
SHAPES = {"1×N block": "block", "weight": "weight", "filter": "filter"}


def example_weight(rows: int = 32, columns: int = 16, seed: int = 1) -> torch.Tensor:
    """W (rows, columns, 1, 1): normal numbers, each filter with a strength of its own."""
    draw = torch.Generator().manual_seed(seed)
    strength = 0.2 + 1.3 * torch.rand(rows, 1, generator=draw)
    return (torch.randn(rows, columns, generator=draw) * strength)[:, :, None, None]


def _picture(W: torch.Tensor, M: torch.Tensor) -> np.ndarray:
    return np.where(M[:, :, 0, 0].numpy(), W[:, :, 0, 0].abs().numpy(), np.nan)


def three_ways(p: float = 0.5) -> go.Figure:
    """The same number of zeros as single weights, as blocks of four and as filters."""
    W = example_weight()
    names = ("weights", "blocks of 4", "filters")
    figure = make_subplots(1, 3, horizontal_spacing=0.05, shared_yaxes=True)
    for column, options in enumerate((dict(pattern="weight"), dict(N=4), dict(pattern="filter")), 1):
        M = method.mask(W, p, **options)
        figure.add_heatmap(z=_picture(W, M), colorscale=SCALE, zmin=0, zmax=2.5, showscale=False, row=1, col=column,
                           hovertemplate="output %{y}, input %{x}<br>|w| = %{z:.2f}<extra></extra>")
        figure.update_xaxes(title=f"input<br><b>{names[column - 1]}</b>", showgrid=False, dtick=4, row=1, col=column)
    figure.update_yaxes(autorange="reversed", showgrid=False, dtick=4)
    figure.update_yaxes(title="output", row=1, col=1)
    figure.update_layout(title=f"{100 * p:.0f} % zeros three times: blocks stand between weights and filters")
    return figure


def explore_blocks(shape: str = "1×N block", N: int = 4, p: float = 0.5, rearrange: bool = False) -> go.Figure:
    """Left, what is left of a layer of 32×16 weights; right, kept norm, bytes, multiply-adds and inputs read."""
    W, pattern = example_weight(), SHAPES[shape]
    block = pattern == "block"
    M = method.mask(W, p, N, rearrange=rearrange and block, pattern=pattern)
    pi = method.order(W) if rearrange and block else torch.arange(len(W))
    shown = _picture(W[pi], M[pi])
    kept, norm = int(M.sum()), 100 * method.kept_norm(W, M)
    size = N if block else 1
    count = kept // size
    stored = method.stored_bytes(kept, count, len(W) // size) if pattern != "filter" else 4 * kept
    loads = count if pattern != "filter" else 16
    bars = {"kept norm": norm, "multiply-adds": 100 * kept / W.numel(), "bytes": 100 * stored / (4 * W.numel()),
            "inputs read": 100 * loads / W.numel()}
    figure = make_subplots(1, 2, column_widths=[0.5, 0.5], horizontal_spacing=0.26)
    figure.add_heatmap(z=np.round(shown, 1), colorscale=SCALE, zmin=0, zmax=2.5, showscale=False, row=1, col=1,
                       y=[str(o) for o in pi.tolist()], hovertemplate="output %{y}, input %{x}<br>|w| = %{z}<extra></extra>")
    if block and N > 1:
        for edge in range(N, len(W), N):
            figure.add_hline(y=edge - 0.5, line=dict(color="rgba(128,128,128,0.6)", width=1), row=1, col=1)
    figure.add_bar(x=list(bars.values()), y=list(bars), orientation="h", row=1, col=2, showlegend=False,
                   marker=dict(color=[OURS, *[BASELINE] * 3]), text=[f"{value:.0f} %" for value in bars.values()],
                   textposition="outside", cliponaxis=False)
    figure.update_xaxes(title="input", showgrid=False, dtick=4, row=1, col=1)
    figure.update_yaxes(title="output, in the order of the blocks", autorange="reversed", showgrid=False, type="category",
                        nticks=9, row=1, col=1)
    figure.update_xaxes(title="% of the dense layer", range=[0, 118], dtick=50, row=1, col=2)
    figure.update_yaxes(autorange="reversed", row=1, col=2)
    what = f"1×{N} blocks{', rearranged' if rearrange else ''}" if block else f"{shape}s"
    figure.update_layout(title=f"{what}: {norm:.0f} % of the norm is kept, an input serves {kept / max(1, loads):.0f} weights")
    return figure


def _mean(rows: Sequence[dict], arm: str, removed: float | None = None, key: str = "score") -> float:
    """The mean over the seeds, in per cent."""
    return 100 * float(np.mean(scores(rows, arm, removed, key)))


def accuracies(rows: Sequence[dict], p: float) -> go.Figure:
    """Test accuracy of every arm before and after the fine-tuning, mean over the seeds."""
    names = list(experiment.ARMS)
    series = {f"{when} fine-tuning": [_mean(rows, name, p, key) for name in names]
              for when, key in (("before", "before"), ("after", "score"))}
    dense = _mean(rows, "dense")
    after = dict(zip(names, series["after fine-tuning"]))
    labels = [name.replace(" rearranged", "<br>rearr.") for name in names]
    figure = plots.bars(labels, series, f"{100 * p:.0f} % removed: after fine-tuning, blocks of 4 reach {after['1x4']:.0f} %, "
                                       f"filters {after['filter']:.0f} %", "removed at a time", "test accuracy (%)",
                        ours="after fine-tuning")
    figure.add_hline(y=dense, line=dict(color=BASELINE, dash="dash"))
    figure.update_yaxes(range=[0, 108])
    figure.update_xaxes(tickangle=0)
    figure.update_layout(legend=dict(y=-0.34))
    figure.add_annotation(x=0, xref="paper", xanchor="left", y=dense, yanchor="bottom", text=f"dense: {dense:.1f} %",
                          showarrow=False)
    return figure


def kept_norms(rows: Sequence[dict]) -> go.Figure:
    """The norm that every arm keeps against the rate."""
    rates = sorted({row["at"] for row in rows if row["arm"] == "weight"})
    series = {name: [_mean(rows, name, p, "norm") for p in rates]
              for name in ("weight", "1x4", "1x4 rearranged", "1x16", "filter")}
    colors = dict(zip(("weight", "1x4", "1x16", "filter"), (*ACCENTS[:3], BASELINE)))
    return plots.lines(series, "The larger the piece, the less of the norm is kept", "share of weights removed",
                       "kept L1 norm (%)", at=rates, ours="1x4 rearranged", colors=colors)


def crossing(times: dict[str, list[float]], peer: str) -> float | None:
    """The lowest measured share from which on the kernel is faster than ``peer``, or None."""
    faster = [ours < other for ours, other in zip(times["ours"], times[peer])]
    first = next((i for i in range(len(faster)) if all(faster[i:])), None)
    return None if first is None else times["removed"][first]


def speed(times: dict[str, list[float]]) -> go.Figure:
    """Time against the share removed, of ``times`` in seconds."""
    names = {"ours": "1×8 blocks (compiled kernel)", "dense": "dense product", "csr": "single weights (CSR)"}
    at = crossing(times, "dense")
    said = "blocks are not faster than the dense product" if at is None else (
        f"blocks beat the dense product from {100 * at:.0f} % on")
    return plots.lines({names[key]: [1e3 * seconds for seconds in times[key]] for key in names}, f"On this machine {said}",
                       "weights removed (%)", "time of one layer (ms, log scale)", at=[100 * p for p in times["removed"]],
                       ours=names["ours"], colors={names["csr"]: ACCENTS[0]}, log_y=True)


def speed_in_words(times: dict[str, list[float]]) -> str:
    half = times["removed"].index(0.5)
    dense, csr = (times[peer][half] / times["ours"][half] for peer in ("dense", "csr"))
    last = times["dense"][-1] / times["ours"][-1]
    return (f"At 50 % this run needs {1e3 * times['ours'][half]:.3f} ms; the dense product takes {dense:.1f} times and the "
            f"single weights {csr:.1f} times as long. At {100 * times['removed'][-1]:.0f} % the dense product takes {last:.1f} "
            "times as long: less than the arithmetic that was saved, as storing the result and the call itself do not shrink.")


def paper_latency() -> go.Figure:
    """The paper's milliseconds on a Cortex-A7 beside the multiply-accumulates that are left."""
    rates = [0.5, 0.6, 0.7, 0.8, 0.9]
    time = [100 * CORTEX[p] / CORTEX["weight"] for p in rates]
    work = [networks.counts("mobilenetv2", p)["macs_left"] for p in rates]
    return plots.lines({"time on the Cortex-A7 (paper)": time, "multiply-accumulates (counted)": work},
                       f"Half of the blocks gone: {work[0]:.0f} % of the work, {time[0]:.0f} % of the time",
                       "share of blocks removed", "% of the dense work, of the time", at=rates,
                       ours="time on the Cortex-A7 (paper)")
