"""Data that ships with scikit-learn, without importing scikit-learn: that takes 1.5 seconds."""

import importlib.util
from pathlib import Path


def sklearn_file(name: str) -> Path:
    """The file ``name`` below ``sklearn/datasets``. ``FileNotFoundError`` if this scikit-learn keeps it elsewhere."""
    file = Path(importlib.util.find_spec("sklearn").origin).parent / "datasets" / name
    if not file.is_file():
        raise FileNotFoundError(f"scikit-learn has no {file}; pip install scikit-learn in the version of constraints.txt")
    return file
