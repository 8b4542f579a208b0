"""A whole 3x3 convolution on one of the cores of ``papernets_kernels.hdl.subbit``: what the host does around it.

A core is built for a number of windows, ids and outputs. A layer that exceeds them runs in tiles: blocks of outputs, and for
each of them blocks of output positions. The input channels are never cut, for the sums start and end within a run.

    for each block of outputs: its ids are written, once
        for each block of positions: their windows are written, the core runs, its outputs are read

A run of p positions, Ci channels and o outputs takes ``core.law(p, Ci, o)`` cycles, so a layer takes the sum over its tiles. To
cut the outputs costs more than the fill and drain of a run: the table is filled again for every block. ``writes`` counts the
cycles in which a memory is written through its port; a host with a second bank would hide them, and the law leaves them out.
"""

from dataclasses import dataclass

import numpy as np

from papernets_kernels import _check
from papernets_kernels.hdl import subbit
from papernets_kernels.hdl.simulate import Stimulus, simulate

#: Cycles of one call of the simulator, about: its samples are kept until it returns.
TOGETHER = 200_000


@dataclass(frozen=True)
class Plan:
    """Blocks of ``outputs`` and ``positions`` (each first and last + 1), the ``cycles`` of all runs, and of the ``writes``."""

    outputs: tuple[tuple[int, int], ...]
    positions: tuple[tuple[int, int], ...]
    cycles: int
    writes: int


def plan(core, positions: int, channels: int, outputs: int) -> Plan:
    """How a layer of ``positions`` outputs places, ``channels`` = Ci and ``outputs`` = Co is cut, and what it takes."""
    for name, value in (("positions", positions), ("channels", channels), ("outputs", outputs)):
        _check.whole(name, value, 1)
    most = min(core.windows, core.words)
    if channels > most:
        raise ValueError(f"channels is {channels}; this core sums at most {most} input channels, for it holds {core.windows} "
                         f"windows and {core.words} words of ids: build it with windows={channels} and "
                         f"kernels={channels * core.adders} at least")
    across = min(core.outputs, core.words // channels * core.adders)
    blocks, tiles = _blocks(outputs, across), _blocks(positions, core.windows // channels)
    cycles = sum(core.law(p1 - p0, channels, o1 - o0) for o0, o1 in blocks for p0, p1 in tiles)
    ids = sum(-(-(o1 - o0) // core.adders) for o0, o1 in blocks) * channels
    book = 2**core.tau if isinstance(core, subbit.SubBit) else 0
    return Plan(blocks, tiles, cycles, len(blocks) * positions * channels + ids + book)


def _blocks(count: int, most: int) -> tuple[tuple[int, int], ...]:
    return tuple((first, min(count, first + most)) for first in range(0, count, most))


def steady(core, positions: int, channels: int, outputs: int) -> int:
    """Cycles without the first fill and the last drain: what every further item adds, times the items."""
    return positions * (core.law(2, channels, outputs) - core.law(1, channels, outputs))


@dataclass(frozen=True, eq=False)
class Convolved:
    """``y`` (Co, Ho, Wo) int64, as the 24-bit sums of the core, the ``cycles`` its runs took, and its ``plan``."""

    y: np.ndarray
    cycles: int
    plan: Plan


def convolve(core, layer: subbit.Layer, engine: str = "amaranth") -> Convolved:
    """Runs a layer on the simulated ``core``: bit for bit ``golden.conv3x3``, in ``plan(...).cycles`` cycles.

    >>> core = subbit.SubBit(5, 4, windows=1024, kernels=4096, outputs=64)
    >>> convolve(core, subbit.Layer(x, ids, codebook, stride=1, padding=1)).cycles  # x (Ci, H, W) int8, ids (Co, Ci)
    """
    items, ids, codes = subbit.prepare(core, layer)
    (positions, channels, _), outputs = items.shape, len(ids)
    todo = plan(core, positions, channels, outputs)
    y, cycles = np.empty((outputs, positions), np.int64), 0
    for o0, o1 in todo.outputs:
        for tiles in _together(core, todo.positions, channels, o1 - o0):
            stimulus = _setup(core, ids[o0:o1], codes)
            for p0, p1 in tiles:
                _run(stimulus, core, items[p0:p1], o1 - o0)
            samples = iter(simulate(core, stimulus, engine).samples)
            for p0, p1 in tiles:
                seen = next(samples)
                found = seen["y"][seen["y_valid"] == 1]  # (positions G, A)
                y[o0:o1, p0:p1] = found.reshape(p1 - p0, -1)[:, : o1 - o0].T
                cycles += int(next(samples)["cycles"][0])
    sizes = zip(layer.x.shape[1:], _check.each("stride", layer.stride, 2, 1), _check.each("padding", layer.padding, 2, 0))
    return Convolved(y.reshape(outputs, *((n + 2 * pad - 3) // step + 1 for n, step, pad in sizes)), cycles, todo)


def _together(core, tiles, channels: int, outputs: int):
    """The blocks of positions, in lists of about ``TOGETHER`` cycles."""
    some, cycles = [], 0
    for tile in tiles:
        some.append(tile)
        cycles += core.law(tile[1] - tile[0], channels, outputs)
        if cycles >= TOGETHER:
            yield some
            some, cycles = [], 0
    if some:
        yield some


def _setup(core, ids: np.ndarray, codes: np.ndarray) -> Stimulus:
    words, todo = subbit.words(core, ids), Stimulus(core)
    todo.drive(ids_en=1, ids_addr=np.arange(len(words)), ids_data=words)
    if isinstance(core, subbit.SubBit):
        todo.drive(cbk_en=1, cbk_addr=np.arange(len(codes)), cbk_data=codes)
    return todo


def _run(todo: Stimulus, core, items: np.ndarray, outputs: int) -> None:
    positions, channels, _ = items.shape
    todo.drive(win_en=1, win_addr=np.arange(positions * channels), win_data=items.reshape(-1, 9))
    todo.drive(start=1, n_positions=positions, n_channels=channels, n_groups=-(-outputs // core.adders))
    todo.wait("done", limit=2 * core.law(positions, channels, outputs), sample=("y_valid", "y")).drive(sample=("cycles",))
