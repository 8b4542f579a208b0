"""The command line: ``papernets --help``."""

import json
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from papernets.cli import chapters
from papernets.cli.console import Json, err, out


def main() -> None:
    """Wrong input ends with one line and status 2; a chapter that fails with status 1."""
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema's grammar of addresses: 0.9 s that no command needs
    from papernets.press import RunError
    try:
        sys.exit(app(standalone_mode=False))
    except ValueError as error:
        err.print(f"papernets: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except RunError as error:
        err.print(f"papernets: {error}", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except (KeyboardInterrupt, typer.Abort):
        err.print("papernets: stopped; what was finished is kept")
        sys.exit(130)
    except Exception as error:
        if not hasattr(error, "format_message"):  # an error of usage, from the parser of the command line
            raise
        message = error.format_message()
        if not message.startswith("Usage:"):  # a command group named without a command shows its help
            message = f"papernets: {message} (see: papernets --help)"
        err.print(message, markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)


def bench(what: Annotated[str | None, typer.Argument(help="What to measure; left out, the list of what there is.")] = None,
          quick: Annotated[bool, typer.Option("--quick", help="Small layers, few repeats; nothing is written.")] = False,
          only: Annotated[str, typer.Option(help="Only cases with this text in their names; nothing is written.")] = "",
          json_: Json = False) -> None:
    """Measure the kernels or the cores. A full run is written to book/results/kernels.json or hdl.json."""
    from papernets.bench import BENCHMARKS, BenchError, bench_kernels, errors, save, text
    if what is None:
        if json_:
            print(json.dumps([{"name": name, "measures": measures} for name, measures in BENCHMARKS.items()]))
            return
        for name, measures in BENCHMARKS.items():
            out.print(f"{name:<10} {measures}", highlight=False)
        return
    if what not in BENCHMARKS:
        raise ValueError(f"nothing to measure is called {what!r}; choose from {', '.join(BENCHMARKS)}")
    if what == "hdl":
        _bench_hdl(quick, only, json_)
        return

    def report(row: dict, done: int, total: int) -> None:
        if "error" in row:
            err.print(f"[{done}/{total}] failed  {text.row(row)}", markup=False, highlight=False, soft_wrap=True)
        elif not json_:
            out.print(f"[{done}/{total}] {text.row(row)}", markup=False, highlight=False, soft_wrap=True)

    try:
        result = bench_kernels(quick, only, report)
        failed = errors(result)
        if json_:
            print(json.dumps(result, ensure_ascii=False))
        elif not (quick or failed):
            for target in result["targets"]:
                if target["cases"]:
                    out.print(text.target(target), markup=False, highlight=False, soft_wrap=True)
        if failed:
            raise BenchError(f"{len(failed)} measurement{'s' * (len(failed) > 1)} failed; nothing was written")
        if not (quick or only):
            path = save(result)
            if not json_:
                out.print(f"{path} is written", highlight=False, soft_wrap=True)
    except BenchError as error:
        err.print(f"papernets: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


def _bench_hdl(quick: bool, only: str, json_: bool) -> None:
    from papernets.bench import BenchError, bench_hdl, faults, save_hdl
    if only:
        raise ValueError(f"--only is {only!r}; the cores are measured together, so leave it out")

    def report(line: str) -> None:
        if not json_:
            out.print(line, markup=False, highlight=False, soft_wrap=True)

    try:
        result = bench_hdl(quick, report)
        if json_:
            print(json.dumps(result, ensure_ascii=False))
        for fault in faults(result):
            err.print(f"failed  {fault}", markup=False, highlight=False, soft_wrap=True)
        if faults(result):
            raise BenchError("not all results and cycles are as they must be; nothing was written")
        if not quick:
            path = save_hdl(result)
            if not json_:
                out.print(f"{path} is written", highlight=False, soft_wrap=True)
    except (BenchError, RuntimeError) as error:
        err.print(f"papernets: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None


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
        out_: Annotated[Path | None, typer.Option("--out", help="Write Verilog and test vectors to this new folder.")] = None,
        engine: Annotated[str, typer.Option(help="amaranth (needs nothing), compiled, or fastest.")] = "amaranth",
        seed: Annotated[int, typer.Option(min=0, help="Of the numbers in the test vectors.")] = 0,
        place: Annotated[bool, typer.Option("--place", help="Place and route, and tell the clock; up to minutes.")] = False,
        device: Annotated[str, typer.Option(help="ECP5 to place on: 12k, 25k, 45k or 85k.")] = "25k",
        speed: Annotated[int, typer.Option(help="Its speed grade: 6, 7 or 8.")] = 6,
        target: Annotated[int, typer.Option(help="The clock that placing aims at, in MHz.")] = 100,
        place_seed: Annotated[int, typer.Option(help="Seed of placing.")] = 1,
        json_: Json = False) -> None:
    """An accelerator core: its cycles against its law, its results against the golden model, what it takes on an FPGA."""
    from papernets_kernels.hdl import place as placing
    from papernets_kernels.hdl import report, simulate
    from papernets_kernels.hdl import rtl as counting
    if core is None or list_:
        _list_cores(report.KINDS, json_)
        return
    sizes = {"lanes": lanes, "channels": channels, "pages": pages, "planes": planes, "rows": rows, "tau": tau, "adders": adders,
             "inputs": inputs, "outputs": outputs, "pairs": pairs, "windows": windows, "kernels": kernels, "columns": columns,
             "accumulator": accumulator}
    given = {name: value for name, value in sizes.items() if value is not None}
    circuit = report.make(core, **given)
    chosen = report.sweep(core, **given) if table else [(core, given)]
    engine = _engine(engine, simulate.missing())
    yosys = counting.missing()
    if out_ is not None:
        if yosys:
            raise ValueError(f"--out writes Verilog, which needs {yosys}; without --out the core can be simulated")
        report.check_folder(out_)
    elif yosys:
        err.print(f"papernets: what a core takes on an FPGA is counted by {yosys}; all else is here", highlight=False,
                  soft_wrap=True)
    clock = {"device": device, "speed": speed, "target": target, "seed": place_seed} if place else None
    if place:
        placing.check(**clock)
        if lacks := placing.missing():
            raise ValueError(f"--place needs {lacks}; without --place all else is here")
    found = []
    try:
        with err.status("") as status:
            for name, options in chosen:
                found.append(report.row(name, options, engine, seed, clock=clock, say=status.update))
            faults = [f"{one['label']}: {fault}" for one in found for fault in one["faults"]]
            if out_ is not None and not faults:
                status.update(f"writing {out_}")
                report.export(core, circuit, out_, engine, seed)
    except RuntimeError as error:  # Yosys, the compiler or nextpnr
        err.print(f"papernets: {error}", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from None
    if json_:
        print(json.dumps({"rows": found, "written": str(out_) if out_ is not None and not faults else None}))
    else:
        _show_cores(found, report, clock)
        if out_ is not None and not faults:
            out.print(f"{out_} is written: {', '.join(report.FILES)}", markup=False, highlight=False, soft_wrap=True)
    for fault in faults:
        err.print(f"papernets: {fault}", markup=False, highlight=False, soft_wrap=True)
    if faults:
        raise typer.Exit(1)


def _list_cores(kinds, json_: bool) -> None:
    if json_:
        print(json.dumps([{"name": name, "about": kind.about, "options": kind.options} for name, kind in kinds.items()]))
        return
    for name, kind in kinds.items():
        options = " ".join(f"--{option} {value}" for option, value in kind.options.items())
        out.print(f"{name:<13} {kind.about}\n{'':<13} {options}", markup=False, highlight=False, soft_wrap=True)


def _engine(engine: str, lacks: str) -> str:
    """The engine that is meant; a word on stderr where the slow one serves instead."""
    if engine not in ("amaranth", "compiled", "fastest"):
        raise ValueError(f"engine is {engine!r}; choose from amaranth, compiled, fastest")
    if engine == "compiled" and lacks:
        raise ValueError(f"{lacks}: --engine amaranth")
    if engine == "fastest" and lacks:
        err.print(f"papernets: {lacks}, and serves now", markup=False, highlight=False, soft_wrap=True)
    return "amaranth" if engine == "amaranth" or lacks else "compiled"


def _show_cores(found: list[dict], report, clock: dict | None) -> None:
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


def train(slug: Annotated[str, typer.Argument(help="Paper, by number or slug.")],
          config: Annotated[str | None, typer.Option(help="Recipe, such as vgg16-cifar10.")] = None,
          folder: Annotated[Path | None, typer.Option(help="Checkpoint, log and best network go here.")] = None,
          data: Annotated[Path | None, typer.Option(help="Archive or folder of the data set.")] = None,
          epochs: Annotated[int | None, typer.Option(min=1, help="Stop earlier than the recipe.")] = None,
          seed: Annotated[int, typer.Option(min=0)] = 0,
          accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu …")] = "auto",
          devices: Annotated[str, typer.Option(help="How many, or auto.")] = "auto",
          nodes: Annotated[int, typer.Option(min=1, help="Machines, when started by torchrun on each.")] = 1,
          strategy: Annotated[str, typer.Option(help="auto, ddp, ddp_find_unused_parameters_true …")] = "auto",
          precision: Annotated[str, typer.Option(help="32-true, 16-mixed, bf16-mixed …")] = "32-true") -> None:
    """Run a paper's full recipe on the real data set; started again, it goes on where it stopped."""
    import importlib

    from papernets.cards import card
    paper = card(slug)
    if not (paper.folder / "recipes.py").is_file():
        raise ValueError(f"{paper.slug} is planned and has no recipe yet")
    recipes = importlib.import_module(f"papernets.papers.{paper.module}.recipes").RECIPES
    if config is None or config not in recipes:
        given = "give a recipe with --config" if config is None else f"{paper.slug} has no recipe {config!r}"
        raise ValueError(f"{given}: {', '.join(recipes)}")
    from lightning_fabric import Fabric

    from papernets.training import run_recipe
    folder = folder or Path("runs") / paper.slug / config
    try:
        fabric = Fabric(accelerator=accelerator, devices=devices if devices == "auto" else int(devices),
                        num_nodes=nodes, precision=precision, strategy=strategy)
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise ValueError(f"cannot train on accelerator {accelerator} with devices {devices}: {error}") from None

    recipe = recipes[config]()

    def report(epoch: int, total: int, history) -> None:
        if fabric.is_global_zero:
            text = f"epoch {epoch + 1}/{total}  loss {history.loss[-1]:.4f}"
            if history.accuracy:
                text += f"  {recipe.score} {100 * history.accuracy[-1]:.2f} %  best {100 * max(history.accuracy):.2f} %"
            out.print(text, highlight=False)

    history = run_recipe(recipe, folder, fabric=fabric, seed=seed, data=data, epochs=epochs, report=report)
    out.print(f"best {recipe.score} {100 * max(history.accuracy):.2f} %; the network is {folder / 'best.pt'}", highlight=False,
              soft_wrap=True)


def data_fetch(name: Annotated[str, typer.Argument(help="Name of the data set.")]) -> None:
    """Download a data set or trained weights into the cache folder, check the checksum, and unpack what is to be unpacked."""
    from papernets.data import SOURCES, fetch, fetch_unpacked
    get = fetch_unpacked if name in SOURCES and SOURCES[name].unpacks else fetch
    out.print(str(get(name, progress=sys.stderr.isatty())), highlight=False, soft_wrap=True)


def data_list(json_: Json = False) -> None:
    """Data sets that can be fetched, and which are here."""
    from papernets.data import SOURCES, cache_folder
    rows = [{"name": name, "megabytes": source.megabytes, "here": (cache_folder() / source.file).exists()}
            for name, source in SOURCES.items()]
    if json_:
        print(json.dumps(rows))
        return
    for row in rows:
        out.print(f"{row['name']:<16} {row['megabytes']:>4} MB  {'here' if row['here'] else ''}", highlight=False)


def _has(module: str) -> bool:
    import importlib.util
    return importlib.util.find_spec(module) is not None


def doctor(json_: Json = False) -> None:
    """What this machine has, what is missing, and how to get it."""
    from papernets.cards.provenance import machine
    from papernets.data import cache_folder
    from papernets.tools import paths
    from papernets.tools.browser import find_browser
    checks = [
        ("Python 3.11 or newer", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11"),
        ("checkout", True, str(paths.root()), ""),
        ("machine", True, machine(), ""),
        ("Jupyter Book 1 (make book)", _has("jupyter_book"), "", "make book"),
        ("MathJax files (make book)", _has("sphinx-mathjax-offline"), "", "make book"),
        ("JupyterLab (make lab)", _has("jupyterlab"), "", "make lab"),
        ("pytest and nbval (make test)", _has("pytest") and _has("nbval"), "", "make test"),
        ("a browser for the page tests", bool(find_browser()), find_browser() or "",
         "apt-get install chromium, or any Chrome or Chromium"),
        ("C++ compiler (compiled simulation)", bool(shutil.which("c++") or shutil.which("g++")), "",
         "apt-get install g++; without it the slower engine serves"),
        ("data folder", True, str(cache_folder()), ""),
    ]
    if json_:
        print(json.dumps([{"check": name, "ok": ok, "found": found, "get": get if not ok else ""}
                          for name, ok, found, get in checks]))
        return
    for name, ok, found, get in checks:
        out.print(f"{'ok     ' if ok else 'missing'} {name}{': ' + found if found else ''}{'' if ok else ': ' + get}",
                  highlight=False, soft_wrap=True)


app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
                  help="Paper Nets: 41 papers on efficient deep learning, each a chapter one can run.")
for name, command in {"list": chapters.list_, "validate": chapters.validate, "site": chapters.site, "lab": chapters.lab,
                      "bench": bench, "rtl": rtl, "train": train, "readme": chapters.readme, "notebook": chapters.notebook,
                      "doctor": doctor}.items():
    app.command(name)(command)
data = typer.Typer(no_args_is_help=True, help="Real data sets.")
for name, command in {"fetch": data_fetch, "list": data_list}.items():
    data.command(name)(command)
app.add_typer(data, name="data")
