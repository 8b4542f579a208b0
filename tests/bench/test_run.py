"""The measuring process: what it is given, what it says, and what happens when it dies."""

import json
import os
import stat
import subprocess
import sys
import textwrap
import time

import pytest

from papernets.bench import BenchError, bench_kernels, errors, kernels_file, save
from papernets.bench import _run as runs
from papernets.bench._machine import busy, cores, describe
from papernets.tools.environment import cleaned

ROW = {"kernel": "k", "group": "k, a", "at": "1→2", "threads": 1, "macs": 6e9, "dense": 12e9, "moved": 3e9, "peak": "fma",
       "others": 0.0,
       "times": {"ours": {"median": 2.0}, "p": {"median": 5.0}, "q": {"median": 3.0}, "b": {"median": 1.0}},
       "peers": ["p", "q"], "beside": ["b"], "missing": {}, "replaced": []}
ABOUT = {"machine": {}, "peaks": {"fma": 12e9, "popcount": 1e12, "bandwidth": {}}}


@pytest.fixture
def program(tmp_path, monkeypatch):
    """``program(source)`` runs in the place of the measuring process."""
    python = sys.executable

    def write(source):
        file = tmp_path / "python"
        file.write_text(f"#!{python}\nimport json, os, sys\n{textwrap.dedent(source)}")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(file))

    return write


def test_variables_that_steer_libraries_are_taken_out_and_named():
    steering = {"OPENBLAS_CORETYPE": "Haswell", "MKL_CBWR": "1", "OMP_NUM_THREADS": "9", "NUMBA_CPU_NAME": "generic",
                "KMP_AFFINITY": "x", "DNNL_MAX_CPU_ISA": "SSE41", "ONEDNN_VERBOSE": "1"}
    kept, removed = cleaned({**steering, "PATH": "/bin", "MY_OMP_NUM_THREADS": "3", "NUMBA_CACHE_DIR": "/x"})
    assert kept == {"PATH": "/bin", "MY_OMP_NUM_THREADS": "3", "NUMBA_CACHE_DIR": "/x"}
    assert removed == sorted(steering)


def test_the_process_is_started_without_them_and_with_its_own_number_of_threads(program, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    program("print(json.dumps({'env': dict(os.environ), 'words': sys.argv[1:]}))")
    said, = runs._lines({"threads": 2})
    assert "OPENBLAS_CORETYPE" not in said["env"] and said["env"]["OMP_NUM_THREADS"] == "2" and "PATH" in said["env"]
    assert said["words"][:2] == ["-m", "papernets.bench._child"] and json.loads(said["words"][2]) == {"threads": 2}


def test_a_process_that_dies_is_an_error_that_names_the_case(program):
    program("print(json.dumps({'begun': 'k, 1→2'})); print('so it goes', file=sys.stderr); sys.exit(7)")
    with pytest.raises(BenchError, match="stopped with status 7 at k, 1→2: so it goes"):
        list(runs._lines({"threads": 1}))
    program("print(json.dumps({'begun': 'k, 1→2'}), flush=True); os.kill(os.getpid(), 9)")
    with pytest.raises(BenchError, match="stopped with status -9 at k, 1→2: it said nothing"):
        list(runs._lines({"threads": 1}))


def test_rows_become_cases_with_ratio_rate_and_share():
    two = {**ROW, "threads": 2, "times": {"ours": {"median": 1.0}, "p": {"median": 0.5}}, "peers": ["p"], "beside": []}
    case, = runs.together([ROW, two], ABOUT)["cases"]
    one = case["threads"]["1"]
    assert (one["fastest"], one["ratio"], one["rate"], one["share"]) == ("q", 1.5, 3e9, 0.25)
    assert (case["threads"]["2"]["fastest"], case["threads"]["2"]["ratio"]) == ("p", 0.5)
    assert "share" not in case["threads"]["2"]  # the peak is that of one thread
    assert (case["macs"], case["dense"], case["moved"], case["peak"]) == (6e9, 12e9, 3e9, "fma")


def test_a_case_that_failed_has_an_error_and_no_time():
    wrong = {"kernel": "k", "group": "k, a", "at": "1→2", "threads": 1, "error": "Unequal: ours and p differ by 1"}
    result = runs.together([wrong], ABOUT)
    assert result["cases"][0]["threads"] == {}
    assert errors(result) == ["k, a, 1→2, 1 thread: Unequal: ours and p differ by 1"]


@pytest.mark.parametrize("change", [{"quick": True}, {"only": "binary"},
                                    {"cases": [{"group": "g", "at": "a", "errors": {"1": "x"}}]}])
def test_only_a_full_run_without_an_error_is_written(tmp_path, monkeypatch, change):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    with pytest.raises(ValueError, match="only a full run without an error is written"):
        save({"quick": False, "only": "", "others": {}, "cases": [], **change})
    assert not kernels_file().exists()
    assert save({"quick": False, "only": "", "others": {"1": 0.1}, "cases": []}) == kernels_file()
    assert json.loads(kernels_file().read_text())["cases"] == []


def test_a_run_among_other_programs_is_not_written(tmp_path, monkeypatch):
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    with pytest.raises(BenchError, match="other programs used up to 11 % of the cores; nothing was written"):
        save({"quick": False, "only": "", "others": {"1": 0.0, "2": 0.11}, "cases": []})
    assert not kernels_file().exists()


def test_one_core_cannot_carry_two_threads(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3}, raising=False)
    assert cores(1) == [3] and cores(2) is None


def test_work_of_others_is_seen():
    core, = cores(1)
    before, mine = busy([core]), time.process_time()
    if before is None:
        pytest.skip("this system does not count the work of its cores")
    source = f"import os, time; os.sched_setaffinity(0, [{core}]); end = time.time() + 0.5\nwhile time.time() < end: pass"
    subprocess.run([sys.executable, "-c", source], check=True)
    assert busy([core]) - before - (time.process_time() - mine) > 0.2


def test_the_machine_is_described():
    found = describe()
    assert found["processor"] and found["cores"] >= 1 and found["vector"] in (128, 256, 512)
    assert all(size >= 2**12 for size in found["caches"].values()) and found["memory"] > 2**28
    assert found["versions"]["torch"] and set(found["versions"]) >= {"faiss-cpu", "spconv"}


def test_a_quick_measurement_from_end_to_end(monkeypatch):
    threads = 2 if cores(2) else 1
    monkeypatch.setattr(runs, "QUICK_THREADS", (1, 2)[:threads])
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    heard = []
    result = bench_kernels(quick=True, only="n_of_m.matmul, 2:4",
                           report=lambda row, done, total: heard.append((row["threads"], done, total)))
    assert heard == [(count, count, threads) for count in range(1, threads + 1)]
    assert result["cores"] == {str(count): cores(count) for count in range(1, threads + 1)}  # it kept to them
    assert all(0 <= share < 1.01 for share in result["others"].values())
    assert "OPENBLAS_CORETYPE" in result["removed"] and errors(result) == [] and result["skipped"] == {}
    case, = result["cases"]
    for count in range(1, threads + 1):
        row = case["threads"][str(count)]
        assert {"numpy product", "torch mm", "torch conv2d", "scipy csr", "torch sparse csr"} <= set(row["peers"])
        assert all(0 < time["low"] <= time["median"] <= time["high"] for time in row["times"].values())
        assert row["ratio"] == row["times"][row["fastest"]]["median"] / row["times"]["ours"]["median"]
        assert row["fastest"] == min(row["peers"], key=lambda name: row["times"][name]["median"])
    assert case["threads"]["1"]["share"] == case["threads"]["1"]["rate"] / result["peaks"]["fma"] > 0
    assert all(target["verdict"] == "not judged" for target in result["targets"])
    json.dumps(result)
