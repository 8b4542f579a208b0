"""The command line, called as a user calls it."""

import shutil
import sys

import pytest

from papernets import cli
from papernets.cards import card
from papernets.tools import paths


@pytest.fixture
def run(capfd, monkeypatch):
    """``run(*words)``: status, output and error of ``papernets words…``."""
    def call(*words):
        monkeypatch.setattr(sys, "argv", ["papernets", *words])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        captured = capfd.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


@pytest.fixture
def refused(run, tmp_path, monkeypatch):
    """``refused(*words, says=…)``: status 2 and one line that says so, and nothing was begun where one stands."""
    def call(*words, says):
        monkeypatch.chdir(tmp_path)
        status, out, err = run(*words)
        assert status == 2
        assert says in err
        assert len(err.strip().splitlines()) == 1 and "Traceback" not in out + err
        assert list(tmp_path.iterdir()) == []  # nothing was begun

    return call


@pytest.fixture
def checkout(tmp_path_factory, monkeypatch):
    """The folder of a small checkout with two papers, 01 and 02, which a test may break; the commands see this one."""
    root, home = paths.root(), tmp_path_factory.mktemp("checkout")
    for paper in (card("lapp"), card("dcff")):
        shutil.copytree(paper.folder, home / "src/papernets/papers" / paper.module)
        (home / "notebooks").mkdir(exist_ok=True)
        shutil.copy(root / "notebooks" / f"{paper.chapter}.ipynb", home / "notebooks")
    shutil.copy(root / "README.md", home)
    monkeypatch.setenv("PAPERNETS_ROOT", str(home))
    return home
