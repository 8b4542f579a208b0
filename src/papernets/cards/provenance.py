"""What a result was made from: hashes that say whether it is still true, and the versions and machine behind it."""

import ast
import copy
import functools
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from papernets.cards import Card, Comparison, FullClaim, card
from papernets.tools import paths
from papernets.tools.environment import cores

_VERSIONS = ("torch", "numpy", "scipy", "numba", "scikit-learn", "scikit-image", "lightning-fabric", "torch-pruning",
             "plotly", "ipywidgets", "papermill")


@functools.cache
def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _VERSIONS:
        found[name] = metadata.version(name)
    return found


@functools.cache
def machine() -> str:
    """Cores and the widest vector unit, such as ``2 cores AVX-512``."""
    import torch
    return f"{cores()} cores {torch.backends.cpu.get_cpu_capability().replace('AVX512', 'AVX-512')}"


#: Files of a paper's folder that decide no verdict: full-size runs, drawings and sentences, and what a user imports.
UNDECIDING = ("__init__.py", "recipes.py", "figures.py")


def own_hash(paper: Card | Comparison) -> str:
    """Hash of all that decides the verdicts of a chapter and is the paper's own. Another one makes evidence stale.

    It covers the top-level definitions of the files of its folder but for ``UNDECIDING``, the rules of its card, and those
    statements of its notebook from which a recorded claim follows. Imports, prose, layout and the order and place of
    definitions do not change it. Of a comparison the definitions of its methods count, too.
    """
    # plain JSON, since every kernel of a chapter comes here: nbformat takes seconds to import
    notebook = json.loads(paths.notebook(paper.chapter).read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"]
             if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", ())]
    folders = [paper.folder, *(card(slug).folder for slug in getattr(paper, "methods", ()))]
    rules = [[claim.id, claim.kind, claim.paper, str(claim.accept), getattr(claim, "baseline", None),
              getattr(claim, "ours", None)] for claim in paper.claims if not isinstance(claim, FullClaim)]
    return _digest(json.dumps([deciding_statements(cells), rules, *map(definitions, folders)]))


def definitions(folder: Path) -> list[str]:
    """The top-level definitions of a paper that decide a verdict, each as canonical text, sorted."""
    found = []
    for file in folder.glob("*.py"):
        if file.name not in UNDECIDING:
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = _imported_names(tree)
            found += [json.dumps(_canonical(node, names)) for node in tree.body if not _is_prose(node)]
    return sorted(found)


def _is_prose(node: ast.stmt) -> bool:
    """Imports, strings that stand alone, and the list of public names."""
    return (isinstance(node, ast.Import | ast.ImportFrom)
            or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
            or (isinstance(node, ast.Assign) and "__all__" in _names_of(node, ast.Store)))


def _imported_names(tree: ast.Module) -> dict[str, str]:
    """What was imported under another name: by what it is called there. So another import under the same name is seen."""
    return {alias.asname: alias.name for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names if alias.asname}


def deciding_statements(cells: Sequence[str]) -> list[object]:
    """The statements of a notebook from which what ``chapter.claims`` records and ``chapter.keep`` keeps follows.

    Read backwards: a statement counts if it records, or if it sets, or calls a method of, a name that a later one reads.
    """
    statements = [node for cell in cells for node in ast.parse(cell).body if not _is_prose(node)]
    recording = {node.name for node in statements if isinstance(node, ast.FunctionDef) and _records(node)}
    set_somewhere = set().union(*map(_binds, statements)) - {"chapter"}
    needed, kept = set(), []
    for node in reversed(statements):
        reads = (_names_of(node, ast.Load) - _own(node)) & set_somewhere
        if _records(node) or reads & recording or (_binds(node) | _touches(node)) & needed:
            if isinstance(node, ast.Assign | ast.FunctionDef):
                needed -= _binds(node)  # what it was before no longer matters
            needed |= reads
            kept.append(_canonical(_OfEvidence().visit(copy.deepcopy(node))))
    return kept[::-1]


class _OfEvidence(ast.NodeTransformer):
    """``chapter.pick`` without what it gives to the other profiles."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "pick":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg == "evidence"]
        return node


def _records(node: ast.AST) -> bool:
    """Whether ``chapter.claims.record…(…)`` or ``chapter.keep(…)`` stands somewhere in it."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
            owner = call.func.value
            if call.func.attr.startswith("record") and isinstance(owner, ast.Attribute) and owner.attr == "claims":
                return True
            if call.func.attr == "keep" and isinstance(owner, ast.Name) and owner.id == "chapter":
                return True
    return False


def _binds(node: ast.stmt) -> set[str]:
    """Names that a statement gives a value."""
    own = {node.name} if isinstance(node, ast.FunctionDef | ast.ClassDef) else _names_of(node, ast.Store)
    return own - _own(node)


def _own(node: ast.stmt) -> set[str]:
    """Names that mean nothing outside of a statement: of its comprehensions, loops and arguments."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.comprehension | ast.For):
            found |= _names_of(part.target, ast.Store)
        elif isinstance(part, ast.arg):
            found.add(part.arg)
    return found


def _touches(node: ast.stmt) -> set[str]:
    """Names of objects that a statement may change: by setting an item or attribute, or in a call that stands by itself."""
    found = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Attribute | ast.Subscript) and isinstance(part.ctx, ast.Store):
            found |= _root(part)
        elif isinstance(part, ast.Expr) and isinstance(part.value, ast.Call) and _root(part.value) != {"chapter"}:
            arguments = [*part.value.args, *(keyword.value for keyword in part.value.keywords)]
            found |= _root(part.value.func).union(*map(_root, arguments))
    return found


def _root(node: ast.AST) -> set[str]:
    while isinstance(node, ast.Attribute | ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _names_of(node: ast.AST, context: type) -> set[str]:
    return {name.id for name in ast.walk(node) if isinstance(name, ast.Name) and isinstance(name.ctx, context)}


def run_key(paper: Card | Comparison, profile: str, seed: int) -> str:
    """Key of an executed notebook: the notebook, everything it can import, the profile and the versions.

    Folders of other papers, the press and the command line are left out: a chapter cannot see them. A page also depends on
    the committed evidence.
    """
    folders = [paper.folder, *(card(slug).folder for slug in getattr(paper, "methods", ()))]
    files = [paths.notebook(paper.chapter), *(file for folder in folders for file in sorted(folder.glob("*.*"))),
             *_library(paths.root())]
    if profile != "evidence":  # the page shows the evidence beside the live run
        files.append(paths.results() / f"{paper.chapter}.json")
    parts = [profile, seed, sorted(versions().items())]
    for file in filter(Path.is_file, files):
        parts.append([f"{file.parent.name}/{file.name}", hashlib.sha256(file.read_bytes()).hexdigest()])
    return _digest(json.dumps(parts))


def _library(root: Path) -> list[Path]:
    source = root / "src" / "papernets"
    hidden = tuple(source / name for name in ("papers", "comparisons", "press", "bench", "cli"))
    files = [file for file in source.rglob("*.py") if not any(file.is_relative_to(part) for part in hidden)]
    return sorted(files) + sorted((root / "kernels").rglob("*.py"))


def _canonical(node, names: Mapping[str, str] = MappingProxyType({})) -> object:
    """A syntax tree as plain lists: no positions, no docstrings, nothing that one Python writes and another leaves out.

    ``names`` are put in place of others.
    """
    if isinstance(node, ast.Name) and node.id in names:
        node = ast.Name(names[node.id], node.ctx)
    if isinstance(node, ast.AST):
        fields = {}
        for name, value in ast.iter_fields(node):
            if name in ("type_params", "kind", "type_comment", "type_ignores"):
                continue
            if name == "body" and isinstance(value, list) and _has_docstring(node, value):
                value = value[1:]
            value = _canonical(value, names)
            if value not in (None, []):
                fields[name] = value
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_canonical(item, names) for item in node]
    return node if isinstance(node, bool | int | str | type(None)) else repr(node)


def _has_docstring(node: ast.AST, body: list) -> bool:
    return (isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and bool(body)
            and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
