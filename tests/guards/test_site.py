"""The tests leave the book alone that the reader built."""

import shutil
from pathlib import Path

import pytest
from quick_site import quick_site

from papernets.tools.files import write_text

pytestmark = [pytest.mark.xdist_group("kernels"), pytest.mark.timeout(600)]

TOC = """format: jb-book
root: book/index
parts:
- caption: Chapters
  chapters:
  - file: notebooks/01-toy
"""


def everything(folder):
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
            for path in folder.rglob("*") if path.is_file()}


def test_the_site_of_the_tests_leaves_the_book_as_it_is(toy):
    source, root = Path(__file__).parents[2], toy()
    shutil.copy(source / "_config.yml", root)
    shutil.copytree(source / "book" / "_static", root / "book" / "_static")
    shutil.copy(source / "book" / "references.bib", root / "book")
    (root / "book" / "_toc.yml").write_text(TOC)
    (root / "book" / "index.md").write_text("# A front page\n")
    for page in ("index.html", ".made-from", "notebooks/01-toy.html"):  # as make book left them
        write_text(root / "_build" / "html" / page, page)
    before = everything(root / "_build" / "html")
    made = quick_site()
    assert "A front page" in (made / "book" / "index.html").read_text() and (made / "notebooks" / "01-toy.html").is_file()
    assert everything(root / "_build" / "html") == before and len(before) == 3
