"""Evidence goes stale with the method and not with the prose."""

import ast
import json

import nbformat
import pytest

from papernets.cards import Comparison, card, provenance, read_card
from papernets.tools import paths

FOLDER, NOTEBOOK = "src/papernets/papers/lbc", "notebooks/05-lbc.ipynb"


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A checkout with the chapter on LBC alone, to be edited."""
    root = paths.root()
    for file in (root / NOTEBOOK, *(root / FOLDER).glob("*.*")):
        target = tmp_path / file.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(file.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    return tmp_path


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def own_hash(root):
    return provenance.own_hash(read_card(root / FOLDER / "card.toml"))


def test_prose_comments_and_layout_cost_nothing(copy):
    before = own_hash(copy)
    method = copy / FOLDER / "method.py"
    edit(method, '"""Learning Best Combination', '"""Some other words about Learning Best Combination')
    edit(method, "import torch\n", "import torch  # a remark\nimport string\n\n")
    edit(copy / FOLDER / "card.toml", 'summary = "', 'summary = "Told anew: ')
    path = copy / NOTEBOOK
    notebook = nbformat.read(path, 4)
    notebook.cells[0].source += " More prose."
    next(cell for cell in notebook.cells if cell.cell_type == "code").source += "\n# a remark"
    nbformat.write(notebook, path)
    assert own_hash(copy) == before


@pytest.mark.parametrize(("file", "old", "new"), [
    ("recipes.py", "batch=256", "batch=512"), ("figures.py", "horizontal_spacing=0.06", "horizontal_spacing=0.07"),
    ("__init__.py", "bits, ", ""), (NOTEBOOK, "quick=2, book=2, evidence=12", "quick=3, book=1, evidence=12"),
    (NOTEBOOK, "repeats=chapter.pick(quick=1, book=5, evidence=5)", "repeats=7"),  # times that no claim is made of
    (NOTEBOOK, "chapter.say(draw.storage_in_words())", "chapter.say(draw.speed_in_words(times))"),
    (NOTEBOOK, 'profile = \\"', 'profile = \\"other')])
def test_recipes_figures_and_what_decides_no_verdict_cost_nothing(copy, file, old, new):
    before = own_hash(copy)
    edit(copy / (file if "/" in file else f"{FOLDER}/{file}"), old, new)
    assert own_hash(copy) == before


@pytest.mark.parametrize(("file", "old", "new"), [
    ("method.py", "stable=True", "stable=False"), ("method.py", "alive & ", "alive | "),
    ("experiment.py", "lr: float = 0.05", "lr: float = 0.06"), ("layers.py", "N: int = 2", "N: int = 1"),
    ("networks.py", "t_f=200", "t_f=201"),
    ("claims.py", '"lbc", peer', 'peer, "lbc"'),  # ours and baseline
    ("claims.py", "len(supports(N, M)) / M", "len(supports(N, M)) / N"), ("claims.py", "config.t_i,", "config.t_f,"),
    ("layers.py", "import n_of_m as kernel", "import one_by_n as kernel"),
    ("card.toml", "accept = { above = 0.0 }", "accept = { above = -1.0 }"), ("card.toml", "paper = 1.5", "paper = 1.6"),
    ("card.toml", 'baseline = "', 'baseline = "not '),
    (NOTEBOOK, "evidence=12", "evidence=10"), (NOTEBOOK, "epochs=40", "epochs=50"),
    (NOTEBOOK, "claims.records(rows)", "claims.records(rows[::-1])")])
def test_a_changed_method_rule_experiment_or_side_makes_evidence_stale(copy, file, old, new):
    path = copy / (file if "/" in file else f"{FOLDER}/{file}")
    if old not in path.read_text(encoding="utf-8"):
        pytest.fail(f"{old!r} does not stand in {file} any more: choose another place to break")
    before = own_hash(copy)
    edit(path, old, new)
    assert own_hash(copy) != before


def test_the_order_and_the_place_of_definitions_cost_nothing(copy):
    """A function that moves to another file of the paper, and one that moves within its file."""
    before = own_hash(copy)
    folder = copy / FOLDER
    tree = ast.parse((folder / "method.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    moved, last = functions[-1], functions[-2]
    tree.body.remove(moved)
    tree.body.remove(last)
    tree.body.insert(1, last)
    (folder / "method.py").write_text(ast.unparse(tree), encoding="utf-8")
    assert own_hash(copy) != before  # it is missed
    with (folder / "networks.py").open("a", encoding="utf-8") as file:
        file.write("\n\n" + ast.unparse(moved) + "\n")
    assert own_hash(copy) == before


def test_a_method_moves_the_evidence_of_its_comparison(copy):
    root = paths.root()  # of this copy
    (root / "src/papernets/comparisons/both").mkdir(parents=True)
    card_of = root / "src/papernets/comparisons/both/card.toml"
    text = (root / FOLDER / "card.toml").read_text(encoding="utf-8")
    head, claims = text[:text.index("[[claims]]")], text[text.index("[[claims]]"):]
    keep = [line for line in head.splitlines() if line.split(" ")[0] in ("name", "title", "family", "summary", "minutes")]
    card_of.write_text("\n".join(['slug = "both"', 'methods = ["lbc", "lbc"]', *keep, claims]), encoding="utf-8")
    (root / "notebooks/both.ipynb").write_text((root / NOTEBOOK).read_text(encoding="utf-8"), encoding="utf-8")
    both = read_card(card_of, Comparison)
    before = provenance.own_hash(both)
    edit(root / FOLDER / "recipes.py", "batch=256", "batch=512")
    assert provenance.own_hash(both) == before
    edit(root / FOLDER / "method.py", "alive & ", "alive | ")
    assert provenance.own_hash(both) != before


def deciding(*cells):
    kept = provenance.deciding_statements(cells)
    every = {json.dumps(provenance._canonical(node)): ast.unparse(node) for cell in cells for node in ast.parse(cell).body}
    return [every[json.dumps(node)] for node in kept]


def test_statements_that_decide_are_found_backwards():
    assert deciding("import x\na = 1\nb = 2", "chapter.claims.record('c', a)\nprint(b)") == [
        "a = 1", "chapter.claims.record('c', a)"]
    assert deciding("a = []\na.append(3)\nb = []\nb.append(3)", "chapter.claims.record_exact(a)") == [
        "a = []", "a.append(3)", "chapter.claims.record_exact(a)"]
    assert deciding("a = 1\na = 2\nrows = chapter.keep('rows', a)") == ["a = 2", "rows = chapter.keep('rows', a)"]
    assert deciding("net = make()\ntrain_(net)\nnet.x = 3\nchapter.figure(draw(net))\nchapter.claims.record('c', net)") == [
        "net = make()", "train_(net)", "net.x = 3", "chapter.claims.record('c', net)"]
    helper = "def put(n):\n    chapter.claims.record(n, data)"
    assert deciding("data = 1\nother = 2", helper, "put('c')\nprint(other)") == ["data = 1", helper, "put('c')"]


def test_the_key_of_a_run_sees_everything_the_chapter_can_see(copy):
    paper = card("lbc")
    seen = {provenance.run_key(paper, "quick", 0), provenance.run_key(paper, "book", 0), provenance.run_key(paper, "quick", 1)}
    assert len(seen) == 3
    for name in ("src/papernets/nn/new.py", "kernels/new.py", "src/papernets/chapter/new.py", f"{FOLDER}/new.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
        key = provenance.run_key(paper, "quick", 0)
        assert key not in seen, name
        seen.add(key)
    for name in ("src/papernets/papers/other/method.py", "src/papernets/press/new.py", "src/papernets/cli/new.py"):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_text("")
        assert provenance.run_key(paper, "quick", 0) in seen, name
    edit(copy / FOLDER / "figures.py", "horizontal_spacing=0.06", "horizontal_spacing=0.07")
    assert provenance.run_key(paper, "quick", 0) not in seen


def test_docstrings_alone_are_left_out():
    def tree(text):
        return provenance._canonical(ast.parse(text))

    assert tree('def f():\n    "doc"\n    return 1') == tree("def f():\n    return 1")
    assert tree('"doc"\nx = 1') == tree("x = 1")
    assert tree('x = 1\n"not a docstring"') != tree("x = 1")
    assert tree("x = 1") != tree("x = 1.0") != tree("x = True")
    assert tree("f(a=1)") != tree("f(b=1)")
