"""The beginnings of a chapter: the paper's folder, its tests, its notebook and its line in the table of contents.

What is written runs as it stands, up to where the method is missing.
"""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from string import Template

import nbformat

from papernets.cards import Card, FullClaim
from papernets.tools import paths
from papernets.tools.files import write_text

_SKELETON = Path(__file__).parent / "skeleton"
#: The files of the paper, and those of its tests.
_SOURCES = ("__init__.py", "method.py", "experiment.py", "claims.py", "recipes.py", "figures.py")
_TESTS = ("sample.py", "test_method.py", "test_experiment.py")

_CELLS = (
    ("markdown", (), "# $name: a question\n\nThree to six lines: a question, a failure, a sentence of the authors under "
     "cross-examination. One question drives the whole chapter, and it is answered before the exercises."),
    ("code", ("parameters", "remove-cell"), 'profile = "book"\nseed = 0'),
    ("code", ("hide-input",), "from papernets.chapter import Chapter, Slider\nfrom papernets.papers.$module import claims, "
     "experiment\nfrom papernets.papers.$module import figures as draw\n\n"
     'chapter = Chapter("$slug", profile=profile, seed=seed)'),
    ("markdown", (), "## The idea in three sentences\n\n$summary"),
    ("code", ("hide-input",), 'chapter.explore(draw.explore, alt="The magnitudes of 256 weights, those that are left in '
     'colour",\n                removed=Slider(0, 0.95, step=0.05, value=0.5, label="share removed"))'),
    ("markdown", (), "## The method, formula by formula\n\nA formula, the call that computes it on numbers small enough to "
     "check by eye, and the result."),
    ("markdown", (), "## On a network of your own\n\nThe verb in five lines, and the report before and after."),
    ("markdown", (), "## At work\n\nWhat is compared, on which data, with which budget, and what is the strongest simple arm."),
    ("code", (), "size = chapter.pick(quick=dict(train=100, epochs=1),\n                    book=dict(train=300, epochs=8),\n"
     "                    evidence=dict(train=300, epochs=8))\n"
     "seeds = range(seed, seed + chapter.pick(quick=2, book=2, evidence=16))\n"
     "rows = chapter.rows(experiment.compare, seeds, **size)\n"
     'chapter.figure(draw.accuracies(rows), alt="Test accuracy of the method and of plain training")'),
    ("code", ("remove-output",), "chapter.claims.record_pairs(claims.records(rows))"),
    ("code", ("hide-input",), 'chapter.differences(alt="Paired differences with 95 % intervals")'),
    ("code", ("hide-input",), "chapter.verdicts()"),
    ("markdown", (), "## What it costs and saves\n\nParameters, multiply-accumulates, bytes, and measured seconds. Where zeros "
     "bring no speed, say so."),
    ("markdown", (), "## The claims\n\nHow the numbers are counted, in a sentence."),
    ("code", ("nbval-check-output", "hide-output"),
     'chapter.claims.record_exact(claims.facts())\nprint(chapter.claims.text("exact"))'),
    ("code", ("hide-input",), "chapter.close()"),
    ("markdown", (), "## Where we differ\n\n**From the paper.** …\n\n**From the authors' code.** …"),
    ("markdown", (), "## Exercises\n\n<details>\n<summary>1. A question for pencil and paper</summary>\n\nIts answer.\n\n"
     "</details>"),
)


def new_chapter(card: Card) -> list[Path]:
    """Write the beginnings of the chapter on a planned paper, and return the files. A refused or failed call leaves nothing.

    ``ValueError`` if the paper has code, tests or a notebook already, or its family no page in the table of contents.
    """
    root = paths.root()
    tests, notebook, toc = root / "tests" / "papers" / card.module, paths.notebook(card.chapter), root / "book" / "_toc.yml"
    for there in (*(card.folder / name for name in _SOURCES), tests, notebook):
        if there.exists():
            raise ValueError(f"{there.relative_to(root)} exists; a chapter is begun once, for a paper that has its card alone")
    contents = _with_line(toc.read_text(encoding="utf-8"), card)
    words = _words(card)
    sources = [name for name in _SOURCES if name != "recipes.py" or any(isinstance(claim, FullClaim) for claim in card.claims)]
    texts = {card.folder / name: _filled(name, words) for name in sources} | {tests / name: _filled(name, words)
                                                                           for name in _TESTS}
    try:
        for path, text in texts.items():
            write_text(path, text)
        write_text(notebook, _notebook(words))
        write_text(toc, contents)
    except OSError as error:
        for path in (*(card.folder / name for name in sources), notebook):
            path.unlink(missing_ok=True)
        shutil.rmtree(tests, ignore_errors=True)
        raise ValueError(f"the chapter could not be written ({error}); nothing of it was left") from None
    return [*texts, notebook, toc]


def _words(card: Card) -> dict[str, str]:
    name = re.sub(r"[^A-Za-z0-9]", "", card.name.title() if " " in card.name else card.name)
    return {"title": card.title, "name": card.name, "module": card.module, "slug": card.slug, "summary": card.summary,
            "config": name if name[:1].isalpha() else f"Method{name}", "authors": ", ".join(card.authors),
            "venue": f"{card.venue} {card.year}" + (f", arXiv {card.arxiv}" if card.arxiv else ""),
            "code": f"\nCode: {card.code}" if card.code else ""}


def _filled(name: str, words: Mapping[str, str]) -> str:
    return Template((_SKELETON / f"{name}.tpl").read_text(encoding="utf-8")).substitute(words)


def _notebook(words: Mapping[str, str]) -> str:
    cells = []
    for number, (kind, tags, source) in enumerate(_CELLS):
        make = nbformat.v4.new_markdown_cell if kind == "markdown" else nbformat.v4.new_code_cell
        cell = make(Template(source).substitute(words), metadata={"tags": list(tags)} if tags else {})
        cell.id = f"c{number:02d}"
        cells.append(cell)
        if "nbval-check-output" in tags:  # compared with the run; renewed when the method is written
            cell.execution_count = sum(kind == "code" for kind, *_ in _CELLS[:number + 1])
            cell.outputs = [nbformat.v4.new_output("stream", text=f"to be renewed by: papernets notebook {words['slug']}\n")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"}})
    return nbformat.writes(notebook) + "\n"


def _with_line(toc: str, card: Card) -> str:
    """The table of contents with the chapter under the page of its family, by number."""
    lines, home = toc.splitlines(), f"      - file: book/families/{card.family}"
    if home not in lines:
        raise ValueError(f"book/_toc.yml has no page book/families/{card.family}; add it before the chapter")
    at = lines.index(home) + 1
    if at == len(lines) or lines[at].strip() != "sections:":
        lines.insert(at, "        sections:")
    at += 1
    line = f"          - file: notebooks/{card.chapter}"
    while at < len(lines) and lines[at].startswith("          - file: notebooks/") and lines[at] < line:
        at += 1
    lines.insert(at, line)
    return "\n".join(lines) + "\n"
