"""A small checkout of its own: one paper, one chapter, to be broken in every way that must turn red."""

import textwrap

import nbformat
import pytest

CARD = """
number = 1
slug = "toy"
name = "Toy"
title = "A toy"
authors = ["Nobody"]
year = 2026
venue = "arXiv"
family = "pruning"
summary = "A card for the tests of the guards."

[[claims]]
id = "sum"
quantity = "sum of two numbers"
paper = 1000
unit = "one"
stated = "derived"
kind = "exact"
accept = { absolute = 5 }
ours = 1001
how = "addition"

[[claims]]
id = "effect"
quantity = "difference"
paper = "positive"
unit = "points"
stated = "derived"
kind = "miniature"
baseline = "nothing"
accept = { above = 0.0 }
how = "subtraction"
"""

OPEN = """
    import sys
    sys.path.insert(0, "../src")
    import toylib
    from papernets.chapter import Chapter
    chapter = Chapter("toy", profile=profile, seed=seed)
"""
RECORD = """
    chapter.claims.record("sum", toylib.VALUE)
    chapter.claims.record("effect", ours=[2.0, 3.0], baseline=[1.0, 1.0])
"""


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """``toy(record=…, extra=…)`` writes the checkout; the chapter is then ``01-toy``."""
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    papers = tmp_path / "src" / "papernets" / "papers"
    (papers / "toy").mkdir(parents=True)
    for folder in ("notebooks", "kernels", "book/results"):
        (tmp_path / folder).mkdir(parents=True)
    (papers / "toy" / "card.toml").write_text(CARD)
    (papers / "toy" / "__init__.py").write_text('"""A toy."""\n')
    (tmp_path / "src" / "toylib.py").write_text("VALUE = 1001\n")
    (tmp_path / "src" / "papernets" / "uses.py").write_text("")

    def write(record=RECORD, extra="", close="chapter.close()"):
        cells = [nbformat.v4.new_markdown_cell("# Toy"),
                 nbformat.v4.new_code_cell('profile = "quick"\nseed = 0', metadata={"tags": ["parameters"]})]
        cells += [nbformat.v4.new_code_cell(textwrap.dedent(part).strip()) for part in (OPEN, extra, record, close) if part]
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
        nbformat.write(notebook, tmp_path / "notebooks" / "01-toy.ipynb")
        return tmp_path

    return write
