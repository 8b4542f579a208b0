"""Imports without what nobody here needs of them. Import this before nbformat or plotly's widgets: both import jsonschema.

Jsonschema loads a package for a kind of address that no notebook has, and that package builds a grammar when it is imported:
2 to 3 seconds at every start of a kernel. Without the package jsonschema leaves that one check out.
"""

import contextlib
import importlib
import sys
from types import ModuleType

sys.modules.setdefault("rfc3987_syntax", None)


def lightning_fabric():
    """The module of that name, without scipy.signal.

    Lightning loads torchmetrics where it is installed. That loads scipy.signal, more than a second, only to give it a name
    that scipy took away. A stand-in that has the name stands in its place while torchmetrics is loaded.
    """
    if not {"torchmetrics", "scipy.signal"} & set(sys.modules):
        sys.modules["scipy.signal"] = stand_in = ModuleType("scipy.signal")
        stand_in.hamming = None
        try:
            with contextlib.suppress(ImportError):
                importlib.import_module("torchmetrics")
        finally:
            del sys.modules["scipy.signal"]
    return importlib.import_module("lightning_fabric")
