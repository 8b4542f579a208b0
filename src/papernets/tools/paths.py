"""Where things lie in a checkout. The book is made from a checkout; the library alone needs none of this."""

import os
from pathlib import Path

_ABOVE = Path(__file__).resolve().parents[3]


def root(holds: str = "notebooks") -> Path:
    """The checkout: ``PAPERNETS_ROOT``, or the folder above the installed source; ``ValueError`` if it has no such folder."""
    given = os.environ.get("PAPERNETS_ROOT")
    folder = Path(given or _ABOVE)
    if not (folder / holds).is_dir():
        name = f"PAPERNETS_ROOT is {folder}, which" if given else str(folder)
        choice = "name the folder of one, or unset it" if given else "clone the repository and install it with: make book"
        raise ValueError(f"{name} is not a checkout of Paper Nets (it has no folder {holds}); {choice}")
    return folder


def installed() -> bool:
    """Whether the package lies outside of any checkout: none is named, and none is around the source."""
    return not os.environ.get("PAPERNETS_ROOT") and not (_ABOVE / "notebooks").is_dir()


def build() -> Path:
    """Everything that is made and not committed."""
    return root() / "_build"


def site(profile: str) -> Path:
    """Where a site is made: the book at the top, one of quick runs in a folder of its own, so that it leaves the book alone."""
    return build() if profile == "book" else build() / profile


def results() -> Path:
    """The committed evidence, one file a chapter."""
    return root() / "book" / "results"


def notebook(chapter: str) -> Path:
    return root() / "notebooks" / f"{chapter}.ipynb"
