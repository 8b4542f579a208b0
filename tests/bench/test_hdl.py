"""The run of the cores: what is measured, when it is written, and the page that shows it."""

import json
import re

import pytest
from papernets_kernels.hdl import report, rtl, simulate

from papernets.bench import BenchError, _hdl, _hdl_page, hardware_part, hdl_file, save_hdl

PARTS = ("machine", "engines", "sspnna", "subbit", "xnor")


def row(core, label, clock=None, faults=()):
    return {"core": core, "label": label, "cycles": 4677, "law": 4677, "utilisation": 0.98765, "macs_per_cycle": 35.47,
            "resources": {"luts": 2254, "flip_flops": 1554, "lut_ram_bits": 768, "block_rams": 15, "multipliers": 8},
            "clock": clock, "faults": list(faults)}


CLOCK = {"mhz": 57.2, "device": "LFE5U-25F", "package": "CABGA381", "speed": 6, "target": 100, "seed": 1, "nextpnr": "0.11"}
RESULT = {"schema": 1, "benchmark": "hdl", "quick": False, "machine": {"processor": "Model <1>"},
          "versions": {"amaranth": "0.5.10"},
          "engines": {"core": "sspnna lanes 8", "compiler": "g++ 12",
                      "amaranth": {"median": 10_000.0, "low": 9_000.0, "high": 11_000.0, "turns": 7, "others": 0.01},
                      "compiled": {"median": 2_000_000.0, "low": 1.9e6, "high": 2.1e6, "turns": 9, "others": 0.0},
                      "compile": {"median": 4.0, "low": 3.9, "high": 4.2, "turns": 3, "others": 0.02}, "ratio": 200.0},
          "cores": [row("sspnna", "sspnna lanes 8", CLOCK), row("plain-binary", "plain-binary"), row("subbit", "subbit tau 5"),
                    row("xnor", "xnor lanes 8")]}


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch, request):
    if "committed" not in request.node.name:
        (tmp_path / "notebooks").mkdir()
        monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))


def text(part):
    return re.sub(r"<[^>]+>", "|", hardware_part(part)).replace("\u00a0", " ").replace("\u202f", " ")


def test_the_page_shows_what_the_run_found():
    assert save_hdl(RESULT) == hdl_file()
    assert "Model &lt;1&gt;, of which one core" in text("machine") and "at most 2.00 % of the core" in text("machine")
    assert "10 000 |(9 000–11 000)" in text("engines") and "4.00 s |(3.90–4.20)" in text("engines")
    assert "200 times as fast" in text("engines")
    assert f"repaid after {_hdl_page.short(4 / (1 / 10_000 - 1 / 2_000_000))} cycles".replace("\u202f", " ") in text("engines")
    for words in ("|lanes 8|", "4 677", "98.8 %", "35.5", "2254", "1554", "768", "15",
                  "Placed and routed for LFE5U-25F, speed grade 6, package CABGA381 (aimed at 100 MHz, seed 1): "
                  "sspnna lanes 8 reaches 57.2 MHz."):
        assert words in text("sspnna"), words
    assert text("subbit").count("4 677") == 2 and "MHz" not in text("subbit") and "|plain-binary|" in text("subbit")
    assert "plain-binary" not in text("xnor")


def test_without_a_run_the_page_says_how_to_make_one():
    assert [text(part) == "" for part in PARTS] == [False, True, True, True, True]
    assert "papernets bench hdl" in text("machine")


@pytest.mark.parametrize("damage", ["", "[]", '{"schema": 1, "benchmark": "kernels"}', '{"schema": 1, "benchmark": "hdl"}'])
def test_a_damaged_file_is_named(damage):
    hdl_file().parent.mkdir(parents=True, exist_ok=True)
    hdl_file().write_text(damage)
    for part in PARTS:
        with pytest.raises(ValueError, match=r"hdl\.json: not a run of the cores .* papernets bench hdl"):
            hardware_part(part)


@pytest.mark.parametrize(("change", "error", "says"), [
    ({"quick": True}, ValueError, "only a full run"),
    ({"cores": [row("xnor", "xnor lanes 8", faults=["wrong"])]}, ValueError, "without a fault"),
    ({"engines": {**RESULT["engines"], "compiled": {"others": 0.2}}}, BenchError, "used up to 20 % of the core"),
])
def test_half_runs_and_busy_ones_are_not_written(change, error, says):
    with pytest.raises(error, match=says):
        save_hdl({**RESULT, **change})
    assert not hdl_file().exists()


def test_without_a_compiler_nothing_is_measured(monkeypatch):
    monkeypatch.setattr(simulate, "missing", lambda: "the compiled engine needs a C++ compiler")
    with pytest.raises(BenchError, match="needs a C\\+\\+ compiler, but it is what is measured here"):
        _hdl.bench_hdl(quick=True)


@pytest.mark.skipif(bool(simulate.missing()), reason=simulate.missing() or "nothing is missing")
def test_a_quick_run_measures_both_engines_and_every_core(monkeypatch):
    lines = []
    result = _hdl.bench_hdl(quick=True, report=lines.append)
    engines = result["engines"]
    assert engines["ratio"] == engines["compiled"]["median"] / engines["amaranth"]["median"] > 50
    assert engines["compile"]["median"] > 0.5 and engines["compiled"]["cycles"] == 10 * engines["amaranth"]["cycles"]
    assert [row["label"] for row in result["cores"]] == [report.label(name, report.kind(name).options) for name in report.KINDS]
    assert _hdl.faults(result) == [] and len(lines) == 3 + 4
    assert json.loads(json.dumps(result)) == result


def test_the_committed_run_is_of_the_cores_as_they_are():
    found = _hdl_page.read_hdl()
    if found is None:
        pytest.skip("no run is committed")
    assert not found["quick"] and _hdl.faults(found) == []
    variants = dict.fromkeys(report.label(*one) for name in report.KINDS for one in report.sweep(name))
    assert [row["label"] for row in found["cores"]] == list(variants)
    for row in found["cores"]:
        core = report.make(row["core"], **row["options"])
        laws = report.kind(row["core"]).work(core, row["seed"]).laws
        assert [run["cycles"] for run in row["runs"]] == laws, row["label"]
        if row["core"] == "plain-binary" and not rtl.missing():
            assert row["resources"] == rtl.resources(core)
        assert f"{row['resources']['luts']}" in hardware_part({"plain-binary": "subbit"}.get(row["core"], row["core"]))
