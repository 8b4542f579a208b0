"""Both engines on a toy core: ports of every kind, traces, waveforms, refusals, and the cache of compiled cores."""

import time

import numpy as np
import pytest
from amaranth.hdl import Module, Signal, signed, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out
from hdl_checks import COMPILED, ENGINES
from papernets_kernels.hdl import _tools, simulate, sspnna
from papernets_kernels.hdl.simulate import Stimulus
from vcd.reader import TokenKind, tokenize

pytestmark = pytest.mark.xdist_group("hdl-simulate")


class Toy(wiring.Component):
    """Sums of signed numbers, words of 64 bits turned around, and a memory of five rows."""

    _MustUse__silence = True

    def __init__(self, step=1):
        self.step = step
        super().__init__({
            "add_to": In(data.ArrayLayout(signed(5), 3)), "sums": Out(data.ArrayLayout(signed(7), 3)),
            "word": In(unsigned(64)), "inverse": Out(unsigned(64)), "number": In(signed(64)), "negative": Out(signed(64)),
            "count": Out(unsigned(40)), "write": In(1), "address": In(3), "data": In(33), "read": Out(33),
        })  # fmt: skip

    def elaborate(self, platform):
        m = Module()
        m.submodules.memory = memory = Memory(shape=unsigned(33), depth=5, init=[])
        write = memory.write_port()
        read = memory.read_port()
        m.d.comb += [write.en.eq(self.write), write.addr.eq(self.address), write.data.eq(self.data)]
        m.d.comb += [read.addr.eq(self.address), self.read.eq(read.data)]
        m.d.comb += [self.inverse.eq(~self.word), self.negative.eq(-self.number)]
        m.d.sync += self.count.eq(self.count + self.step)
        for one, total in zip(self.add_to, self.sums):
            m.d.sync += total.eq(total + one)
        return m


class Waits(wiring.Component):
    """A number of four bits that counts cycles, in two halves."""

    _MustUse__silence = True
    low: Out(2)
    high: Out(2)

    def elaborate(self, platform):
        m, number = Module(), Signal(4)
        m.d.sync += number.eq(number + 1)
        m.d.comb += [self.low.eq(number[:2]), self.high.eq(number[2:])]
        return m


class Wide(wiring.Component):
    _MustUse__silence = True
    wide: Out(65)


TOY, WAITS = Toy(), Waits()


def bench(core=TOY):
    rng = np.random.default_rng(0)
    words = rng.integers(0, 2**64, 4, np.uint64)
    numbers = np.array([-(2**63) + 1, -1, 0, 2**63 - 1])
    todo = Stimulus(core)
    todo.drive(write=1, address=np.arange(5), data=2**32 + np.arange(5))
    todo.drive(address=np.array([4, 0, 3, 1, 2, 0]), sample=("read",))
    todo.drive(word=words, number=numbers, sample=("inverse", "negative"))
    todo.drive(add_to=np.array([[-16, 15, 1], [-16, 15, 2], [-16, 15, 3], [-16, 15, 4]]))
    todo.drive(add_to=np.array([-16, 15, 5]), cycles=1)
    todo.drive(sample=("sums", "count"))
    return todo, words, numbers


@pytest.mark.parametrize("engine", ENGINES)
def test_ports_of_every_kind(engine):
    todo, words, numbers = bench()
    result = simulate.simulate(TOY, todo, engine)
    read, both, last = result.samples
    assert read["read"][1:].tolist() == [2**32 + i for i in (4, 0, 3, 1, 2)]  # a row behind its address
    assert both["inverse"].tolist() == [2**64 - 1 - int(word) for word in words]
    assert both["negative"].tolist() == [-int(number) for number in numbers]
    assert last["sums"].tolist() == [[48, -53, 15]]  # -80 and 75, in 7 bits
    assert last["count"].tolist() == [5 + 6 + 4 + 4 + 1]
    assert (result.cycles, result.engine, result.trace) == (21, engine, None)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wait_ends_before_the_edge(engine):
    todo = Stimulus(WAITS).drive(3).wait("high", 2, sample=("low",)).drive(sample=("low",)).wait("high", 3)
    result = simulate.simulate(WAITS, todo, engine)
    assert result.waits == [5, 3]  # 3 + 5 cycles to the number 8, 1 + 3 more to 12
    assert [sample["low"].tolist() for sample in result.samples] == [[3, 0, 1, 2, 3], [0]]
    assert result.cycles == 12


@pytest.mark.parametrize("engine", ENGINES)
def test_reset_brings_registers_back_and_leaves_memories(engine):
    todo = Stimulus(TOY).drive(7, write=1, address=3, data=9, add_to=np.ones(3, int)).drive(rst=1)
    todo.drive(address=3, sample=("sums", "count")).drive(sample=("read", "count"))
    first, second = simulate.simulate(TOY, todo, engine).samples
    assert (first["sums"].tolist(), first["count"].tolist()) == ([[0, 0, 0]], [0])
    assert (second["read"].tolist(), second["count"].tolist()) == ([9], [1])


@pytest.mark.parametrize("engine", ENGINES)
def test_every_run_starts_from_reset_and_empty_memories(engine):
    simulate.simulate(TOY, Stimulus(TOY).drive(5, write=1, data=3), engine)
    result = simulate.simulate(TOY, Stimulus(TOY).drive().drive(sample=("read", "count")), engine)
    assert (result.samples[0]["read"].tolist(), result.samples[0]["count"].tolist()) == ([0], [1])


@COMPILED
def test_both_engines_leave_the_same_trace():
    core = sspnna.SSpNNA(2, 3, inputs=5, outputs=4, pairs=9)
    rng = np.random.default_rng(0)
    tile = sspnna.Tile(rng.integers(-128, 128, (5, 3), np.int8), np.array([0x3000, 0x2001]), np.array([0, 4, 2, 3]))
    todo = sspnna.stimulus(core, rng.integers(-128, 128, (27, 3, 2), np.int8), [[tile], [tile]])
    traces = [simulate.simulate(core, todo, engine, trace=True).trace for engine in ("amaranth", "compiled")]
    assert list(traces[0]) == list(traces[1])
    for port in traces[0]:
        np.testing.assert_array_equal(traces[0][port], traces[1][port], port)
    assert traces[0]["busy"].sum() == 2 * core.law(tile.masks)
    assert traces[0]["wgt_en"].sum() == 81 and traces[0]["rst"].sum() == 0


def waves(path):
    """Values over time of every variable of a VCD file, by name."""
    names, found, now = {}, {}, 0
    with open(path, "rb") as file:
        for token in tokenize(file):
            if token.kind is TokenKind.VAR:
                names[token.var.id_code] = token.var.reference
            elif token.kind is TokenKind.CHANGE_TIME:
                now = token.time_change
            elif token.kind in (TokenKind.CHANGE_SCALAR, TokenKind.CHANGE_VECTOR):
                change = token.scalar_change if token.kind is TokenKind.CHANGE_SCALAR else token.vector_change
                found.setdefault(names[change.id_code], []).append((now, int(change.value)))
    return found


@pytest.mark.parametrize("engine", ENGINES)
def test_waveforms(engine, tmp_path):
    todo, *_ = bench()
    result = simulate.simulate(TOY, todo, engine, vcd=tmp_path / "toy.vcd")
    seen = waves(tmp_path / "toy.vcd")
    assert [value for _, value in seen["write"]][:2] in ([1, 0], [0, 1])
    assert max(value for _, value in seen["count"]) == result.cycles - (engine == "compiled")  # of before the last edge
    assert result.trace is None


@pytest.mark.parametrize("engine", ENGINES)
def test_a_wait_without_an_end(engine):
    with pytest.raises(TimeoutError, match=r"high was not 3 within 6 cycles; the limit is that of wait\(\)"):
        simulate.simulate(WAITS, Stimulus(WAITS).drive(2).wait("high", 3, limit=6), engine)
    assert simulate.simulate(WAITS, Stimulus(WAITS).wait("high", 0), engine).waits == [0]  # and the simulator is as before


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Stimulus(TOY).drive(nothing=1), "nothing is no input of the core; it has add_to, word, number"),
        (lambda: Stimulus(TOY).drive(sample=("word",)), "word is no output of the core; it has sums"),
        (lambda: Stimulus(TOY).drive(add_to=np.full(3, 16)), "add_to is given 16; it takes whole numbers from -16 to 15"),
        (lambda: Stimulus(TOY).drive(address=-1), "address is given -1; it takes whole numbers from 0 to 7"),
        (lambda: Stimulus(TOY).drive(address=0.5), "address is given float64"),
        (lambda: Stimulus(TOY).drive(add_to=np.zeros((2, 2), int)), r"shape \(2, 2\); rows of shape \(3,\)"),
        (lambda: Stimulus(TOY).drive(address=np.arange(2), data=np.arange(3)), r"address, data are of \[2, 3\] cycles"),
        (lambda: Stimulus(TOY).wait("count"), "count has 40 bits; one can wait for at most 32"),
        (lambda: simulate.simulate(TOY, Stimulus(TOY), "verilator"), "engine is 'verilator'; it is 'amaranth', 'compiled'"),
        (lambda: simulate.ports(Wide()), "port wide has 65 bits; a number has at most 64, so make it an ArrayLayout"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_without_a_compiler_the_slow_engine_serves_and_says_so(monkeypatch):
    monkeypatch.setattr(_tools, "compiler", lambda: [])
    todo, *_ = bench()
    with pytest.raises(RuntimeError, match=r"needs a C\+\+ compiler: set CXX, .* pip install ziglang"):
        simulate.compile_core(TOY)
    with pytest.warns(RuntimeWarning, match="the engine 'amaranth' needs nothing, and serves now"):
        assert simulate.simulate(TOY, todo, "fastest").engine == "amaranth"


@COMPILED
def test_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("PAPERNETS_HDL_CACHE", str(tmp_path))
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(RuntimeError, match=r"the C\+\+ compiler failed \(false -O2"):
        simulate.compile_core(Toy())
    assert list(tmp_path.iterdir()) == []  # nothing half-made
    monkeypatch.delenv("CXX")
    one = simulate.compile_core(Toy())
    made = one.stat().st_mtime_ns
    assert simulate.compile_core(Toy()) == one and one.stat().st_mtime_ns == made
    assert simulate.compile_core(Toy(step=2)) != one
    assert len(list(tmp_path.iterdir())) == 2


@COMPILED
def test_the_compiled_engine_is_fast():
    core = sspnna.SSpNNA()
    tile = sspnna.Tile(np.ones((64, 8), np.int8), np.full(64, 2**16 - 2**8), np.arange(512) % 64)
    todo = sspnna.stimulus(core, np.ones((27, 8, 8), np.int8), [[tile]])
    simulate.simulate(core, todo, "compiled")

    def rate(engine, starts):
        for _ in range(starts):
            todo.drive(start=1, n_out=64).wait("done")
        begin = time.perf_counter()
        cycles = simulate.simulate(core, todo, engine).cycles
        return cycles / (time.perf_counter() - begin)

    slow = rate("amaranth", 0)
    fast = max(rate("compiled", 50) for _ in range(3))
    assert fast > 1e6 and fast > 100 * slow, (fast, slow)
