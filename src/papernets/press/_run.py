"""Running a chapter: papermill, and every way in which a run can look finished and not be.

An executed notebook and its results lie in a folder named by the key of all they were made from. The folder appears by
one rename when everything in it is whole, so a run that is killed leaves nothing that a later one could mistake for done.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from papernets.cards import Card, card
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


@dataclass(frozen=True)
class Run:
    """A finished run: the executed notebook, its results, and whether it was found in the cache."""

    chapter: str
    profile: str
    notebook: Path
    results: Path
    cached: bool


def run_chapter(chapter: str, profile: str = "book", seed: int = 0, *, fresh: bool = False, progress: bool = False,
                parameters: dict | None = None) -> Run:
    """Run one chapter, or find it done. ``RunError`` if anything in it fails or is left out."""
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not known; choose from {', '.join(PROFILES)}")
    paper = card(chapter)
    source = paths.notebook(paper.chapter)
    if not source.exists():
        raise ValueError(f"chapter {paper.chapter} is planned and has no notebook yet")
    parameters = {"profile": profile, "seed": seed, **(parameters or {})}
    _check_parameters(source, parameters)
    home = paths.build() / "chapters" / profile / paper.chapter
    key = run_key(paper, profile, seed)
    done = home / key
    if not fresh and (done / "results.json").exists():
        return Run(paper.chapter, profile, done / "notebook.ipynb", done / "results.json", True)
    home.mkdir(parents=True, exist_ok=True)
    for left in home.glob("part-*"):  # of runs that were killed
        if not _alive(left):
            shutil.rmtree(left, ignore_errors=True)
    part = Path(tempfile.mkdtemp(prefix=f"part-{os.getpid()}-", dir=home))
    try:
        _execute(paper, source, part, parameters, profile, progress)
        if done.exists():
            shutil.rmtree(done)
        os.rename(part, done)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    for old in home.iterdir():
        if old != done and not old.name.startswith("part-"):
            shutil.rmtree(old, ignore_errors=True)
    return Run(paper.chapter, profile, done / "notebook.ipynb", done / "results.json", False)


def _alive(part: Path) -> bool:
    try:
        os.kill(int(part.name.split("-")[1]), 0)
    except (ProcessLookupError, ValueError, IndexError):
        return False
    except PermissionError:
        return True
    return True


def _check_parameters(source: Path, parameters: dict) -> None:
    """A misspelt parameter is an error here; papermill only logs it."""
    known = papermill.inspect_notebook(str(source))
    if not known:
        raise RunError(f"{source.stem}: no cell is tagged 'parameters', so no parameter can be set")
    for name in parameters:
        if name not in known:
            raise RunError(f"{source.stem}: {name!r} is no parameter of the notebook; it has {', '.join(known)}")


def _execute(paper: Card, source: Path, part: Path, parameters: dict, profile: str, progress: bool) -> None:
    output, raw = part / "notebook.ipynb", part / "raw.json"
    start, made_from = time.monotonic(), own_hash(paper)  # before: a file may be edited while a long run goes on
    environment = {**dict.fromkeys(cleaned(os.environ)[1]),  # chapters measure, too, and on one thread
                   "PAPERNETS_RESULT": str(raw), "PAPERNETS_ROOT": str(paths.root()),
                   "PAPERNETS_BOOK": None if profile == "evidence" else "1",  # its outputs can become a page
                   **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"), "1")}
    with _environment(environment):
        try:
            papermill.execute_notebook(
                str(source), str(output), parameters, cwd=str(source.parent), kernel_name="python3", log_output=False,
                progress_bar={"desc": paper.chapter, "leave": False} if progress else False,
                execution_timeout=TIMEOUT[profile], request_save_on_cell_execute=False,
                kernel_manager_class=_Kernels,
                extra_arguments=["--log-level=50"])
        except PapermillExecutionError as error:
            raise RunError(f"{paper.chapter}: cell {error.exec_count} raised {error.ename}: {error.evalue}") from None
        except Exception as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            raise RunError(f"{paper.chapter}: {type(error).__name__}: {error}") from None
    notebook = nbformat.read(output, 4)
    _check_executed(paper.chapter, notebook)
    try:
        found = json.loads(raw.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{paper.chapter}: the run left no results; the last code cell must be chapter.close()") from None
    _check_results(paper, found)
    raw.unlink()
    _write_notebook(output, notebook)
    found["made_by"] = {"hash": made_from, "versions": versions(), "machine": found.pop("machine"),
                        "seconds": round(time.monotonic() - start, 1)}
    write_json(part / "results.json", found)


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


def _check_results(paper: Card, found: dict) -> None:
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
    for index, cell in enumerate(cell for cell in notebook.cells if cell.cell_type == "code"):
        checked = "nbval-check-output" in cell.metadata.get("tags", [])
        cell.outputs = executed[cell.id].outputs if checked else []
        cell.execution_count = index + 1 if checked else None
        for output in cell.outputs:
            if "execution_count" in output:
                output.execution_count = index + 1
    notebook.metadata.pop("widgets", None)
    write_text(source, nbformat.writes(notebook) + "\n")
    return source


def _write_notebook(path: Path, notebook) -> None:
    """Without the injected cell and papermill's own notes: they belong to the run and not to the page."""
    notebook.cells = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
    notebook.metadata.pop("papermill", None)
    nbformat.write(notebook, path)


@contextlib.contextmanager
def _environment(values: dict[str, str | None]):
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
                 fresh: bool = False, report: Callable[[Run | RunError], None] | None = None) -> list[Run | RunError]:
    """Run several chapters and keep going past one that fails. ``report`` hears of each as it ends.

    With ``jobs`` they run in local processes; with a ``scheduler`` its address goes to the chapters, which spread their
    seeds over that Dask cluster.
    """
    chapters = list(chapters)
    tell = report or (lambda _: None)
    found: list[Run | RunError] = []
    with _environment({"PAPERNETS_SCHEDULER": scheduler, "PAPERNETS_JOBS": "1" if jobs > 1 else None}):
        if jobs == 1 or len(chapters) < 2:
            results: Iterable = (_try(chapter, profile, seed, fresh, sys.stderr.isatty()) for chapter in chapters)
        else:
            import joblib
            results = joblib.Parallel(n_jobs=jobs, return_as="generator_unordered")(
                joblib.delayed(_try_elsewhere)(_ours(), chapter, profile, seed, fresh) for chapter in chapters)
        for result in results:
            tell(result)
            found.append(result)
    return found


def _ours() -> dict[str, str | None]:
    """Our settings in the environment; a process that joblib keeps for later work still has those it was started with."""
    return {name: value for name, value in os.environ.items() if name.startswith("PAPERNETS_")}


def _try_elsewhere(settings: dict, chapter: str, profile: str, seed: int, fresh: bool) -> Run | RunError:
    stale = {name: None for name in _ours() if name not in settings}
    with _environment({**stale, **settings}):
        return _try(chapter, profile, seed, fresh, False)


def _try(chapter: str, profile: str, seed: int, fresh: bool, progress: bool) -> Run | RunError:
    try:
        return run_chapter(chapter, profile, seed, fresh=fresh, progress=progress)
    except RunError as error:
        return error
