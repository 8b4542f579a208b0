"""A method is imported without the libraries that only its experiments, data or figures need."""

import json
import subprocess
import sys

import pytest

from papernets.cards import cards

HEAVY = ("sklearn", "skimage", "lightning_fabric", "lightning_utilities", "torchmetrics", "pooch", "plotly", "torch_pruning",
         "torch._dynamo", "IPython", "scipy.signal")


def loaded(statement: str) -> set[str]:
    """Which of ``HEAVY`` a fresh Python has after ``statement``."""
    code = f"import json, sys; {statement}; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


@pytest.mark.parametrize("module", [one.module for one in cards() if one.written])
def test_importing_a_paper_loads_nothing_heavy(module):
    assert loaded(f"import papernets.papers.{module}") == set()


def test_a_heavy_import_is_seen():
    assert loaded("import papernets.papers.dcff.figures") >= {"plotly"}


def test_training_loads_no_signal_processing():
    # afterwards there is the real one, for whoever wants it
    found = loaded("from papernets.tools.quick_imports import lightning_fabric; lightning_fabric(); "
                   "assert 'scipy.signal' not in sys.modules; "
                   "from scipy.signal import firwin; import torchmetrics.functional.audio")
    assert found >= {"lightning_fabric", "torchmetrics", "scipy.signal"}
