"""What is seen while chapters run, on a terminal and elsewhere."""

import io

import pytest
from rich.console import Console

from papernets.press import Watch


@pytest.fixture
def clock(monkeypatch):
    """The seconds that the watch sees."""
    now = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    return now


def test_one_line_says_what_runs_for_how_long_and_what_is_left(clock):
    watch = Watch(Console(file=io.StringIO()), 4)
    assert str(watch.__rich__()) == "[0/4] ; 4 to come"
    watch.begun("05-lbc")
    clock[0] += 7.6
    watch.begun("08-cc")
    clock[0] += 2
    assert str(watch.__rich__()) == "[0/4] 05-lbc 10 s, 08-cc 2 s; 2 to come"
    with watch.ended("05-lbc"):
        assert watch.done == 1
    watch.begun("11-snn")
    with watch.ended("08-cc"):
        pass
    watch.begun("01-lapp")
    assert str(watch.__rich__()) == "[2/4] 11-snn 0 s, 01-lapp 0 s"


def test_without_a_terminal_there_is_no_line():
    file = io.StringIO()
    with Watch(Console(file=file), 1) as watch:
        watch.begun("05-lbc")
        with watch.ended("05-lbc"):
            file.write("done\n")
    assert file.getvalue() == "done\n"


def test_on_a_terminal_the_line_is_gone_while_others_print_and_at_the_end():
    terminal, other = io.StringIO(), io.StringIO()
    with Watch(Console(file=terminal, force_terminal=True, width=60, color_system=None), 2) as watch:
        watch.begun("05-lbc")
        watch._live.refresh()
        assert "[0/2] 05-lbc 0 s; 1 to come" in terminal.getvalue()
        with watch.ended("05-lbc"):
            assert terminal.getvalue().endswith("\x1b[2K")  # its line is cleared
            assert terminal.getvalue().count("\x1b[?25l") == terminal.getvalue().count("\x1b[?25h") == 1  # the cursor is back
            other.write("[1/2] 05-lbc done\n")
        watch.begun("08-cc")
        watch._live.refresh()
        assert "[1/2] 08-cc 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\x1b[2K") and other.getvalue() == "[1/2] 05-lbc done\n"
