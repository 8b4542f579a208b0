"""What a result was made from: hashes that say whether it is still true, and the versions and machine behind it."""

import ast
import functools
import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path

from papernets.tools import paths
from papernets.cards import Card, Comparison, FullClaim, card

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
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    import torch
    return f"{cores} cores {torch.backends.cpu.get_cpu_capability().replace('AVX512', 'AVX-512')}"


def own_hash(paper: Card | Comparison) -> str:
    """Hash of what is the paper's own: code cells, rules of the card, and the module without docstrings.

    Comments, prose and layout do not change it; a changed method, rule or experiment does. It makes evidence stale. Of a
    comparison the modules of its methods count, too.
    """
    # plain JSON, since every kernel of a chapter comes here: nbformat takes seconds to import
    notebook = json.loads(paths.notebook(paper.chapter).read_text(encoding="utf-8"))
    sources = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    cells = [_canonical(ast.parse(source)) for source in sources]
    module, *methods = (_canonical(ast.parse(source.read_text(encoding="utf-8"))) for source in _sources(paper))
    rules = [[claim.id, claim.kind, claim.paper, str(claim.accept), getattr(claim, "baseline", None)]
             for claim in paper.claims if not isinstance(claim, FullClaim)]
    return _digest(json.dumps([cells, module, rules, *methods]))


def _sources(paper: Card | Comparison) -> list[Path]:
    return [paper.source, *(card(slug).source for slug in getattr(paper, "methods", ()))]


def run_key(paper: Card | Comparison, profile: str, seed: int) -> str:
    """Key of an executed notebook: the notebook, everything it can import, the profile and the versions.

    Modules and figures of other papers, the press and the command line are left out: a chapter cannot see them. A page
    also depends on the committed evidence.
    """
    files = [paths.notebook(paper.chapter), paper.source.with_suffix(".toml"), *_sources(paper),
             paths.root() / "src" / "papernets" / "figures" / f"{paper.module}.py", *_library(paths.root())]
    if profile != "evidence":  # the page shows the evidence beside the live run
        files.append(paths.results() / f"{paper.chapter}.json")
    parts = [profile, seed, sorted(versions().items())]
    for file in filter(Path.exists, files):
        parts.append([file.name, hashlib.sha256(file.read_bytes()).hexdigest()])
    return _digest(json.dumps(parts))


def _library(root: Path) -> list[Path]:
    source = root / "src" / "papernets"
    hidden = tuple(source / name for name in ("papers", "comparisons", "figures", "press", "bench", "cli.py"))
    files = [file for file in source.rglob("*.py") if not any(file.is_relative_to(part) for part in hidden)]
    return sorted(files) + sorted((root / "kernels").rglob("*.py"))


def _canonical(node) -> object:
    """A syntax tree as plain lists: no positions, no docstrings, nothing that one Python writes and another leaves out."""
    if isinstance(node, ast.AST):
        fields = {}
        for name, value in ast.iter_fields(node):
            if name in ("type_params", "kind", "type_comment", "type_ignores"):
                continue
            if name == "body" and isinstance(value, list) and _has_docstring(node, value):
                value = value[1:]
            value = _canonical(value)
            if value not in (None, []):
                fields[name] = value
        return [type(node).__name__, fields]
    if isinstance(node, list):
        return [_canonical(item) for item in node]
    return node if isinstance(node, bool | int | str | type(None)) else repr(node)


def _has_docstring(node: ast.AST, body: list) -> bool:
    return (isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef) and bool(body)
            and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant)
            and isinstance(body[0].value.value, str))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
