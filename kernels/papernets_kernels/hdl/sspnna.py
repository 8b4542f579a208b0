"""A core for sparse convolution in three dimensions: it lists the work of each weight plane, then walks the lists.

After Omer et al., "AccSS3D: Accelerator for Spatially Sparse 3D DNNs", 2020. The abstract names a core SSpNNA with systolic
and multicast links. Two patents of the inventors (US 11,620,818 B2 and US 2021/0090328 A1) add: the core is told the number of
rulebook lines, a front end rearranges the scattered work by weight plane, elements accumulate over channels, overlapping
outputs are merged locally. Ours, and not theirs: what is multicast (an input, to the lanes of all output channels) and what
is systolic (the weights), and every memory, width, state and cycle below. No number here is a claim about the paper's chip.

A tile has N outputs, P pairs (plane, input, output) and P_k pairs in plane k; the core has L lanes and C channels.

    for each output: LOAD its mask                                     N cycles
        for each bit of the mask: PUSH (input, output) on a list       P
    PLANE: take a list that is not empty, 13 (the centre) first        planes
        for each node of the list, for each c: MAC                     P C
    PLANE: there is none left; DRAIN, DRAIN                            3

so ``cycles = N + P (C + 1) + planes + 3``. In the centre plane every output meets itself, exactly once: there the sums start
from 0 and the accumulators need no clearing. The lists are last in, first out: a plane's outputs descend.

Three options, each with its own law (``SSpNNA.law``); the first goes with each of the others. M is the MAC work, P C so far.

- ``pages`` = 2, 4, ...: tiles are queued, and the lists of tile t + 1 are built during the MACs of tile t. With B_t = N + P
  the cycles that build tile t and M_t' = M_t + planes_t + 1,
  ``cycles = 1 + B_0 + sum over t of (1 + max(M_t', B_{t + 1})) + 2``; B behind the last tile is 0.
- ``planes`` = 2: two nodes at once, one of plane k and one of plane 26 - k (k < 13); the centre goes alone. The planes are
  mirror images, so in a submanifold rulebook their lists are equally long. Each row sums its own node; then one adder merges
  the two sums into the accumulators, one after the other, so two equal outputs cannot collide.
  ``M = C (P_13 + sum over k < 13 of max(P_k, P_{26 - k}))``, and a pair of planes costs one PLANE cycle.
- ``rows`` = G: G nodes of one plane at a time, row g one cycle behind row g - 1. The weights travel along with the skew, so
  one read feeds all rows, and a list yields one node a cycle, as its rows need them; therefore G <= C. Each row merges in its
  own cycle. ``M = C sum over k of ceil(P_k / G)``, and the skew adds G - 1 cycles at the end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from amaranth.hdl import Array, Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from papernets_kernels import _check
from papernets_kernels.hdl import _parts
from papernets_kernels.hdl._engines import BUILDER, CENTRE, ENGINE, PLANES, Builder, OneNode, Systolic, TwoPlanes
from papernets_kernels.hdl.simulate import Stimulus, simulate

if TYPE_CHECKING:  # a tile asks a rulebook for its lines, and the core needs no numba
    from papernets_kernels.sparse_conv3d import Rulebook

# ---- the core ----------------------------------------------------------------------------------------------------------


class SSpNNA(wiring.Component):
    """The core. Sizes are those of one tile: ``inputs`` and ``outputs`` voxels, ``pairs`` (plane, input, output).

    lanes: output channels at a time. channels: input channels, at least 2. accumulator: bits of a sum, which wraps.
    pages: tiles that the memories hold; from 2 on, lists are built during the MACs of the tile before.
    planes: 2 takes nodes of two planes at once. rows: nodes of one plane at a time.

    | port | width | direction | meaning, and when it is valid |
    |---|---|---|---|
    | start | 1 | in | takes a tile of n_out outputs, if ``ready`` is 1; with n_out = 0 nothing happens |
    | n_out | bits of outputs | in | with start; 1 to ``outputs`` |
    | ready | 1 | out | a start is taken: no tile is in work; with pages, fewer than ``pages`` tiles |
    | ifm_en, ifm_addr, ifm_data | 1, , 8 signed | in | feature c of input i at i C + c |
    | wgt_en, wgt_addr, wgt_data | 1, , L times 8 signed | in | weights of plane k, channel c at k C + c |
    | msk_en, msk_addr, msk_data | 1, , 27 | in | planes of output o at o; not 0, and bit 13 is 1 |
    | idx_en, idx_addr, idx_data | 1, , bits of inputs | in | inputs, line after line, by ascending plane |
    | ra | bits of outputs | in | output to read back |
    | rd | L times 32 signed | out | its sums, one cycle after ra; valid when its tile is done |
    | busy | 1 | out | from the cycle after start on, until the tile, or all tiles, are done |
    | done | 1 | out | a tile was started since reset, and none is in work |
    | cycles | 32 | out | cycles with busy = 1 since the last start that found busy = 0 |
    | builder_state, engine_state | 2 | out | to look at: as in ``BUILDER`` and ``ENGINE`` |
    | working | rows, or planes | out | to look at: which rows multiply in this cycle, L products each |

    Memories are written at the clock edge, and before the start of the tile that needs them. With pages, tile t since reset
    has page t mod ``pages``; page q begins at q times the size of a page: ifm at q NI C, msk at q NO, idx at q NP, ra at q NO.
    Every memory has one write port, and the read ports that the rows need: with one row one, and a second of acc with pages.
    Reset stops everything; the memories keep their contents.
    """

    _MustUse__silence = True  # a core may be asked for its law alone, and never be simulated

    def __init__(self, lanes=8, channels=8, inputs=64, outputs=64, pairs=1024, *, accumulator=32, pages=1, planes=1, rows=1):
        for name, value, least in (
            ("lanes", lanes, 1), ("channels", channels, 2), ("inputs", inputs, 1), ("outputs", outputs, 1), ("pairs", pairs, 1),
            ("accumulator", accumulator, 16), ("pages", pages, 1), ("planes", planes, 1), ("rows", rows, 1),
        ):  # fmt: skip
            _check.whole(name, value, least)
        if planes > 2 or (planes == 2 and rows > 1):
            raise ValueError(f"planes is {planes} with rows = {rows}; planes is 1 or 2, and rows is 1 where planes is 2")
        if rows > channels:
            raise ValueError(f"rows is {rows}; a list gives one node a cycle, so at most channels = {channels} rows have work")
        if pages & (pages - 1):
            below = 1 << pages.bit_length() - 1
            raise ValueError(f"pages is {pages}; it is a power of two: {below} or {2 * below}")
        if accumulator > 64:
            raise ValueError(f"accumulator is {accumulator}; at most 64 bits are possible")
        self.lanes, self.channels, self.inputs, self.outputs, self.pairs = lanes, channels, inputs, outputs, pairs
        self.accumulator, self.pages, self.planes, self.rows = accumulator, pages, planes, rows
        self.sums = data.ArrayLayout(signed(accumulator), lanes)
        self.node = data.StructLayout(
            {"input": _parts.bits(inputs), "output": _parts.bits(outputs), "next": _parts.bits(pairs), "last": 1}
        )
        super().__init__({
            "start": In(1), "n_out": In(range(outputs + 1)), "ready": Out(1), "busy": Out(1), "done": Out(1), "cycles": Out(32),
            "ifm_en": In(1), "ifm_addr": In(_parts.bits(pages * inputs * channels)), "ifm_data": In(signed(8)),
            "wgt_en": In(1), "wgt_addr": In(_parts.bits(PLANES * channels)), "wgt_data": In(data.ArrayLayout(signed(8), lanes)),
            "msk_en": In(1), "msk_addr": In(_parts.bits(pages * outputs)), "msk_data": In(PLANES),
            "idx_en": In(1), "idx_addr": In(_parts.bits(pages * pairs)), "idx_data": In(_parts.bits(inputs)),
            "ra": In(_parts.bits(pages * outputs)), "rd": Out(self.sums),
            "builder_state": Out(2), "engine_state": Out(2), "working": Out(max(rows, planes)),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.builder = builder = Builder(self)
        engine = TwoPlanes(self) if self.planes == 2 else Systolic(self, self.rows) if self.rows > 1 else OneNode(self)
        m.submodules.engine = engine

        def memory(name, shape, depth):
            m.submodules[name] = found = Memory(shape=shape, depth=max(2, depth), init=[])
            write = found.write_port()
            return found, write

        pages, sides = self.pages, min(self.pages, 2)
        contents = {
            "ifm": (signed(8), pages * self.inputs * self.channels),
            "wgt": (data.ArrayLayout(signed(8), self.lanes), PLANES * self.channels),
            "msk": (unsigned(PLANES), pages * self.outputs),
            "idx": (unsigned(_parts.bits(self.inputs)), pages * self.pairs),
        }
        memories = {}
        for name, (shape, depth) in contents.items():
            memories[name], port = memory(name, shape, depth)
            m.d.comb += [getattr(port, part).eq(getattr(self, f"{name}_{part}")) for part in ("en", "addr", "data")]
        node, node_port = memory("node", self.node, sides * self.pairs)
        acc, acc_port = memory("acc", self.sums, pages * self.outputs)

        # the engine's ports
        page = Signal(range(pages), init=pages - 1)  # of the tile that it walks; the first is on page 0
        side = Signal(range(sides), init=sides - 1)  # and its half of the nodes
        for name, found, many in (("ifm", memories["ifm"], engine.rows), ("wgt", memories["wgt"], engine.weights)):
            for g in range(many):
                port = found.read_port()
                m.d.comb += [port.addr.eq(getattr(engine, f"{name}_addr")[g]), getattr(engine, name)[g].eq(port.data)]
        for g in range(engine.nodes):
            port = node.read_port()
            m.d.comb += [port.addr.eq(side * self.pairs + engine.node_addr[g]), engine.node[g].eq(port.data)]
        sees = [acc_port] if engine.rows > 1 else []  # one node at a time forwards its sums itself
        read = acc.read_port(transparent_for=sees)
        m.d.comb += [
            read.addr.eq(engine.read_addr),
            engine.read.eq(read.data),
            acc_port.en.eq(engine.write_en),
            acc_port.addr.eq(engine.write_addr),
            acc_port.data.eq(engine.write),
        ]

        # the builder's
        building, other = _parts.signals(building=range(pages), other=range(sides))  # its page, and its half of the nodes
        msk = memories["msk"].read_port()
        idx = memories["idx"].read_port()
        m.d.comb += [
            msk.addr.eq(building * self.outputs + builder.msk_addr),
            idx.addr.eq(building * self.pairs + builder.idx_addr),
            builder.msk_data.eq(msk.data),
            builder.idx_data.eq(idx.data),
            node_port.en.eq(builder.node_en),
            node_port.addr.eq(other * self.pairs + builder.node_addr),
            node_port.data.eq(builder.node),
        ]

        m.d.comb += [self.builder_state.eq(builder.state), self.engine_state.eq(engine.state), self.working.eq(engine.working)]

        # starts, and the way from the builder to the engine
        taken, ran = _parts.signals(taken=1, ran=1)
        ends = self._after(m, engine.closing, engine.drain)
        m.d.comb += [taken.eq(self.start & self.ready & (self.n_out != 0)), self.done.eq(ran & ~self.busy)]
        with m.If(taken):
            m.d.sync += ran.eq(1)
        with m.If(taken & ~self.busy):
            m.d.sync += self.cycles.eq(0)
        with m.Elif(self.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        if pages == 1:
            n_out, walking = _parts.signals(n_out=self.n_out.shape(), walking=1)
            with m.If(taken):
                m.d.sync += n_out.eq(self.n_out)
            with m.If(builder.last):
                m.d.sync += walking.eq(1)
            with m.Elif(ends):
                m.d.sync += walking.eq(0)
            m.d.comb += [
                self.busy.eq(builder.busy | walking),
                self.ready.eq(~self.busy),
                self.rd.eq(read.data),
                builder.go.eq(taken),
                builder.n_out.eq(n_out),
                engine.go.eq(builder.last),
                engine.heads.eq(builder.heads),
                engine.nonempty.eq(builder.nonempty),
            ]
            with m.If(~self.busy):
                m.d.comb += read.addr.eq(self.ra)
            return m

        host = acc.read_port()
        m.d.comb += [host.addr.eq(self.ra), self.rd.eq(host.data)]
        # tiles that were started, whose building began, that were handed over, that are done: each counts on from the last
        count = range(2 * pages)
        started, begun, finished = _parts.signals(started=count, begun=count, finished=count)
        n_outs = Array(Signal.like(self.n_out, name=f"n_out{q}") for q in range(pages))
        full, take, waiting, place = _parts.signals(full=1, take=1, waiting=1, place=range(pages))
        lists, some = _parts.signals(lists=builder.heads.shape(), some=builder.nonempty.shape())
        m.d.comb += [
            self.busy.eq(started != finished),
            self.ready.eq((started ^ finished) != pages),  # equal but for the highest bit: as many as there are pages
            waiting.eq(started != begun),
            take.eq(full & engine.free),
            builder.go.eq(waiting & ~builder.busy & (~full | take)),
            builder.n_out.eq(n_outs[building]),
            engine.go.eq(take),
            engine.heads.eq(lists),
            engine.nonempty.eq(some),
        ]
        with m.If(taken):
            m.d.sync += [n_outs[place].eq(self.n_out), place.eq(place + 1), started.eq(started + 1)]
        with m.If(builder.go):
            m.d.sync += begun.eq(begun + 1)
        with m.If(builder.last):
            m.d.sync += [full.eq(1), building.eq(building + 1), other.eq(other + 1)]
        with m.If(take):
            m.d.sync += [full.eq(0), lists.eq(builder.heads), some.eq(builder.nonempty), side.eq(side + 1), page.eq(page + 1)]
        with m.If(ends):
            m.d.sync += finished.eq(finished + 1)
        m.d.comb += engine.page.eq(page)
        return m

    @staticmethod
    def _after(m, pulse, cycles: int):
        """``pulse``, so many cycles later."""
        for i in range(cycles):
            later = Signal(name=f"closed{i}")
            m.d.sync += later.eq(pulse)
            pulse = later
        return pulse

    # ---- what it does when ----

    def units(self, trace: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of a trace: for each state of the builder and the engine, and each row, in which cycles it is that, or multiplies."""
        found = {state: trace["builder_state"] == BUILDER.index(state) for state in BUILDER[1:]}
        found |= {state: trace["engine_state"] == ENGINE.index(state) for state in ENGINE[1:]}
        return found | {f"row {g}": trace["working"] >> g & 1 == 1 for g in range(max(self.rows, self.planes))}

    # ---- the law ----

    def law(self, masks: Sequence) -> int:
        """Cycles of a run, given by the masks (N,) of its tile, or with pages by a list of the masks of its tiles.

        A run of several tiles starts them one after the other, without a gap, and has at most ``pages`` of them.
        """
        tiles = [masks] if isinstance(masks, np.ndarray) else list(masks)
        build, walk = [], []
        for tile in tiles:
            pairs = np.array([np.count_nonzero(np.asarray(tile) >> k & 1) for k in range(PLANES)])  # P_k
            if self.planes == 2:
                slots = np.append(np.maximum(pairs[:CENTRE], pairs[:CENTRE:-1]), pairs[CENTRE])
            else:
                slots = -(-pairs // self.rows)
            build.append(len(tile) + int(pairs.sum()))
            walk.append(int(slots.sum()) * self.channels + int(np.count_nonzero(slots)) + 1)
        drain = 2 + (self.rows - 1)
        if self.pages == 1:
            return build[0] + walk[0] + drain
        return 1 + build[0] + sum(1 + max(pair) for pair in zip(walk, [*build[1:], 0])) + drain


# ---- the driver --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Tile:
    """``features`` (inputs, C) int8, ``masks`` (N,) of 27 bits, and ``indices`` (P,) into the features, line after line."""

    features: np.ndarray
    masks: np.ndarray
    indices: np.ndarray


def check(core: SSpNNA, tile: Tile) -> Tile:
    """The tile in the types of the core's ports; a ``ValueError`` if the core cannot take it."""
    features = _check.array("features", tile.features, np.int8, "inputs C")
    masks = _check.integers("masks", tile.masks, "N", 0, 2**PLANES)
    indices = _check.integers("indices", tile.indices, "P", 0, max(1, len(features)))
    _check.same("the number of columns of features", features.shape[1], "the number of channels of the core", core.channels)
    for name, found, most in (
        ("the number of outputs", len(masks), core.outputs),
        ("the number of distinct inputs", len(features), core.inputs),
        ("the number of pairs", len(indices), core.pairs),
    ):
        if found > most:
            raise ValueError(f"{name} is {found}; a tile of this core has at most {most}: give fewer outputs, as tiles() does")
    if not len(masks):
        raise ValueError("the number of outputs is 0; a tile has at least 1, and an empty scene needs no core")
    if not masks.all():
        raise ValueError(f"the mask of output {int(np.argmin(masks))} is 0; every line has at least one plane: leave it out")
    if lacking := [o for o, mask in enumerate(masks.tolist()) if not mask >> CENTRE & 1]:
        raise ValueError(f"the mask of output {lacking[0]} lacks plane {CENTRE}, where sums start; use a submanifold rulebook")
    _check.same("the number of indices", len(indices), "the number of bits of the masks", int(np.bitwise_count(masks).sum()))
    return Tile(features, masks.astype(np.int64), indices.astype(np.int64))


def tiles(core: SSpNNA, features: np.ndarray, book: "Rulebook") -> list[Tile]:
    """A scene (inputs, C) int8 in tiles of consecutive outputs, each as long as the core can hold.

    An input that several tiles touch is in each of them.
    """
    features = _check.array("features", features, np.int8, "inputs C")
    _check.same("the number of rows of features", len(features), "the number of inputs of the rulebook", book.inputs)
    masks, pointers, indices = book.lines()
    found, begin = [], 0
    while begin < book.outputs:
        touched, end = set(), begin
        while end < min(book.outputs, begin + core.outputs) and pointers[end + 1] - pointers[begin] <= core.pairs:
            more = touched.union(indices[pointers[end] : pointers[end + 1]].tolist())
            if len(more) > core.inputs:
                break
            touched, end = more, end + 1
        if end == begin:
            pairs = int(pointers[begin + 1] - pointers[begin])
            raise ValueError(f"output {begin} has {pairs} inputs; this core holds {core.inputs} inputs and {core.pairs} pairs")
        inputs, places = np.unique(indices[pointers[begin] : pointers[end]], return_inverse=True)
        found.append(Tile(features[inputs], masks[begin:end], places.reshape(-1)))
        begin = end
    return found


def stimulus(core: SSpNNA, weight: np.ndarray, runs: Sequence[Sequence[Tile]]) -> Stimulus:
    """Writes ``weight`` (27, C, L) int8; then for each run writes its tiles, starts them, waits, reads back.

    A run is one tile, or with pages up to ``pages`` tiles. There is no reset between runs. Samples: for each run, for each
    tile, the sums (N + 1 rows, of which the first is void), and then ``cycles``.
    """
    weight = _check.array("weight", weight, np.int8, "planes C L")
    for name, found, size in zip(("planes", "channels", "lanes"), weight.shape, (PLANES, core.channels, core.lanes)):
        _check.same(f"the number of {name} of weight", found, f"the number of {name} of the core", size)
    runs = [[check(core, tile) for tile in run] for run in runs]
    for run in runs:
        if not 1 <= len(run) <= core.pages:
            raise ValueError(f"a run has {len(run)} tiles; this core holds {core.pages}, so a run has 1 to {core.pages}")
    todo, place = Stimulus(core), 0
    todo.drive(wgt_en=1, wgt_addr=np.arange(PLANES * core.channels), wgt_data=weight.reshape(-1, core.lanes))
    for run in runs:
        pages = [(place + t) % core.pages for t in range(len(run))]
        place += len(run)
        for page, tile in zip(pages, run):
            for name, values, size in (
                ("ifm", tile.features.reshape(-1), core.inputs * core.channels),
                ("msk", tile.masks, core.outputs),
                ("idx", tile.indices, core.pairs),
            ):
                port = {f"{name}_en": 1, f"{name}_addr": page * size + np.arange(len(values)), f"{name}_data": values}
                todo.drive(**port)
        todo.drive(start=1, n_out=np.array([len(tile.masks) for tile in run]))
        todo.wait("done", limit=2 * core.law([tile.masks for tile in run]))
        for page, tile in zip(pages, run):
            todo.drive(ra=page * core.outputs + np.minimum(np.arange(len(tile.masks) + 1), len(tile.masks) - 1), sample=("rd",))
        todo.drive(sample=("cycles",))
    return todo


def run(core: SSpNNA, weight, runs, engine: str = "amaranth", **options) -> tuple[list[list[np.ndarray]], list[int]]:
    """The sums (N, L) of every tile of every run, and the cycles of every run. ``options`` go to ``simulate``."""
    samples = iter(simulate(core, stimulus(core, weight, runs), engine, **options).samples)
    sums, cycles = [], []
    for tiles in runs:
        sums.append([next(samples)["rd"][1:] for _ in tiles])
        cycles.append(int(next(samples)["cycles"][0]))
    return sums, cycles
