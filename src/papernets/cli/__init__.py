"""The command line: ``papernets --help``. A file for each subject; what a command needs is imported when it is called."""

import sys

import typer

import papernets.tools.quick_imports  # noqa: F401  before all that a command imports
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
     "rtl": hardware.rtl, "train": training.train, "readme": chapters.readme, "notebook": chapters.notebook,
     "doctor": doctor.doctor},
    add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
app.add_typer(_group("Real data sets.", {"fetch": training.fetch, "list": training.list_}), name="data")


def main() -> None:
    """Wrong input ends with one line and status 2; a chapter that fails with status 1."""
    try:
        sys.exit(app(standalone_mode=False))
    except ValueError as error:
        complain(error)
        sys.exit(2)
    except (KeyboardInterrupt, typer.Abort):
        complain("stopped; what was finished is kept")
        sys.exit(130)
    except Exception as error:
        if hasattr(error, "format_message"):  # an error of usage, from the parser of the command line
            message = error.format_message()
            # a command group named without a command shows its help
            say(message if message.startswith("Usage:") else f"papernets: {message} (see: papernets --help)", err)
            sys.exit(2)
        from papernets.press import RunError  # here, for it takes half a second
        if not isinstance(error, RunError):
            raise
        complain(error)
        sys.exit(1)
