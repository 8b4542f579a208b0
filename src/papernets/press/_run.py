"""Running a chapter: papermill, and every way in which a run can look finished and not be.

An executed notebook and its results lie in a folder named by the key of all they were made from. The folder appears by
one rename when everything in it is whole, so a run that is killed leaves nothing that a later one could mistake for done.
"""

import contextlib
import json
import math
import multiprocessing
import os
import shutil
import signal
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import nbformat

from papernets.cards import Card, Comparison, card
from papernets.cards.provenance import own_hash, run_key, versions
from papernets.tools import paths
from papernets.tools.environment import cleaned
from papernets.tools.files import write_json, write_text

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import papermill
    from jupyter_client.manager import AsyncKernelManager
    from jupyter_core.paths import jupyter_runtime_dir
    from papermill.exceptions import PapermillExecutionError

PROFILES = ("quick", "book", "evidence")
#: Seconds one cell may take before the run counts as hung.
TIMEOUT = {"quick": 120, "book": 300, "evidence": 3 * 3600}


class _Kernels(AsyncKernelManager):
    """Kernels that are spoken to through files of this user where the system has them, not through open ports."""

    def _transport_default(self):
        return "ipc" if os.name == "posix" else "tcp"

    def _ip_default(self):
        if self.transport != "ipc":
            return super()._ip_default()
        # of its own: by default two kernels started in one folder would meet in the same files
        folder = Path(jupyter_runtime_dir())
        folder.mkdir(parents=True, exist_ok=True)
        return str(folder / f"papernets-{uuid.uuid4().hex[:12]}")


class RunError(RuntimeError):
    """A chapter did not run as it must; the message names the chapter and the reason in one line."""

    chapter = ""


@dataclass(frozen=True)
class Run:
    """A finished run: the executed notebook, its results, and whether it was found in the cache."""

    chapter: str
    profile: str
    notebook: Path
    results: Path
    cached: bool

    @property
    def made_by(self) -> dict:
        """How its results were made: hash, versions, machine, seconds, CPU seconds, and whether no chapter ran beside it."""
        return json.loads(self.results.read_text(encoding="utf-8"))["made_by"]


def run_chapter(chapter: str, profile: str = "book", seed: int = 0, *, fresh: bool = False, parameters: dict | None = None,
                alone: bool = True) -> Run:
    """Run one chapter, or find it done. ``RunError`` if anything in it fails or is left out.

    The results tell whether it was ``alone``: its page says so, since chapters measure times.
    """
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not known; choose from {', '.join(PROFILES)}")
    paper = card(chapter)
    if not paths.notebook(paper.chapter).exists():
        raise ValueError(f"chapter {paper.chapter} is planned and has no notebook yet")
    done = _home(paper.chapter, profile) / run_key(paper, profile, seed)
    if not fresh and (done / "results.json").exists():
        _check_parameters(paths.notebook(paper.chapter), {"profile", "seed", *(parameters or ())})
        return Run(paper.chapter, profile, done / "notebook.ipynb", done / "results.json", True)
    with Making(paper, profile, seed, parameters, alone=alone) as making:
        return making.finish(_execute(making))


def _home(chapter: str, profile: str) -> Path:
    """The folder of a chapter's runs: the one that is whole, and those that are being made."""
    return paths.build() / "chapters" / profile / chapter


class Making:
    """A run that is being made, by whoever executes the cells. It counts only after ``finish``, which checks it.

    ``parameters`` are those of the notebook, ``environment`` is what its kernel must see (``None`` for what it must not).
    """

    def __init__(self, paper: Card | Comparison, profile: str, seed: int = 0, parameters: dict | None = None, *,
                 alone: bool = True):
        self.paper, self.profile, self.source, self._alone = paper, profile, paths.notebook(paper.chapter), alone
        self.parameters = {"profile": profile, "seed": seed, **(parameters or {})}
        _check_parameters(self.source, self.parameters)
        self._home = _home(paper.chapter, profile)
        self._done = self._home / run_key(paper, profile, seed)
        self._home.mkdir(parents=True, exist_ok=True)
        for left in self._home.glob("part-*"):  # of runs that were killed
            if not _alive(left):
                shutil.rmtree(left, ignore_errors=True)
        self.part = Path(tempfile.mkdtemp(prefix=f"part-{os.getpid()}-", dir=self._home))
        self._raw = self.part / "raw.json"
        self.environment = {
            **dict.fromkeys(cleaned(os.environ)[1]),  # chapters measure, too, and on one thread
            "PAPERNETS_RESULT": str(self._raw), "PAPERNETS_ROOT": str(paths.root()),
            "PAPERNETS_BOOK": None if profile == "evidence" else "1",  # its outputs can become a page
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")}
        self._start, self._made_from = time.monotonic(), own_hash(paper)  # before: a file may be edited while a run goes on

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.drop()

    def drop(self) -> None:
        """Remove what is not finished."""
        shutil.rmtree(self.part, ignore_errors=True)

    def finish(self, notebook) -> Run:
        """Check the executed ``notebook`` and its results and put both in their place; ``RunError`` says what is wrong."""
        chapter, done = self.paper.chapter, self._done
        _check_executed(chapter, notebook)
        try:
            found = json.loads(self._raw.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise RunError(f"{chapter}: the run left no results; the last code cell must be chapter.close()") from None
        _check_results(self.paper, found)
        self._raw.unlink()
        _write_notebook(self.part / "notebook.ipynb", notebook)
        found["made_by"] = {"hash": self._made_from, "versions": versions(), "machine": found.pop("machine"),
                            "seconds": round(time.monotonic() - self._start, 1), "cpu_seconds": found.pop("cpu_seconds"),
                            "compile_seconds": found.pop("compile_seconds"), "alone": self._alone}
        write_json(self.part / "results.json", found)
        if done.exists():
            shutil.rmtree(done)
        os.rename(self.part, done)
        for old in self._home.iterdir():
            if old != done and not old.name.startswith("part-"):
                shutil.rmtree(old, ignore_errors=True)
        return Run(chapter, self.profile, done / "notebook.ipynb", done / "results.json", False)


def _alive(part: Path) -> bool:
    try:
        os.kill(int(part.name.split("-")[1]), 0)
    except (ProcessLookupError, ValueError, IndexError):
        return False
    except PermissionError:
        return True
    return True


def _check_parameters(source: Path, parameters: Iterable[str]) -> None:
    """A misspelt parameter is an error here; papermill only logs it."""
    known = papermill.inspect_notebook(str(source))
    if not known:
        raise RunError(f"{source.stem}: no cell is tagged 'parameters', so no parameter can be set")
    for name in parameters:
        if name not in known:
            raise RunError(f"{source.stem}: {name!r} is no parameter of the notebook; it has {', '.join(known)}")


def _execute(making: Making):
    """The notebook with its outputs, by papermill."""
    chapter, output = making.paper.chapter, making.part / "notebook.ipynb"
    with environment(making.environment):
        try:
            papermill.execute_notebook(
                str(making.source), str(output), making.parameters, cwd=str(making.source.parent), kernel_name="python3",
                log_output=False, progress_bar=False, execution_timeout=TIMEOUT[making.profile],
                request_save_on_cell_execute=False, kernel_manager_class=_Kernels, extra_arguments=["--log-level=50"])
        except PapermillExecutionError as error:
            raise RunError(f"{chapter}: cell {error.exec_count} raised {error.ename}: {error.evalue}") from None
        except Exception as error:
            raise RunError(f"{chapter}: {type(error).__name__}: {error}") from None
    return nbformat.read(output, 4)


def _check_executed(chapter: str, notebook) -> None:
    """Every cell ran, and no traceback hides where papermill does not look."""
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        if cell.execution_count is None:
            raise RunError(f"{chapter}: cell {index} was never run; the notebook stopped early without an error")
        for output in cell.outputs:
            if output.output_type == "error":
                raise RunError(f"{chapter}: cell {index} raised {output.ename}: {output.evalue}")
    for output in _widget_outputs(notebook):
        if output.get("output_type") == "error":
            raise RunError(f"{chapter}: an error was raised inside a widget: "
                           f"{output.get('ename')}: {output.get('evalue')}")


def _widget_outputs(notebook) -> Iterator[dict]:
    for bundle in notebook.metadata.get("widgets", {}).values():
        for model in bundle.get("state", {}).values():
            yield from model.get("state", {}).get("outputs", ())


def _check_results(paper: Card | Comparison, found: dict) -> None:
    recorded = [row["id"] for row in found["claims"]]
    missing = [claim.id for claim in paper.claims if claim.id not in recorded]
    if missing:
        raise RunError(f"{paper.chapter}: {missing[0]} is in the card and was not recorded"
                       + (f" ({len(missing)} such claims)" if len(missing) > 1 else ""))
    failed = [row for row in found["claims"] if row["verdict"] == "failed"]
    if failed:
        raise RunError(f"{paper.chapter}: {failed[0]['id']} is {failed[0]['ours']}, expected {failed[0]['expected']}")


def renew_outputs(chapter: str) -> Path:
    """Make a committed notebook clean: no outputs but those that nbval compares, taken from a quick run of now."""
    source = paths.notebook(card(chapter).chapter)
    run = run_chapter(chapter, "quick")
    executed = {cell.id: cell for cell in nbformat.read(run.notebook, 4).cells}
    notebook = nbformat.read(source, 4)
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        checked = "nbval-check-output" in cell.metadata.get("tags", [])
        cell.outputs = executed[cell.id].outputs if checked else []
        cell.execution_count = executed[cell.id].execution_count if checked else None
    notebook.metadata.pop("widgets", None)
    write_text(source, nbformat.writes(notebook) + "\n")
    return source


def _write_notebook(path: Path, notebook) -> None:
    """Numbered from 1, without the injected cell and papermill's own notes: they belong to the run and not to the page."""
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for count, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = count
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = count
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("papermill", None)
    nbformat.write(notebook, path)


@contextlib.contextmanager
def environment(values: dict[str, str | None]):
    before = {name: os.environ.get(name) for name in values}

    def put(wanted):
        for name, value in wanted.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    put(values)
    try:
        yield
    finally:
        put(before)


def run_chapters(chapters: Iterable[str], profile: str, seed: int = 0, *, jobs: int = 1, scheduler: str | None = None,
                 fresh: bool = False, begun: Callable[[str], None] | None = None,
                 report: Callable[[Run | RunError], None] | None = None) -> list[Run | RunError]:
    """Run several chapters and keep going past one that fails. ``begun`` and ``report`` hear of each as it begins and ends.

    Several ``jobs`` are local processes, and the longest chapter comes first; the address of a ``scheduler`` goes to the
    chapters, which spread their seeds over that Dask cluster.
    """
    chapters, begun, report = list(chapters), begun or (lambda _: None), report or (lambda _: None)
    jobs = min(jobs, len(chapters))
    found: list[Run | RunError] = []
    with environment({"PAPERNETS_SCHEDULER": scheduler, "PAPERNETS_JOBS": "1" if jobs > 1 else None}):
        with contextlib.closing(_in_turn(chapters, begun, profile, seed, fresh, True) if jobs == 1 else _side_by_side(
                longest_first(chapters, profile), jobs, begun, profile, seed, fresh, False)) as results:
            for result in results:
                report(result)
                found.append(result)
    return found


def longest_first(chapters: Iterable[str], profile: str) -> list[str]:
    """By the seconds of the last run; where there is none, of the committed evidence. A chapter never run may be long."""
    def seconds(chapter: str) -> float:
        for file in (*_home(chapter, profile).glob("*/results.json"), paths.results() / f"{chapter}.json"):
            with contextlib.suppress(OSError, ValueError, KeyError):
                return json.loads(file.read_text(encoding="utf-8"))["made_by"]["seconds"]
        return math.inf

    return sorted(chapters, key=seconds, reverse=True)


def _in_turn(chapters: Iterable[str], begun: Callable[[str], None], *settings) -> Iterator[Run | RunError]:
    for chapter in chapters:
        begun(chapter)
        yield _try(chapter, *settings)


def _side_by_side(chapters: list[str], jobs: int, begun: Callable[[str], None], *settings) -> Iterator[Run | RunError]:
    """Each in a process of its own; no more are handed out than run, so what has begun is known."""
    running: set[Future] = set()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"),  # a fork would copy locks of our threads
                             signal.signal, (signal.SIGINT, signal.SIG_IGN)) as pool:
        try:
            while chapters or running:
                while chapters and len(running) < jobs:
                    begun(chapters[0])
                    running.add(pool.submit(_try, chapters.pop(0), *settings))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        except BrokenProcessPool:
            raise RunError("a process that ran a chapter was killed, perhaps for its memory; try --jobs 1") from None
        except BaseException:  # Ctrl-C is for this process alone, which ends the others, and with each its kernel
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _try(chapter: str, profile: str, seed: int, fresh: bool, alone: bool) -> Run | RunError:
    try:
        return run_chapter(chapter, profile, seed, fresh=fresh, alone=alone)
    except RunError as error:
        error.chapter = chapter
        return error
