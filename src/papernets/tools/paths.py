"""Where things lie in a checkout. The book is made from a checkout; the library alone needs none of this."""

import os
from pathlib import Path


def root() -> Path:
    """The checkout: ``PAPERNETS_ROOT``, or the folder above the installed source."""
    folder = Path(os.environ.get("PAPERNETS_ROOT") or Path(__file__).resolve().parents[3])
    if not (folder / "notebooks").is_dir():
        raise ValueError(f"{folder} is not a checkout of Paper Nets (it has no notebooks folder); "
                         "clone the repository and install it with: make book")
    return folder


def build() -> Path:
    """Everything that is made and not committed."""
    return root() / "_build"


def results() -> Path:
    """The committed evidence, one file a chapter."""
    return root() / "book" / "results"


def notebook(chapter: str) -> Path:
    return root() / "notebooks" / f"{chapter}.ipynb"
