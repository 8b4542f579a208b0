"""Assembling the site: executed notebooks, pages made from the cards, and every script and font from installed packages.

The sources are laid out in a folder of their own and built from nothing, since a second build of unchanged pages repeats
no warning. The finished site takes its place by a rename.
"""

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nbformat
import yaml
from PIL import Image

from papernets.bench import hardware_part, kernels_part
from papernets.cards import comparisons
from papernets.cards.present import typeset_html
from papernets.data import PHOTOGRAPHS, photographs
from papernets.press import _pages
from papernets.press._results import Status, status, statuses
from papernets.press._run import Run, RunError
from papernets.press._thumbnail import thumbnail
from papernets.tools import paths
from papernets.tools.files import write_text

_STAMP = ".made-from"


def make_site(runs: Iterable[Run], profile: str = "book", tell: Callable[[str], None] = lambda _: None) -> Path:
    """Build ``html`` in the folder of the profile and return its front page. Nothing to do takes no time."""
    root, build = paths.root(), paths.site(profile)
    stage = build / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    found = statuses()
    _lay_out(root, stage, list(runs), found)
    key = _key(stage)
    site = build / "html"
    stamp = site / _STAMP
    if stamp.exists() and stamp.read_text() == key:
        tell("The site is up to date.")
        return site / "index.html"
    tell("Building the pages …")
    work = build / "pages"
    shutil.rmtree(work, ignore_errors=True)
    _sphinx(stage, work, build / "pages.log")
    made = work / "_build" / "html"
    for page in made.rglob("*.html"):
        _clean(page)
    write_text(made / _STAMP, key)
    old = build / "html.old"
    shutil.rmtree(old, ignore_errors=True)
    if site.exists():
        os.rename(site, old)
    os.rename(made, site)
    shutil.rmtree(old, ignore_errors=True)
    shutil.rmtree(work, ignore_errors=True)
    return site / "index.html"


def _lay_out(root: Path, stage: Path, runs: list[Run], found: list[Status]) -> None:
    shutil.copytree(root / "book", stage / "book", ignore=shutil.ignore_patterns("results", "vendor"))
    shutil.copy(root / "_config.yml", stage / "_config.yml")
    compared = [status(one) for one in comparisons()]
    by_chapter = {one.card.chapter: one for one in (*found, *compared)}
    built = frozenset(run.chapter for run in runs)
    pictures = {}
    (stage / "notebooks").mkdir()
    for run in runs:
        notebook = nbformat.read(run.notebook, 4)
        notebook.cells.insert(1, _markdown("card", _pages.chapter_header(by_chapter[run.chapter])))
        notebook.cells.append(_markdown("run", _pages.run_note(run.made_by)))
        nbformat.write(notebook, stage / "notebooks" / f"{run.chapter}.ipynb")
        picture = _picture(notebook)
        if picture:
            pictures[run.chapter] = picture
    _toc(stage / "book" / "_toc.yml", built)
    parts = {"map": lambda _: _pages.map_html(found, built, pictures),
             "results": lambda _: _pages.results_html([*found, *compared], built),
             "family": lambda name: _pages.family_html(found, built, name, compared), "samples": lambda _: _samples(stage),
             "kernels": kernels_part, "hardware": hardware_part}
    for page in (stage / "book").rglob("*.md"):
        text = re.sub(r"<!-- papernets:(\w+)(?: ([\w-]+))? -->", lambda m: parts[m[1]](m[2]),
                      page.read_text(encoding="utf-8"))
        write_text(page, text)
    vendor = stage / "book" / "_static" / "vendor"
    shutil.copytree(_package("sphinx-mathjax-offline") / "static" / "mathjax", vendor / "mathjax",
                    ignore=_only_mathjax)
    shutil.copy(_package("plotly") / "package_data" / "plotly.min.js", vendor / "plotly.min.js")


def _markdown(id: str, text: str):
    cell = nbformat.v4.new_markdown_cell(text)
    cell["id"] = id  # a random one would make every build differ
    return cell


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise RunError(f"the package {name} is not installed; run: make book")
    return Path(next(iter(spec.submodule_search_locations)))


def _only_mathjax(folder: str, names: list[str]) -> list[str]:
    """Of MathJax the one script we load and its fonts; the other combinations are 20 MB that nobody asks for."""
    if Path(folder).name != "mathjax":
        return []
    return [name for name in names if name not in ("tex-chtml-full.js", "output")]


def _toc(path: Path, chapters: frozenset[str]) -> None:
    """The committed table of contents, without chapters that were not made."""
    toc = yaml.safe_load(path.read_text(encoding="utf-8"))

    def keep(entries):
        for entry in entries:
            if entry["file"].startswith("notebooks/") and entry["file"].split("/")[1] not in chapters:
                continue
            if "sections" in entry:
                entry["sections"] = list(keep(entry["sections"]))
                if not entry["sections"]:
                    del entry["sections"]
            yield entry

    for part in toc["parts"]:
        part["chapters"] = list(keep(part["chapters"]))
    write_text(path, yaml.safe_dump(toc, sort_keys=False, allow_unicode=True))


def _picture(notebook) -> str:
    """The thumbnail of the chapter's explorer, or of its first figure."""
    figures = []
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            text = output.get("data", {}).get("text/html", "")
            if 'class="pn-figure"' in text:
                payload = json.loads(text.split('<script type="application/json">')[1].split("</script>")[0])
                figures.append(payload)
    figures.sort(key=lambda payload: "states" not in payload)
    return thumbnail(figures[0]["figure"]) if figures else ""


def _samples(stage: Path) -> str:
    """Twelve patches of each photograph, six from the part for training and six from the part for testing."""
    columns, size, gap = 12, 32, 3
    sheet = Image.new("RGB", (columns * (size + gap) + 3 * gap, 10 * (size + gap)), (127, 127, 127))
    for row, name in enumerate(PHOTOGRAPHS):
        photo = photographs()[name]
        height, width = photo.shape[:2]
        border = int(width * 0.65)
        for column in range(columns):
            left_part = column < columns // 2
            low, high = (0, border - size) if left_part else (border, width - size)
            share = (column % (columns // 2) + 0.5) / (columns // 2)
            x, y = int(low + share * (high - low)), int((0.2 + 0.6 * ((column * 5 + row * 3) % 7) / 6) * (height - size))
            across = column * (size + gap) + (0 if left_part else 3 * gap)
            sheet.paste(Image.fromarray(photo[y:y + size, x:x + size]), (across, row * (size + gap)))
    sheet = sheet.resize((sheet.width * 2, sheet.height * 2), Image.Resampling.NEAREST)
    sheet.save(stage / "book" / "_static" / "patches.png", optimize=True)
    return ("```{figure} _static/patches.png\n:alt: A sheet of 32 by 32 patches, one row for each of ten photographs, six "
            "from the left part and six from the right\n:width: 100%\n\nOne row a photograph: "
            f"{', '.join(PHOTOGRAPHS)}. Left of the gap, patches to train on; right of it, patches to test on.\n```")


def _key(stage: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in stage.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(stage)).encode() + b"\0" + hashlib.sha256(file.read_bytes()).digest())
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _sphinx(stage: Path, work: Path, log: Path) -> None:
    """One build from nothing. Any warning fails it, and all of them are listed."""
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(stage),
               "--toc", str(stage / "book" / "_toc.yml"), "--path-output", str(work), "-W", "-n", "--keep-going", "--all"]
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "NO_COLOR": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    text = done.stdout + done.stderr
    write_text(log, text)
    if done.returncode:
        wrong = [line for line in text.splitlines() if "WARNING" in line or "ERROR" in line] or text.splitlines()[-8:]
        raise RunError("the pages were not built:\n" + "\n".join(wrong[:12]) + f"\n(all of it: {log})")


_THEBE = re.compile(r'<script>[^<]*THEBE_JS_URL[^<]*</script>|<script[^>]*sphinx-thebe[^>]*></script>'
                    r'|<link[^>]*sphinx-thebe[^>]*>', re.S)


def _clean(page: Path) -> None:
    """Without the scripts of a service that the book does not use, which fail on every page; and typeset."""
    text = page.read_text(encoding="utf-8")
    clean = typeset_html(_THEBE.sub("", text))
    if clean != text:
        page.write_text(clean, encoding="utf-8")
