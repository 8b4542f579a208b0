"""Measuring: the kernels against their peers, the engines that simulate a core."""

import json
from pathlib import Path
from typing import Annotated

import typer

from papernets.cli.console import Json, err, failing, say


def bench(what: Annotated[str | None, typer.Argument(help="What to measure; left out, the list of what there is.")] = None,
          quick: Annotated[bool, typer.Option("--quick", help="Small layers, few repeats; nothing is written.")] = False,
          only: Annotated[str, typer.Option(help="Only cases with this text in their names; nothing is written.")] = "",
          json_: Json = False) -> None:
    """Measure the kernels, the cores or imports. A full run of the first two is written to book/results."""
    from papernets.bench import BENCHMARKS, BenchError
    from papernets.tools import paths
    if what is None:
        _list(BENCHMARKS, json_)
        return
    if what not in BENCHMARKS:
        raise ValueError(f"nothing to measure is called {what!r}; choose from {', '.join(BENCHMARKS)}")
    if what == "imports":
        _imports(json_)
        return
    if not (quick or only):
        paths.results()  # where a full run is written; a wrong checkout is told before the minutes that it takes
    with failing(BenchError):
        if what == "hdl":
            _hdl(quick, only, json_)
        else:
            _kernels(quick, only, json_)


def _list(benchmarks: dict[str, str], json_: bool) -> None:
    if json_:
        print(json.dumps([{"name": name, "measures": measures} for name, measures in benchmarks.items()]))
        return
    for name, measures in benchmarks.items():
        say(f"{name:<10} {measures}")


def _kernels(quick: bool, only: str, json_: bool) -> None:
    from papernets.bench import BenchError, bench_kernels, errors, save, text

    def report(row: dict, done: int, total: int) -> None:
        if "error" in row:
            say(f"[{done}/{total}] failed  {text.row(row)}", err)
        elif not json_:
            say(f"[{done}/{total}] {text.row(row)}")

    result = bench_kernels(quick, only, report)
    failed = errors(result)
    if json_:
        print(json.dumps(result, ensure_ascii=False))
    elif not (quick or failed):
        for target in result["targets"]:
            if target["cases"]:
                say(text.target(target))
    if failed:
        raise BenchError(f"{len(failed)} measurement{'s' * (len(failed) > 1)} failed; nothing was written")
    if not (quick or only):
        _say_written(save(result), json_)


def _hdl(quick: bool, only: str, json_: bool) -> None:
    from papernets.bench import BenchError, bench_hdl, faults, save_hdl
    if only:
        raise ValueError(f"--only is {only!r}; the cores are measured together, so leave it out")
    with failing(RuntimeError):  # Yosys, the compiler or nextpnr
        result = bench_hdl(quick, lambda line: None if json_ else say(line))
        if json_:
            print(json.dumps(result, ensure_ascii=False))
        for fault in faults(result):
            say(f"failed  {fault}", err)
        if faults(result):
            raise BenchError("not all results and cycles are as they must be; nothing was written")
        if not quick:
            _say_written(save_hdl(result), json_)


def _imports(json_: bool) -> None:
    from papernets.bench import bench_imports, import_row
    from papernets.cards import cards
    rows = []
    for row in bench_imports([f"papernets.papers.{one.module}" for one in cards() if one.written]):
        rows.append(row)
        if not json_:
            import_row(row, say)
    if json_:
        print(json.dumps(rows))


def _say_written(path: Path, json_: bool) -> None:
    if not json_:
        say(f"{path} is written")
