"""The command bench: what it prints, what it writes, and when it does not."""

import json

from cli_checks import wrong_input

from papernets import bench
from papernets.bench import kernels_file


@wrong_input(
    (("bench", "kernel"), "nothing to measure is called 'kernel'; choose from kernels"),
    (("bench", "kernels", "--quick", "--only", "frob"), "no case has 'frob' in its name; the kernels are binary.conv2d"),
    (("bench", "hdl", "--only", "xnor"), "--only is 'xnor'; the cores are measured together, so leave it out"),
    (("bench", "kernels", "--fast"), "No such option: --fast"),
)
def test_wrong_input_is_one_line_and_status_2(refused, words, says):
    refused(*words, says=says)


def test_what_can_be_measured(run):
    status, out, _ = run("bench", "--json")
    assert status == 0 and [row["name"] for row in json.loads(out)] == ["kernels", "hdl", "imports"]
    status, out, _ = run("bench")
    assert status == 0 and out.startswith("kernels  ")


def test_a_quick_measurement_prints_json_and_writes_nothing(run):
    before = kernels_file().read_bytes() if kernels_file().exists() else None
    status, out, _ = run("bench", "kernels", "--quick", "--json", "--only", "binary.matmul")
    result = json.loads(out)
    assert status == 0 and result["quick"] and [case["kernel"] for case in result["cases"]] == ["binary.matmul"]
    assert (kernels_file().read_bytes() if kernels_file().exists() else None) == before


def test_a_full_measurement_on_a_quiet_machine_is_written(run, tmp_path, monkeypatch):
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
    status, _, err = run("bench", "kernels")
    assert status == 1 and err.startswith("papernets: other programs used up to 20 % of the cores; nothing was written")
    assert not kernels_file().exists()
    share = 0.02
    status, out, _ = run("bench", "kernels")
    assert status == 0 and out.splitlines()[:2] == ["[1/1] k, 1→2, 1 thread: 1.00 ms; p 3.00 ms, 3.00×",
                                                    "met        k: 3.00×, target 2.00×"]
    assert json.loads(kernels_file().read_text())["targets"] == [target]


def test_results_that_differ_end_with_status_1_and_nothing_is_written(run, tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))

    def measure(quick, only, report):
        report({"group": "k", "at": "1→2", "threads": 1, "error": "Unequal: ours and p differ by 1"}, 1, 1)
        case = {"group": "k", "at": "1→2", "errors": {"1": "Unequal"}}
        return {"quick": quick, "only": only, "targets": [], "others": {}, "cases": [case]}

    monkeypatch.setattr(bench, "bench_kernels", measure)
    status, out, err = run("bench", "kernels")
    assert status == 1 and out == "" and not kernels_file().exists()
    assert err.splitlines() == ["[1/1] failed  k, 1→2, 1 thread: Unequal: ours and p differ by 1",
                                "papernets: 1 measurement failed; nothing was written"]


def test_a_measuring_process_that_dies_ends_with_status_1(run, monkeypatch):
    said = "the measurement stopped with status -11 at k, 1→2: it said nothing"

    def measure(quick, only, report):
        raise bench.BenchError(said)

    monkeypatch.setattr(bench, "bench_kernels", measure)
    status, out, err = run("bench", "kernels")
    assert status == 1 and out == "" and err == f"papernets: {said}\n"


def test_a_measurement_of_the_cores_with_a_fault_is_not_written(run, monkeypatch):
    result = {"quick": False, "cores": [{"label": "xnor lanes 2", "faults": ["the run of a took 3 cycles, its law says 2"]}]}
    monkeypatch.setattr(bench, "bench_hdl", lambda quick, report: result)
    status, out, err = run("bench", "hdl")
    assert status == 1 and out == "" and err.splitlines() == [
        "failed  xnor lanes 2: the run of a took 3 cycles, its law says 2",
        "papernets: not all results and cycles are as they must be; nothing was written"]


def test_imports_are_measured_beside_torch_and_one_that_is_slow_is_told(run, monkeypatch):
    from papernets import bench
    monkeypatch.setattr(bench, "bench_imports", lambda modules: (
        {"module": module, "torch": 1.5, "more": 0.6 if module.endswith("lapp") else 0.1, "goal": 0.5} for module in modules))
    status, out, _ = run("bench", "imports")
    first, second, *_ = out.splitlines()
    assert status == 0 and first.startswith("papernets.papers.lapp ")
    assert first.endswith("more, more than the 0.5 s of the goal")
    assert second.endswith("torch 1.50 s, and 0.10 s more")
    assert json.loads(run("bench", "imports", "--json")[1])[0]["more"] == 0.6
