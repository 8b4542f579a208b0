"""The figures of the chapter on low-rank Winograd transformation."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, SCALE, plots
from papernets.papers.lr_winograd import layers, method, networks
from papernets.training import scores

#: The eight convolutions of C3D by the names of the paper that introduced it.
C3D_LAYERS = ("1a", "2a", "3a", "3b", "4a", "4b", "5a", "5b")


def example_kernels(Co: int = 16, Ci: int = 16, seed: int = 1) -> torch.Tensor:
    """Random kernels (Co, Ci, 3, 3, 3), stronger in the middle, as trained ones are."""
    taper = torch.tensor([0.6, 1.0, 0.6], dtype=torch.float64)
    window = taper[:, None, None] * taper[:, None] * taper
    return torch.randn(Co, Ci, 3, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) * window


def price() -> go.Figure:
    """Products for an output and numbers for a kernel, direct and with both tiles."""
    plans = {m: layers.Plan(m, (8, 8, 8)) for m in (2, 4)}
    products = [27, *(plan.products() / 8**3 for plan in plans.values())]
    numbers = [27, *(plan.t**3 for plan in plans.values())]
    figure = plots.bars(["direct", "tiles of 2", "tiles of 4"],
                        {"products for an output": products, "numbers in a kernel": numbers},
                        "Larger tiles: fewer products, more numbers to train", "form of the layer",
                        "number for a pair of channels", ours="products for an output")
    for trace in figure.data:
        trace.update(text=[f"{value:g}" for value in trace.y], textposition="outside", cliponaxis=False)
    figure.update_yaxes(range=[0, 240])
    return figure


def singular_values() -> go.Figure:
    """The singular values of transformed spatial kernels, in both tiles."""
    W, figure = example_kernels(), go.Figure()
    for m, color, dash in ((2, OURS, "solid"), (4, BASELINE, "dash")):
        S = torch.linalg.svdvals(method.expand(W, m))
        share = (S / S[0]).clamp(min=1e-17).numpy()[:64]
        figure.add_scatter(x=list(range(1, len(share) + 1)), y=np.maximum(share, 1e-17), mode="lines+markers",
                           name=f"tiles of {m}", line=dict(color=color, dash=dash, width=2.5), marker=dict(size=5))
    figure.add_vline(x=27.5, line=dict(color=ACCENTS[0], dash="dot"))
    figure.update_layout(title="Behind the 27th singular value nothing is left",
                         xaxis=dict(title="number of the singular value"),
                         yaxis=dict(title="share of the largest", type="log", exponentformat="power", dtick=4))
    return figure


def _slices(values: np.ndarray, t: int) -> np.ndarray:
    """t slices of t × t side by side, with a gap."""
    slices = np.full((t, t * (t + 1) - 1), np.nan)
    for a, piece in enumerate(values.reshape(t, t, t)):
        slices[:, a * (t + 1):a * (t + 1) + t] = piece
    return slices


def explore_columns(m: int = 2, s: int = 27, removed: float = 0.5) -> go.Figure:
    """Above, the norms of the columns that are left; below, products, trained numbers and bytes of a layer, 256 to 256."""
    M = method.expand(example_kernels(), m)
    P, Q = method.factors(M, s)
    norms, t = (P @ Q).norm(dim=0).numpy(), m + 2
    kept = t**3 - method.columns_gone(t**3, removed)
    shown = np.full(t**3, np.nan)
    best = np.argsort(-norms, kind="stable")[:kept]
    shown[best] = np.round(norms[best] / norms.max(), 3)
    error = 100 * float((P @ Q - M).norm() / M.norm())
    pair = 256 * 256
    trained = method.stored_numbers(256, 256, s, t**3)[1]
    bars = {"products": 100 * kept / (27 * m**3), "trained, low rank": 100 * trained / (27 * pair),
            "trained, vanilla": 100 * t**3 / 27, "weights at run time": 100 * kept / 27}
    figure = make_subplots(2, 1, row_heights=[0.42, 0.58], vertical_spacing=0.24)
    figure.add_heatmap(z=_slices(shown, t), colorscale=SCALE, zmin=0, zmax=1, showscale=False, row=1, col=1,
                       hovertemplate="row %{y}<br>norm %{z:.2f} of the largest<extra></extra>")
    figure.add_bar(x=list(bars.values()), y=list(bars), orientation="h", showlegend=False, row=2, col=1,
                   marker=dict(color=[OURS, OURS, BASELINE, OURS]), text=[f"{value:.0f} %" for value in bars.values()],
                   textposition="outside", cliponaxis=False)
    middles = [a * (t + 1) + (t - 1) / 2 for a in range(t)]
    figure.update_xaxes(title="slice of the tile", tickvals=middles, ticktext=[str(a) for a in range(t)], showgrid=False,
                        row=1, col=1)
    figure.update_yaxes(title="row", autorange="reversed", showgrid=False, dtick=1, zeroline=False, row=1, col=1)
    figure.update_xaxes(title="% of the direct layer", range=[0, 300 if m == 2 else 1000], row=2, col=1)
    figure.update_yaxes(autorange="reversed", row=2, col=1)
    figure.update_layout(title=f"{kept} of {t**3} columns left; rank {s} loses {error:.0f} % of the norm")
    return figure


def tiles_of_c3d() -> go.Figure:
    """How many times fewer products than the direct sum, layer by layer."""
    series = {}
    for m in (2, 4):
        plans = [layers.Plan(m, volume) for _, _, volume, _ in networks.convolutions("c3d").values()]
        series[f"tiles of {m}"] = [plan.direct / plan.products() for plan in plans]
    figure = plots.bars(C3D_LAYERS, series, "Small volumes waste what large tiles save", "convolution of C3D",
                        "direct products / Winograd products", ours="tiles of 2")
    return figure


def accuracies(rows: Sequence[dict]) -> go.Figure:
    """Mean test accuracy with all columns and after some went, of every arm, and with random columns of the low-rank one."""
    def means(*bars: tuple[str, float]) -> list[float]:
        return [100 * float(np.mean(scores(rows, arm, share))) for arm, share in bars]

    series = {name: means(*((arm, share) for share in (0.0, 0.25, 0.5)))
              for name, arm in (("low rank", "low rank"), ("vanilla", "vanilla"), ("spatial kernels", "spatial"))}
    series["low rank, random columns"] = means(("low rank", 0.0), ("low rank, random", 0.25), ("low rank, random", 0.5))
    figure = plots.bars(["none", "25 %", "50 %"], series,
                        f"Half of the columns gone: {series['low rank'][2]:.0f} % right with low rank, "
                        f"{series['vanilla'][2]:.0f} % with vanilla", "columns removed, no fine-tuning", "test accuracy (%)",
                        ours="low rank")
    figure.update_yaxes(range=[0, 105])
    figure.add_hline(y=25, line=dict(color=BASELINE, dash="dash"))
    return figure


def speed(raced: dict) -> go.Figure:
    """Milliseconds of a layer against the share of columns that is gone, and the direct convolutions beside it."""
    peers = {name: 1e3 * value for name, value in raced["peers"].items()}
    ours = [1e3 * value for value in raced["ours"].values()]
    ratio = raced["peer"] / raced["ours"][0.5]
    names = {"Winograd, columns left": ours, **{name: [value] * len(ours) for name, value in peers.items()}}
    fastest = f"the fastest direct form takes {ratio:.1f} times as long" if ratio > 1 else "a direct form is as fast or faster"
    return plots.lines(names, f"At half of the columns {fastest}", "columns removed (%)", "time of one layer (ms, log scale)",
                       at=[100 * share for share in raced["ours"]], ours="Winograd, columns left",
                       colors=dict(zip(peers, (BASELINE, *ACCENTS))), log_y=True)


def speed_in_words(raced: dict) -> str:
    """What the fastest direct form takes, and by how much fewer products and columns are faster."""
    best = min(raced["peers"], key=raced["peers"].get)
    whole, half = (raced["peer"] / raced["ours"][share] for share in (0, 0.5))
    plain = raced["peers"]["torch conv3d"] / raced["ours"][0]
    saved = raced["ours"][0] / raced["ours"][0.5]
    plan = layers.Plan(2, (8, 28, 28))
    fewer = [plan.direct / plan.products(columns) for columns in (64, 32)]
    return (f"In this run the fastest direct form is *{best}* with {1e3 * raced['peer']:.2f} ms. It takes {whole:.1f} times as "
            f"long as the Winograd layer with all columns and {half:.1f} times as long as that with half of them; what torch "
            f"chooses by itself on one thread takes {plain:.1f} times as long as the layer with all columns. The products are "
            f"{fewer[0]:.1f} and {fewer[1]:.1f} times fewer. Removing half of the columns made the layer {saved:.1f} times as "
            "fast.")


def widths(raced: Sequence[dict]) -> go.Figure:
    """How many times as long the fastest direct form takes, against the number of channels."""
    series = {"half of the columns": [one["peer"] / one["ours"][0.5] for one in raced],
              "all columns": [one["peer"] / one["ours"][0] for one in raced]}
    ends = [f"{series['half of the columns'][at]:.1f} times with {raced[at]['channels']} channels" for at in (0, -1)]
    figure = plots.lines(series, f"Half of the columns: {ends[0]}, {ends[1]}", "channels in and out",
                         "direct time / Winograd time", at=[one["channels"] for one in raced], ours="half of the columns",
                         log_x=True)
    figure.update_xaxes(tickvals=[one["channels"] for one in raced])
    figure.add_hline(y=1, line=dict(color=BASELINE, dash="dot"))
    return figure
