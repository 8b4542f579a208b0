"""A core for products of +1 and -1: it counts the bits in which two words differ.

Rastegari, Ordonez, Redmon, Farhadi, "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural Networks", ECCV 2016,
gives the counting form; the core, its pipeline and its cycles are ours.

A vector of K signs is W = ceil(K / 64) words, bit 1 for +1, as ``papernets_kernels.binary.pack`` makes them; bits behind K are
0 in both factors and never differ. The dot product is ``K - 2 popcount(a xor b)``. One word of a row is multicast to L lanes,
each with a word of its own column:

    for each of M rows, for each group of L columns: W cycles         cycles = M ceil(N / L) W + 3

Stage 0 issues addresses, stage 1 counts, stage 2 adds, and in stage 3 L products leave. A cycle is 64 L multiply-adds.
"""

from dataclasses import dataclass

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, signed
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from papernets_kernels import _check
from papernets_kernels.hdl import _parts
from papernets_kernels.hdl.simulate import Stimulus, simulate

WORD = 64


class Xnor(wiring.Component):
    """``lanes`` = L. The memories hold ``rows`` words of the first factor, and ``columns`` words for each lane of the second.

    | port | width | direction | meaning, and when it is valid |
    |---|---|---|---|
    | start, ready, busy, done, cycles | 1, 1, 1, 1, 32 | | a run; busy is 1 from the cycle after start to the last product |
    | n_rows, n_groups, n_words, k | , , , 16 | in | with start: M, ceil(N / L), W and K; with M, N or W = 0 nothing happens |
    | row_en, row_addr, row_data | 1, , 64 | in | word w of row r at r W + w |
    | col_en, col_addr, col_data | 1, , L times 64 | in | word w of columns n L ... n L + L - 1 at n W + w |
    | y_valid | 1 | out | y holds the products of a row and L columns: row after row, columns ascending |
    | y | L times 18 signed | out | with y_valid |
    | counting, adding | 1 | out | to look at: the lanes count a word; they add a count |

    Memories are written at the clock edge, before start. Reset stops everything; the memories keep their contents.
    """

    _MustUse__silence = True  # a core may be asked for its law alone, and never be simulated

    def __init__(self, lanes=8, rows=1024, columns=1024):
        for name, value, least in (("lanes", lanes, 1), ("rows", rows, 2), ("columns", columns, 2)):
            _check.whole(name, value, least)
        self.lanes, self.rows, self.columns = lanes, rows, columns
        words = range(max(rows, columns) + 1)
        super().__init__({
            **_parts.RUN,
            "n_rows": In(range(rows + 1)), "n_groups": In(range(columns + 1)), "n_words": In(words), "k": In(16),
            "row_en": In(1), "row_addr": In(_parts.bits(rows)), "row_data": In(WORD),
            "col_en": In(1), "col_addr": In(_parts.bits(columns)), "col_data": In(data.ArrayLayout(WORD, lanes)),
            "y_valid": Out(1), "y": Out(data.ArrayLayout(signed(18), lanes)),
            "counting": Out(1), "adding": Out(1),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        ports = []
        for name, shape, depth in (("row", WORD, self.rows), ("col", data.ArrayLayout(WORD, self.lanes), self.columns)):
            m.submodules[name] = memory = Memory(shape=shape, depth=depth, init=[])
            write = memory.write_port()
            m.d.comb += [getattr(write, part).eq(getattr(self, f"{name}_{part}")) for part in ("en", "addr", "data")]
            read = memory.read_port()
            ports.append(read)
        row, col = ports
        final = Signal()
        some = (self.n_rows != 0) & (self.n_groups != 0) & (self.n_words != 0)
        taken = _parts.run(m, self, some, final)
        given = self.n_rows, self.n_groups, self.n_words, self.k
        n_rows, n_groups, n_words, k = held = [Signal.like(port, name=f"its_{port.name}") for port in given]
        with m.If(taken):
            m.d.sync += [mine.eq(port) for mine, port in zip(held, given)]

        # stage 0: word w of the row that begins at `base`, and of the column group that `col.addr` has come to
        issue, w, group, r = _parts.signals(issue=1, w=n_words.shape(), group=n_groups.shape(), r=n_rows.shape())
        base, place, last, last_group = _parts.signals(base=row.addr.shape(), place=col.addr.shape(), last=1, last_group=1)
        m.d.comb += [
            issue.eq(self.busy & (r != n_rows)),
            last.eq(w == n_words - 1),
            last_group.eq(group == n_groups - 1),
            row.addr.eq(base + w),
            col.addr.eq(place),
        ]
        with m.If(issue):
            m.d.sync += [w.eq(w + 1), place.eq(place + 1)]
            with m.If(last):
                m.d.sync += [w.eq(0), group.eq(group + 1)]
                with m.If(last_group):
                    m.d.sync += [group.eq(0), place.eq(0), r.eq(r + 1), base.eq(base + n_words)]
        with m.If(taken):
            m.d.sync += [x.eq(0) for x in (w, group, r, base, place)]

        # stages 1 to 3; of a word the flags are: it is there, it is the first, the last, and the last of all
        flags = Cat(issue, w == 0, issue & last, issue & last & last_group & (r == n_rows - 1))
        stage1, stage2, stage3 = _parts.signals(stage1=4, stage2=4, stage3=4)
        m.d.sync += [stage1.eq(flags), stage2.eq(stage1), stage3.eq(stage2)]
        m.d.comb += [self.y_valid.eq(stage3[2]), final.eq(stage3[3])]
        m.d.comb += [self.counting.eq(stage1[0]), self.adding.eq(stage2[0])]
        for lane in range(self.lanes):
            differ = Signal(WORD, name=f"differ{lane}")
            count, total = Signal(7, name=f"count{lane}"), Signal(16, name=f"total{lane}")
            m.d.comb += differ.eq(row.data ^ col.data[lane])
            m.d.sync += count.eq(_parts.tree(m, f"ones{lane}", list(differ)))
            with m.If(stage2[0]):
                m.d.sync += total.eq(Mux(stage2[1], 0, total) + count)
            m.d.comb += self.y[lane].eq(k - (total << 1))
        return m

    @staticmethod
    def units(trace: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of a trace: in which cycles the lanes count a word, and add a count."""
        return {"count": trace["counting"] == 1, "add": trace["adding"] == 1}

    def law(self, rows: int, columns: int, k: int) -> int:
        """Cycles of a product (rows, k) by (columns, k)."""
        return rows * -(-columns // self.lanes) * -(-k // WORD) + 3


# ---- the driver --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Product:
    """``a`` (M, W) and ``b`` (N, W) uint64: the signs of vectors of length ``k``, packed."""

    a: np.ndarray
    b: np.ndarray
    k: int


def stimulus(core: Xnor, products: list[Product]) -> Stimulus:
    """For each product writes its memories, starts, and waits. Samples: for each y_valid and y, and then cycles."""
    todo = Stimulus(core)
    for product in products:
        k = _check.whole("k", product.k, 1)
        a, b = (_check.array(name, x, np.uint64, "rows words") for name, x in (("a", product.a), ("b", product.b)))
        words, groups = -(-k // WORD), -(-len(b) // core.lanes)
        for name, x in (("a", a), ("b", b)):
            _check.same(f"the number of words of {name}", x.shape[1], f"ceil(k / 64) of k = {k}", words)
            if k % WORD and x.size and (x[:, -1] >> np.uint64(k % WORD)).any():
                raise ValueError(f"{name} has a bit set behind k = {k}; the unused high bits are 0")
        for name, found, most in (
            ("k", k, 2**16 - 1),
            ("the number of words of a", a.size, core.rows),
            ("the number of words of b, in whole groups of the lanes,", groups * words * core.lanes, core.columns * core.lanes),
        ):
            if not 1 <= found <= most:
                raise ValueError(f"{name} is {found}; this core holds 1 to {most}")
        columns = np.zeros((groups * core.lanes, words), np.uint64)
        columns[: len(b)] = b
        columns = columns.reshape(groups, core.lanes, words).transpose(0, 2, 1).reshape(-1, core.lanes)
        todo.drive(row_en=1, row_addr=np.arange(a.size), row_data=a.reshape(-1))
        todo.drive(col_en=1, col_addr=np.arange(len(columns)), col_data=columns)
        todo.drive(start=1, n_rows=len(a), n_groups=groups, n_words=words, k=k)
        limit = 2 * core.law(len(a), len(b), k)
        todo.wait("done", limit=limit, sample=("y_valid", "y")).drive(sample=("cycles",))
    return todo


def run(core: Xnor, products: list[Product], engine: str = "amaranth", **options) -> tuple[list[np.ndarray], list[int]]:
    """The products (M, N) and the cycles of each. ``options`` go to ``simulate``."""
    samples = iter(simulate(core, stimulus(core, products), engine, **options).samples)
    found, cycles = [], []
    for product in products:
        seen = next(samples)
        y = seen["y"][seen["y_valid"] == 1]  # (M groups, L)
        found.append(y.reshape(len(product.a), -1)[:, : len(product.b)])
        cycles.append(int(next(samples)["cycles"][0]))
    return found, cycles
