"""A core for sparse convolution in three dimensions: it lists the work of each weight plane, then walks the lists.

After Omer et al., "AccSS3D: Accelerator for Spatially Sparse 3D DNNs", 2020. From the paper's abstract and its patents: a core
called SSpNNA takes a rulebook in lines (a mask of planes and the voxels), a front end rearranges the scattered work by weight
plane, an input is multicast to the lanes of all output channels, weights move systolically, overlapping outputs are merged
locally. Ours, and not the paper's: every memory, width, state and cycle below. So no number of cycles here is a claim about
the paper's chip.

A tile has N outputs, P pairs (plane, input, output) and P_k pairs in plane k; the core has L lanes and C channels.

    for each output: LOAD its mask                                     N cycles
        for each bit of the mask: PUSH (input, output) on a list       P
    PLANE: take the next list that is not empty, 13 (the centre) first planes
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

import numpy as np
from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

from papernets_kernels import _check
from papernets_kernels.hdl.simulate import Stimulus, simulate

PLANES, CENTRE = 27, 13


def _bits(count: int) -> int:
    """Bits of an address below ``count``, at least one."""
    return max(1, ceil_log2(count))


# ---- pieces of circuits ------------------------------------------------------------------------------------------------
# Intermediate results are signals with names: small expressions compile fast.


def _index(m, name: str, bits):
    """The place of the only 1 among ``bits``; 0 if there is none."""
    k = Signal(_bits(len(bits)), name=name)
    for b in range(len(k)):
        m.d.comb += k[b].eq(Cat(bits[i] for i in range(len(bits)) if i >> b & 1).any())
    return k


def _lowest(m, name: str, bits):
    """The lowest 1 among ``bits``, alone."""
    found = Signal(len(bits), name=name)
    m.d.comb += found.eq(bits & (~bits + 1))
    return found


def _chosen(m, name: str, choice, words):
    """The word at the only 1 of ``choice``; 0 if it has none."""
    found = Signal(words[0].shape(), name=name)
    for j, word in enumerate(words):
        with m.If(choice[j]):
            m.d.comb += found.eq(word)
    return found


# ---- the front end: lists ----------------------------------------------------------------------------------------------


class _Builder(wiring.Component):
    """Turns the lines of a tile into one linked list for each plane.

    go (In): the next cycle is the LOAD of output 0, and the lists before are lost.
    last (Out): this is the last PUSH; from the next cycle on ``heads`` and ``nonempty`` are those of the tile.
    msk_addr, idx_addr (Out) lead their data by one cycle. node_en, node_addr, node (Out): the write port of the nodes.
    """

    def __init__(self, core: "SSpNNA"):
        address = _bits(core.pairs)
        super().__init__({
            "go": In(1), "n_out": In(range(core.outputs + 1)), "busy": Out(1), "last": Out(1),
            "msk_addr": Out(_bits(core.outputs)), "msk_data": In(PLANES),
            "idx_addr": Out(address), "idx_data": In(_bits(core.inputs)),
            "node_en": Out(1), "node_addr": Out(address), "node": Out(core.node),
            "heads": Out(data.ArrayLayout(address, PLANES)), "nonempty": Out(PLANES),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        o, mask, rest = Signal.like(self.n_out), Signal(PLANES), Signal(PLANES)
        p, pushing = Signal.like(self.node_addr), Signal()
        bit = _lowest(m, "bit", mask)
        following = _chosen(m, "following", bit, [self.heads[k] for k in range(PLANES)])
        m.d.comb += [
            rest.eq(mask & ~bit),
            self.idx_addr.eq(p + pushing),
            self.node_en.eq(pushing),
            self.node_addr.eq(p),
            self.node.input.eq(self.idx_data),
            self.node.output.eq(o),
            self.node.next.eq(following),
            self.node.last.eq((self.nonempty & bit) == 0),
        ]
        with m.FSM() as fsm:
            with m.State("IDLE"):
                with m.If(self.go):
                    m.d.sync += [o.eq(0), p.eq(0), self.nonempty.eq(0)]
                    m.next = "LOAD"
            with m.State("LOAD"):
                m.d.comb += self.msk_addr.eq(o + 1)
                m.d.sync += mask.eq(self.msk_data)
                m.next = "PUSH"
            with m.State("PUSH"):
                m.d.comb += [pushing.eq(1), self.msk_addr.eq(o + 1), self.last.eq((rest == 0) & (o + 1 == self.n_out))]
                m.d.sync += [p.eq(p + 1), mask.eq(rest), self.nonempty.eq(self.nonempty | bit)]
                for k in range(PLANES):
                    with m.If(bit[k]):
                        m.d.sync += self.heads[k].eq(p)
                with m.If(rest == 0):
                    m.d.sync += o.eq(o + 1)
                    m.next = "LOAD"
                with m.If(self.last):
                    m.next = "IDLE"
            m.d.comb += self.busy.eq(~fsm.ongoing("IDLE"))
        return m


# ---- the engines: lists to sums ----------------------------------------------------------------------------------------


class _Engine(wiring.Component):
    """What the engines share: their ports, the walk over the planes, and rows that sum a node by themselves.

    go (In): the next cycle is the first PLANE; ``heads`` and ``nonempty`` are held from then on, until ``closing``.
    free (Out): go is possible. closing (Out): this is the last PLANE; the accumulators are written until ``drain`` cycles
    later. page (In): the tile's page of ifm and acc; it may change from the cycle after closing on.
    Addresses lead their data by one cycle. node, ifm and wgt have as many read ports as the engine needs.
    """

    nodes, weights = 1, 1

    def __init__(self, core: "SSpNNA", rows: int):
        self.core, self.rows, self.drain = core, rows, 2
        acc = _bits(core.outputs * core.pages)
        super().__init__({
            "go": In(1), "page": In(range(core.pages)), "free": Out(1), "closing": Out(1),
            "heads": In(data.ArrayLayout(_bits(core.pairs), PLANES)), "nonempty": In(PLANES),
            "node_addr": Out(_bits(core.pairs)).array(self.nodes), "node": In(core.node).array(self.nodes),
            "ifm_addr": Out(_bits(core.inputs * core.channels * core.pages)).array(rows), "ifm": In(signed(8)).array(rows),
            "wgt_addr": Out(_bits(PLANES * core.channels)).array(self.weights),
            "wgt": In(data.ArrayLayout(signed(8), core.lanes)).array(self.weights),
            "read_addr": Out(acc), "read": In(core.sums),
            "write_en": Out(1), "write_addr": Out(acc), "write": Out(core.sums),
        })  # fmt: skip

    def walk(self, m, pick, mac) -> None:
        """IDLE, PLANE, MAC, DRAIN. ``pick(todo)`` chooses planes in PLANE, ``mac(c)`` says in MAC when the list ends."""
        core = self.core
        self.c, self.issue = c, issue = Signal(range(core.channels)), Signal()
        self.first, self.final = Signal(), Signal()
        m.d.comb += [self.first.eq(issue & (c == 0)), self.final.eq(issue & (c == core.channels - 1))]
        visited, todo, left = Signal(PLANES), Signal(PLANES), Signal(range(self.drain + 1))
        m.d.comb += todo.eq(self.nonempty & ~visited)
        choice = pick(todo)

        def begin():
            m.d.comb += self.free.eq(1)
            with m.If(self.go):
                m.d.sync += visited.eq(0)
                m.next = "PLANE"

        with m.FSM():
            with m.State("IDLE"):
                begin()
            with m.State("PLANE"):
                m.d.sync += visited.eq(visited | choice)
                m.next = "MAC"
                with m.If(todo == 0):
                    m.d.comb += self.closing.eq(1)
                    m.d.sync += left.eq(self.drain - 1)
                    m.next = "DRAIN"
            with m.State("MAC"):
                m.d.comb += issue.eq(1)
                m.d.sync += c.eq(Mux(self.final, 0, c + 1))
                with m.If(self.final & mac()):
                    m.next = "PLANE"
            with m.State("DRAIN"):
                m.d.sync += left.eq(left - 1)
                with m.If(left == 0):
                    m.next = "IDLE"
                begin()

    def read_node(self, m, g: int, node, first, c):
        """The addresses of row ``g`` for channel ``c``; ``first``: the node is new. Gives the accumulator of its output."""
        core, base, out = self.core, Signal.like(self.ifm_addr[g], name=f"base{g}"), Signal.like(self.read_addr, name=f"out{g}")
        held_base, held_out = Signal.like(base, name=f"held_base{g}"), Signal.like(out, name=f"held_out{g}")
        m.d.comb += [
            base.eq(Mux(first, (self.page * core.inputs + node.input) * core.channels, held_base)),
            out.eq(Mux(first, self.page * core.outputs + node.output, held_out)),
            self.ifm_addr[g].eq(base + c),
        ]
        m.d.sync += [held_base.eq(base), held_out.eq(out)]
        return out

    def row(self, m, g: int, valid, first, final, out, centre, weights):
        """Lanes that sum one node from 0. All but ``weights`` belong to stage 0.

        Gives (ends, out, centre, sums): ``ends`` is 1 in stage 1 of the last channel, ``sums`` are whole in the cycle after.
        """
        later = [Signal.like(x, name=f"{name}{g}") for name, x in zip(("valid", "first", "final", "address"), (valid, first, final, out))]
        m.d.sync += [now.eq(before) for now, before in zip(later, (valid, first, final, out))]
        valid, first, final, out = later
        fresh, ends, sums = Signal(name=f"fresh{g}"), Signal(name=f"ends{g}"), Signal(self.core.sums, name=f"sums{g}")
        m.d.sync += fresh.eq(centre)
        m.d.comb += ends.eq(valid & final)
        for lane in range(self.core.lanes):
            product = Signal(signed(16), name=f"product{g}_{lane}")
            m.d.comb += product.eq(self.ifm[g] * weights[lane])
            with m.If(valid):
                m.d.sync += sums[lane].eq(Mux(first, 0, sums[lane]) + product)
        return ends, out, fresh, sums

    def merge(self, m, events) -> None:
        """Adds sums to the accumulators, at most one of ``events`` (ends, out, centre, sums) in a cycle.

        The accumulator is read as its sum ends, and written in the next cycle; the read port sees what is written in the
        same cycle, so the next sum may be of the same output.
        """
        chosen, fresh = Signal(len(events)), Signal()
        for i, (ends, out, centre, _) in enumerate(events):
            with m.If(ends):
                m.d.comb += self.read_addr.eq(out)
                m.d.sync += fresh.eq(centre)
            m.d.sync += chosen[i].eq(ends)
        m.d.sync += self.write_addr.eq(self.read_addr)
        m.d.comb += self.write_en.eq(chosen.any())
        for lane in range(self.core.lanes):
            add = _chosen(m, f"add{lane}", chosen, [sums[lane] for *_, sums in events])
            base = Signal.like(add, name=f"from{lane}")
            m.d.comb += [base.eq(Mux(fresh, 0, self.read[lane])), self.write[lane].eq(base + add)]

    def centre_first(self, m, todo):
        choice, lowest = Signal(PLANES), _lowest(m, "lowest", todo)
        m.d.comb += choice.eq(Mux(todo[CENTRE], 1 << CENTRE, lowest))
        return choice


class _OneNode(_Engine):
    """One node at a time. A sum starts from its accumulator, and is written back after the last channel.

    Stage 0 issues addresses, stage 1 multiplies and adds, stage 2 writes. A sum that begins reads its accumulator in stage 0
    of channel 0. The sum before may not be written by then if the two are only a PLANE cycle apart; if both are of the same
    output it is forwarded. Within a plane no output comes twice.
    """

    def __init__(self, core):
        super().__init__(core, rows=1)

    def elaborate(self, platform):
        m, core = Module(), self.core
        plane, centre, head = Signal(range(PLANES)), Signal(), None
        held, node = Signal(core.node), Signal(core.node)

        def pick(todo):
            nonlocal head
            choice = self.centre_first(m, todo)
            head = _chosen(m, "head", choice, [self.heads[k] for k in range(PLANES)])
            k = _index(m, "k", choice)
            with m.If(~self.issue):
                m.d.sync += [plane.eq(k), centre.eq(choice[CENTRE])]
            return choice

        self.walk(m, pick, lambda: node.last)
        m.d.comb += [node.eq(Mux(self.first, self.node[0], held)), self.node_addr[0].eq(Mux(self.issue, node.next, head))]
        m.d.sync += held.eq(node)
        out = self.read_node(m, 0, node, self.first, self.c)
        m.d.comb += [self.wgt_addr[0].eq(plane * core.channels + self.c), self.read_addr.eq(out)]

        valid, first, final, fresh, address = Signal(), Signal(), Signal(), Signal(), Signal.like(out)
        m.d.sync += [valid.eq(self.issue), first.eq(self.first), final.eq(self.final), fresh.eq(centre), address.eq(out)]
        sums, ends, forward = Signal(core.sums), Signal(), Signal()
        before, again = Signal.like(out), Signal()  # the output of the last whole sum; there is one in this tile
        m.d.comb += [ends.eq(valid & final), forward.eq(again & (before == address))]
        with m.If(ends):
            m.d.sync += [before.eq(address), again.eq(1)]
        with m.If(self.go):
            m.d.sync += again.eq(0)
        for lane in range(core.lanes):
            product, base = Signal(signed(16), name=f"product{lane}"), Signal.like(sums[lane], name=f"from{lane}")
            m.d.comb += [product.eq(self.ifm[0] * self.wgt[0][lane]), base.eq(sums[lane])]
            with m.If(first & fresh):
                m.d.comb += base.eq(0)
            with m.Elif(first & ~forward):
                m.d.comb += base.eq(self.read[lane])
            with m.If(valid):
                m.d.sync += sums[lane].eq(base + product)
        m.d.sync += [self.write_en.eq(ends), self.write_addr.eq(address)]
        m.d.comb += self.write.eq(sums)
        return m


class _TwoPlanes(_Engine):
    """Two nodes at once, of planes k and 26 - k; the centre plane alone. A row whose list has ended waits for the other."""

    nodes, weights = 2, 2

    def __init__(self, core):
        super().__init__(core, rows=2)

    def elaborate(self, platform):
        m, core = Module(), self.core
        both, todo_both = Signal(CENTRE), Signal(CENTRE)  # bit k: the planes k and 26 - k
        planes = [Signal(range(PLANES), name=f"plane{g}") for g in range(2)]
        alive, centre, heads = Signal(2), Signal(), []

        def pick(todo):
            m.d.comb += todo_both.eq(todo[:CENTRE] | todo[: CENTRE : -1])
            m.d.comb += both.eq(Mux(todo[CENTRE], 0, _lowest(m, "lowest", todo_both)))
            rows = [Cat(both, todo[CENTRE], Const(0, CENTRE)), Cat(Const(0, CENTRE + 1), both[::-1])]
            for g in range(2):
                choice = Signal(PLANES, name=f"choice{g}")
                m.d.comb += choice.eq(rows[g] & todo)
                heads.append(_chosen(m, f"head{g}", choice, [self.heads[k] for k in range(PLANES)]))
                k = _index(m, f"k{g}", choice)
                with m.If(~self.issue):
                    m.d.sync += [planes[g].eq(k), alive[g].eq(choice.any())]
            with m.If(~self.issue):
                m.d.sync += centre.eq(todo[CENTRE])
            return rows[0] | rows[1]

        ended = Signal(2)
        held = [Signal(core.node, name=f"held{g}") for g in range(2)]
        node = [Signal(core.node, name=f"node_{g}") for g in range(2)]
        self.walk(m, pick, lambda: ended.all())
        events = []
        for g in range(2):
            m.d.comb += [
                node[g].eq(Mux(self.first, self.node[g], held[g])),
                self.node_addr[g].eq(Mux(self.issue, node[g].next, heads[g])),
                ended[g].eq(~alive[g] | node[g].last),
                self.wgt_addr[g].eq(planes[g] * core.channels + self.c),
            ]
            m.d.sync += held[g].eq(node[g])
            with m.If(self.final & ended[g]):
                m.d.sync += alive[g].eq(0)
            out = self.read_node(m, g, node[g], self.first, self.c)
            valid = Signal(name=f"valid_{g}")
            m.d.comb += valid.eq(self.issue & alive[g])
            events.append(self.row(m, g, valid, self.first, self.final, out, centre, self.wgt[g]))
        # the second row's sum waits a cycle for the adder
        late = [Signal.like(x, name=f"late_{name}") for name, x in zip(("ends", "out", "centre", "sums"), events[1])]
        m.d.sync += [x.eq(y) for x, y in zip(late, events[1])]
        self.merge(m, [events[0], late])
        return m


class _Systolic(_Engine):
    """``rows`` nodes of one plane, row g one cycle behind row g - 1; the weights pass from row to row."""

    def __init__(self, core, rows):
        super().__init__(core, rows)
        self.drain = rows + 1  # the last row writes rows - 1 cycles after the first

    def elaborate(self, platform):
        m, core = Module(), self.core
        plane, centre, head = Signal(range(PLANES)), Signal(), None
        alive, going = Signal(), Signal()  # the list goes on behind the nodes that rows have taken

        def pick(todo):
            nonlocal head
            choice = self.centre_first(m, todo)
            head = _chosen(m, "head", choice, [self.heads[k] for k in range(PLANES)])
            k = _index(m, "k", choice)
            with m.If(~self.issue):
                m.d.sync += [plane.eq(k), centre.eq(choice[CENTRE]), alive.eq(1)]
            return choice

        self.walk(m, pick, lambda: ~going)
        # In cycle g of a group row g takes a node, if there is one; its successor is read for the next row, or group.
        fetch, following = Signal(), Signal.like(self.node_addr[0])
        m.d.comb += [
            fetch.eq(self.issue & (self.c < self.rows) & alive),
            going.eq(Mux(fetch, ~self.node[0].last, alive)),
            self.node_addr[0].eq(Mux(self.issue, Mux(fetch, self.node[0].next, following), head)),
            self.wgt_addr[0].eq(plane * core.channels + self.c),
        ]
        with m.If(self.issue):
            m.d.sync += [following.eq(self.node_addr[0]), alive.eq(going)]
        weights, events = self.wgt[0], []
        for g in range(self.rows):
            first, running = Signal(name=f"first_{g}"), Signal(name=f"running{g}")
            c, now, valid, final = Signal.like(self.c, name=f"c{g}"), Signal.like(self.c, name=f"now{g}"), Signal(), Signal()
            m.d.comb += [
                first.eq(fetch & (self.c == g)),
                now.eq(Mux(first, 0, c)),
                valid.eq(first | running),
                final.eq(valid & (now == core.channels - 1)),
            ]
            m.d.sync += [c.eq(now + 1), running.eq(valid & ~final)]
            out = self.read_node(m, g, self.node[0], first, now)
            its = Signal(name=f"centre{g}")  # the plane's, for as long as the row works on it
            held = Signal(name=f"held_centre{g}")
            m.d.comb += its.eq(Mux(first, centre, held))
            m.d.sync += held.eq(its)
            events.append(self.row(m, g, valid, first, final, out, its, weights))
            passed = Signal.like(self.wgt[0], name=f"passed{g}")
            m.d.sync += passed.eq(weights)
            weights = passed
        self.merge(m, events)
        return m


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
            raise ValueError(f"pages is {pages}; it is a power of two: {1 << pages.bit_length() - 1} or {1 << pages.bit_length()}")
        if accumulator > 64:
            raise ValueError(f"accumulator is {accumulator}; at most 64 bits are possible")
        self.lanes, self.channels, self.inputs, self.outputs, self.pairs = lanes, channels, inputs, outputs, pairs
        self.accumulator, self.pages, self.planes, self.rows = accumulator, pages, planes, rows
        self.sums = data.ArrayLayout(signed(accumulator), lanes)
        self.node = data.StructLayout({"input": _bits(inputs), "output": _bits(outputs), "next": _bits(pairs), "last": 1})
        super().__init__({
            "start": In(1), "n_out": In(range(outputs + 1)), "ready": Out(1), "busy": Out(1), "done": Out(1), "cycles": Out(32),
            "ifm_en": In(1), "ifm_addr": In(_bits(pages * inputs * channels)), "ifm_data": In(signed(8)),
            "wgt_en": In(1), "wgt_addr": In(_bits(PLANES * channels)), "wgt_data": In(data.ArrayLayout(signed(8), lanes)),
            "msk_en": In(1), "msk_addr": In(_bits(pages * outputs)), "msk_data": In(PLANES),
            "idx_en": In(1), "idx_addr": In(_bits(pages * pairs)), "idx_data": In(_bits(inputs)),
            "ra": In(_bits(pages * outputs)), "rd": Out(self.sums),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.builder = builder = _Builder(self)
        engine = _TwoPlanes(self) if self.planes == 2 else _Systolic(self, self.rows) if self.rows > 1 else _OneNode(self)
        m.submodules.engine = engine

        def memory(name, shape, depth):
            m.submodules[name] = found = Memory(shape=shape, depth=max(2, depth), init=[])
            return found, found.write_port()

        pages, sides = self.pages, min(self.pages, 2)
        contents = {
            "ifm": (signed(8), pages * self.inputs * self.channels),
            "wgt": (data.ArrayLayout(signed(8), self.lanes), PLANES * self.channels),
            "msk": (unsigned(PLANES), pages * self.outputs),
            "idx": (unsigned(_bits(self.inputs)), pages * self.pairs),
        }
        memories = {}
        for name, (shape, depth) in contents.items():
            memories[name], port = memory(name, shape, depth)
            m.d.comb += [getattr(port, part).eq(getattr(self, f"{name}_{part}")) for part in ("en", "addr", "data")]
        node, node_port = memory("node", self.node, sides * self.pairs)
        acc, acc_port = memory("acc", self.sums, pages * self.outputs)

        # the engine's ports
        side, page = Signal(range(sides), init=sides - 1), Signal(range(pages), init=pages - 1)  # of the tile that it walks
        for name, found, many in (("ifm", memories["ifm"], engine.rows), ("wgt", memories["wgt"], engine.weights)):
            for g in range(many):
                port = found.read_port()
                m.d.comb += [port.addr.eq(getattr(engine, f"{name}_addr")[g]), getattr(engine, name)[g].eq(port.data)]
        for g in range(engine.nodes):
            port = node.read_port()
            m.d.comb += [port.addr.eq(side * self.pairs + engine.node_addr[g]), engine.node[g].eq(port.data)]
        read = acc.read_port(transparent_for=[acc_port] if engine.rows > 1 else [])
        m.d.comb += [
            read.addr.eq(engine.read_addr),
            engine.read.eq(read.data),
            acc_port.en.eq(engine.write_en),
            acc_port.addr.eq(engine.write_addr),
            acc_port.data.eq(engine.write),
        ]

        # the builder's
        building, other = Signal(range(pages)), Signal(range(sides))  # its page, and its half of the nodes
        msk, idx = memories["msk"].read_port(), memories["idx"].read_port()
        m.d.comb += [
            msk.addr.eq(building * self.outputs + builder.msk_addr),
            idx.addr.eq(building * self.pairs + builder.idx_addr),
            builder.msk_data.eq(msk.data),
            builder.idx_data.eq(idx.data),
            node_port.en.eq(builder.node_en),
            node_port.addr.eq(other * self.pairs + builder.node_addr),
            node_port.data.eq(builder.node),
        ]

        # starts, and the way from the builder to the engine
        taken, ran, ends = Signal(), Signal(), self._after(m, engine.closing, engine.drain)
        m.d.comb += [taken.eq(self.start & self.ready & (self.n_out != 0)), self.done.eq(ran & ~self.busy)]
        with m.If(taken):
            m.d.sync += ran.eq(1)
        with m.If(taken & ~self.busy):
            m.d.sync += self.cycles.eq(0)
        with m.Elif(self.busy):
            m.d.sync += self.cycles.eq(self.cycles + 1)
        if pages == 1:
            n_out, walking = Signal.like(self.n_out), Signal()
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
        started, begun, finished = Signal(count), Signal(count), Signal(count)
        n_outs = Array(Signal.like(self.n_out, name=f"n_out{q}") for q in range(pages))
        full, take, waiting, place = Signal(), Signal(), Signal(), Signal(range(pages))
        lists, some = Signal.like(builder.heads), Signal.like(builder.nonempty)
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

    # ---- the law ----

    def law(self, masks: Sequence) -> int:
        """Cycles for tiles, given by their masks: one array of masks (N,), or with pages a list of them.

        The tiles are started one after the other, without a gap, into a core that is idle; with pages at most ``pages`` of them.
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
            walk.append(int(slots.sum()) * self.channels + np.count_nonzero(slots) + 1)
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
        raise ValueError("the number of outputs is 0; a tile has at least 1: an empty scene needs no start, its output is (0, L)")
    if not masks.all():
        raise ValueError(f"the mask of output {int(np.argmin(masks))} is 0; every line has at least one plane: leave it out")
    if lacking := [o for o, mask in enumerate(masks.tolist()) if not mask >> CENTRE & 1]:
        raise ValueError(f"the mask of output {lacking[0]} lacks plane {CENTRE}, where its sums start; use a submanifold rulebook")
    _check.same("the number of indices", len(indices), "the number of bits of the masks", int(np.bitwise_count(masks).sum()))
    return Tile(features, masks.astype(np.int64), indices.astype(np.int64))


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
        todo.wait("done")
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
