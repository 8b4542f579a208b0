"""The figures of the chapter on AccSS3D."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import simulate, sspnna
from papernets_kernels.hdl.sspnna import BUILDER, ENGINE, SSpNNA
from papernets_kernels.sparse_conv3d import Rulebook, rulebook

from papernets.chapter import ACCENTS, BASELINE, OURS, plots
from papernets.chapter import waves as hardware
from papernets.data import ROOM_CLASSES, Room, room
from papernets.papers.accss3d import accelerator, experiment, method
from papernets.papers.accss3d.claims import corner_book
from papernets.training import scores

CLASS_COLORS = dict(zip(ROOM_CLASSES, (BASELINE, ACCENTS[0], OURS, ACCENTS[1])))
#: Tiles in turn; neighbours in the order have different colours.
TILE_SCALE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8A8A8A", "#F0E442", "#7A5195")
ORDER_NAMES = {"random": "random", "raster": "raster", "Morton": "Morton", "chunks": "chunks (ours)",
               "filled": "chunks, filled", "tangent": "chunks, tangent"}
ORDER_COLORS = {"random": BASELINE, "raster": ACCENTS[0], "Morton": ACCENTS[1], "chunks": OURS, "filled": ACCENTS[3],
                "tangent": ACCENTS[2]}


def _axes(one: Room, domain: tuple[float, float] = (0, 1)) -> dict:
    """Three axes of one scale without a ground, for both themes; the camera looks at the walls from inside."""
    grid, side = one.grid, 0.7
    top = int(one.coordinates[:, 0].max()) + 1
    walls = one.coordinates[one.labels == ROOM_CLASSES.index("wall")]
    y, x = (-1.4 if middle > (grid - 1) / 2 else 1.4 for middle in walls[:, 1:].mean(0)) if len(walls) else (1.4, 1.4)
    axis = dict(showbackground=False, gridcolor="rgba(128,128,128,0.35)", zeroline=False,
                linecolor="rgba(128,128,128,0.7)", showspikes=False, nticks=5)
    return dict(xaxis=dict(title="x (voxel)", range=[0, grid - 1], **axis),
                yaxis=dict(title="y (voxel)", range=[0, grid - 1], **axis),
                zaxis=dict(title="z (voxel)", range=[0, top], **axis), aspectmode="manual",
                aspectratio=dict(x=side, y=side, z=side * top / (grid - 1)), dragmode="turntable",
                domain=dict(x=[0, 1], y=list(domain)),
                camera=dict(eye=dict(x=x, y=y, z=1.0), center=dict(x=0, y=0, z=-0.06)))


def _points(coordinates: np.ndarray, **options) -> go.Scatter3d:
    z, y, x = np.asarray(coordinates).reshape(-1, 3).T.tolist()
    return go.Scatter3d(x=x, y=y, z=z, mode="markers", **options)


def scene(one: Room) -> go.Figure:
    """The voxels of a room, coloured by what they belong to."""
    figure = go.Figure()
    for number, name in enumerate(ROOM_CLASSES):
        if (one.labels == number).any():
            figure.add_trace(_points(one.coordinates[one.labels == number], name=name, hoverinfo="skip",
                                     marker=dict(size=3, color=CLASS_COLORS[name], symbol="square")))
    figure.update_layout(title=f"Of {one.grid**3:,} cells {len(one):,} are occupied: {100 * one.density:.1f} %",
                         scene=_axes(one), legend=dict(itemsizing="constant", y=-0.01))
    return figure


def mistakes(one: Room, found: np.ndarray, name: str) -> go.Figure:
    """A held-out room in the classes that a network found, and where they are wrong."""
    wrong = found != one.labels
    figure = go.Figure()
    for number, label in enumerate(ROOM_CLASSES):
        if (part := (found == number) & ~wrong).any():
            figure.add_trace(_points(one.coordinates[part], name=label, hoverinfo="skip",
                                     marker=dict(size=3, color=CLASS_COLORS[label], symbol="square")))
    if wrong.any():
        figure.add_trace(_points(one.coordinates[wrong], name="wrong", hoverinfo="skip",
                                 marker=dict(size=4.5, color="#CC0000", symbol="x")))
    figure.update_layout(title=f"{name}: {int(wrong.sum())} of {len(one)} voxels of a room it never saw are wrong",
                         scene=_axes(one), legend=dict(itemsizing="constant", y=-0.01))
    return figure


def reuse_curves(tiles: Sequence[int] = (16, 32, 64, 128, 256, 512, 1024)) -> go.Figure:
    """u(T) of the corner room for every order."""
    book = corner_book()
    series = {ORDER_NAMES[name]: [method.reuse(book, T, method.order(name, book, T)) for T in tiles]
              for name in method.ORDERS}
    at = list(tiles).index(128)
    best = min(series, key=lambda name: series[name][at])
    figure = plots.lines(series, f"At T = 128 a tile of “{best}” reads {series[best][at]:.2f} inputs for each output, random "
                         f"{series['random'][at]:.1f}", "outputs of a tile, T", "distinct inputs per output, u(T)", at=tiles,
                         ours=ORDER_NAMES["chunks"], log_x=True, log_y=True,
                         colors={ORDER_NAMES[name]: color for name, color in ORDER_COLORS.items()})
    figure.update_yaxes(tickvals=[1, 2, 3, 5, 10], ticktext=["1", "2", "3", "5", "10"])
    return _plain_log(figure, tiles)


def _plain_log(figure: go.Figure, at: Sequence[int]) -> go.Figure:
    """A logarithmic axis with its own values as ticks."""
    return figure.update_xaxes(tickvals=list(at), ticktext=[str(value) for value in at])


def cache_curves(sizes: Sequence[int] = (4, 8, 16, 32, 64, 128), tile: int = 128) -> go.Figure:
    """Misses of simulated caches on the corner room; a voxel has 32 bytes, a line 64."""
    book = corner_book()
    names = ("raster", "Morton", "chunks", "filled")
    orders = {name: method.order(name, book, tile) for name in names}
    series = {ORDER_NAMES[name]: [method.misses(book, orders[name], tile, size=1024 * kb) for kb in sizes] for name in names}
    least = -(-book.inputs * 32 // 64)
    figure = plots.lines(series, _cache_title(sizes, series), "cache (KB)", "misses", at=sizes,
                         ours=ORDER_NAMES["chunks"], log_x=True,
                         colors={ORDER_NAMES[name]: ORDER_COLORS[name] for name in names})
    figure.add_hline(y=least, line=dict(color=BASELINE, dash="dot"))
    figure.add_annotation(x=0.02, xref="paper", y=least, yanchor="top", xanchor="left", showarrow=False,
                          text=f"each line once: {least}")
    figure.update_yaxes(rangemode="tozero")
    return _plain_log(figure, sizes)


def _cache_title(sizes: Sequence[int], series: Mapping[str, Sequence[int]]) -> str:
    ours, raster = series[ORDER_NAMES["chunks"]], series["raster"]
    first, last = (list(sizes).index(size) for size in (8, 64))
    return (f"With 8 KB chunks miss {ours[first]:,} times and raster {raster[first]:,}; with 64 KB it is {ours[last]:,} and "
            f"{raster[last]:,}")


def traffic_bars() -> go.Figure:
    """The bytes of the best dataflow for every order of the corner room, 32 to 32 channels."""
    book = corner_book()
    found = {name: method.optimise(book.outputs, method.touches(book, name), 32, 32) for name in method.ORDERS[:5]}
    least = method.least_traffic(book.outputs, 32, 32)
    names = list(found)
    figure = go.Figure(go.Bar(
        x=[ORDER_NAMES[name] for name in names], y=[found[name].bytes / 1e6 for name in names], showlegend=False,
        marker=dict(color=[OURS if name == "chunks" else BASELINE for name in names]),
        text=[f"T = {found[name].T}" for name in names], textposition="outside", cliponaxis=False))
    figure.add_hline(y=least / 1e6, line=dict(color=ACCENTS[0], dash="dash"))
    ratio = found["raster"].bytes / found["chunks"].bytes
    figure.update_layout(title=f"Raster order moves {ratio:.2f} times the bytes of chunks; the dashed line is everything once",
                         xaxis=dict(title="order of the voxels", type="category"), yaxis=dict(title="megabytes moved"))
    return figure


CHANNELS, LANES = 32, 8
FLOW_NAMES = {"OS": "outputs (OS)", "WS": "weights (WS)", "IS": "inputs (IS)"}
EXPLORED = (5, 24)  # seed and grid of the room in the explorer


@functools.cache
def _explored_book() -> Rulebook:
    return rulebook(room(*EXPLORED).coordinates)


@functools.cache
def tiles_of(order: str, T: int) -> dict:
    """The explored room in tiles: the tile of each voxel, the sums that traffic and cycles need, and one tile's halo."""
    book = _explored_book()
    by = method.order(order, book, T)
    mask, pointers, indices = book.lines()
    tile = np.empty(book.outputs, int)
    tile[by] = np.arange(book.outputs) // T
    planes = sum(int(np.bitwise_count(np.bitwise_or.reduce(mask[by[i : i + T]]))) for i in range(0, len(by), T))
    middle = tile.max() // 2
    inside = np.flatnonzero(tile == middle)
    reads = np.unique(np.concatenate([indices[pointers[o] : pointers[o + 1]] for o in inside]))
    return {"tile": tile, "planes": planes, "count": int(tile.max()) + 1, "inside": inside, "halo": np.setdiff1d(reads, inside),
            "touched": sparse_conv3d.distinct_inputs(book, T, by)}


def explored_cycles(order: str, T: int, block: int) -> int:
    """Cycles of the layer on a core of ``block`` channels and 8 lanes whose memories hold tiles of T, by the law."""
    book, cut = _explored_book(), tiles_of(order, T)
    passes = -(-CHANNELS // block) * -(-CHANNELS // LANES)
    return passes * (book.outputs + book.pairs * (block + 1) + cut["planes"] + 3 * cut["count"])


def explore_tiles(order: str = "chunks", log_T: int = 6, block: int = 32, flow: str = "WS") -> go.Figure:
    """Above, the voxels coloured by tile with the halo of one tile; below, the bytes of the three loop orders."""
    T = 2**log_T
    book, cut = _explored_book(), tiles_of(order, T)
    N, places = book.outputs, book.out_coordinates
    flows = {name: method.dataflow(name, N, cut["touched"], CHANNELS, CHANNELS, T, block, block) for name in method.FLOWS}
    chosen, least = flows[flow], method.least_traffic(N, CHANNELS, CHANNELS)
    cycles = explored_cycles(order, T, block)
    used = book.pairs * CHANNELS * CHANNELS / LANES / cycles
    steps = len(TILE_SCALE) - 1
    figure = go.Figure(_points(
        places, name="voxels, coloured by tile", hoverinfo="skip",
        marker=dict(size=3.5, symbol="square", color=(cut["tile"] % len(TILE_SCALE)).tolist(), cmin=0, cmax=steps,
                    colorscale=[[i / steps, color] for i, color in enumerate(TILE_SCALE)])))
    figure.add_trace(_points(places[cut["halo"]], name="inputs that one tile reads from others", hoverinfo="skip",
                             marker=dict(size=5.5, symbol="diamond", color="#D00000")))
    figure.add_bar(
        x=[FLOW_NAMES[name] for name in flows], y=[one.bytes / 1024 for one in flows.values()], showlegend=False,
        cliponaxis=False,
        marker=dict(color=[OURS if name == flow else BASELINE for name in flows]), textposition="outside",
        text=[f"{one.bytes / 1024:.0f}" + ("" if one.buffer <= method.L1 else ", does not fit") for one in flows.values()])
    figure.add_hline(y=least / 1024, line=dict(color=ACCENTS[0], dash="dash"))
    fits = "" if chosen.buffer <= method.L1 else f", but needs a buffer of {chosen.buffer / 1024:.0f} KB"
    figure.update_layout(
        title=f"T = {T}, u = {cut['touched'] / N:.2f}: {flow} moves {chosen.bytes / 1024:.0f} KB, "
        f"{chosen.bytes / least:.2f} times the least{fits}; {cycles / 1e6:.2f} million cycles, {100 * used:.0f} % of the "
        "products useful",
        scene=_axes(room(*EXPLORED), (0.36, 1)), uirevision="camera", xaxis=dict(title="what stays", type="category"),
        yaxis=dict(title="KB moved", domain=[0, 0.24], range=[0, 1.25 * max(one.bytes for one in flows.values()) / 1024]),
        legend=dict(y=0.37, yanchor="top", x=0, itemsizing="constant"))
    return figure


STATES = {"builder_state": BUILDER, "engine_state": ENGINE}
WAVES = ("start", "busy", "builder_state", "engine_state", "working", "done")


def waves(trace: Mapping[str, np.ndarray]) -> go.Figure:
    """The ports and states of the core on two neighbours."""
    figure = hardware.waveform(
        trace, WAVES, title=f"Two neighbours take {int(trace['busy'].sum())} cycles: lists first, then plane by plane",
        values=STATES, labels={"builder_state": "front end", "engine_state": "engine", "working": "products"})
    return figure


def overlap(tiles: int = 3) -> go.Figure:
    """How busy front end and multipliers are over some tiles, one after the other and with a page of memory for each."""
    strips, cycles = {}, {}
    weight = np.random.default_rng(0).integers(-128, 128, (method.PLANES, 4, 4), np.int8)
    sizes = dict(lanes=4, channels=4, inputs=27, outputs=27, pairs=343)
    for name, pages in (("alone", 1), ("overlapped", 4)):
        core = SSpNNA(**sizes, pages=pages)
        run = [experiment.shape_tile("cube3", 4, seed) for seed in range(tiles)]
        parts = [run[i : i + pages] for i in range(0, tiles, pages)]
        trace = simulate.simulate(core, sspnna.stimulus(core, weight, parts), trace=True).trace
        inside = trace["busy"] == 1
        cycles[name] = int(inside.sum())
        strips[f"lists, {name}"] = (trace["builder_state"] != 0)[inside]
        strips[f"products, {name}"] = (trace["working"] != 0)[inside]
    longest = max(map(len, strips.values()))
    padded = {name: np.pad(values, (0, longest - len(values))) for name, values in strips.items()}
    figure = hardware.occupancy(padded, title=f"Lists built during the products: {cycles['overlapped']:,} cycles instead of "
                                f"{cycles['alone']:,}", unit="of all")
    return figure


def cycle_table(found: Mapping[str, int]) -> str:
    """The simulated cycles of the small shapes, as a table."""
    lines = ["| voxels | N | P | planes | C = 8, L = 8 | C = 4, L = 8 | C = 2, L = 4 |", "|---|---:|---:|---:|---:|---:|---:|"]
    for name, size in experiment.SHAPES.items():
        book = rulebook(np.argwhere(np.ones(size)))
        cycles = " | ".join(str(found[f"{name}.{build}"]) for build, *_ in experiment.BUILDS)
        lines.append(f"| {' × '.join(map(str, size))} | {book.outputs} | {book.pairs} | "
                     f"{np.count_nonzero(np.diff(book.plane_pointers))} | {cycles} |")
    return "\n".join(lines)


def network_cycles(layers: Sequence[accelerator.PlannedLayer], lanes: int = LANES) -> go.Figure:
    """Cycles of every layer of a network, and how many of them multiply."""
    names = [f"{i + 1}{ {'down': '↓', 'up': '↑'}.get(layer.kind, '')}" for i, layer in enumerate(layers)]
    whole = [layer.cycles / 1e6 for layer in layers]
    useful = [layer.macs / lanes / 1e6 for layer in layers]
    total = sum(whole)
    return plots.bars(names, {"all cycles": whole, "cycles of useful products": useful},
                      f"At 1 GHz it would take {total:.1f} ms; {100 * sum(useful) / total:.0f} % of the cycles multiply",
                      "convolution (↓ down, ↑ up)", "million cycles", ours="cycles of useful products")


def learning(rows: Sequence[Mapping]) -> go.Figure:
    """Training loss after every epoch, mean over the seeds."""
    series = {name: np.mean(scores(rows, arm, key="loss"), axis=0)
              for name, arm in (("sparse U-Net", "sparse"), ("dense twin", "dense"))}
    iou = {arm: 100 * np.mean(scores(rows, arm)) for arm in ("sparse", "dense")}
    number = len(scores(rows, "sparse"))
    return plots.lines(series, f"Mean IoU on held-out rooms in this run ({number} seed{'s' if number > 1 else ''}): "
                       f"sparse {iou['sparse']:.0f} %, dense {iou['dense']:.0f} %", "epoch", "training loss",
                       ours="sparse U-Net")


def race_by_density(rows: Sequence[dict]) -> go.Figure:
    """Multiply-accumulates and measured time, dense over sparse, against the share of occupied cells."""
    at = [100 * row["density"] for row in rows]
    series = {"by multiply-accumulates": [row["macs_ratio"] for row in rows],
              "by the clock": [row["dense"] / row["sparse"] for row in rows]}
    figure = plots.lines(series, _crossing(rows), "occupied cells (%)", "dense over sparse", at=at, ours="by the clock",
                         log_x=True, log_y=True)
    ticks = [value for value in (1, 3, 10, 30, 100) if min(at) <= value * 1.05]
    figure.update_yaxes(dtick=1)
    return _plain_log(figure, ticks).add_hline(y=1, line=dict(color=BASELINE, dash="dot"))


def _crossing(rows: Sequence[dict]) -> str:
    won = [row["density"] for row in rows if row["sparse"] < row["dense"]]
    lost = [row["density"] for row in rows if row["sparse"] >= row["dense"]]
    if not lost:
        return "In this run the sparse kernel is faster at every density, up to a full grid"
    if not won:
        return "In this run the dense convolution is faster at every density"
    return f"In this run the sparse kernel is faster up to {100 * max(won):.0f} % of occupied cells"


def amdahl() -> go.Figure:
    """The speed-up end to end against the share of the convolution, if only that became 16.8 times faster."""
    share = np.linspace(0, 1, 101)
    whole = 1 / (1 - share + share / method.CONV_SPEEDUP)
    f = method.implied_share(method.CONV_SPEEDUP, method.E2E_SPEEDUP)
    figure = go.Figure(go.Scatter(x=(100 * share).tolist(), y=whole.tolist(), mode="lines", showlegend=False,
                                  line=dict(color=BASELINE, width=2)))
    figure.add_scatter(x=[100 * f], y=[method.E2E_SPEEDUP], mode="markers+text", text=[f"{100 * f:.2f} %"], showlegend=False,
                       textposition="middle left", marker=dict(size=11, color=OURS))
    figure.update_layout(title=f"11.8 times end to end needs {100 * f:.1f} % of the time in the convolution",
                         xaxis=dict(title="share of the convolution (%)"), yaxis=dict(title="speed-up end to end"))
    return figure


def metadata_in_words() -> str:
    """The two forms of the corner room's metadata."""
    book = corner_book()
    size = method.metadata(book.outputs, book.pairs)
    return (f"The test scene has {book.outputs:,} voxels and {book.pairs:,} pairs, so ARF = {book.arf:.3f}. Its lines take "
            f"{size['lines']:,} bits and its pair lists {size['pairs']:,}: {size['pairs'] / size['lines']:.2f} times as many. "
            f"In words of 32 bits it is {size['lines_bytes']:,} against {size['pairs_bytes']:,} bytes.")


def table_in_words(found: dict) -> str:
    """What the table of choices costs and saves."""
    regret = np.array(found["regret"])
    return (f"Built from generated rooms, the table has {found['entries']} entries. On rooms it never saw, "
            f"{found['misfits']} of {len(regret) + found['misfits']} choices did not fit the buffer and would have to be "
            f"searched after all; the others move {regret.mean():.3f} times the bytes of the full search on average, "
            f"{regret.max():.3f} times at worst. In this Python a look-up takes {found['look_up']:.0f} µs and a search "
            f"{found['search']:.0f} µs.")


def core_in_words(found: dict, slow: str = "") -> str:
    """What the trained network does on the simulated core."""
    same = "equal to the last bit" if found["equal"] else "NOT equal"
    law = "exactly the law's" if found["cycles"] == found["law"] else f"not the law's {found['law']:,}"
    note = f" ({slow}, so only a corner of the room was computed.)" if slow else ""
    return (f"All {found['layers']} convolutions of the trained network ran on the simulated core. Their "
            f"{found['sums']:,} sums and the scores of the network are {same} to the integer reference; the "
            f"{found['cycles']:,} cycles are {law}. "
            f"In 8 bits the network agrees with itself in floats on {100 * found['agree']:.2f} % of the voxels: mean IoU "
            f"{100 * found['iou']:.1f} % against {100 * found['float_iou']:.1f} % on this room.{note}")


def samples_in_words(rows: Sequence[dict]) -> str:
    """Cycles by the law against simulated cycles, over the sampled tiles."""
    cycles, law = (sum(row[key] for row in rows) for key in ("cycles", "law"))
    return (f"To check the model, {sum(row['tiles'] for row in rows)} tiles, drawn by chance from all {len(rows)} layers, "
            f"ran on the simulated core with random numbers: {cycles:,} cycles, and {law:,} by the law; the difference is "
            f"{cycles - law}. Of their sums {sum(row['wrong'] for row in rows)} were wrong.")


def race_in_words(rows: Sequence[dict]) -> str:
    """Measured times of the sparse and the dense convolution."""
    sparse, dense, search = (1000 * np.median([row[key] for row in rows]) for key in ("sparse", "dense", "search"))
    voxels = np.mean([row["voxels"] for row in rows])
    return (f"On this machine, one thread, rooms of about {voxels:,.0f} voxels: the dense convolution takes "
            f"{dense:.0f} ms and the sparse one {sparse:.1f} ms, {dense / sparse:.0f} times less, with "
            f"{np.median([row['macs_ratio'] for row in rows]):.0f} times fewer multiply-accumulates. Finding the pairs takes "
            f"{search:.1f} ms more, once for all layers of a level.")


def cost_in_words(rows: Sequence[Mapping]) -> str:
    """Multiply-accumulates of the twins."""
    sparse, dense = (np.mean(scores(rows, arm, key="macs")) for arm in ("sparse", "dense"))
    return (f"For a held-out room the sparse network does {sparse / 1e6:.1f} million multiply-accumulates and its dense twin "
            f"{dense / 1e6:.0f} million, {dense / sparse:.0f} times as many, with the same number of parameters.")
