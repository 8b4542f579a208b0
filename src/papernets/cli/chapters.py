"""Chapters: which there are, running them, the book, JupyterLab, the table in the README, clean notebooks."""

import importlib.util
import json
import os
import subprocess
import sys
from typing import Annotated

import typer
from rich.table import Table

from papernets.cli.console import Json, err, out, say


def list_(json_: Json = False) -> None:
    """The 41 papers, their state, and their claims by verdict."""
    from papernets.cards.present import in_words
    from papernets.press import statuses
    found = statuses()
    if json_:
        print(json.dumps([one.row() for one in found], ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False)
    for name in ("", "paper", "family", "state", "claims"):
        table.add_column(name, no_wrap=name != "claims")
    for one in found:
        table.add_row(f"{one.card.number:02d}", one.card.name, one.card.family, one.state, in_words(one.counts))
    out.print(table)


def _chosen(chapters: list[str], family: str | None = None) -> list[str]:
    """Chapters by name, or all that have a notebook."""
    from papernets.cards import FAMILIES, card, cards, comparisons
    from papernets.tools import paths
    if family is not None and family not in FAMILIES:
        raise ValueError(f"no family {family!r}; choose from {', '.join(FAMILIES)}")
    every = [*cards(), *comparisons()]  # all of them, since one that is wrong would stop the book when the runs are done
    found = [card(name) for part in chapters for name in part.split()] if chapters else every
    if family is not None:
        found = [one for one in found if one.family == family]
    ready = [one.chapter for one in found if paths.notebook(one.chapter).exists()]
    if chapters:
        for one in found:
            if one.chapter not in ready:
                raise ValueError(f"chapter {one.chapter} is planned and has no notebook yet")
    if not ready:
        raise ValueError(f"no chapter of family {family} has a notebook yet")
    return ready


def validate(chapter: Annotated[list[str] | None, typer.Option("--chapter", help="Number or slug; may be given again.")]
             = None,
             family: Annotated[str | None, typer.Option(help="All chapters of a family.")] = None,
             profile: Annotated[str, typer.Option(help="quick, book or evidence.")] = "quick",
             seed: Annotated[int, typer.Option(min=0)] = 0,
             jobs: Annotated[int, typer.Option(min=1, help="Chapters at a time.")] = 1,
             scheduler: Annotated[str | None, typer.Option(help="Address of a Dask scheduler.")] = None,
             fresh: Annotated[bool, typer.Option("--fresh", help="Run even if nothing changed.")] = False,
             json_: Json = False) -> None:
    """Run chapters with papermill and judge their claims. Evidence runs are written to book/results."""
    from papernets.cards import card
    from papernets.cards.present import counted, in_words
    from papernets.press import Run, RunError, Watch, read_results, run_chapters
    from papernets.press._run import PROFILES
    from papernets.tools import paths
    from papernets.tools.files import write_text
    if profile not in PROFILES:
        raise ValueError(f"profile {profile!r} is not known; choose from {', '.join(PROFILES)}")
    chosen = _chosen(chapter or [], family)
    rows = []

    def report(result: Run | RunError) -> None:
        with watch.ended(result.chapter):
            show(result)

    def show(result: Run | RunError) -> None:
        if isinstance(result, RunError):
            err.print(f"failed  {result}", markup=False, highlight=False, soft_wrap=True)
            return
        found = read_results(result.results)
        if profile == "evidence":
            write_text(paths.results() / f"{result.chapter}.json", result.results.read_text(encoding="utf-8"))
        rows.append(found)
        if not json_:
            words = in_words(counted(found["claims"], card(result.chapter)))
            note = "unchanged" if result.cached else f"{found['made_by']['seconds']:.0f} s"
            out.print(f"ok      {result.chapter} ({profile}, {note}): {words}", highlight=False)

    with Watch(err, len(chosen)) as watch:
        results = run_chapters(chosen, profile, seed, jobs=jobs, scheduler=scheduler, fresh=fresh, begun=watch.begun,
                               report=report)
    if json_:
        print(json.dumps(rows, ensure_ascii=False))
    if any(isinstance(result, RunError) for result in results):
        raise typer.Exit(1)


def site(chapters: Annotated[list[str] | None, typer.Argument(help="Numbers or slugs; all chapters if left out.")] = None,
         jobs: Annotated[int | None, typer.Option(min=1, help="Chapters at a time; left out, one for each core.")] = None,
         profile: Annotated[str, typer.Option(help="book, or quick for a first look at the pages.")] = "book") -> None:
    """Run every chapter that changed, check every claim, and build the book into _build/html (quick: _build/quick/html)."""
    from filelock import FileLock, Timeout

    from papernets.press import Run, RunError, Watch, run_chapters
    from papernets.tools import paths
    from papernets.tools.environment import cores
    if profile not in ("book", "quick"):
        raise ValueError(f"a site is made of runs of profile book or quick, not of {profile!r}")
    chosen, jobs, folder = _chosen(chapters or []), jobs or cores(), paths.site(profile)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError("another run is making the book; wait for it or stop it") from None
    with lock:
        out.print(f"Running {len(chosen)} chapter{'s' if len(chosen) > 1 else ''} (profile {profile})", highlight=False)
        with Watch(err, len(chosen)) as watch:
            def report(result: Run | RunError) -> None:
                with watch.ended(result.chapter):
                    at = f"[{watch.done}/{watch.total}]"
                    if isinstance(result, RunError):
                        err.print(f"{at} failed  {result}", markup=False, highlight=False, soft_wrap=True)
                    else:
                        how = "unchanged" if result.cached else f"done ({result.made_by['seconds']:.0f} s)"
                        out.print(f"{at} {result.chapter} {how}", markup=False, highlight=False)

            results = run_chapters(chosen, profile, jobs=jobs, begun=watch.begun, report=report)
        failed = [result for result in results if isinstance(result, RunError)]
        if failed:
            raise RunError(f"{len(failed)} of {len(chosen)} chapters failed; the site was not built")
        from papernets.press._site import make_site
        page = make_site(results, profile, lambda text: out.print(text, highlight=False))
    out.print(f"Open {page}", highlight=False, soft_wrap=True)


def lab(port: Annotated[int, typer.Option(min=0, help="0 takes any free one.")] = 8888,
        browser: Annotated[bool, typer.Option(help="Open a browser.")] = True) -> None:
    """Open the chapters in JupyterLab."""
    from papernets.tools import paths
    notebooks = paths.root() / "notebooks"
    if importlib.util.find_spec("jupyterlab") is None:
        raise ValueError("JupyterLab is not installed; run: make lab")
    command = [sys.executable, "-m", "jupyterlab", f"--port={port}", f"--notebook-dir={notebooks}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:  # as in a container; Jupyter refuses root without being told
        command.append("--allow-root")
    raise typer.Exit(subprocess.run(command + ([] if browser else ["--no-browser"])).returncode)


def readme(check: Annotated[bool, typer.Option("--check", help="Only say whether it is current.")] = False) -> None:
    """Write the table of papers into the README."""
    from papernets.press import statuses
    from papernets.press._pages import readme_table
    from papernets.tools import paths
    from papernets.tools.files import write_text
    path = paths.root() / "README.md"
    text = path.read_text(encoding="utf-8")
    begin, end = "<!-- papers:begin -->", "<!-- papers:end -->"
    if text.count(begin) != 1 or text.count(end) != 1:
        raise ValueError(f"{path.name} must hold {begin} and {end} once each")
    head, rest = text.split(begin)
    new = f"{head}{begin}\n{readme_table(statuses())}\n{end}{rest.split(end)[1]}"
    if new == text:
        out.print("README.md is current")
    elif check:
        err.print("README.md is not current; run: papernets readme")
        raise typer.Exit(1)
    else:
        write_text(path, new)
        out.print("README.md written")


def new(paper: Annotated[str, typer.Argument(help="Number or slug of a planned paper.")]) -> None:
    """Begin a chapter: its folder, its tests, its notebook and its line in the table of contents."""
    from papernets.cards import card, cards
    from papernets.press import new_chapter
    from papernets.tools import paths
    cards()  # all of them, since one that is wrong would stop the chapter at its first run
    one = card(paper)
    if not hasattr(one, "number"):
        raise ValueError(f"{one.slug} is a comparison; a chapter is begun for one of the 41 papers")
    for path in new_chapter(one):
        say(str(path.relative_to(paths.root())))
    say(f"Write the method, and see what is still red: pytest tests/papers/{one.module}")


def notebook(chapters: Annotated[list[str], typer.Argument(help="Numbers or slugs.")]) -> None:
    """Clean committed notebooks: clear all outputs, and renew those that nbval compares."""
    from papernets.press import renew_outputs
    for chapter in _chosen(chapters):
        out.print(f"{renew_outputs(chapter)} is clean", highlight=False, soft_wrap=True)
