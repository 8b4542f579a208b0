"""The committed notebooks: thin, parametrised, and without outputs but for the checked ones."""

import ast
from pathlib import Path

import nbformat
import pytest
import yaml

from papernets.cards import cards, comparisons
from papernets.tools import paths

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))


def problems(notebook) -> list[str]:
    """What a committed notebook must not have."""
    found, parameters, checked = [], 0, 0
    for index, cell in enumerate(notebook.cells):
        if cell.cell_type != "code":
            continue
        tags = cell.metadata.get("tags", [])
        if "nbval-check-output" in tags:
            checked += bool(cell.outputs) and cell.execution_count is not None
            if not cell.outputs or cell.execution_count is None:
                found.append(f"cell {index} is to be checked and has no output")
        elif cell.outputs or cell.execution_count is not None:
            found.append(f"cell {index} has a stray output")
        if "parameters" in tags:
            parameters += 1
            if any(not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant)
                   for node in ast.parse(cell.source).body):
                found.append(f"cell {index}: parameters are literals only")
        if cell.source.lstrip().startswith(("%", "!")):
            found.append(f"cell {index} has a magic")
        if sum(1 for line in cell.source.splitlines() if line.strip()) > 20:
            found.append(f"cell {index} is long; logic belongs in the library")
    if parameters != 1:
        found.append("exactly one cell is tagged parameters")
    if not checked:
        found.append("no checked output")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("the kernel is python3")
    if notebook.metadata.get("widgets"):
        found.append("widget state is not committed")
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_notebook(path):
    assert problems(nbformat.read(path, 4)) == []


def test_there_is_a_notebook_to_check():
    assert NOTEBOOKS


def test_every_notebook_has_a_card_and_stands_in_the_table_of_contents():
    chapters = {card.chapter for card in (*cards(), *comparisons())}
    assert {path.stem for path in NOTEBOOKS} <= chapters
    text = yaml.safe_dump(yaml.safe_load((paths.root() / "book" / "_toc.yml").read_text()))
    for path in NOTEBOOKS:
        assert f"notebooks/{path.stem}\n" in text


def good():
    return nbformat.read(NOTEBOOKS[0], 4)


def code(notebook, tag=None):
    return next(cell for cell in notebook.cells if cell.cell_type == "code" and (tag in cell.metadata.get("tags", [])
                                                                                if tag else "tags" not in cell.metadata))


def test_a_stray_output_is_seen():
    notebook = good()
    code(notebook).outputs.append(nbformat.v4.new_output("stream", text="left over"))
    assert any("stray output" in line for line in problems(notebook))


def test_an_unchecked_check_is_seen():
    notebook = good()
    code(notebook, "nbval-check-output").execution_count = None
    assert any("to be checked and has no output" in line for line in problems(notebook))


@pytest.mark.parametrize(("source", "said"), [("%matplotlib inline", "magic"), ("x = 1\n" * 21, "long")])
def test_magics_and_long_cells_are_seen(source, said):
    notebook = good()
    code(notebook).source = source
    assert any(said in line for line in problems(notebook))


def test_a_derived_parameter_is_seen():
    notebook = good()
    code(notebook, "parameters").source += "\ntwice = 2 * seed"
    assert any("literals only" in line for line in problems(notebook))
