"""Machine code that is kept: the next process compiles nothing, and never gets the code of another function."""

import os
import subprocess
import sys

import numba
import numpy as np
import pytest
from papernets_kernels import _compiled
from papernets_kernels._compiled import compiled

pytestmark = pytest.mark.xdist_group("machines")

#: A kernel that calls nothing, and the number of functions that numba compiled for it.
PROGRAM = """
import numpy as np
from numba.core import event
from papernets_kernels._patches import patches
recorded = event.RecordingListener()
event.register("numba:compile", recorded)
image = np.arange(16, dtype=np.float32).reshape(1, 4, 4)
assert (patches(image, (1, 1), (1, 1), (0, 0), (4, 4)) == image.reshape(1, 16)).all()
print(sum(happened.is_start for _, happened in recorded.buffer))
"""


@pytest.fixture
def compiles(tmp_path):
    """How many functions a new process compiles that keeps its code in ``tmp_path``."""
    def count():
        environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
        done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=environment, timeout=120)
        assert done.returncode == 0, done.stderr
        return int(done.stdout)
    return count


def test_the_next_process_compiles_nothing(compiles, tmp_path):
    assert compiles() > 0
    assert compiles() == 0
    files = sorted(tmp_path.rglob("*.nbc"))
    assert len(files) > 0
    for file in files:
        file.write_bytes(file.read_bytes()[:100])  # a full disk
    assert compiles() > 0
    assert compiles() == 0


def test_code_of_other_sources_goes(compiles, tmp_path):
    compiles()
    (folder,) = tmp_path.rglob("compiled-*")
    other = folder.rename(folder.with_name("compiled-0123456789abcdef"))
    assert compiles() > 0
    assert folder.exists() and not other.exists()


def times(factor):
    inner = adds(factor)

    @compiled
    def product(x):
        return inner(x) * factor

    return product


def adds(number):
    @compiled
    def sum_(x):
        return x + number

    return sum_


def test_functions_of_one_factory_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert times(2)(np.int64(5)) == 14
    assert times(3)(np.int64(5)) == 24  # the same line, the same signature
    assert times(2)(np.float32(0.5)) == 5
    assert times(2)(np.int64(5)) == 14
    assert len(list(tmp_path.rglob("product-*.nbc"))) == 3
    outer = [_compiled._variant(times(factor)) for factor in (2, 3, 2)]
    assert outer[0] == outer[2] != outer[1]


def test_what_cannot_be_told_apart_is_refused():
    table = np.arange(3)

    @compiled
    def look_up(x):
        return table[x]

    with pytest.raises(TypeError, match=r"closes over array\(\[0, 1, 2\]\); only numbers, texts, types and functions"):
        look_up(1)


def test_a_folder_that_cannot_be_written_to_costs_only_time(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    kernel = adds(7)
    (tmp_path / "file").touch()
    monkeypatch.setattr(kernel._cache, "_folder", tmp_path / "file" / "below")
    assert kernel(np.int64(1)) == 8
