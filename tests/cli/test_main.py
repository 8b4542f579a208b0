"""The program itself, and the examples in the README."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import papernets_kernels
import pytest
from cli_checks import wrong_input

import papernets
from papernets import cli
from papernets.press import RunError
from papernets.tools import paths


@wrong_input(
    (("frobnicate",), "No such command 'frobnicate'"),
)
def test_wrong_input_is_one_line_and_status_2(refused, words, says):
    refused(*words, says=says)


@pytest.mark.parametrize("number", [0, 1])
def test_the_examples_in_the_readme_run(tmp_path, number):
    text = (paths.root() / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) == 2
    file = tmp_path / "example.py"
    file.write_text(blocks[number])
    runpy.run_path(str(file))


def test_the_program_is_the_module(capfd, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["papernets", "--help"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("papernets", run_name="__main__")
    assert not caught.value.code and "validate" in capfd.readouterr().out


EVERY = [(), *((command.name,) for command in cli.app.registered_commands), ("data",), ("data", "fetch"), ("data", "list")]


@pytest.mark.parametrize("words", EVERY, ids=lambda words: " ".join(words) or "papernets")
def test_every_command_has_help_in_short_and_the_version(run, words):
    status, out, err = run(*words, "--help")
    assert status == 0 and err == "" and out.startswith("Usage: ") and "-h, --help" in out
    assert run(*words, "-h") == (status, out, err)
    assert run(*words, "--version") == (0, f"papernets {papernets.__version__}\n", "")


def test_failures_end_with_their_status_and_defects_are_not_hidden(run, monkeypatch):
    def fails(error):
        def statuses():
            raise error
        monkeypatch.setattr("papernets.press.statuses", statuses)
        return run("list")

    assert fails(ValueError("a [wrong] card")) == (2, "", "papernets: a [wrong] card\n")
    assert fails(RunError("02-dcff: no [results]")) == (1, "", "papernets: 02-dcff: no [results]\n")
    assert fails(KeyboardInterrupt()) == (130, "", "papernets: stopped; what was finished is kept\n")
    with pytest.raises(RuntimeError, match="a defect"):
        fails(RuntimeError("a defect"))


@pytest.mark.parametrize("words", [
    ("list",), ("list", "--json"), ("validate",), ("site",), ("lab", "--no-browser"), ("bench", "kernels"), ("bench", "hdl"),
    ("train", "dcff", "--config", "vgg16-cifar10"), ("readme",), ("readme", "--check"), ("notebook", "dcff")], ids=" ".join)
@pytest.mark.parametrize("there", [True, False])
def test_a_root_that_is_no_checkout_is_one_line(refused, tmp_path_factory, monkeypatch, there, words):
    root = tmp_path_factory.mktemp("root") / ("" if there else "missing")
    monkeypatch.setenv("PAPERNETS_ROOT", str(root))
    refused(*words, says=f"PAPERNETS_ROOT is {root}, which is not a checkout of Paper Nets (it has no folder ")
    assert not there or list(root.iterdir()) == []


def test_a_folder_with_notebooks_alone_is_no_checkout(refused, tmp_path_factory, monkeypatch):
    root = tmp_path_factory.mktemp("root")
    (root / "notebooks").mkdir()
    monkeypatch.setenv("PAPERNETS_ROOT", str(root))
    refused("list", says="is not a checkout of Paper Nets (it has no folder src/papernets/papers)")


def test_a_package_without_a_checkout_lists_the_papers_and_says_what_it_cannot_do(tmp_path):
    shutil.copytree(Path(papernets.__file__).parent, tmp_path / "papernets")
    environment = {name: value for name, value in os.environ.items() if name != "PAPERNETS_ROOT"}
    environment["PYTHONPATH"] = os.pathsep.join([str(tmp_path), str(Path(papernets_kernels.__file__).parents[1])])

    def call(*words):
        return subprocess.run([sys.executable, "-m", "papernets", *words], env=environment, cwd=tmp_path, capture_output=True,
                              encoding="utf-8")

    done = call("list", "--json")
    rows = json.loads(done.stdout)
    assert done.returncode == 0 and [row["number"] for row in rows] == list(range(1, 42))
    assert {row["state"] for row in rows} == {"method", "planned"}
    done = call("validate")
    assert done.returncode == 2 and done.stdout == "" and done.stderr == (
        f"papernets: {tmp_path.parent} is not a checkout of Paper Nets (it has no folder notebooks); "
        "clone the repository and install it with: make book\n")
