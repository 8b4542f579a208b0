"""The command line, called as a user calls it."""

import sys

import pytest

from papernets import cli


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
