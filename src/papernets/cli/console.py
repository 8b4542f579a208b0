"""What the commands share: a console for what was asked, one for all else, and the option ``--json``."""

import sys
from typing import Annotated

import typer
from rich.console import Console

out, err = Console(width=None if sys.stdout.isatty() else 160), Console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
