"""The experiments of the chapter on AccSS3D."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import golden, simulate, sspnna, sspnna_host
from papernets_kernels.hdl.sspnna import SSpNNA, Tile
from papernets_kernels.sparse_conv3d import rulebook
from torch.nn import functional as F

from papernets.data import ROOM_CLASSES, Room, Rooms, points, room
from papernets.measure import macs, mean_iou, take_turns
from papernets.papers.accss3d.accelerator import (
    CoreProduct,
    IntegerConv3d,
    PlannedLayer,
    _core,
    integer_product,
    on_core,
    quantised,
)
from papernets.papers.accss3d.layers import KINDS
from papernets.papers.accss3d.method import (
    ORDERS,
    PLANES,
    FlowTable,
    dataflow,
    index_bits,
    misses,
    optimise,
    order,
    reuse,
    touches,
)
from papernets.papers.accss3d.networks import UNet
from papernets.training import cosine, fit, loader, logits, row, seed_everything, single_thread

#: Voxel sets small enough to count by hand.
SHAPES = {"one": (1, 1, 1), "pair": (1, 1, 2), "line5": (1, 1, 5), "cube2": (2, 2, 2), "plane4": (1, 4, 4), "cube3": (3, 3, 3)}
#: Builds of the core: name, channels, lanes.
BUILDS = (("c8", 8, 8), ("c4", 4, 8), ("c2", 2, 4))


def shape_tile(name: str, channels: int, seed: int = 0) -> Tile:
    """A shape of ``SHAPES`` as a tile with random int8 features."""
    coordinates = np.argwhere(np.ones(SHAPES[name]))
    mask, _, indices = rulebook(coordinates).lines()
    features = np.random.default_rng(seed).integers(-128, 128, (len(coordinates), channels), np.int8)
    return Tile(features, mask, indices)


def border_tile(channels: int = 2, seed: int = 0) -> Tile:
    """A hand-made tile in which plane 13 ends on output 0 and plane 12 begins with it, so its sum must be forwarded."""
    features = np.random.default_rng(seed).integers(-128, 128, (2, channels), np.int8)
    return Tile(features, np.array([3 << 12, 1 << 13]), np.array([1, 0, 1]))


def core_cycles(engine: str = "amaranth", seed: int = 0) -> dict[str, int]:
    """Cycles of the simulated core for every shape and build, and for the border tile; wrong sums raise an error."""
    found = {}
    for build, channels, lanes in BUILDS:
        core = _core(lanes, channels, 64, 64, 1024, 1, 1, 1)
        tiles = {f"{name}.{build}": shape_tile(name, channels, seed) for name in SHAPES}
        if build == "c2":
            tiles["border"] = border_tile(channels, seed)
        weight = np.random.default_rng(seed + 1).integers(-128, 128, (PLANES, channels, lanes), np.int8)
        sums, cycles = sspnna.run(core, weight, [[tile] for tile in tiles.values()], engine)
        for (name, tile), (found_sums,), took in zip(tiles.items(), sums, cycles):
            expected = golden.sspnna(tile.features, tile.masks, tile.indices, weight)
            if not np.array_equal(found_sums, expected):
                raise AssertionError(f"the core's sums of {name} differ from the integer model")
            found[name] = took
    return found


def worked_trace(seed: int = 0) -> tuple[SSpNNA, dict[str, np.ndarray]]:
    """Two neighbours on the core of 2 channels and 4 lanes: the core, and every port in every cycle from its start on."""
    core = _core(4, 2, 64, 64, 1024, 1, 1, 1)
    weight = np.random.default_rng(seed).integers(-128, 128, (PLANES, 2, 4), np.int8)
    todo = sspnna.stimulus(core, weight, [[shape_tile("pair", 2, seed)]])
    trace = simulate.simulate(core, todo, trace=True).trace
    busy = np.flatnonzero(trace["busy"])
    part = slice(busy[0] - 1, busy[-1] + 3)
    return core, {name: values[part] for name, values in trace.items()}


def memory_bits(core: SSpNNA) -> dict[str, int]:
    """Bits of the six memories of a core without pages."""
    input_bits, output_bits = index_bits(core.inputs), index_bits(core.outputs)
    return {
        "inputs": core.inputs * core.channels * 8,
        "weights": PLANES * core.channels * core.lanes * 8,
        "masks": core.outputs * PLANES,
        "indices": core.pairs * input_bits,
        "nodes": core.pairs * (input_bits + output_bits + index_bits(core.pairs) + 1),
        "sums": core.outputs * core.lanes * core.accumulator,
    }


def compare_orders(seed: int, *, grid: int = 64, tile: int = 128, channels: int = 32) -> list[dict]:
    """One room without boxes, a row for every order of its voxels: u(T), least modelled ``bytes`` and cache ``misses``."""
    book = rulebook(room(seed, grid, boxes=(0, 0)).coordinates)
    rows = []
    for name in ORDERS:
        by = order(name, book, tile, seed)
        flow = optimise(book.outputs, touches(book, name), channels, channels)
        rows.append(row(seed, name, reuse(book, tile, by), bytes=flow.bytes, misses=misses(book, by, tile, channels)))
    return rows


def race(seed: int, *, grid: int = 64, channels: int = 32, repeats: int = 5, coordinates: np.ndarray | None = None) -> dict:
    """Seconds of one sparse and one dense convolution of the same weights on one thread, alternating; medians.

    The pairs are searched beforehand and timed for themselves. Both must give the same sums on the voxels.
    """
    coordinates = room(seed, grid).coordinates if coordinates is None else coordinates
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((len(coordinates), channels)).astype(np.float32)
    weight = rng.standard_normal((PLANES, channels, channels)).astype(np.float32)
    cube = torch.zeros(1, channels, grid, grid, grid)
    z, y, x = torch.from_numpy(coordinates.astype(np.int64)).T
    cube[0, :, z, y, x] = torch.from_numpy(features).T
    kernel = torch.from_numpy(weight).permute(2, 1, 0).reshape(channels, channels, 3, 3, 3).contiguous()
    book = rulebook(coordinates)
    calls = {"sparse": lambda: sparse_conv3d.submanifold(features, book, weight), "search": lambda: rulebook(coordinates),
             "dense": lambda: F.conv3d(cube, kernel, padding=1)}
    expected = calls["dense"]()[0, :, z, y, x].T.numpy()
    gap, largest = np.abs(calls["sparse"]() - expected).max(), np.abs(expected).max()
    if not gap <= 1e-4 * largest:
        raise ValueError(f"sparse and dense sums differ by {gap / largest:.2g} of the largest; no time is quoted")
    taken = take_turns(calls, repeats=repeats, inner=1)
    return {"voxels": len(coordinates), "pairs": book.pairs, "density": len(coordinates) / grid**3,
            "macs_ratio": PLANES * grid**3 / book.pairs,
            **{name: statistics.median(times) for name, times in taken.items()}}


def race_by_density(densities: Sequence[float], *, grid: int = 32, channels: int = 32, repeats: int = 3,
                    seed: int = 0) -> list[dict]:
    """The same race on grids filled at random, from nearly empty to full."""
    draw = np.random.default_rng(seed).random((grid,) * 3)
    return [race(seed, grid=grid, channels=channels, repeats=repeats, coordinates=np.argwhere(draw < density))
            for density in densities]


def halves(seed: int, rooms: int = 20, grid: int = 32) -> tuple[Rooms, Rooms]:
    """``rooms`` rooms with 2 % holes, 70 % of them to train on and the rest held out."""
    if rooms < 2:
        raise ValueError(f"rooms is {rooms}; at least 2 are needed, one to train on and one to test")
    every = [room(1000 * seed + number, grid, missing=0.02) for number in range(rooms)]
    border = min(rooms - 1, max(1, round(0.7 * rooms)))
    return Rooms(every[:border]), Rooms(every[border:])


@dataclass(frozen=True, eq=False)
class Segmented:
    """A trained network, its mean IoU on the held-out rooms, its MACs for one of them on average, and the loss by epoch."""

    model: UNet
    iou: float
    macs: float
    loss: list[float]


def segment(seed: int, dense: bool = False, *, rooms: int = 20, grid: int = 32, epochs: int = 10, widths=(8, 16),
            lr: float = 0.05) -> Segmented:
    """Train a U-Net on generated rooms and test it on others; the twins share data, order, epochs and rates."""
    train, test = halves(seed, rooms, grid)
    with single_thread():
        seed_everything(seed)
        model = UNet(widths, 2, len(ROOM_CLASSES), dense=dense)
        history = fit(model, loader(train, 1, True), None, epochs=epochs, lr=cosine(lr, epochs), weight_decay=1e-4, seed=seed)
        _, labels = test[range(len(test))]
        each = [points(one)[0] for one in test.images]
        found = torch.cat([logits(model, part, len(part)).argmax(1) for part in each])
        cost = sum(macs(model, part) for part in each) / len(each)
    return Segmented(model, mean_iou(found, labels, len(ROOM_CLASSES)), cost, history.loss)


def compare_networks(seed: int, **options) -> list[dict]:
    """Sparse U-Net, dense twin and most frequent class for one seed: mean IoU (a share), ``macs`` and ``loss`` by epoch."""
    sparse, dense = segment(seed, **options), segment(seed, True, **options)
    train, test = halves(seed, options.get("rooms", 20), options.get("grid", 32))
    _, known = train[range(len(train))]
    _, labels = test[range(len(test))]
    frequent = torch.full_like(labels, int(torch.bincount(known).argmax()))
    return [row(seed, "sparse", sparse.iou, macs=sparse.macs, loss=sparse.loss),
            row(seed, "dense", dense.iou, macs=dense.macs, loss=dense.loss),
            row(seed, "majority", mean_iou(frequent, labels, len(ROOM_CLASSES)))]


def core_test(model: UNet, one: Room, product: CoreProduct) -> dict:
    """A trained network in 8 bits on one room, by the reference and on the simulated core.

    Says whether all sums and scores are equal to the last bit, whether the cycles are those of the law, and how often the 8-bit
    network agrees with the float one.
    """
    rows, labels = points(one)
    reference = quantised(model, rows)
    simulated = on_core(reference, product)
    with torch.no_grad(), single_thread():
        scores, core_scores = reference(rows), simulated(rows)
        plain = logits(model, rows, len(rows))
    pairs = [(a.sums, b.sums) for a, b in zip(reference.modules(), simulated.modules()) if isinstance(a, IntegerConv3d)]
    return {"layers": len(pairs), "sums": sum(a.size for a, _ in pairs), "equal": all(np.array_equal(a, b) for a, b in pairs)
            and torch.equal(scores, core_scores), "cycles": sum(row[3] for row in product.log),
            "law": sum(row[4] for row in product.log), "agree": float((scores.argmax(1) == plain.argmax(1)).double().mean()),
            "iou": mean_iou(scores.argmax(1), labels, len(ROOM_CLASSES)),
            "float_iou": mean_iou(plain.argmax(1), labels, len(ROOM_CLASSES))}


def sampled_difference(layers: Sequence[PlannedLayer], tiles: int = 1, engine: str = "fastest", seed: int = 0) -> list[dict]:
    """Some tiles of every layer on the simulated core with random numbers: cycles beside the law, and wrong sums counted."""
    rng, found = np.random.default_rng(seed), []
    for layer in layers:
        cut = layer.schedule
        numbers = sorted(rng.choice(len(cut.pieces), min(tiles, len(cut.pieces)), replace=False).tolist())
        features = rng.integers(-128, 128, (cut.book.inputs, layer.C), np.int8)
        weight = rng.integers(-128, 128, (KINDS[layer.kind], layer.C, layer.K), np.int8)
        outputs, sums, cycles = sspnna_host.run_tiles(cut, features, weight, numbers, engine)
        law = cut.passes(layer.C, layer.K) * sum(cut.law(numbers))
        wrong = int((sums != integer_product(features, cut.book, weight)[outputs]).sum())
        found.append({"name": layer.name, "tiles": len(numbers), "cycles": sum(cycles), "law": law, "wrong": wrong})
    return found


def table_regret(seeds: Sequence[int], grids: Sequence[int] = (16, 24, 32, 48, 64), *, held: Sequence[int] = (100, 101, 102),
                 channels: Sequence[tuple[int, int]] = ((16, 16), (32, 32), (64, 64), (128, 128))) -> dict:
    """The table, built on rooms of ``seeds``, against the full search on rooms of the seeds ``held`` that it never saw.

    ``regret`` are the bytes by the table over the bytes by the search; a choice that does not fit counts in ``misfits`` and not
    there. ``look_up`` and ``search`` are microseconds of one choice.
    """
    def scenes(numbers):
        for number in numbers:
            for grid in grids:
                book = rulebook(room(number, grid).coordinates)
                yield book.outputs, book.pairs, touches(book)

    table = FlowTable(list(scenes(seeds)), channels)
    regret, misfits, times = [], 0, {"look_up": [], "search": []}
    for N, P, touched in scenes(held):
        for C, K in channels:
            begin = time.perf_counter()
            guess = table.choose(N, P, C, K)
            middle = time.perf_counter()
            best = optimise(N, touched, C, K)
            times["look_up"].append(middle - begin)
            times["search"].append(time.perf_counter() - middle)
            real = dataflow(guess.flow, N, touched[guess.T], C, K, guess.T, guess.c, guess.k)
            if real.buffer > table.buffer:
                misfits += 1
            else:
                regret.append(real.bytes / best.bytes)
    return {"entries": len(table), "regret": regret, "misfits": misfits,
            **{name: 1e6 * statistics.median(values) for name, values in times.items()}}
