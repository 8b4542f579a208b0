"""Every way in which a run can look finished and not be: each is seen to turn red."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest
from toy_chapters import RECORD, write_chapter

from papernets.press import Run, RunError, run_chapter, run_chapters
from papernets.press._run import longest_first

pytestmark = pytest.mark.xdist_group("kernels")


def test_a_group_of_tests_stays_in_one_process(request):
    if not getattr(request.config.option, "loadgroup", False):
        pytest.skip("this run has no groups")
    assert request.node.nodeid.endswith("@kernels")


def test_a_whole_chapter_passes_and_leaves_its_results(toy):
    toy()
    run = run_chapter("toy", "quick")
    found = json.loads(run.results.read_text())
    assert {row["id"]: row["verdict"] for row in found["claims"]} == {"sum": "reproduced", "effect": "open"}
    assert found["schema"] == 1 and found["chapter"] == "01-toy" and found["profile"] == "quick"
    assert set(found["made_by"]) == {"hash", "versions", "machine", "seconds", "cpu_seconds", "compile_seconds", "alone"}
    assert run.made_by["alone"] is True
    assert 0.1 < found["made_by"]["cpu_seconds"] < 60
    assert "injected-parameters" not in run.notebook.read_text()
    assert run_chapter("toy", "quick").cached


def test_variables_that_slow_the_libraries_do_not_reach_a_chapter(toy, monkeypatch):
    """A chapter compares milliseconds; what this shell says about OpenBLAS is no property of numpy."""
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    toy(extra="""
        import os
        found = os.environ.get("OPENBLAS_CORETYPE"), os.environ["OMP_NUM_THREADS"]
        if found != (None, "1"):
            raise ValueError(f"the chapter sees {found}")
    """)
    run_chapter("toy", "quick")
    assert (os.environ["OPENBLAS_CORETYPE"], os.environ["OMP_NUM_THREADS"]) == ("Haswell", "7")


KEEP = """
    shown = chapter.keep("rows", [{"seed": seed, "value": 0.5 if profile == "evidence" else 0.25}])
    print(shown)
"""


def test_what_a_chapter_keeps_lies_with_the_results_and_comes_back_on_the_page(toy):
    root = toy(extra=KEEP)
    long = run_chapter("toy", "evidence", fresh=True)
    assert json.loads(long.results.read_text())["data"] == {"rows": [{"seed": 0, "value": 0.5}]}
    short = run_chapter("toy", "book")
    assert "0.25" in short.notebook.read_text()  # there is no committed evidence yet
    (root / "book/results/01-toy.json").write_text(long.results.read_text())
    page = run_chapter("toy", "book")
    assert "'value': 0.5" in page.notebook.read_text() and not page.cached
    assert json.loads(page.results.read_text())["data"] == {"rows": [{"seed": 0, "value": 0.25}]}  # its own


def nothing_left(root):
    return not list((root / "_build").rglob("results.json")) and not list((root / "_build").rglob("part-*"))


def test_a_notebook_that_raises(toy):
    root = toy(extra='raise KeyError("lost")')
    with pytest.raises(RunError, match=r"01-toy: cell .* raised KeyError"):
        run_chapter("toy", "quick")
    assert nothing_left(root)


def test_a_notebook_that_raises_inside_an_output_widget(toy):
    root = toy(extra="""
        import ipywidgets
        from IPython.display import display
        hidden = ipywidgets.Output()
        display(hidden)
        with hidden:
            raise KeyError("lost in a widget")
    """)
    with pytest.raises(RunError, match="inside a widget: KeyError"):
        run_chapter("toy", "quick")
    assert nothing_left(root)


def test_a_notebook_that_exits_early_with_status_0(toy):
    root = toy(extra="sys.exit(0)")
    with pytest.raises(RunError, match="01-toy"):
        run_chapter("toy", "quick")
    assert nothing_left(root)


def test_a_claim_of_the_card_that_is_never_recorded(toy):
    root = toy(record='chapter.claims.record("sum", 1001)')
    with pytest.raises(RunError, match="effect is in the card and was not recorded"):
        run_chapter("toy", "quick")
    assert nothing_left(root)


def test_a_notebook_without_close(toy):
    toy(close="")
    with pytest.raises(RunError, match=r"left no results; the last code cell must be chapter.close\(\)"):
        run_chapter("toy", "quick")


def test_a_swallowed_claim_error(toy):
    """The results of a chapter that catches its own failure are judged again outside."""
    toy(record='chapter.claims.record("sum", 1001)', close="try:\n    chapter.close()\nexcept AssertionError:\n    pass")
    with pytest.raises(RunError, match="effect is in the card and was not recorded"):
        run_chapter("toy", "quick")


def test_an_exact_claim_off_by_one(toy):
    root = toy()
    (root / "src" / "toylib.py").write_text("VALUE = 1002\n")  # inside the tolerance of the paper, off by one from ours
    with pytest.raises(RunError, match=r"sum is 1\s?002, expected 1\s?001"):
        run_chapter("toy", "quick")


def test_a_misspelt_parameter(toy):
    toy()
    with pytest.raises(RunError, match="'sede' is no parameter of the notebook; it has profile, seed"):
        run_chapter("toy", "quick", parameters={"sede": 3})


def test_a_library_change_with_the_notebook_unchanged_runs_again(toy):
    root = toy()
    first = run_chapter("toy", "quick")
    assert run_chapter("toy", "quick").cached
    (root / "src" / "papernets" / "uses.py").write_text("CHANGED = 1\n")
    second = run_chapter("toy", "quick")
    assert not second.cached and second.results != first.results
    (root / "src" / "toylib.py").write_text("VALUE = 7\n")  # outside the library: not seen, as intended
    assert run_chapter("toy", "quick").cached
    (root / "kernels" / "new.py").write_text("")
    with pytest.raises(RunError, match="sum is 7"):  # a kernel changed: it runs again, and now fails
        run_chapter("toy", "quick")


def test_runs_killed_at_random_moments_leave_nothing_half_written(toy):
    root = toy()
    whole = json.loads(run_chapter("toy", "quick").results.read_text())["claims"]
    command = [sys.executable, "-m", "papernets", "validate", "--chapter", "01", "--profile", "quick", "--fresh"]
    chance = random.Random(5)
    for _ in range(3):
        running = subprocess.Popen(command, env={**os.environ, "PAPERNETS_ROOT": str(root)}, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.uniform(0.5, 4))
        os.killpg(running.pid, signal.SIGKILL)
        running.wait()
        for file in (root / "_build").rglob("results.json"):
            assert json.loads(file.read_text())["claims"] == whole
    again = run_chapter("toy", "quick", fresh=True)
    assert json.loads(again.results.read_text())["claims"] == whole
    assert not list((root / "_build").rglob("part-*"))


def test_several_chapters_run_in_processes_of_their_own_and_one_failure_stops_no_other(toy):
    root = toy()
    write_chapter(root, 2, "other", record=RECORD.replace("toylib.VALUE", "7"))
    begun, heard = [], []
    results = run_chapters(["01-toy", "02-other"], "quick", jobs=2, begun=begun.append, report=heard.append)
    assert results == heard and begun == ["01-toy", "02-other"]
    by_chapter = {result.chapter: result for result in results}
    assert isinstance(by_chapter["02-other"], RunError) and isinstance(by_chapter["01-toy"], Run)
    assert not by_chapter["01-toy"].made_by["alone"]
    assert "02-other: cell" in str(by_chapter["02-other"]) and "sum is 7" in str(by_chapter["02-other"])


def test_a_process_that_is_killed_is_said_in_one_line(toy):
    root = toy(extra="import os, signal\nos.kill(os.getppid(), signal.SIGKILL)")
    write_chapter(root, 2, "other", start="", record="", close="")
    with pytest.raises(RunError, match="was killed, perhaps for its memory; try --jobs 1"):
        run_chapters(["01-toy", "02-other"], "quick", jobs=2)


def is_a_group(pid):
    try:
        os.killpg(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_ctrl_c_ends_all_processes_without_a_traceback(toy):
    root = toy(extra="import time\ntime.sleep(60)")
    write_chapter(root, 2, "other", extra="import time\ntime.sleep(60)")
    command = [sys.executable, "-m", "papernets", "validate", "--jobs", "2"]
    running = subprocess.Popen(command, env={**os.environ, "PAPERNETS_ROOT": str(root)}, start_new_session=True, text=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        begin = time.monotonic()
        while len(list((root / "_build").rglob("part-*"))) < 2 and time.monotonic() < begin + 120:
            time.sleep(0.1)
        os.killpg(running.pid, signal.SIGINT)  # a terminal tells the whole group
        said, wrong = running.communicate(timeout=60)
        assert (running.returncode, said) == (130, "") and len(wrong.splitlines()) < 2, wrong
        begin = time.monotonic()
        while is_a_group(running.pid) and time.monotonic() < begin + 30:
            time.sleep(0.1)
        assert not is_a_group(running.pid)  # nobody is left
    finally:
        running.kill()


def test_the_longest_chapter_comes_first(toy):
    root = toy()

    def took(path, seconds):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"made_by": {"seconds": seconds}}))

    for chapter, seconds in (("short", 9), ("long", 900), ("changed", 3)):
        took(root / f"book/results/{chapter}.json", seconds)
    took(root / "_build/chapters/book/changed/0123/results.json", 20)  # of its last run
    took(root / "_build/chapters/book/short/0123/results.json", 8)
    (root / "book/results/half.json").write_text("{")
    assert longest_first(["short", "changed", "new", "long", "half"], "book") == ["new", "half", "long", "changed", "short"]
    assert longest_first(["short", "changed", "long"], "quick") == ["long", "short", "changed"]
