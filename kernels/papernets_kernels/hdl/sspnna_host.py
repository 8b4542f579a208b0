"""The host of the core ``sspnna``: it cuts a whole layer into tiles, channel blocks and lane groups, and counts every cycle.

The core takes a tile of few outputs, C channels and L lanes. A layer has many voxels, and more of both channels. None of the
paper's sources says how its accelerator is scheduled; what follows is ours.

    for each block of C input channels, for each group of L output channels:
        write the weights of the block and group
        for each tile: write its inputs, masks and indices; start; wait; read its sums back

- A tile is a run of consecutive outputs, in an order that the caller may choose, as long as outputs, pairs and distinct inputs
  fit the memories. An input that several tiles touch (the halo) is written with each of them.
- The core starts every sum from 0, so the sums of several channel blocks are added by the host, in int64. Channels that do not
  fill a block, and output channels that do not fill a group, are filled with zeros, and their cycles are counted.
- The core builds its lists at every start and cannot keep them, so each block and each group builds them again. Hence
  ``cycles = ceil(channels / C) * ceil(outputs / L) * sum over runs of law(run)``; a core with pages overlaps the lists of the
  tiles of one run.
- Sums begin in plane 13, so every output needs a pair there. Lines of a submanifold rulebook have one. Otherwise the plane
  with the most pairs is put in place 13, and an output that still lacks it is given one pair more there, whose input is a row
  of zeros. Such pairs cost their cycles, change no sum, and are counted in ``Schedule.filled``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from papernets_kernels import _check
from papernets_kernels.hdl import sspnna
from papernets_kernels.hdl._engines import CENTRE, PLANES
from papernets_kernels.hdl.sspnna import SSpNNA, Tile

if TYPE_CHECKING:
    from papernets_kernels.sparse_conv3d import Rulebook


@dataclass(frozen=True, eq=False)
class Piece:
    """One tile: ``outputs`` (n,) and ``inputs`` (m,) of the rulebook, and its lines; an input of -1 is the row of zeros."""

    outputs: np.ndarray
    inputs: np.ndarray
    masks: np.ndarray
    indices: np.ndarray


@dataclass(frozen=True, eq=False)
class Schedule:
    """A rulebook cut into tiles for ``core``. Plane k of the rulebook is plane ``places[k]`` of the core."""

    core: SSpNNA
    book: "Rulebook"
    pieces: tuple[Piece, ...]
    places: np.ndarray
    filled: int

    @property
    def distinct_inputs(self) -> int:
        """Inputs written for all tiles, an input that several tiles touch counted in each."""
        return sum(len(piece.inputs) for piece in self.pieces)

    def passes(self, channels: int, outputs: int) -> int:
        """How often all tiles are run for a layer of ``channels`` input and ``outputs`` output channels."""
        return -(-_check.whole("channels", channels, 1) // self.core.channels) * -(
            -_check.whole("outputs", outputs, 1) // self.core.lanes)

    def runs(self, numbers: Sequence[int] | None = None) -> list[list[Piece]]:
        """The tiles ``numbers`` (all, if not said) in runs of as many as the core has pages."""
        pieces = self.pieces if numbers is None else [self.pieces[i] for i in numbers]
        return [list(pieces[i : i + self.core.pages]) for i in range(0, len(pieces), self.core.pages)]

    @cached_property
    def _pass_cycles(self) -> int:
        return sum(self.law())

    def law(self, numbers: Sequence[int] | None = None) -> list[int]:
        """Cycles of each run of one pass, by the law of the core."""
        return [int(self.core.law([piece.masks for piece in run])) for run in self.runs(numbers)]

    def cycles(self, channels: int, outputs: int) -> int:
        """Cycles of the whole layer: those with ``busy`` = 1, without the writing of memories."""
        return self.passes(channels, outputs) * self._pass_cycles

    def utilisation(self, channels: int, outputs: int) -> float:
        """Useful multiply-adds for each of all that the multipliers could do; zeros that fill up are not useful."""
        busy = self.cycles(channels, outputs) * self.core.lanes * (self.core.rows if self.core.rows > 1 else self.core.planes)
        return self.book.pairs * channels * outputs / busy if busy else 0.0

    def transfers(self, channels: int, outputs: int) -> dict[str, int]:
        """Cycles of the host's port for the whole layer: one for each word of features, weights, masks, indices and sums.

        They are not part of ``cycles``: with pages, a host could write and read while the core works.
        """
        passes, core = self.passes(channels, outputs), self.core
        return {
            "features": passes * self.distinct_inputs * core.channels,
            "weights": passes * PLANES * core.channels,
            "masks": passes * self.book.outputs,
            "indices": passes * (self.book.pairs + self.filled),
            "sums": passes * self.book.outputs,
        }


def schedule(core: SSpNNA, book: "Rulebook", order: np.ndarray | None = None, tile: int | None = None) -> Schedule:
    """Cut a rulebook into tiles.

    order (outputs,): the outputs in the order in which tiles take them; theirs, if not said. tile: outputs of a tile at most.
    """
    planes = len(book.plane_pointers) - 1
    if planes > PLANES:
        raise ValueError(f"the rulebook has {planes} planes (kernel_size {book.kernel_size}); the core has {PLANES}: "
                         "kernel_size is at most 3")
    most = core.outputs if tile is None else min(_check.whole("tile", tile, 1), core.outputs)
    order = np.arange(book.outputs) if order is None else _check.integers("order", order, "outputs", 0, max(1, book.outputs))
    if len(order) != book.outputs or (np.bincount(order, minlength=book.outputs) != 1).any():
        raise ValueError(f"order has {len(order)} entries; it holds each of 0 ... {book.outputs - 1} once")
    places = np.arange(planes)
    counts = np.diff(book.plane_pointers)
    if not (book.submanifold and planes == PLANES):  # the centre of kernel size 1 is plane 0
        busiest = int(np.argmax(counts))
        if planes > CENTRE:
            places[CENTRE] = busiest
        places[busiest] = CENTRE
    plane = np.repeat(places, counts)
    inputs, outputs = book.pair_inputs.astype(np.int64), book.pair_outputs.astype(np.int64)
    lacking = np.setdiff1d(np.arange(book.outputs), outputs[plane == CENTRE])
    plane = np.concatenate([plane, np.full(len(lacking), CENTRE)])
    inputs, outputs = np.concatenate([inputs, np.full(len(lacking), -1)]), np.concatenate([outputs, lacking])
    by_line = np.lexsort((plane, outputs))  # lines, each by ascending plane of the core
    plane, inputs, outputs = plane[by_line], inputs[by_line], outputs[by_line]
    masks = np.zeros(book.outputs, np.int64)
    np.bitwise_or.at(masks, outputs, np.int64(1) << plane)
    pointers = np.concatenate([[0], np.cumsum(np.bincount(outputs, minlength=book.outputs))])
    lines = [inputs[pointers[o] : pointers[o + 1]] for o in order]
    pieces, begin = [], 0
    while begin < len(lines):
        touched, pairs, end = set(), 0, begin
        while end < min(len(lines), begin + most) and pairs + len(lines[end]) <= core.pairs:
            more = touched.union(lines[end].tolist())
            if len(more) > core.inputs:
                break
            touched, pairs, end = more, pairs + len(lines[end]), end + 1
        if end == begin:
            raise ValueError(f"output {order[begin]} has {len(lines[begin])} inputs; this core holds {core.inputs} inputs and "
                             f"{core.pairs} pairs")
        distinct, indices = np.unique(np.concatenate(lines[begin:end]), return_inverse=True)
        pieces.append(Piece(order[begin:end], distinct, masks[order[begin:end]], indices.reshape(-1)))
        begin = end
    return Schedule(core, book, tuple(pieces), places, len(lacking))


def run_tiles(plan: Schedule, features: np.ndarray, weight: np.ndarray, numbers: Sequence[int] | None = None,
              engine: str = "fastest", **options) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Simulate the tiles ``numbers`` of a layer (all, if not said), every channel block and lane group of each.

    features (inputs, C) int8, weight (planes, C, K) int8. Gives the outputs (n,) in the order of the tiles, their sums (n, K)
    int64, and the cycles of each run, pass by pass. ``options`` go to ``simulate``.
    """
    core, book = plan.core, plan.book
    features = _check.array("features", features, np.int8, "inputs C")
    weight = _check.array("weight", weight, np.int8, "planes C K")
    planes, channels, lanes = weight.shape
    _check.same("the number of rows of features", len(features), "the number of inputs of the rulebook", book.inputs)
    _check.same("the number of columns of features", features.shape[1], "the number of input channels of the weight", channels)
    _check.same("the number of planes of the weight", planes, "the number of planes of the rulebook", len(plan.places))
    _check.whole("the number of input channels", channels, 1)
    _check.whole("the number of output channels", lanes, 1)
    least = 2 ** (core.accumulator - 1) - 1
    if planes * channels * 2**14 > least:
        raise ValueError(f"{planes} planes of {channels} channels can sum to {planes * channels * 2**14}; an accumulator of "
                         f"{core.accumulator} bits holds {least}: at most {least // (planes * 2**14)} channels")
    runs = plan.runs(numbers)
    outputs = np.concatenate([piece.outputs for run in runs for piece in run] or [np.zeros(0, np.int64)])
    sums, cycles = np.zeros((len(outputs), lanes), np.int64), []
    if not len(outputs):
        return outputs, sums, cycles
    blocks, groups = -(-channels // core.channels), -(-lanes // core.lanes)
    rows = np.zeros((book.inputs + 1, blocks * core.channels), np.int8)  # the last row is that of zeros
    rows[:-1, :channels] = features
    table = np.zeros((PLANES, blocks * core.channels, groups * core.lanes), np.int8)
    table[plan.places, :channels, :lanes] = weight
    for b in range(blocks):
        block = slice(b * core.channels, (b + 1) * core.channels)
        tiles = [[Tile(rows[piece.inputs][:, block], piece.masks, piece.indices) for piece in run] for run in runs]
        for g in range(groups):
            group = slice(g * core.lanes, (g + 1) * core.lanes)
            found, took = sspnna.run(core, table[:, block, group], tiles, engine, **options)
            part = np.concatenate([y for run in found for y in run])
            inside = min(core.lanes, lanes - g * core.lanes)
            sums[:, group.start : group.start + inside] += part[:, :inside]
            cycles += took
    return outputs, sums, cycles


def convolve(core: SSpNNA, features: np.ndarray, book: "Rulebook", weight: np.ndarray, *, order: np.ndarray | None = None,
             engine: str = "fastest", **options) -> tuple[np.ndarray, int]:
    """A whole sparse convolution on the simulated core: sums (outputs, K) int64, and the cycles it took.

    features (inputs, C) int8, weight (planes, C, K) int8; any rulebook of at most 27 planes. A rulebook without outputs costs
    no cycle.
    """
    plan = schedule(core, book, order)
    outputs, sums, cycles = run_tiles(plan, features, weight, engine=engine, **options)
    placed = np.zeros_like(sums)
    placed[outputs] = sums
    return placed, sum(cycles)
