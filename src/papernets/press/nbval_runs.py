"""A plugin of pytest: what nbval executes becomes a quick run of the press, so no notebook is executed twice.

Give it to pytest with ``-p papernets.press.nbval_runs``, beside ``--nbval-lax``. The cells are nbval's own, and so is the
comparison of those tagged ``nbval-check-output``; the parameters are those of a quick run, whatever the notebook says. After
its cells each notebook has two items more. ``explorers`` moves the live controls. ``run`` holds the cells to the guards of
the runner and puts what they gave where ``run_chapter`` finds it.
"""

import copy
import os
import time
from collections import defaultdict

import nbformat
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile

from papernets.cards import card
from papernets.press._run import Making, RunError, environment

#: CPU seconds that a quick run may take, with the start of its kernel and its children, but without the compilation of what is
#: kept for the next run. They are those of a core that adds 25 million integers a second in Python; a slower one may take more.
#: A chapter aims for 10. On a machine with other guests the same run was seen to take 1.7 times as long within the hour.
CPU_SECONDS = 30


def slowness() -> float:
    """How many times longer this core takes now than the one that ``CPU_SECONDS`` is meant for; 1 if it is faster."""
    start, total = time.process_time(), 0
    for number in range(2_000_000):
        total += number
    return max(1.0, (time.process_time() - start) / 0.08)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(parent):
    found = yield
    return [Notebook.from_parent(parent, path=one.path) if type(one) is IPyNbFile else one for one in found]


class Notebook(IPyNbFile):
    """A chapter that is executed by nbval."""

    making: Making | None = None
    failed = ""  # the first item that did; those after it are skipped, since one fault is one failure

    def collect(self):
        cells = list(super().collect())
        for each in cells:
            yield Cell.from_parent(self, name=each.name, cell_num=each.cell_num, cell=each.cell, options=each.options)
        moves = nbformat.v4.new_code_cell("for explorer in chapter.explorers:\n    explorer.move_all()")
        yield Cell.from_parent(self, name="explorers", cell_num=len(cells), cell=moves, options=defaultdict(bool))
        yield WholeRun.from_parent(self, name="run")

    def setup(self):
        self.slowness = slowness()
        self.outputs = {}  # of the cells that ran to their end, by their id
        self.making = Making(card(self.path.stem), "quick", alone=os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1") == "1")
        with environment(self.making.environment):
            super().setup()

    def teardown(self):
        super().teardown()
        if self.making:
            self.making.drop()

    def executed(self):
        """The notebook with what its cells put out."""
        notebook = copy.deepcopy(self.nb)
        for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
            cell.execution_count = 1 if cell.id in self.outputs else None
            cell.outputs = self.outputs.get(cell.id, [])
        return notebook


class Cell(IPyNbCell):
    def runtest(self):
        if self.parent.failed:
            pytest.skip(f"{self.parent.failed} failed")
        if "parameters" in self.cell.metadata.get("tags", ()):
            self.cell = copy.deepcopy(self.cell)  # below the lines of the notebook, so that their numbers stay
            self.cell.source += "".join(f"\n{name} = {value!r}" for name, value in self.parent.making.parameters.items())
        try:
            super().runtest()
        except pytest.skip.Exception:
            raise  # the run is not whole then
        except BaseException:
            self.parent.failed = self.name
            raise
        self.parent.outputs[self.cell.id] = self.test_outputs


class WholeRun(pytest.Item):
    """The chapter as one run."""

    def runtest(self):
        if self.parent.failed:
            pytest.skip(f"{self.parent.failed} failed")
        run = self.parent.making.finish(self.parent.executed())
        slow = (self.parent.slowness + slowness()) / 2  # other work on the machine comes and goes
        seconds = (run.made_by["cpu_seconds"] - run.made_by["compile_seconds"]) / slow
        if seconds > CPU_SECONDS:
            raise RunError(f"{run.chapter}: this quick run took {seconds:.1f} CPU seconds; at most {CPU_SECONDS} are allowed, "
                           "so give it smaller sizes in chapter.pick(quick=…)")

    def repr_failure(self, excinfo):
        return str(excinfo.value) if isinstance(excinfo.value, RunError) else super().repr_failure(excinfo)

    def reportinfo(self):
        return self.path, 0, f"{self.path.name}::run"
