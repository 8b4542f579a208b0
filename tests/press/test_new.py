"""The beginnings of a chapter: whole or nothing, and red only where the method is missing."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from papernets.cards import card, read_card
from papernets.press import new_chapter
from papernets.tools import paths

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """The cards, the table of contents and what the tests of a paper need, in a checkout of its own."""
    for name in ("book/_toc.yml", "pyproject.toml", "tests/paper_checks.py", "tests/papers/conftest.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "notebooks").mkdir()
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    return tmp_path


def files(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_what_is_written_and_where(checkout):
    before = files(checkout)
    made = new_chapter(card("lts"))
    assert files(checkout) - before == {str(path.relative_to(checkout)) for path in made} - {"book/_toc.yml"}
    names = {path.name for path in made if path.parent.name == "lts"}
    assert {"__init__.py", "method.py", "experiment.py", "claims.py", "recipes.py", "figures.py", "sample.py"} <= names
    toc = yaml.safe_load((checkout / "book" / "_toc.yml").read_text())
    family = next(page for part in toc["parts"] for page in part["chapters"] if page["file"].endswith("quantization"))
    assert [page["file"] for page in family["sections"]] == ["notebooks/09-lts", "notebooks/11-snn"]
    assert card("lts").written
    notebook = nbformat.read(checkout / "notebooks" / "09-lts.ipynb", 4)
    nbformat.validate(notebook)
    assert notebook.cells[0].source.startswith("# LTS") and notebook.cells[-1].source.startswith("## Exercises")
    done = subprocess.run([sys.executable, "-m", "ruff", "check", ".", "--config", "pyproject.toml"], cwd=checkout,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_it_runs_red_only_where_the_method_is_missing(checkout, monkeypatch):
    new_chapter(card("lts"))
    monkeypatch.setenv("PYTHONPATH", f"{checkout / 'src'}:{ROOT / 'kernels'}")
    done = subprocess.run([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/papers/lts"], cwd=checkout,
                          capture_output=True, text=True)
    assert "1 passed" in done.stdout and "3 failed" in done.stdout, done.stdout
    raised = re.findall(r"^E +(\w+Error: .*)$", done.stdout, re.M)
    assert len(raised) == 3 and sum(line.startswith("ValueError: the method of LTS is not written; ") for line in raised) == 2
    assert sum(line.startswith("AssertionError: assert dict_keys([]) == dict_keys([") for line in raised) == 1  # no number yet


def test_a_family_without_chapters_gets_its_first(checkout):
    new_chapter(card("odconv"))
    toc = yaml.safe_load((checkout / "book" / "_toc.yml").read_text())
    family = next(page for part in toc["parts"] for page in part["chapters"] if page["file"].endswith("dynamic"))
    assert [page["file"] for page in family["sections"]] == ["notebooks/12-odconv"]


@pytest.mark.parametrize("there", ["src/papernets/papers/lts/method.py", "tests/papers/lts/test_method.py",
                                   "notebooks/09-lts.ipynb"])
def test_what_is_there_is_never_overwritten(checkout, there):
    path = checkout / there
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine")
    before = files(checkout)
    with pytest.raises(ValueError, match=r"exists; a chapter is begun once, for a paper that has its card alone"):
        new_chapter(card("lts"))
    assert files(checkout) == before and path.read_text() == "mine"


def test_a_family_without_a_page_is_refused_before_anything(checkout):
    toc = paths.root() / "book" / "_toc.yml"
    toc.write_text(toc.read_text().replace("families/quantization", "families/other"))
    before = files(checkout)
    with pytest.raises(ValueError, match=r"has no page book/families/quantization; add it before the chapter"):
        new_chapter(card("lts"))
    assert files(checkout) == before


def test_a_disk_that_is_full_leaves_nothing(checkout, monkeypatch):
    from papernets.press import _new
    before = files(checkout)

    def full(path, text):
        if path.suffix == ".ipynb":
            raise OSError("no space left on device")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    monkeypatch.setattr(_new, "write_text", full)
    with pytest.raises(ValueError, match=r"no space left on device.*nothing of it was left"):
        new_chapter(card("lts"))
    assert files(checkout) == before


@pytest.mark.parametrize(("slug", "config"), [("dynamic-shuffle", "DynamicShuffle"), ("1xn", "Method1N")])
def test_names_of_papers_become_names_of_python(slug, config):
    from papernets.press._new import _words
    assert _words(read_card(card(slug).folder / "card.toml"))["config"] == config
