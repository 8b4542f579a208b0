"""What the cores share: the start of a run and its count of cycles, and sums of many terms."""

from amaranth.hdl import Signal
from amaranth.lib.wiring import In, Out
from amaranth.utils import ceil_log2

# start (In): taken when ready is 1. ready (Out): no run is on. busy (Out): from the cycle after start to the last of the run.
# done (Out): there was a run since reset, and none is on. cycles (Out): those of the last run, or of this one so far.
RUN = {"start": In(1), "ready": Out(1), "busy": Out(1), "done": Out(1), "cycles": Out(32)}


def run(m, core, allowed, last):
    """Drives the ports of ``RUN`` for a core whose run ends with the cycle in which ``last`` is 1; gives the taken start."""
    busy, ran, taken = Signal(name="running"), Signal(name="ran"), Signal(name="taken")
    m.d.comb += [
        core.busy.eq(busy),
        core.ready.eq(~busy),
        core.done.eq(ran & ~busy),
        taken.eq(core.start & core.ready & allowed),
    ]
    with m.If(taken):
        m.d.sync += [busy.eq(1), ran.eq(1), core.cycles.eq(0)]
    with m.If(busy):
        m.d.sync += core.cycles.eq(core.cycles + 1)
    with m.If(last):
        m.d.sync += busy.eq(0)
    return taken


def bits(count: int) -> int:
    """Bits of an address below ``count``, at least one."""
    return max(1, ceil_log2(count))


def tree(m, name: str, terms: list):
    """The sum of the terms; each sum of two is a signal with a name, for small expressions compile fast."""
    level = 0
    while len(terms) > 1:
        sums = []
        for i in range(0, len(terms) - 1, 2):
            total = Signal((terms[i] + terms[i + 1]).shape(), name=f"{name}_{level}_{i // 2}")
            m.d.comb += total.eq(terms[i] + terms[i + 1])
            sums.append(total)
        terms, level = sums + terms[len(terms) & ~1 :], level + 1
    return terms[0]


def signals(**shapes) -> list[Signal]:
    """Several signals at once, ``a, b = signals(a=1, b=8)``. Amaranth takes a name from an assignment to one signal only."""
    return [Signal(shape, name=name) for name, shape in shapes.items()]
