"""The parts of the sparse core ``sspnna``: the front end that builds lists, and the three engines that walk them.

A part is made for a core, and reads its sizes (``lanes``, ``channels``, ``inputs``, ``outputs``, ``pairs``, ``pages``) and its
layouts (``node``, ``sums``) from it. How the lists are laid out and walked is ours; ``sspnna`` says what is the paper's.
"""

from amaranth.hdl import Cat, Const, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from papernets_kernels.hdl import _parts

PLANES, CENTRE = 27, 13
BUILDER, ENGINE = ("IDLE", "LOAD", "PUSH"), ("IDLE", "PLANE", "MAC", "DRAIN")  # their states, by number


# ---- pieces of circuits ------------------------------------------------------------------------------------------------
# Intermediate results are signals with names: small expressions compile fast.


def _index(m, name: str, bits):
    """The place of the only 1 among ``bits``; 0 if there is none."""
    k = Signal(_parts.bits(len(bits)), name=name)
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


class Builder(wiring.Component):
    """Turns the lines of a tile into one linked list for each plane.

    go (In): the next cycle is the LOAD of output 0, and the lists before are lost.
    last (Out): this is the last PUSH; from the next cycle on ``heads`` and ``nonempty`` are those of the tile.
    msk_addr, idx_addr (Out) lead their data by one cycle. node_en, node_addr, node (Out): the write port of the nodes.
    state (Out): one of ``BUILDER``.
    """

    def __init__(self, core):
        address = _parts.bits(core.pairs)
        super().__init__({
            "go": In(1), "n_out": In(range(core.outputs + 1)), "busy": Out(1), "last": Out(1), "state": Out(2),
            "msk_addr": Out(_parts.bits(core.outputs)), "msk_data": In(PLANES),
            "idx_addr": Out(address), "idx_data": In(_parts.bits(core.inputs)),
            "node_en": Out(1), "node_addr": Out(address), "node": Out(core.node),
            "heads": Out(data.ArrayLayout(address, PLANES)), "nonempty": Out(PLANES),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        o, mask, rest = _parts.signals(o=self.n_out.shape(), mask=PLANES, rest=PLANES)
        p, pushing = _parts.signals(p=self.node_addr.shape(), pushing=1)
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
                m.d.comb += [self.state.eq(BUILDER.index("LOAD")), self.msk_addr.eq(o + 1)]
                m.d.sync += mask.eq(self.msk_data)
                m.next = "PUSH"
            with m.State("PUSH"):
                m.d.comb += self.state.eq(BUILDER.index("PUSH"))
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
    state (Out): one of ``ENGINE``. working (Out): row g multiplies.
    """

    nodes, weights = 1, 1

    def __init__(self, core, rows: int):
        self.core, self.rows, self.drain = core, rows, 2
        acc = _parts.bits(core.outputs * core.pages)
        super().__init__({
            "go": In(1), "page": In(range(core.pages)), "free": Out(1), "closing": Out(1),
            "state": Out(2), "working": Out(rows),
            "heads": In(data.ArrayLayout(_parts.bits(core.pairs), PLANES)), "nonempty": In(PLANES),
            "node_addr": Out(_parts.bits(core.pairs)).array(self.nodes), "node": In(core.node).array(self.nodes),
            "ifm_addr": Out(_parts.bits(core.inputs * core.channels * core.pages)).array(rows),
            "ifm": In(signed(8)).array(rows),
            "wgt_addr": Out(_parts.bits(PLANES * core.channels)).array(self.weights),
            "wgt": In(data.ArrayLayout(signed(8), core.lanes)).array(self.weights),
            "read_addr": Out(acc), "read": In(core.sums),
            "write_en": Out(1), "write_addr": Out(acc), "write": Out(core.sums),
        })  # fmt: skip

    def walk(self, m, pick, mac) -> None:
        """IDLE, PLANE, MAC, DRAIN. ``pick(todo)`` chooses planes in PLANE, ``mac(c)`` says in MAC when the list ends."""
        core = self.core
        names = {"c": range(core.channels), "issue": 1, "first": 1, "final": 1}
        self.c, self.issue, self.first, self.final = c, issue, *_ = _parts.signals(**names)
        m.d.comb += [self.first.eq(issue & (c == 0)), self.final.eq(issue & (c == core.channels - 1))]
        visited, todo, left = _parts.signals(visited=PLANES, todo=PLANES, left=range(self.drain + 1))
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
                m.d.comb += self.state.eq(ENGINE.index("PLANE"))
                m.d.sync += visited.eq(visited | choice)
                m.next = "MAC"
                with m.If(todo == 0):
                    m.d.comb += self.closing.eq(1)
                    m.d.sync += left.eq(self.drain - 1)
                    m.next = "DRAIN"
            with m.State("MAC"):
                m.d.comb += [self.state.eq(ENGINE.index("MAC")), issue.eq(1)]
                m.d.sync += c.eq(Mux(self.final, 0, c + 1))
                with m.If(self.final & mac()):
                    m.next = "PLANE"
            with m.State("DRAIN"):
                m.d.comb += self.state.eq(ENGINE.index("DRAIN"))
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
        before = {"valid": valid, "first": first, "final": final, "address": out}
        later = [Signal.like(x, name=f"{name}{g}") for name, x in before.items()]
        m.d.sync += [now.eq(x) for now, x in zip(later, before.values())]
        valid, first, final, out = later
        fresh, ends, sums = Signal(name=f"fresh{g}"), Signal(name=f"ends{g}"), Signal(self.core.sums, name=f"sums{g}")
        m.d.sync += fresh.eq(centre)
        m.d.comb += [ends.eq(valid & final), self.working[g].eq(valid)]
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
        chosen, fresh = _parts.signals(chosen=len(events), fresh=1)
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
        choice = Signal(PLANES)
        lowest = _lowest(m, "lowest", todo)
        m.d.comb += choice.eq(Mux(todo[CENTRE], 1 << CENTRE, lowest))
        return choice


class OneNode(_Engine):
    """One node at a time. A sum starts from its accumulator, and is written back after the last channel.

    Stage 0 issues addresses, stage 1 multiplies and adds, stage 2 writes. A sum that begins reads its accumulator in stage 0
    of channel 0. The sum before may not be written by then if the two are only a PLANE cycle apart; if both are of the same
    output it is forwarded. Within a plane no output comes twice.
    """

    def __init__(self, core):
        super().__init__(core, rows=1)

    def elaborate(self, platform):
        m, core = Module(), self.core
        plane, centre = _parts.signals(plane=range(PLANES), centre=1)
        head = None
        held, node = _parts.signals(held=core.node, node=core.node)

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

        valid, first, final, fresh, address = _parts.signals(valid=1, first=1, final=1, fresh=1, address=out.shape())
        m.d.sync += [valid.eq(self.issue), first.eq(self.first), final.eq(self.final), fresh.eq(centre), address.eq(out)]
        sums, ends, forward = _parts.signals(sums=core.sums, ends=1, forward=1)
        before = Signal.like(out)  # the output of the last whole sum; of this tile, for the centre has no use for it
        m.d.comb += [ends.eq(valid & final), forward.eq(before == address), self.working.eq(valid)]
        with m.If(ends):
            m.d.sync += before.eq(address)
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


class TwoPlanes(_Engine):
    """Two nodes at once, of planes k and 26 - k; the centre plane alone. A row whose list has ended waits for the other."""

    nodes, weights = 2, 2

    def __init__(self, core):
        super().__init__(core, rows=2)

    def elaborate(self, platform):
        m, core = Module(), self.core
        both, todo_both = _parts.signals(both=CENTRE, todo_both=CENTRE)  # bit k: the planes k and 26 - k
        planes = [Signal(range(PLANES), name=f"plane{g}") for g in range(2)]
        alive, centre = _parts.signals(alive=2, centre=1)
        heads = []

        def pick(todo):
            m.d.comb += todo_both.eq(todo[:CENTRE] | todo[:CENTRE:-1])
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


class Systolic(_Engine):
    """``rows`` nodes of one plane, row g one cycle behind row g - 1; the weights pass from row to row."""

    def __init__(self, core, rows):
        super().__init__(core, rows)
        self.drain = rows + 1  # the last row writes rows - 1 cycles after the first

    def elaborate(self, platform):
        m, core = Module(), self.core
        plane, centre = _parts.signals(plane=range(PLANES), centre=1)
        head = None
        alive, going = _parts.signals(alive=1, going=1)  # the list goes on behind the nodes that rows have taken

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
        fetch, following = _parts.signals(fetch=1, following=self.node_addr[0].shape())
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
            valid, final = _parts.signals(valid=1, final=1)
            c = Signal.like(self.c, name=f"c{g}")
            now = Signal.like(self.c, name=f"now{g}")
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
