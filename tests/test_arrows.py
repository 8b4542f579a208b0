"""Which room may use which: read from the sources, without importing them."""

import ast
import re
from pathlib import Path

import nbformat
import pytest

from papernets.cards import cards, comparisons

ROOT = Path(__file__).resolve().parents[1]
SOURCE, KERNELS, NOTEBOOKS = ROOT / "src" / "papernets", ROOT / "kernels" / "papernets_kernels", ROOT / "notebooks"
SHARED = ("nn", "data", "measure", "training")
PRESS = ("papernets.press", "papernets.bench", "papernets.cli")
OUTER = ("papernets.chapter", "papernets.comparisons", *PRESS)
PAPERS = (*OUTER, "papernets.papers")
#: Files of a paper that decide a verdict, and those that none of them may use.
DECIDING, UNDECIDING = ("method", "layers", "networks", "experiment", "claims"), ("recipes", "figures")


def targets(source: str, module: str = "", package: bool = False) -> list[str]:
    """Dotted names of everything that ``source`` imports; ``from a import b`` gives ``a.b``.

    ``module`` is its own name, ``package`` whether it is an ``__init__``: both for relative imports. Imports by
    ``import_module`` and ``__import__`` count where the name is written out, or begins, in the source.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts[:len(parts) - node.level + package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            found += [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and node.args:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                first = node.args[0].values[0] if isinstance(node.args[0], ast.JoinedStr) else node.args[0]
                if isinstance(first, ast.Constant) and isinstance(first.value, str):
                    found.append(first.value.strip("."))
    return found


def inside(name: str, *rooms: str) -> bool:
    return any(name == room or name.startswith(room + ".") for room in rooms)


def breaches(source: str, forbidden=(), allowed=None, own=(), module: str = "", package: bool = False) -> list[str]:
    """Imports of ``source`` in a ``forbidden`` room (its ``own`` rooms excepted), or in papernets but not ``allowed``.

    A bare ``import papernets`` opens every room and counts as a breach.
    """
    found = []
    for name in targets(source, module, package):
        if inside(name, *own):
            continue
        whole = name in ("papernets", "papernets.*")
        outside = allowed is not None and inside(name, "papernets") and not inside(name, *allowed)
        if inside(name, *forbidden) or outside or whole:
            found.append(name)
    return found


def literals(source: str) -> list[str]:
    """String constants of ``source`` that are not docstrings."""
    tree = ast.parse(source)
    docs = {id(node.body[0].value) for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body
            and isinstance(node.body[0], ast.Expr)}
    return [node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs]


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def scan(folder: Path, **rules) -> dict[str, list[str]]:
    """Breaches by file. A folder without sources is an error of the test itself."""
    files = sorted(folder.rglob("*.py"))
    assert files, f"no source in {folder}"
    found = {}
    for file in files:
        options = {key: value(file) if callable(value) else value for key, value in rules.items()}
        module = name_of(file) if file.is_relative_to(SOURCE) else ""
        wrong = breaches(file.read_text(encoding="utf-8"), module=module, package=file.name == "__init__.py", **options)
        if wrong:
            found[str(file.relative_to(ROOT))] = wrong
    return found


def code(notebook: Path) -> str:
    cells = [cell.source for cell in nbformat.read(notebook, 4).cells if cell.cell_type == "code"]
    return "\n".join(re.sub(r"^\s*[%!].*$", "", cell, flags=re.MULTILINE) for cell in cells)


NAMES = {name for one in cards() for name in (one.slug, one.module, one.chapter)}


def of_papers(source: str) -> list[str]:
    return [text for text in literals(source) if text.strip().lower() in NAMES]


# --- the rules -------------------------------------------------------------------------------------------------------


def test_kernels_know_neither_torch_nor_papernets():
    assert scan(KERNELS, forbidden=("torch", "papernets")) == {}


def folder_of(file: Path) -> str:
    """The package of a paper's file: ``papernets.papers.dcff``."""
    return ".".join(name_of(file).split(".")[:3])


def test_papers_know_neither_the_chapter_nor_the_press_nor_each_other():
    """Only the figures of a paper may use the chapter, and plotly."""
    assert (SOURCE / "papers" / "dcff" / "method.py").exists()
    every = scan(SOURCE / "papers", forbidden=(*PAPERS, "plotly"), own=lambda file: [
        folder_of(file), *(["papernets.chapter", "plotly"] if file.name == "figures.py" else [])])
    assert every == {}


def test_a_papers_figures_are_used_by_nothing_in_the_package():
    assert scan(SOURCE, forbidden=figures()) == {}


def figures() -> tuple[str, ...]:
    homes = {"papers": cards(), "comparisons": comparisons()}
    return tuple(f"papernets.{room}.{one.module}.figures" for room, found in homes.items() for one in found)


def test_nothing_that_decides_a_verdict_uses_recipes():
    """What a recipe says is outside of the hash of the evidence, so no claim may depend on it."""
    for folder in (*(SOURCE / "papers").iterdir(), *(SOURCE / "comparisons").iterdir()):
        for file in folder.glob("*.py") if folder.is_dir() else ():
            if file.stem not in UNDECIDING:
                undeciding = [f"{folder_of(file)}.{name}" for name in UNDECIDING]
                wrong = breaches(file.read_text(encoding="utf-8"), forbidden=undeciding,
                                 module=name_of(file), package=file.name == "__init__.py")
                assert wrong == [], file


def test_a_papers_package_is_what_a_user_imports_and_nothing_else():
    files = [one.folder / "__init__.py" for one in (*cards(), *comparisons()) if one.written]
    assert len(files) >= 11
    for file in files:
        source = file.read_text(encoding="utf-8")
        assert len(source.splitlines()) <= 15, file
        docstring, *imports = ast.parse(source).body
        assert isinstance(docstring, ast.Expr) and all(isinstance(node, ast.ImportFrom) for node in imports), file


@pytest.mark.parametrize("room", SHARED)
def test_shared_rooms_know_no_paper_and_no_chapter(room):
    assert scan(SOURCE / room, forbidden=PAPERS) == {}


def test_chapter_knows_no_paper_and_no_press():
    assert scan(SOURCE / "chapter", forbidden=("papernets.papers", *PRESS)) == {}


def test_the_benchmark_knows_no_paper_and_no_press():
    assert scan(SOURCE / "bench", forbidden=("papernets.papers", "papernets.press", "papernets.cli")) == {}


def test_press_imports_no_paper():
    assert scan(SOURCE / "press", forbidden=("papernets.papers", "papernets.cli")) == {}


@pytest.mark.parametrize("room", ["cards", "tools"])
def test_cards_and_tools_know_no_room(room):
    assert scan(SOURCE / room, forbidden=(*PAPERS, *(f"papernets.{other}" for other in SHARED))) == {}


@pytest.mark.parametrize("room", ["press", "chapter"])
def test_no_paper_is_known_by_name(room):
    found = {file.name: of_papers(file.read_text(encoding="utf-8")) for file in (SOURCE / room).rglob("*.py")}
    assert {file: names for file, names in found.items() if names} == {}


def test_notebooks_use_their_own_paper_the_chapter_and_the_shared_rooms():
    by_chapter = {one.chapter: rooms_of(one.module) for one in cards()}
    by_chapter |= {one.chapter: rooms_of(one.module, "comparisons") for one in comparisons()}
    notebooks, found = sorted(NOTEBOOKS.glob("*.ipynb")), {}
    assert notebooks
    for notebook in notebooks:
        assert notebook.stem in by_chapter, f"{notebook.name} is the chapter of no card"
        wrong = breaches(code(notebook), allowed=by_chapter[notebook.stem])
        if wrong:
            found[notebook.name] = wrong
    assert found == {}


def test_comparisons_know_the_papers_they_compare_and_no_chapter():
    assert scan(SOURCE / "comparisons", forbidden=("papernets.chapter", "plotly", *PRESS), own=lambda file: [
        *(["papernets.chapter", "plotly"] if file.name == "figures.py" else [])]) == {}
    for one in comparisons():
        found = [name for file in one.folder.glob("*.py") for name in targets(file.read_text(encoding="utf-8"))]
        used = {name.split(".")[2] for name in found if inside(name, "papernets.papers")}
        assert used == {card.module for card in cards() if card.slug in one.methods}


def rooms_of(module: str, room: str = "papers") -> list[str]:
    shared = [f"papernets.{room}" for room in SHARED]
    return [f"papernets.{room}.{module}", "papernets.chapter", *shared]


# --- the checker itself: planted breaches are reported, and what is allowed is not -----------------------------------


@pytest.mark.parametrize("line", [
    "import torch", "import torch.nn as nn", "from torch import nn", "from torch.nn.functional import relu",
    "import papernets.nn", "from papernets import nn", "from papernets.measure import count",
    "import papernets", "def f():\n    import torch",
    "if True:\n    try:\n        import numpy, torch\n    except ImportError:\n        pass",
    "import importlib\nimportlib.import_module('torch.nn')", "__import__('papernets')"])
def test_planted_breach_of_a_kernel_is_reported(line):
    assert breaches(f"import numpy\n{line}\n", forbidden=("torch", "papernets"))


@pytest.mark.parametrize("line", ["import numpy", "import papernets_kernels.pack", "from papernets_kernels import pack",
                                  "import torchless", "text = 'import torch'", "# import torch"])
def test_a_clean_kernel_is_not(line):
    assert breaches(line, forbidden=("torch", "papernets")) == []


@pytest.mark.parametrize("line", [
    "from papernets.papers.lapp import prune", "from papernets.papers import lapp", "from papernets import papers",
    "import papernets.papers.dcff_two", "from .lapp import prune", "from . import lapp",
    "from ..chapter import Chapter", "from ..press import run", "from papernets.chapter import Chapter",
    "from papernets import press", "from .. import cli", "import plotly.graph_objects as go",
    "from importlib import import_module\nimport_module('papernets.papers.lapp')",
    "from importlib import import_module\nimport_module(f'papernets.papers.{name}')"])
def test_planted_breach_of_a_paper_is_reported(line):
    assert len(breaches(line, (*PAPERS, "plotly"), own=["papernets.papers.dcff"], module="papernets.papers.dcff")) == 1


@pytest.mark.parametrize("line", [
    "from papernets.nn import VGG", "from ..nn import VGG", "from papernets.papers.dcff import DCFF",
    "from .dcff import DCFF", "from papernets.data import digits"])
def test_a_clean_paper_is_not(line):
    assert breaches(line, PAPERS, own=["papernets.papers.dcff"], module="papernets.papers.dcff") == []


def test_relative_imports_of_a_package_start_at_the_package():
    room, claims = "papernets.chapter", ["papernets.chapter._claims.Claims"]
    assert targets("from ._claims import Claims", room, package=True) == claims
    assert targets("from ..papers import dcff", room, package=True) == ["papernets.papers.dcff"]
    assert targets("from ._claims import Claims", f"{room}._chapter") == claims


@pytest.mark.parametrize("line", [
    "from papernets.papers import lapp", "from papernets.papers.lapp import x", "import papernets",
    "from papernets.press import run_chapter", "from papernets.cards import card", "from papernets.papers.lapp import figures",
    "from papernets import *", "from papernets import cli"])
def test_planted_breach_of_a_notebook_is_reported(line, tmp_path):
    cells = [nbformat.v4.new_markdown_cell("from papernets.press import nothing"),
             nbformat.v4.new_code_cell("%matplotlib inline\n!ls\nfrom papernets.chapter import Chapter"),
             nbformat.v4.new_code_cell(f"import numpy as np\n{line}")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "02-dcff.ipynb")
    assert len(breaches(code(tmp_path / "02-dcff.ipynb"), allowed=rooms_of("dcff"))) == 1


@pytest.mark.parametrize("line", [
    "from papernets.papers import dcff", "from papernets.papers.dcff import DCFF", "import torch",
    "from papernets.chapter import Chapter, Slider", "from papernets import nn, data",
    "from papernets.training import fit", "from papernets.papers.dcff import figures as draw",
    "from papernets.chapter.waves import waveform", "from papernets.chapter import waves as hardware",
    "from papernets_kernels import roofline"])
def test_a_clean_notebook_is_not(line):
    assert breaches(line, allowed=rooms_of("dcff")) == []


def test_planted_names_of_papers_are_reported():
    source = ('"""dcff"""\ndef f(name: str = "dcff"):\n    "one_by_n"\n'
              '    return name == "02-dcff" or name in ("nets", "1xn")\n')
    assert sorted(of_papers(source)) == ["02-dcff", "1xn", "dcff"]
    assert of_papers('"""dcff"""\nname = "dcff of old"\n') == []
