"""The command line: ``papernets --help``. A file for each subject; what a command needs is imported when it is called."""

import sys
from typing import Annotated

import typer

import papernets.tools.quick_imports  # noqa: F401  before all that a command imports
from papernets import __version__
from papernets.cli import bench, chapters, doctor, hardware, training
from papernets.cli.console import complain, err, say


def _group(help: str, commands: dict, **options) -> typer.Typer:
    """Commands by name; ``--help`` has them in this order."""
    group = typer.Typer(no_args_is_help=True, help=help, **options)
    for name, command in commands.items():
        group.command(name)(command)
    return group


app = _group(
    "Paper Nets: 41 papers on efficient deep learning, each a chapter one can run.",
    {"list": chapters.list_, "validate": chapters.validate, "site": chapters.site, "lab": chapters.lab, "bench": bench.bench,
     "rtl": hardware.rtl, "train": training.train, "new": chapters.new, "readme": chapters.readme,
     "notebook": chapters.notebook, "doctor": doctor.doctor},
    context_settings={"help_option_names": ["-h", "--help"]}, add_completion=False,
    rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(_group("Real data sets.", {"fetch": training.fetch, "list": training.list_}), name="data")


def _show(version: bool) -> None:
    if version:
        say(f"papernets {__version__}")
        raise typer.Exit


@app.callback()
def _options(version: Annotated[bool, typer.Option("--version", is_eager=True, callback=_show,
                                                   help="Show the version and exit.")] = False) -> None:
    """What can be given before the name of a command."""


def main() -> None:
    """Wrong input ends with one line and status 2; a chapter that fails with status 1."""
    asked = ["--version"] if "--version" in sys.argv[1:] else None  # of any command; it has the version of all
    try:
        status = app(asked, standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        status = 130
    except ValueError as error:
        complain(error)
        status = 2
    except Exception as error:
        if hasattr(error, "format_message"):
            status = _misused(error.format_message())
        else:
            from papernets.press import RunError  # here, for it takes half a second
            if not isinstance(error, RunError):
                raise
            complain(error)
            status = 1
    if status == 130:  # typer, too, makes this of an interrupt
        complain("stopped; what was finished is kept")
    sys.exit(status)


def _misused(message: str) -> int:
    """What the parser of the command line says; a group that is named without a command shows its help."""
    say(message if message.startswith("Usage:") else f"papernets: {message} (see: papernets --help)", err)
    return 2
