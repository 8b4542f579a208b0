"""The accelerator cores: what there is, what each does and takes, its Verilog."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from papernets.cli.console import Json, at_home, complain, err, failing, out, say


def rtl(core: Annotated[str | None, typer.Argument(help="Name of a core; left out, the list of them.")] = None,
        list_: Annotated[bool, typer.Option("--list", help="List the cores and their options.")] = False,
        lanes: Annotated[int | None, typer.Option(help="sspnna: output channels at a time; xnor: columns at a time.")] = None,
        channels: Annotated[int | None, typer.Option(help="sspnna: input channels.")] = None,
        pages: Annotated[int | None, typer.Option(help="sspnna: tiles that the memories hold.")] = None,
        planes: Annotated[int | None, typer.Option(help="sspnna: planes at a time, 1 or 2.")] = None,
        rows: Annotated[int | None, typer.Option(help="sspnna: nodes of a plane at a time; xnor: words of rows.")] = None,
        tau: Annotated[int | None, typer.Option(help="subbit: bits of a kernel's id.")] = None,
        adders: Annotated[int | None, typer.Option(help="subbit: outputs at a time.")] = None,
        inputs: Annotated[int | None, typer.Option(help="sspnna: voxels read by a tile.")] = None,
        outputs: Annotated[int | None, typer.Option(help="sspnna: voxels of a tile; subbit, plain-binary: outputs.")] = None,
        pairs: Annotated[int | None, typer.Option(help="sspnna: pairs of a tile.")] = None,
        windows: Annotated[int | None, typer.Option(help="subbit, plain-binary: windows in memory.")] = None,
        kernels: Annotated[int | None, typer.Option(help="subbit, plain-binary: kernels in memory.")] = None,
        columns: Annotated[int | None, typer.Option(help="xnor: words of columns, of each lane.")] = None,
        accumulator: Annotated[int | None, typer.Option(help="sspnna, subbit, plain-binary: bits of a sum.")] = None,
        table: Annotated[bool, typer.Option("--table", help="A row for each of several sizes of the core.")] = False,
        out_: Annotated[Path | None, typer.Option("--out", callback=at_home,
                                                  help="Write Verilog and test vectors to this new folder.")] = None,
        engine: Annotated[str, typer.Option(help="amaranth (needs nothing), compiled, or fastest.")] = "amaranth",
        seed: Annotated[int, typer.Option(min=0, help="Of the numbers in the test vectors.")] = 0,
        place: Annotated[bool, typer.Option("--place", help="Place and route, and tell the clock; up to minutes.")] = False,
        device: Annotated[str, typer.Option(help="ECP5 to place on: 12k, 25k, 45k or 85k.")] = "25k",
        speed: Annotated[int, typer.Option(help="Its speed grade: 6, 7 or 8.")] = 6,
        target: Annotated[int, typer.Option(help="The clock that placing aims at, in MHz.")] = 100,
        place_seed: Annotated[int, typer.Option(help="Seed of placing.")] = 1,
        json_: Json = False) -> None:
    """An accelerator core: its cycles against its law, its results against the golden model, what it takes on an FPGA."""
    if core is None or list_:
        _list(json_)
        return
    circuit, chosen = _choose(core, {
        "lanes": lanes, "channels": channels, "pages": pages, "planes": planes, "rows": rows, "tau": tau, "adders": adders,
        "inputs": inputs, "outputs": outputs, "pairs": pairs, "windows": windows, "kernels": kernels, "columns": columns,
        "accumulator": accumulator}, table)
    engine = _engine(engine)
    _check_yosys(out_)
    clock = _clock(device, speed, target, place_seed) if place else None
    with failing(RuntimeError):  # Yosys, the compiler or nextpnr
        found, faults = _measure(chosen, engine, seed, clock)
        written = None if out_ is None or faults else _write(core, circuit, out_, engine, seed)
    _print(found, written, clock, json_)
    for fault in faults:
        complain(fault)
    if faults:
        raise typer.Exit(1)


def _list(json_: bool) -> None:
    from papernets_kernels.hdl.report import KINDS
    if json_:
        print(json.dumps([{"name": name, "about": kind.about, "options": kind.options} for name, kind in KINDS.items()]))
        return
    for name, kind in KINDS.items():
        options = " ".join(f"--{option} {value}" for option, value in kind.options.items())
        say(f"{name:<13} {kind.about}\n{'':<13} {options}")


# ---- before anything is run ------------------------------------------------------------------------------------------


def _choose(core: str, sizes: dict[str, int | None], table: bool) -> tuple[object, list[tuple[str, dict[str, int]]]]:
    """The core with those ``sizes`` that were given, and name and options of all that are to be run: it alone, or a table."""
    from papernets_kernels.hdl import report
    given = {name: value for name, value in sizes.items() if value is not None}
    return report.make(core, **given), report.sweep(core, **given) if table else [(core, given)]


def _engine(engine: str) -> str:
    """The engine that is meant; a word on stderr where the slow one serves instead."""
    from papernets_kernels.hdl import simulate
    lacks = simulate.missing()
    if engine not in ("amaranth", "compiled", "fastest"):
        raise ValueError(f"engine is {engine!r}; choose from amaranth, compiled, fastest")
    if engine == "compiled" and lacks:
        raise ValueError(f"{lacks}: --engine amaranth")
    if engine == "fastest" and lacks:
        complain(f"{lacks}, and serves now")
    return "amaranth" if engine == "amaranth" or lacks else "compiled"


def _check_yosys(folder: Path | None) -> None:
    """Without Yosys there is no Verilog to write to ``folder``, and nothing to count by; of that a word on stderr."""
    from papernets_kernels.hdl import report, rtl
    yosys = rtl.missing()
    if folder is not None:
        if yosys:
            raise ValueError(f"--out writes Verilog, which needs {yosys}; without --out the core can be simulated")
        report.check_folder(folder)
    elif yosys:
        complain(f"what a core takes on an FPGA is counted by {yosys}; all else is here")


def _clock(device: str, speed: int, target: int, seed: int) -> dict:
    """The arguments of ``place.place``. ``ValueError`` if it cannot take them, or if nextpnr is missing."""
    from papernets_kernels.hdl import place
    clock = {"device": device, "speed": speed, "target": target, "seed": seed}
    place.check(**clock)
    if lacks := place.missing():
        raise ValueError(f"--place needs {lacks}; without --place all else is here")
    return clock


# ---- running, writing, printing --------------------------------------------------------------------------------------


def _measure(chosen: list[tuple[str, dict]], engine: str, seed: int, clock: dict | None) -> tuple[list[dict], list[str]]:
    """A row for each core, simulated, counted and, with a ``clock``, placed; and a line for each thing that did not hold."""
    from papernets_kernels.hdl import report
    with err.status("") as status:
        found = [report.row(name, options, engine, seed, clock=clock, say=status.update) for name, options in chosen]
    return found, [f"{one['label']}: {fault}" for one in found for fault in one["faults"]]


def _write(core: str, circuit, folder: Path, engine: str, seed: int) -> Path:
    from papernets_kernels.hdl import report
    with err.status(f"writing {folder}"):
        return report.export(core, circuit, folder, engine, seed)


def _print(found: list[dict], written: Path | None, clock: dict | None, json_: bool) -> None:
    from papernets_kernels.hdl import report
    if json_:
        print(json.dumps({"rows": found, "written": written and str(written)}))
        return
    _show(found, clock)
    if written:
        say(f"{written} is written: {', '.join(report.FILES)}")


def _show(found: list[dict], clock: dict | None) -> None:
    from papernets_kernels.hdl import report
    table = Table(box=None, pad_edge=False)
    for index, head in enumerate([*report.HEADS, *(["MHz"] if clock else [])]):
        table.add_column(head, no_wrap=not index, justify="right" if index else "left")
    for one in found:
        table.add_row(*report.cells(one))
    out.print(table, markup=False, highlight=False)
    if len(found) == 1:
        for one in found[0]["runs"]:
            out.print(f"  {one['name']}: {one['cycles']} cycles, law {one['law']}", markup=False, highlight=False)
    if clock:
        its = found[0]["clock"]
        out.print(f"Clock on {its['device']}-{its['speed']} in {its['package']}, aimed at {its['target']} MHz, seed "
                  f"{its['seed']}, nextpnr {its['nextpnr']}", markup=False, highlight=False)
    if not any(one["faults"] for one in found):
        out.print(f"All cycles are those of the law, all results those of the golden model (engine {found[0]['engine']})",
                  highlight=False)
