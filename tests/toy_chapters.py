"""Small chapters, to be broken in every way that must turn red."""

import textwrap

import nbformat

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


def checkout(root):
    """The folders of a checkout, without a chapter."""
    for folder in ("notebooks", "kernels", "book/results", "src/papernets/papers"):
        (root / folder).mkdir(parents=True)
    (root / "src" / "toylib.py").write_text("VALUE = 1001\n")
    (root / "src" / "papernets" / "uses.py").write_text("")


def write_chapter(root, number=1, slug="toy", start=OPEN, record=RECORD, extra="", close="chapter.close()", shown="2",
                  profile="book"):
    """A card and a notebook. One cell prints 1 + 1 and is compared with ``shown``."""
    paper = root / "src" / "papernets" / "papers" / slug
    paper.mkdir(exist_ok=True)
    (paper / "card.toml").write_text(CARD.replace("number = 1", f"number = {number}").replace('"toy"', f'"{slug}"'))
    (paper / "__init__.py").write_text('"""A toy."""\n')
    cells = [nbformat.v4.new_markdown_cell("# Toy"),
             nbformat.v4.new_code_cell(f'profile = "{profile}"\nseed = 0', metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell("print(1 + 1)", metadata={"tags": ["nbval-check-output"]}, execution_count=2,
                                       outputs=[nbformat.v4.new_output("stream", text=f"{shown}\n")])]
    cells += [nbformat.v4.new_code_cell(textwrap.dedent(part).strip().replace('Chapter("toy"', f'Chapter("{slug}"'))
              for part in (start, extra, record, close) if part]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}})
    nbformat.write(notebook, root / "notebooks" / f"{number:02d}-{slug}.ipynb")
