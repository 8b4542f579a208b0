"""The program itself, and the examples in the README."""

import re
import runpy
import sys

import pytest
from cli_checks import wrong_input

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


def test_the_program_is_the_module(capfd):
    sys.argv = ["papernets", "--help"]
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("papernets", run_name="__main__")
    assert not caught.value.code and "validate" in capfd.readouterr().out
