"""Two cores for 3x3 convolutions with kernels of signs: one that shares the results of a small codebook, and a plain one.

Wang, Yang, Sun, Yao, "Sub-bit Neural Networks: Learning to Compress and Accelerate Binary Neural Networks", ICCV 2021. From
the paper's figure of its hardware: one unit computes the dot product of a 3x3 window with the kernels of the subset, a
double-buffered table holds the results, and a stack of adders (four are drawn) picks one for each output channel by its
kernel's id and accumulates it in a line buffer. Ours, and not the paper's: widths, pipeline and cycles, and the whole core to
compare with, which the paper does not show.

A work item is one window: an output position and an input channel. For each item

    fill:   Dot9 with every kernel of the codebook, into one half of the table    2^tau cycles
    drain:  A outputs a cycle look up their id in that half, and add it           G = ceil(Co / A)

and the fill of an item overlaps the drain of the item before. Fill i + 2 begins right after the last lookup of drain i, which
read the same half; its first result arrives two cycles later. With n = positions times Ci items

    SubBit:       cycles = 2^tau + (n - 1) max(2^tau, G) + G + 2
    PlainBinary:  cycles = n Co + 2

The plain core has one Dot9 and adds its result to one output a cycle. Sums start from 0 at the first input channel of a
position and leave the core with the last one, so nothing is cleared and nothing read back.
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

ENTRY = signed(12)  # nine numbers of int8 with signs: at most 9 * 128 = 1152


def _dot9(m, window, kernel):
    """The nine numbers of ``window`` with the signs of ``kernel``: bit j is 1 for + at position j, row by row."""
    terms = []
    for j in range(9):
        term = Signal(signed(9), name=f"term{j}")
        m.d.comb += term.eq(Mux(kernel[j], window[j], -window[j]))
        terms.append(term)
    return _parts.tree(m, "dot", terms)


class _Core(wiring.Component):
    """What the two cores share. ``adders`` outputs leave together; ``kernel_bits`` is the width of an id.

    | port | width | direction | meaning, and when it is valid |
    |---|---|---|---|
    | start, ready, busy, done, cycles | 1, 1, 1, 1, 32 | | a run; busy is 1 from the cycle after start to the last sum |
    | n_positions, n_channels, n_groups | | in | with start: output positions, Ci, and G; with a 0 nothing happens |
    | win_en, win_addr, win_data | 1, , 9 times 8 signed | in | window of position p, channel c at p Ci + c |
    | ids_en, ids_addr, ids_data | 1, , A times the bits of an id | in | ids of outputs g A ... at c G + g, lowest first |
    | y_valid | 1 | out | y holds A sums: position after position, g ascending |
    | y | A times 24 signed | out | with y_valid; sums wrap |
    | multiplying, adding | 1 | out | to look at: Dot9 has a window and a kernel; the adders add |

    Memories are written at the clock edge, before start. Reset stops everything; the memories keep their contents.
    """

    _MustUse__silence = True  # a core may be asked for its law alone, and never be simulated

    def __init__(self, adders, kernel_bits, windows, kernels, outputs, accumulator, more):
        for name, value, least in (
            ("adders", adders, 1), ("windows", windows, 2), ("kernels", kernels, 1), ("outputs", outputs, 1),
            ("accumulator", accumulator, 12),
        ):  # fmt: skip
            _check.whole(name, value, least)
        self.adders, self.kernel_bits, self.windows, self.kernels = adders, kernel_bits, windows, kernels
        self.outputs, self.groups, self.accumulator = outputs, -(-outputs // adders), accumulator
        self.words = max(2, -(-kernels // adders))
        self.sums, self.ids = data.ArrayLayout(signed(accumulator), adders), data.ArrayLayout(kernel_bits, adders)
        self.window = data.ArrayLayout(signed(8), 9)
        super().__init__({
            **_parts.RUN,
            "n_positions": In(range(windows + 1)), "n_channels": In(range(windows + 1)), "n_groups": In(range(self.groups + 1)),
            "win_en": In(1), "win_addr": In(_parts.bits(windows)), "win_data": In(self.window),
            "ids_en": In(1), "ids_addr": In(_parts.bits(self.words)), "ids_data": In(self.ids),
            "y_valid": Out(1), "y": Out(self.sums), "multiplying": Out(1), "adding": Out(1), **more,
        })  # fmt: skip

    @staticmethod
    def units(trace: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Of a trace: in which cycles Dot9 and the adders work."""
        return {"Dot9": trace["multiplying"] == 1, "adders": trace["adding"] == 1}

    def _memory(self, m, name, shape, depth):
        """A memory that the host writes; gives its read port."""
        m.submodules[name] = found = Memory(shape=shape, depth=depth, init=[])
        port = found.write_port()
        m.d.comb += [getattr(port, part).eq(getattr(self, f"{name}_{part}")) for part in ("en", "addr", "data")]
        read = found.read_port()
        return read

    def _start(self, m, last):
        """Takes a start, and holds its three numbers."""
        held = [Signal.like(port, name=port.name[2:]) for port in (self.n_positions, self.n_channels, self.n_groups)]
        some = (self.n_positions != 0) & (self.n_channels != 0) & (self.n_groups != 0)
        taken = _parts.run(m, self, some, last)
        with m.If(taken):
            m.d.sync += [now.eq(port) for now, port in zip(held, (self.n_positions, self.n_channels, self.n_groups))]
        return taken, *held

    def _line_buffer(self, m, groups):
        m.submodules.line = line = Memory(shape=self.sums, depth=max(2, groups), init=[])
        write = line.write_port()
        read = line.read_port(transparent_for=[write])
        return read, write


class SubBit(_Core):
    __doc__ = f"""The core with a table of 2^tau results, and ``adders`` = A lookups a cycle.

    windows, kernels, outputs: what the memories hold: items, ids (Ci times Co, Co rounded up to a multiple of A), and Co.
    cbk_en, cbk_addr, cbk_data (1, tau, 9; in): kernel number cbk_addr; bit j is 1 for +1 at position j, row by row.

    {_Core.__doc__}"""

    def __init__(self, tau=5, adders=4, windows=1024, kernels=4096, outputs=512, *, accumulator=24):
        if _check.whole("tau", tau, 1) > 9:
            raise ValueError(f"tau is {tau}; a 3x3 kernel of signs has 9 bits, so 1 to 9 are possible")
        self.tau = tau
        more = {"cbk_en": In(1), "cbk_addr": In(tau), "cbk_data": In(9)}
        super().__init__(adders, tau, windows, kernels, outputs, accumulator, more)

    def elaborate(self, platform):
        m = Module()
        window, ids = self._memory(m, "win", self.window, self.windows), self._memory(m, "ids", self.ids, self.words)
        codebook = self._memory(m, "cbk", 9, 2**self.tau)
        m.submodules.table = table = Memory(shape=ENTRY, depth=2 * 2**self.tau, init=[])
        fill = table.write_port()
        lookups = []
        for _ in range(self.adders):
            lookup = table.read_port(domain="comb")
            lookups.append(lookup)
        read, write = self._line_buffer(m, self.groups)
        final = Signal()
        taken, positions, channels, groups = self._start(m, final)

        # fill: stage 0 addresses, stage 1 Dot9, stage 2 into the table
        filling, fill_last, room, drain_last = _parts.signals(filling=1, fill_last=1, room=1, drain_last=1)
        j, item, half = _parts.signals(j=self.tau, item=range(self.windows + 1), half=1)
        held, whole = _parts.signals(held=range(3), whole=range(3))
        position, channel = Signal.like(positions, name="position"), Signal.like(channels, name="channel")
        starts = (j, held, whole, position, channel)
        m.d.comb += [
            room.eq((j != 0) | (held != 2) | drain_last),
            filling.eq(self.busy & (position != positions) & room),
            fill_last.eq(filling & (j == 2**self.tau - 1)),
            window.addr.eq(item),
            codebook.addr.eq(j),
        ]
        with m.If(filling):
            m.d.sync += j.eq(j + 1)
        with m.If(fill_last):
            m.d.sync += [item.eq(item + 1), half.eq(~half), channel.eq(channel + 1)]
            with m.If(channel == channels - 1):
                m.d.sync += [channel.eq(0), position.eq(position + 1)]
        entry = Signal(ENTRY)
        dot = _dot9(m, window.data, codebook.data)
        storing, at, place, filled = _parts.signals(storing=1, at=self.tau + 1, place=self.tau + 1, filled=1)
        m.d.sync += [self.multiplying.eq(filling), storing.eq(self.multiplying), entry.eq(dot), filled.eq(fill_last)]
        m.d.sync += [at.eq(Cat(j, half)), place.eq(at)]
        m.d.comb += [fill.en.eq(storing), fill.addr.eq(place), fill.data.eq(entry)]

        # drain: stage 0 addresses of ids and sums, stage 1 lookups, additions and the way out
        draining, group, word, other = _parts.signals(draining=1, group=groups.shape(), word=ids.addr.shape(), other=1)
        position, channel = Signal.like(positions, name="drained"), Signal.like(channels, name="drained_channel")
        m.d.comb += [
            draining.eq(whole != 0),
            drain_last.eq(draining & (group == groups - 1)),
            ids.addr.eq(word),
            read.addr.eq(group),
        ]
        with m.If(draining):
            m.d.sync += [group.eq(group + 1), word.eq(word + 1)]
        with m.If(drain_last):
            m.d.sync += [group.eq(0), other.eq(~other), channel.eq(channel + 1)]
            with m.If(channel == channels - 1):
                m.d.sync += [channel.eq(0), word.eq(0), position.eq(position + 1)]
        m.d.sync += [
            held.eq(held + (filling & (j == 0)) - drain_last),  # halves that are being filled, full, or being drained
            whole.eq(whole + filled - drain_last),  # those that are full in the cycle after the next, when they are read
        ]
        fresh, leaving, side, ends = _parts.signals(fresh=1, leaving=1, side=1, ends=1)
        m.d.sync += [self.adding.eq(draining), fresh.eq(channel == 0), leaving.eq(channel == channels - 1), side.eq(other)]
        m.d.sync += [write.addr.eq(group), ends.eq(drain_last & (position == positions - 1))]
        m.d.comb += [write.en.eq(self.adding), self.y_valid.eq(self.adding & leaving), final.eq(ends & leaving)]
        for a, lookup in enumerate(lookups):
            base, total = Signal.like(self.y[a], name=f"from{a}"), Signal.like(self.y[a], name=f"sum{a}")
            m.d.comb += [
                lookup.addr.eq(Cat(ids.data[a], side)),
                base.eq(Mux(fresh, 0, read.data[a])),
                total.eq(base + lookup.data),
                write.data[a].eq(total),
                self.y[a].eq(total),
            ]
        with m.If(taken):
            m.d.sync += [x.eq(0) for x in (item, half, group, word, other, channel, position)]
            m.d.sync += [x.eq(0) for x in starts]
        return m

    def law(self, positions: int, channels: int, outputs: int) -> int:
        """Cycles of a run over ``positions`` times ``channels`` items."""
        groups, fill = -(-outputs // self.adders), 2**self.tau
        return fill + (positions * channels - 1) * max(fill, groups) + groups + 2


class PlainBinary(_Core):
    __doc__ = f"""The core to compare with: one Dot9 and one adder; an id is a kernel itself, bit j is 1 for +1 at position j.

    {_Core.__doc__}"""

    def __init__(self, windows=1024, kernels=4096, outputs=512, *, accumulator=24):
        super().__init__(1, 9, windows, kernels, outputs, accumulator, {})

    def elaborate(self, platform):
        m = Module()
        window, ids = self._memory(m, "win", self.window, self.windows), self._memory(m, "ids", self.ids, self.words)
        read, write = self._line_buffer(m, self.groups)
        final = Signal()
        taken, positions, channels, groups = self._start(m, final)

        # stage 0 addresses, stage 1 Dot9 and the address of the sum, stage 2 the addition and the way out
        issue, item, word, group = _parts.signals(
            issue=1, item=range(self.windows + 1), word=ids.addr.shape(), group=groups.shape()
        )
        position, channel, item_last = _parts.signals(position=positions.shape(), channel=channels.shape(), item_last=1)
        m.d.comb += [
            issue.eq(self.busy & (position != positions)),
            item_last.eq(issue & (group == groups - 1)),
            window.addr.eq(item),
            ids.addr.eq(word),
        ]
        with m.If(issue):
            m.d.sync += [group.eq(group + 1), word.eq(word + 1)]
        with m.If(item_last):
            m.d.sync += [group.eq(0), item.eq(item + 1), channel.eq(channel + 1)]
            with m.If(channel == channels - 1):
                m.d.sync += [channel.eq(0), word.eq(0), position.eq(position + 1)]
        with m.If(taken):
            m.d.sync += [x.eq(0) for x in (item, word, group, position, channel)]
        flags = Cat(issue, channel == 0, channel == channels - 1, item_last & (position == positions - 1))
        stage1, stage2, entry = _parts.signals(stage1=4, stage2=4, entry=ENTRY)
        total = Signal.like(self.y[0], name="sum")
        dot = _dot9(m, window.data, ids.data[0])
        m.d.sync += [stage1.eq(flags), stage2.eq(stage1), entry.eq(dot), write.addr.eq(read.addr)]
        later = Signal.like(group)
        m.d.sync += later.eq(group)
        m.d.comb += [
            read.addr.eq(later),
            total.eq(Mux(stage2[1], 0, read.data[0]) + entry),
            write.en.eq(stage2[0]),
            write.data[0].eq(total),
            self.y[0].eq(total),
            self.y_valid.eq(stage2[0] & stage2[2]),
            final.eq(stage2[2] & stage2[3]),
            self.multiplying.eq(stage1[0]),
            self.adding.eq(stage2[0]),
        ]
        return m

    def law(self, positions: int, channels: int, outputs: int) -> int:
        """Cycles of a run over ``positions`` times ``channels`` items."""
        return positions * channels * outputs + 2


# ---- the driver --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Layer:
    """One image and its layer: ``x`` (Ci, H, W) int8, ``ids`` (Co, Ci) into ``codebook`` (n, 3, 3) of +1 and -1."""

    x: np.ndarray
    ids: np.ndarray
    codebook: np.ndarray
    stride: int | tuple = 1
    padding: int | tuple = 0


def windows(x: np.ndarray, stride=1, padding=0) -> np.ndarray:
    """The 3x3 windows of ``x`` (Ci, H, W): (Ho Wo, Ci, 9), row by row, 0 outside the image."""
    stride, padding = _check.each("stride", stride, 2, 1), _check.each("padding", padding, 2, 0)
    _check.output_size(x.shape[1:], (3, 3), stride, padding)
    x = np.pad(x, [(0, 0), *((p, p) for p in padding)])
    found = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, :: stride[0], :: stride[1]]
    return found.transpose(1, 2, 0, 3, 4).reshape(-1, len(x), 9)


def prepare(core: _Core, layer: Layer) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the memories of ``core`` take for a layer: windows (positions, Ci, 9), ids (Co, Ci), and the codebook's codes."""
    x = _check.array("x", layer.x, np.int8, "Ci H W")
    codebook = _check.signs("codebook", layer.codebook, "kernels 3 3")
    if codebook.shape[1:] != (3, 3):
        raise ValueError(f"codebook has shape {codebook.shape}; it is (n, 3, 3)")
    ids = _check.integers("ids", layer.ids, "Co Ci", 0, len(codebook))
    _check.same("the number of input channels of ids", ids.shape[1], "the number of channels of x", len(x))
    codes = (codebook.reshape(-1, 9) > 0) @ (1 << np.arange(9))
    if not 1 <= len(codes) <= 2**core.kernel_bits:
        raise ValueError(f"the number of kernels in the codebook is {len(codes)}; this core holds 1 to {2**core.kernel_bits}")
    return windows(x, layer.stride, layer.padding), ids if isinstance(core, SubBit) else codes[ids], codes


def words(core: _Core, ids: np.ndarray) -> np.ndarray:
    """``ids`` (Co, Ci) as the core reads them: for each channel its groups of A outputs, (Ci G, A); 0 behind the last."""
    outputs, channels = ids.shape
    found = np.zeros((channels, -(-outputs // core.adders) * core.adders), np.int64)
    found[:, :outputs] = ids.T
    return found.reshape(-1, core.adders)


def stimulus(core: _Core, layers: list[Layer]) -> Stimulus:
    """For each layer writes its memories, starts, and waits. Samples: for each layer y_valid and y, and then cycles."""
    todo = Stimulus(core)
    for layer in layers:
        items, ids, codes = prepare(core, layer)
        positions, channels, outputs = len(items), len(layer.x), len(ids)
        groups = -(-outputs // core.adders)
        for name, found, most in (
            ("the number of items, positions times channels,", positions * channels, core.windows),
            ("the number of outputs", outputs, core.outputs),
            ("the number of ids, in whole words of the adders,", groups * channels * core.adders, core.words * core.adders),
        ):
            if not 1 <= found <= most:
                raise ValueError(f"{name} is {found}; this core holds 1 to {most}")
        todo.drive(win_en=1, win_addr=np.arange(positions * channels), win_data=items.reshape(-1, 9))
        todo.drive(ids_en=1, ids_addr=np.arange(channels * groups), ids_data=words(core, ids))
        if isinstance(core, SubBit):
            todo.drive(cbk_en=1, cbk_addr=np.arange(len(codes)), cbk_data=codes)
        todo.drive(start=1, n_positions=positions, n_channels=channels, n_groups=groups)
        limit = 2 * core.law(positions, channels, outputs)
        todo.wait("done", limit=limit, sample=("y_valid", "y")).drive(sample=("cycles",))
    return todo


def run(core: _Core, layers: list[Layer], engine: str = "amaranth", **options) -> tuple[list[np.ndarray], list[int]]:
    """The outputs (Co, positions) and the cycles of each layer. ``options`` go to ``simulate``."""
    samples = iter(simulate(core, stimulus(core, layers), engine, **options).samples)
    outputs, cycles = [], []
    for layer in layers:
        seen = next(samples)
        y = seen["y"][seen["y_valid"] == 1]  # (positions G, A)
        positions = len(windows(layer.x, layer.stride, layer.padding))
        outputs.append(y.reshape(positions, -1)[:, : len(layer.ids)].T)
        cycles.append(int(next(samples)["cycles"][0]))
    return outputs, cycles
