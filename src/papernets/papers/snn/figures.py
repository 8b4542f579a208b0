"""The figures of the chapter on sub-bit networks."""

import math
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch
from papernets_kernels.hdl import subbit
from papernets_kernels.hdl.simulate import simulate
from plotly.subplots import make_subplots

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.chapter import waves as hardware
from papernets.papers.snn import experiment, method, networks
from papernets.training import scores

BLUE, GREEN = ACCENTS[:2]
#: Dark for +1, pale for -1; both are seen on white and on black.
SIGNS = [[0, "rgba(86,180,233,0.22)"], [1, "#0072B2"]]
PAPER = {"resnet18": 3.13, "resnet34": 3.33}


def repeated_kernels() -> go.Figure:
    """Dot products of one window: one an output, how many of them differ by chance, and the codebook's."""
    widths = sorted({size.outputs for size in networks.layers("resnet18")})
    series = {"binary layer: one for each output": widths,
              "different kernels among them, by chance": [512 * (1 - (1 - 1 / 512) ** width) for width in widths],
              "sub-bit layer, τ = 5": [min(32, width) for width in widths]}
    return plots.bars([str(width) for width in widths], series, "A window meets the same kernels again and again",
                      "output channels of the layer", "dot products for one window", ours="sub-bit layer, τ = 5")


def mosaic(rows: np.ndarray, across: int) -> np.ndarray:
    """Tiles of ``rows`` (n, 9), ``across`` in a line and with gaps between, as one image."""
    lines = -(-len(rows) // across)
    image = np.full((4 * lines, 4 * across), np.nan)
    for index, row in enumerate(np.asarray(rows)):
        y, x = divmod(index, across)
        image[4 * y:4 * y + 3, 4 * x:4 * x + 3] = row.reshape(3, 3)
    return image[:-1, :-1]


def nearest_patterns(tau: int = 2, kernels: int = 6) -> go.Figure:
    """A few real kernels, their signs, and the patterns of a small subset that are nearest to them."""
    draw = torch.Generator().manual_seed(3)
    w = torch.randn(kernels, 3, 3, generator=draw)
    P = method.patterns(method.sample(tau, draw))
    ids = method.project(w, P)
    scale = float(w.abs().max())
    figure = make_subplots(3, 1, vertical_spacing=0.08, start_cell="bottom-left")
    lines = ("nearest", P[ids], 1), ("sign", w.sign(), 1), ("w", w, scale)  # from below
    for row, (name, values, top) in enumerate(lines, 1):
        figure.add_heatmap(z=mosaic(values.view(-1, 9).numpy(), kernels), zmin=-top, zmax=top, colorscale=SIGNS,
                           showscale=False, hoverongaps=False, hovertemplate="%{z:.2f}<extra></extra>", row=row, col=1)
        labels = [str(i) for i in ids.tolist()] if row == 1 else [""] * kernels
        figure.update_xaxes(tickvals=[4 * i + 1 for i in range(kernels)], ticktext=labels, showgrid=False, ticks="",
                            showline=False, row=row, col=1)
        figure.update_yaxes(title=name, tickvals=[], showgrid=False, showline=False, autorange="reversed", row=row, col=1)
    figure.update_xaxes(title=f"id that is stored, of {len(P)}", row=1, col=1)
    flips = int((P[ids].view_as(w) != w.sign()).sum())
    used = f"{len(ids.unique())} of {len(P)} patterns are used"
    figure.update_layout(title=f"{kernels} kernels: {used}, and {flips} of {w.numel()} signs give way")
    return figure


def steps_to_flip(rates: Sequence[float] = (1e-3, 3e-3, 1e-2, 3e-2),
                  starts: Sequence[float] = (1.0, 0.3, 0.1, 0.03)) -> go.Figure:
    """Refinement steps until a sign turns under a steady gradient: Adam itself, run until it does."""
    series = {}
    for start in starts:
        counts = []
        for rate in rates:
            p = torch.full((1,), start, requires_grad=True)
            adam, count = torch.optim.Adam([p], rate), 0
            while float(p.detach()) > -1e-3:
                p.grad = torch.ones(1)
                adam.step()
                count += 1
            counts.append(25 * count)
        series[f"p starts at ±{start:g}"] = counts
    first = next(iter(series))
    slowest = f"{series[first][0]:,}".replace(",", " ")
    figure = plots.lines(series, f"From ±1 a sign needs {slowest} iterations to turn at rate 0.001", "learning rate",
                         "iterations, 25 a refinement step", at=rates, ours=first, log_x=True, log_y=True,
                         colors=dict(zip(list(series)[1:], (BLUE, GREEN, BASELINE))))
    figure.update_xaxes(tickvals=list(rates), ticktext=[f"{rate:g}" for rate in rates])
    return figure


ITEMS, INPUTS = 6, 16


def timeline(items: int, fill: int, drain: int) -> tuple[list[int], list[int]]:
    """When the fill and the drain of each item begin, with two halves of a table between them."""
    fills, drains = [], []
    for i in range(items):
        start = fills[-1] + fill if fills else 0
        if i >= 2:
            start = max(start, drains[i - 2] + drain)  # the half of two items ago must be free
        fills.append(start)
        drains.append(max(start + fill, drains[-1] + drain if drains else 0))
    return fills, drains


def toy_layer(tau: int, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """A subset of 2^τ patterns, each larger one holding the smaller ones, and the ids of ``outputs`` × 16 random kernels."""
    P = method.patterns(torch.randperm(512, generator=torch.Generator().manual_seed(0))[:method.subset_size(tau)])
    w = torch.randn(512, INPUTS, 3, 3, generator=torch.Generator().manual_seed(1))[:outputs]
    return P.numpy(), method.project(w, P).numpy()


def explore_core(tau: int = 5, outputs: int = 128, adders: int = 4) -> go.Figure:
    """The codebook, how often each kernel is used, the bits of a weight, and how Dot9 and the adders share their time."""
    P, ids = toy_layer(tau, outputs)
    number, drain = len(P), -(-outputs // adders)
    item = networks.item_cycles(outputs, tau, adders)
    figure = make_subplots(
        3, 2, specs=[[{}, {}], [{"colspan": 2}, None], [{"colspan": 2}, None]], row_heights=[0.46, 0.14, 0.24],
        column_widths=[0.42, 0.58], vertical_spacing=0.15, horizontal_spacing=0.06)
    across = 2 ** math.ceil(tau / 2)
    times = np.bincount(ids.flatten(), minlength=number).tolist()
    figure.add_scatter(x=[-0.5, *np.arange(number).tolist(), number - 0.5], y=[times[0], *times, times[-1]], mode="lines",
                       line=dict(color=OURS, width=1.5, shape="hvh"), fill="tozeroy", fillcolor="rgba(213,94,0,0.25)",
                       showlegend=False, hovertemplate="kernel %{x}: %{y} times<extra></extra>", row=1, col=1)
    figure.add_heatmap(z=mosaic(P > 0, across), zmin=0, zmax=1, colorscale=SIGNS, showscale=False, hoverinfo="skip",
                       row=1, col=2)
    book = 0 if tau == 9 else number / outputs**2
    for name, value, color in (("id", tau / 9, OURS), ("codebook", book, BLUE)):
        figure.add_bar(x=[value], y=["sub-bit"], orientation="h", name=name, marker=dict(color=color), showlegend=False,
                       hovertemplate=f"{name}: %{{x:.3f}} bit<extra></extra>", row=2, col=1)
    figure.add_bar(x=[1], y=["binary"], orientation="h", marker=dict(color=BASELINE), showlegend=False,
                   hovertemplate="binary: 1 bit<extra></extra>", row=2, col=1)
    fills, drains = timeline(ITEMS, number, drain)
    for unit, starts, length in (("Dot9", fills, number), ("adders", drains, drain)):
        figure.add_bar(x=[length] * ITEMS, base=starts, y=[unit] * ITEMS, orientation="h", showlegend=False,
                       marker=dict(color=[OURS if i % 2 == 0 else BLUE for i in range(ITEMS)]),
                       customdata=list(range(ITEMS)), row=3, col=1,
                       hovertemplate=f"{unit}, item %{{customdata}}: from cycle %{{base}}<extra></extra>")
    limit = "in balance" if number == drain else "Dot9 limits" if number > drain else "the adders limit"
    gains = [networks.binary_cycles(networks.layers(name)) / networks.cycles(networks.layers(name), tau, adders)
             for name in PAPER]
    figure.update_layout(
        barmode="overlay", bargap=0.25,
        title=f"{item} cycles an item, {limit}; ResNet-18 {gains[0]:.2f}×, ResNet-34 {gains[1]:.2f}× "
        f"(paper, at τ = 5: {PAPER['resnet18']}×, {PAPER['resnet34']}×)")
    figure.data[3].base = [tau / 9]
    figure.update_xaxes(title="kernel (id)", range=[-0.5, number - 0.5], showgrid=False, row=1, col=1)
    figure.update_yaxes(title="times used", rangemode="tozero", row=1, col=1)
    figure.update_xaxes(visible=False, row=1, col=2)
    figure.update_yaxes(visible=False, autorange="reversed", scaleanchor="x2", row=1, col=2)
    figure.update_xaxes(title=f"bits a weight, {outputs} × {outputs} channels", range=[0, 1.2], row=2, col=1)
    figure.update_yaxes(showgrid=False, autorange="reversed", row=2, col=1)
    figure.update_xaxes(title="cycles (colour: table half)",
                        range=[0, drains[-1] + drain], row=3, col=1)
    figure.update_yaxes(showgrid=False, autorange="reversed", row=3, col=1)
    return figure


def _percent(rows: Sequence[dict], arm: str, tau: int, key: str = "score") -> np.ndarray:
    """Of every seed, in per cent."""
    return 100 * np.array(scores(rows, arm, tau, key))


def by_tau(rows: Sequence[dict]) -> go.Figure:
    """Test accuracy against τ: mean over the seeds, and the seeds."""
    figure = go.Figure()
    for name, arm, taus, color, dash in (("random subset, kept", "kept", (1, 2, 3, 5, 9), OURS, "solid"),
                                         ("the same, refined", "refined", (2, 3, 5), BLUE, "dot")):
        values = np.stack([_percent(rows, arm, tau) for tau in taus], axis=1)  # (seeds, taus)
        figure.add_scatter(x=list(taus), y=values.mean(0), name=name, mode="lines+markers",
                           line=dict(color=color, width=2.5, dash=dash), marker=dict(size=8))
        if arm == "kept":
            figure.add_scatter(x=list(taus) * len(values), y=values.flatten(), mode="markers", showlegend=False,
                               hoverinfo="skip", marker=dict(color=BASELINE, size=5, opacity=0.6))
    nine, one = (_percent(rows, "kept", tau).mean() for tau in (9, 1))
    figure.update_layout(title=f"From 512 patterns to 2: {nine:.0f} % to {one:.0f} % (this run, {_seeds(rows)})",
                         xaxis=dict(title="τ, bits a kernel", tickvals=[1, 2, 3, 5, 9]), yaxis=dict(title="test accuracy (%)"))
    return figure


def _seeds(rows: Sequence[dict]) -> str:
    number = len({row["seed"] for row in rows})
    return f"{number} seed{'s' if number > 1 else ''}"


def clustering(codes: Sequence[np.ndarray], seed: int = 0, most: int = 64) -> go.Figure:
    """How often the most used patterns of both layers occur, against kernels drawn at random."""
    total = len(codes[0])
    rng = np.random.default_rng([seed, 77])
    chance = np.stack([-np.sort(-np.bincount(rng.integers(0, 512, total), minlength=512)) for _ in range(200)])
    at = list(range(1, most + 1))
    mean, spread = chance[:, :most].mean(0), 2 * chance[:, :most].std(0)
    low, high = (100 * (mean + side * spread) / total for side in (-1, 1))
    figure = go.Figure(go.Scatter(x=[*at, *at[::-1]], y=[*high, *low[::-1]], fill="toself", mode="none", hoverinfo="skip",
                                  fillcolor="rgba(138,138,138,0.35)", name="drawn at random, two standard deviations"))
    for name, layer, color in (("first binary layer", codes[0], BLUE), ("second binary layer", codes[1], OURS)):
        times = -np.sort(-np.bincount(layer, minlength=512))[:most]
        figure.add_scatter(x=at, y=100 * times / total, name=name, mode="lines", line=dict(color=color, width=2.5))
    figure.update_layout(title="The second layer clusters on a few patterns, the first hardly",
                         xaxis=dict(title=f"pattern, most used first ({most} of 512)"),
                         yaxis=dict(title=f"share of the {total} kernels (%)", type="log",
                                 tickvals=[0.2, 0.5, 1, 2, 5, 10, 20, 50]))
    if experiment.entropy(codes[1]) > experiment.entropy(codes[0]):
        figure.update_layout(title="How often the most used patterns occur")
    return figure


def stages_of_training(accuracy: dict[str, list[float]]) -> go.Figure:
    """Test accuracy of the two stages, epoch by epoch."""
    real = accuracy["real"]
    first = len(real)
    figure = go.Figure(go.Scatter(x=list(range(1, first + 1)), y=100 * np.array(real), mode="lines+markers",
                                  name="first stage: real weights", line=dict(color=BASELINE, width=2)))
    colors = iter((BLUE, OURS, GREEN, *ACCENTS[2:]))
    for arm, values in accuracy.items():
        if arm != "real":
            tau = int(arm[3:])
            figure.add_scatter(x=list(range(first, first + 1 + len(values))), y=100 * np.array([real[-1], *values]),
                               mode="lines+markers", line=dict(color=next(colors), width=2),
                               name="1 bit (τ = 9)" if tau == 9 else f"{tau / 9:.2f} bit (τ = {tau})")
    figure.update_layout(title="From real weights to less than a bit, on patches of photographs", xaxis=dict(title="epoch"),
                         yaxis=dict(title="test accuracy (%)"))
    return figure


def waves(tau: int = 3, adders: int = 2, outputs: int = 16) -> go.Figure:
    """The first items of a small layer on the sub-bit core, every cycle."""
    _, trace = traced(tau, adders, outputs)
    begin = int(np.argmax(trace["start"] == 1))
    length = 4 * networks.item_cycles(outputs, tau, adders) + 2**tau
    part = {name: values[begin:] for name, values in trace.items()}
    for name, port, cycles in (("fills half", "multiplying", 2**tau), ("drains half", "adding", -(-outputs // adders))):
        busy = part[port] == 1
        part[name] = np.where(busy, (np.cumsum(busy) - 1) // cycles % 2, -1)
    names = {0: "half 0", 1: "half 1", -1: "–"}
    figure = hardware.waveform(part, ["start", "busy", "fills half", "drains half", "y_valid"], last=length,
                               title="Dot9 fills one half of the table while the adders drain the other",
                               labels={"fills half": "Dot9 fills", "drains half": "adders drain", "y_valid": "sums leave"},
                               values={"fills half": names, "drains half": names})
    return figure


def traced(tau: int, adders: int, outputs: int, channels: int = 3):
    """A small core and every port in every cycle of a layer of random numbers."""
    rng = np.random.default_rng(0)
    core = subbit.SubBit(tau, adders, windows=64, kernels=outputs * channels, outputs=outputs)
    x = rng.integers(-128, 128, (channels, 3, 4), np.int8)
    layer = subbit.Layer(x, rng.integers(0, 2**tau, (outputs, channels)), rng.choice([-1, 1], (2**tau, 3, 3)))
    return core, simulate(core, subbit.stimulus(core, [layer]), trace=True).trace


def occupancy(widths: Sequence[int] = (8, 16, 32), tau: int = 3, adders: int = 2) -> go.Figure:
    """Who waits for whom: the busy cycles of Dot9 and of the adders for layers of several widths, on one core."""
    busy, length = {}, None
    for width in widths:
        core, trace = traced(tau, adders, width)
        running = np.flatnonzero(trace["busy"] == 1)
        first = running[0] + 2 ** tau + 2  # the first fill, alone, is left out
        length = 4 * networks.item_cycles(widths[0], tau, adders)
        for unit, works in core.units(trace).items():
            busy[f"{width} outputs: {unit}"] = works[first:first + length]
    figure = hardware.occupancy(busy, title=f"τ = {tau}, {adders} adders: balance at {adders * 2**tau} outputs")
    return figure


def law_in_words(rows: Sequence[dict]) -> str:
    """What the simulator counted, and what the law says for the whole layer."""
    lines = ["| width | core | cycles | − law | whole layer |", "|---:|---|---:|---:|---:|"]
    for row in rows:
        lines.append(f"| {row['channels']} | {row['core']} | {row['cycles']:,} | {row['cycles'] - row['law']} | "
                     f"{row['full']:,} |")
    equal = sum(row["equal"] for row in rows)
    lines += ["", f"In {equal} of {len(rows)} runs the outputs are those of the integer convolution, bit for bit."]
    return "\n".join(lines)


def on_core_in_words(seen: dict[str, list], images: int, equal: bool, shares: dict[str, float]) -> str:
    """The trained network on both cores."""
    total = {name: sum(run.cycles for run in runs) for name, runs in seen.items()}
    writes = sum(run.plan.writes for run in seen["sub-bit"])
    return (f"{images} image{'s' * (images > 1)}, two layers each: the logits from the core are "
            f"{'equal to the last bit' if equal else 'NOT equal'} to those of the integer reference. The sub-bit core took "
            f"{total['sub-bit']:,} cycles and the binary core {total['binary']:,}, "
            f"{total['binary'] / total['sub-bit']:.2f} times as many. Writing the memories took "
            f"{writes:,} more cycles, which the law leaves out. On all test images the network is right in "
            f"{100 * shares['float']:.1f} % of the cases with float activations and in {100 * shares['int8']:.1f} % with int8.")


def cycles_by_stage(name: str = "resnet18", tau: int = 5, adders: int = 4) -> go.Figure:
    """Million cycles of each stage on both cores."""
    layers = networks.layers(name)
    widths = sorted({size.outputs for size in layers})
    stages = [[size for size in layers if size.outputs == width] for width in widths]
    series = {"binary core": [networks.binary_cycles(stage) / 1e6 for stage in stages],
              "sub-bit core": [networks.cycles(stage, tau, adders) / 1e6 for stage in stages]}
    gain = networks.binary_cycles(layers) / networks.cycles(layers, tau, adders)
    return plots.bars([str(width) for width in widths], series,
                      f"The first stage gains 2×, the others 4×, ResNet-18 {gain:.3f}×",
                      "output channels of the stage", "million cycles", ours="sub-bit core")


def gain_by_adders(tau: int = 5) -> go.Figure:
    """Speed-up of both networks against the number of adders, beside the published pair."""
    at = [1, 2, 3, 4, 5, 6, 8, 12, 16]
    figure = go.Figure()
    for (name, paper), color in zip(PAPER.items(), (OURS, BLUE)):
        layers = networks.layers(name)
        gains = [networks.binary_cycles(layers) / networks.cycles(layers, tau, adders) for adders in at]
        label = name.replace("resnet", "ResNet-")
        figure.add_scatter(x=at, y=gains, name=label, mode="lines+markers", line=dict(color=color, width=2.5))
        figure.add_scatter(x=[at[0], at[-1]], y=[paper] * 2, name=f"paper, {label}: {paper}×", mode="lines",
                           line=dict(color=color, width=1.5, dash="dot"), hoverinfo="skip")
    figure.update_layout(title="Four adders give both published numbers", yaxis=dict(title="times fewer cycles"),
                         xaxis=dict(title="adders A", type="log", tickvals=at, ticktext=[str(a) for a in at]))
    return figure


def speeds_in_words() -> str:
    """The published pair, the law without and with fill and drain, and the assumptions."""
    core, plain = subbit.SubBit(5, 4, 64, 64, 512), subbit.PlainBinary(64, 64, 512)
    lines = ["| | paper | law | exact | off |", "|---|---:|---:|---:|---:|"]
    for name, paper in PAPER.items():
        layers = networks.layers(name)
        exact = networks.exact_cycles(layers, plain) / networks.exact_cycles(layers, core)
        gain = networks.binary_cycles(layers) / networks.cycles(layers, 5)
        label = name.replace("resnet", "ResNet\u2011")
        lines.append(f"| {label} | {paper}× | {gain:.3f}× | {exact:.3f}× | "
                     f"{100 * (gain / paper - 1):.1f} % |")
    return "\n".join(lines)


def storage_in_words(name: str = "resnet18") -> str:
    """Stored bits and bit operations for each τ, in the README's convention."""
    layers = networks.layers(name)
    lines = ["| τ | bits | ids, Mbit | + books | G ops | whole |",
             "|---:|---:|---:|---:|---:|---:|"]
    for tau in (9, 6, 5, 4):
        lines.append(f"| {tau} | {tau / 9:.2f} | {networks.weight_bits(layers, tau) / 1e6:.3f} | "
                     f"{networks.weight_bits(layers, tau, True) / 1e6:.4f} | {networks.bit_ops(layers, tau) / 1e9:.4f} | "
                     f"{networks.bit_ops(layers, tau, addition=1) / 1e9:.3f} |")
    return "\n".join(lines)


def measured(times: dict[str, list[float]]) -> go.Figure:
    """Milliseconds a layer on this machine."""
    ratio = np.array(times["results shared"]) / np.array(times["bits counted"])
    series = {name: [1e3 * value for value in values] for name, values in times.items()}
    return plots.bars([str(size.outputs) for size in experiment.middle_layers()], series,
                      f"On this CPU counting bits is {ratio.min():.1f} to {ratio.max():.1f} times faster than sharing",
                      "channels of the layer", "milliseconds", ours="results shared")


def times_in_words(times: dict[str, list[float]]) -> str:
    """What the clock says."""
    dense, plain, shared = (np.array(times[name]) for name in ("float32 (torch)", "bits counted", "results shared"))
    slower, faster = shared / plain, dense / shared
    return (f"Measured on this machine, one thread, the quickest of many calls: sharing results is {faster.min():.1f} to "
            f"{faster.max():.1f} times as fast as the float convolution, and counting bits is {slower.min():.1f} to "
            f"{slower.max():.1f} times as fast as sharing. A word of 64 bits does 64 multiply-adds of signs in a few "
            "instructions; a lookup saves nine of them and costs a load and an addition. So on a CPU the sub-bit network saves "
            "storage, 1.8 times at τ = 5, and not time.")


def search_in_words(rows: Sequence[dict]) -> str:
    """A small grid of refinement settings: accuracy against the kept subset, and signs that moved."""
    lines = ["| start of p | rate of p | every | points | signs moved |", "|---:|---:|---:|---:|---:|"]
    kept = np.array(scores(rows, "kept"))
    for at in dict.fromkeys(row["at"] for row in rows if row["arm"] == "refined"):
        gain = np.mean(100 * (np.array(scores(rows, "refined", at)) - kept))
        moved = np.mean(scores(rows, "refined", at, "moved"))
        lines.append(f"| ±{at[0]:g} | ×{at[1]:g} | {at[2]} | {gain:+.1f} | {moved:.1f} % |")
    return "\n".join(lines)


def cut_in_words(rows: Sequence[dict]) -> str:
    """Accuracy of the cut network before the fine-tuning."""
    parts = [f"τ = {tau}: {_percent(rows, 'frequent', tau, 'cut').mean():.0f} % with the most frequent patterns, "
             f"{_percent(rows, 'random', tau, 'cut').mean():.0f} % with random ones" for tau in (5, 3, 2)]
    whole = _percent(rows, "kept", 9).mean()
    return (f"In this run ({_seeds(rows)}) the network with all 512 patterns is right in {whole:.0f} % of the cases. "
            f"Cut, and not fine-tuned: {'; '.join(parts)}.")
