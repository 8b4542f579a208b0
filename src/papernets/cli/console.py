"""What the commands share: where they write, how a failure ends, and options that several have."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

#: For what was asked, and for all else.
out, err = Console(width=None if sys.stdout.isatty() else 160), Console(stderr=True)


def at_home(path: Path | None) -> Path | None:
    """``~`` begins a path in the user's home also where the shell leaves it, as in ``--out=~/core``."""
    try:
        return path and path.expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: there is no such home folder; write the path out") from None


Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def say(text: str, to: Console = out) -> None:
    """One line as it is: not coloured, not broken, brackets left alone."""
    to.print(text, markup=False, highlight=False, soft_wrap=True)


def complain(error: object) -> None:
    """One line on stderr, by which one sees who speaks."""
    say(f"papernets: {error}", err)


@contextlib.contextmanager
def failing(*kinds: type[Exception]) -> Iterator[None]:
    """A failure of these kinds ends with one line and status 1."""
    try:
        yield
    except kinds as error:
        complain(error)
        raise typer.Exit(1) from None
