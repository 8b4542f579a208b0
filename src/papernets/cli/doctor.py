"""What this machine has, what is missing, and how to get it."""

import importlib.util
import json
import shutil
import sys

from papernets.cli.console import Json, say


def doctor(json_: Json = False) -> None:
    """What this machine has, what is missing, and how to get it."""
    checks = _checks()
    if json_:
        print(json.dumps([{"check": name, "ok": ok, "found": found, "get": get if not ok else ""}
                          for name, ok, found, get in checks]))
        return
    for name, ok, found, get in checks:
        say(f"{'ok     ' if ok else 'missing'} {name}{': ' + found if found else ''}{'' if ok else ': ' + get}")


def _checks() -> list[tuple[str, bool, str, str]]:
    """Of each check its name, whether it is passed, what was found, and how to get what is missing."""
    from papernets.cards.provenance import machine
    from papernets.data import cache_folder
    from papernets.tools.browser import find_browser
    return [
        ("Python 3.11 or newer", sys.version_info >= (3, 11), sys.version.split()[0], "install Python 3.11"),
        _checkout(),
        ("machine", True, machine(), ""),
        ("Jupyter Book 1 (make book)", _has("jupyter_book"), "", "make book"),
        ("MathJax files (make book)", _has("sphinx-mathjax-offline"), "", "make book"),
        ("JupyterLab (make lab)", _has("jupyterlab"), "", "make lab"),
        ("pytest and nbval (make test)", _has("pytest") and _has("nbval"), "", "make test"),
        ("a browser for the page tests", bool(find_browser()), find_browser() or "",
         "apt-get install chromium, or any Chrome or Chromium"),
        ("C++ compiler (compiled simulation)", bool(shutil.which("c++") or shutil.which("g++")), "",
         "apt-get install g++; without it the slower engine serves"),
        ("data folder", True, str(cache_folder()), ""),
    ]


def _checkout() -> tuple[str, bool, str, str]:
    from papernets.tools import paths
    try:
        return "checkout", True, str(paths.root()), ""
    except ValueError as error:
        return "checkout", False, "", str(error)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
