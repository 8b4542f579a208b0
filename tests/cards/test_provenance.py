"""Evidence goes stale with the method and not with the prose."""

import nbformat
import pytest

from papernets.cards import provenance
from papernets.cards import card


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout with the chapter on DCFF alone, to be edited."""
    from papernets.tools import paths
    root = paths.root()
    for name in ("notebooks/02-dcff.ipynb", "src/papernets/papers/dcff.py", "src/papernets/papers/dcff.toml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((root / name).read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def read(root):
    from papernets.cards import read_card
    return read_card(root / "src/papernets/papers/dcff.toml")


def test_prose_comments_and_layout_cost_nothing(copy):
    before = provenance.own_hash(read(copy))
    module = copy / "src/papernets/papers/dcff.py"
    edit(module, '"""Training Compact CNNs', '"""Some other words about Training Compact CNNs')
    edit(module, "import copy\n", "import copy  # a remark\n\n")
    edit(copy / "src/papernets/papers/dcff.toml", "minutes = 30", "minutes = 31")
    path = copy / "notebooks/02-dcff.ipynb"
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source += " More prose."
    next(cell for cell in notebook.cells if cell.cell_type == "code").source += "\n# a remark"
    nbformat.write(notebook, path)
    assert provenance.own_hash(read(copy)) == before


@pytest.mark.parametrize(("file", "old", "new"), [
    ("src/papernets/papers/dcff.py", "-T * D", "-2 * T * D"),
    ("src/papernets/papers/dcff.py", "lr: float = 0.05", "lr: float = 0.06"),
    ("src/papernets/papers/dcff.toml", "accept = { above = 0.0 }", "accept = { above = -1.0 }"),
    ("src/papernets/papers/dcff.toml", "paper = 72.77e6", "paper = 72.775e6"),
    ("notebooks/02-dcff.ipynb", "epochs=20", "epochs=30"),
])
def test_a_changed_method_rule_or_experiment_makes_evidence_stale(copy, file, old, new):
    before = provenance.own_hash(read(copy))
    edit(copy / file, old, new)
    assert provenance.own_hash(read(copy)) != before


def test_the_key_of_a_run_sees_everything_the_chapter_can_see(copy):
    paper = card("dcff")
    seen = {provenance.run_key(paper, "quick", 0), provenance.run_key(paper, "book", 0), provenance.run_key(paper, "quick", 1)}
    assert len(seen) == 3
    for name in ("src/papernets/nn/new.py", "kernels/new.py", "src/papernets/chapter/new.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
        key = provenance.run_key(paper, "quick", 0)
        assert key not in seen, name
        seen.add(key)
    for name in ("src/papernets/papers/other.py", "src/papernets/press/new.py", "src/papernets/figures/other.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
        assert provenance.run_key(paper, "quick", 0) in seen, name


def test_docstrings_alone_are_left_out():
    import ast

    def tree(text):
        return provenance._canonical(ast.parse(text))

    assert tree('def f():\n    "doc"\n    return 1') == tree("def f():\n    return 1")
    assert tree('"doc"\nx = 1') == tree("x = 1")
    assert tree('x = 1\n"not a docstring"') != tree("x = 1")
    assert tree("x = 1") != tree("x = 1.0") != tree("x = True")
    assert tree("f(a=1)") != tree("f(b=1)")
