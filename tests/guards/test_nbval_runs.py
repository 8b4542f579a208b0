"""A notebook that nbval executes is held to the guards of the runner: each fault is planted in a chapter of its own."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET

import nbformat
import pytest
from toy_chapters import OPEN, checkout, write_chapter

from papernets.press import run_chapter

pytestmark = pytest.mark.xdist_group("kernels")

SLIDER = """
    import plotly.graph_objects as go
    from papernets.chapter import Slider
    def draw(n):
        return go.Figure(go.Scatter(x=[1, 2], y=[n, {divided}]))
    chapter.explore(draw, alt="A line", n=Slider(0, 9, page=(0, 1)))
"""
GOOD = '''
    from IPython.display import HTML, display
    if (profile, seed) != ("quick", 0):
        raise ValueError(f"{profile} {seed}")
    print("one")
    print("two", file=sys.stderr)
    display(HTML("<b>three</b>"))
    chapter.explorers[0]
'''
WIDGET = """
    import ipywidgets
    from IPython.display import display
    hidden = ipywidgets.Output()
    display(hidden)
    with hidden:
        raise KeyError("lost in a widget")
"""
BARE = dict(start="", record="", close="")
#: What each chapter gets, which of its items is red, and what that says.
FAULTS = {
    "raises": (dict(BARE, start='raise KeyError("lost")', extra="print(1)"), "Cell 2", "KeyError: 'lost'"),
    "differs": (dict(BARE, shown="3"), "Cell 1", "Cell outputs differ"),
    "widget": (dict(BARE, start=WIDGET), "Cell 2", "KeyError: 'lost in a widget'"),
    "exits": (dict(BARE, start="import sys\nsys.exit(0)"), "Cell 2", "SystemExit: 0"),
    "unclosed": (dict(close=""), "run", "left no results; the last code cell must be chapter.close()"),
    "unrecorded": (dict(record='chapter.claims.record("sum", 1001)',
                        close="try:\n    chapter.close()\nexcept AssertionError:\n    pass"),
                   "run", "effect is in the card and was not recorded"),
    "slow": (dict(extra="import os\nos.times = lambda: (1.0, 1.0, 3000.0, 400.0, 0.0)"),  # children
             "run", "CPU seconds; at most 30 are allowed"),
    "immovable": (dict(extra=SLIDER.format(divided="1 // (9 - n)")), "explorers", "n at 9 gives <b>ZeroDivisionError</b>")}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Outcome and words of every item, by chapter and name, of one run of pytest; and the checkout."""
    root = tmp_path_factory.mktemp("checkout")
    checkout(root)
    write_chapter(root, start=OPEN + SLIDER.format(divided="n"), extra=GOOD)
    for number, (slug, (parts, _, _)) in enumerate(FAULTS.items(), 2):
        write_chapter(root, number, slug, **parts)
    subprocess.run([sys.executable, "-m", "pytest", "-p", "papernets.press.nbval_runs", "--nbval-lax", "--nbval-current-env",
                    "-p", "no:cacheprovider", "-n", "0", "-q", "--rootdir", str(root), f"--junitxml={root / 'found.xml'}",
                    str(root / "notebooks")], env={**os.environ, "PAPERNETS_ROOT": str(root)}, capture_output=True, timeout=280)
    items = {}
    for case in ET.parse(root / "found.xml").iter("testcase"):
        outcome = next((child.tag for child in case), "passed")
        words = re.sub(r"#x1B\[[\d;]*m", "", " ".join(child.text or child.get("message") for child in case))  # colours
        items.setdefault(case.get("classname").split("-")[-1].removesuffix(".ipynb"), {})[case.get("name")] = outcome, words
    return root, items


def test_a_whole_chapter_is_green_and_is_the_run_that_the_press_finds(found, monkeypatch):
    root, items = found
    assert set(items) == {"toy", *FAULTS} and {outcome for outcome, _ in items["toy"].values()} == {"passed"}
    assert list(items["toy"])[-2:] == ["explorers", "run"] and len(items["toy"]) == 8
    monkeypatch.setenv("PAPERNETS_ROOT", str(root))
    run = run_chapter("toy", "quick")
    assert run.cached  # it was not executed again
    by_nbval = nbformat.read(run.notebook, 4)
    again = run_chapter("toy", "quick", fresh=True)
    by_papermill = nbformat.read(again.notebook, 4)
    assert [cell.get("outputs") for cell in by_nbval.cells] == [cell.get("outputs") for cell in by_papermill.cells]
    assert "injected" not in run.notebook.read_text() and 'profile = "book"' in by_nbval.cells[1].source
    assert json.loads(again.results.read_text())["profile"] == "quick"


@pytest.mark.parametrize("slug", FAULTS)
def test_a_fault_is_red_once_and_says_what_it_is(found, slug):
    root, items = found
    _, item, says = FAULTS[slug]
    outcomes = {name: outcome for name, (outcome, _) in items[slug].items()}
    names = list(outcomes)
    at = names.index(item)
    assert [outcomes[name] for name in names[:at]] == ["passed"] * at
    assert outcomes[item] == "failure" and says in items[slug][item][1]
    assert {outcomes[name] for name in names[at + 1:]} <= {"skipped"}
    kept = list((root / "_build").rglob(f"*-{slug}/*/results.json"))
    assert len(kept) == (slug == "slow")  # that run is whole, and only too long
    assert not list((root / "_build").rglob("part-*"))
