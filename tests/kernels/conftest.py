"""A scene of voxels, and processes that compile the kernels for a machine of their own."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import numpy as np
import pytest
from papernets_kernels.simd import threads

TESTS = Path(__file__).parents[1]
HAS = {name for name, present in llvm.get_host_cpu_features().items() if present}
LEVELS = {
    "x86-64-v2": {"cx16", "popcnt", "sahf", "sse4.2", "ssse3"},
    "x86-64-v3": {"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"},
}


@pytest.fixture(autouse=True, scope="session")
def hand_over_at_once():
    """All work is shared, however small: the sizes here are."""
    before, threads.HAND_OVER = threads.HAND_OVER, 1e-9
    yield
    threads.HAND_OVER = before


@pytest.fixture(scope="session")
def scene():
    """A floor, two walls and a sphere on a grid of 64^3: the scene that the figures of AccSS3D's chapter are drawn on."""
    z, y, x = np.ogrid[:64, :64, :64]
    walls = ((y == 3) | (x == 3)) & (2 <= z) & (z < 40)
    sphere = np.abs(np.sqrt((z - 20) ** 2 + (y - 30) ** 2 + (x - 35) ** 2) - 12) < 0.6
    return np.argwhere((z == 2) | walls | sphere)


@cache
def _run(level):
    # the name alone would leave the features of this machine switched on
    machine = {} if level == "host" else {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}
    command = [sys.executable, "-X", "faulthandler", str(TESTS / "kernel_sweep.py")]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **machine}, timeout=240)
    return done.stdout.splitlines(), done.returncode, done.stderr


@pytest.fixture
def swept():
    """``swept(level)``: what ``kernel_sweep`` printed on "host" or a level of x86-64, its status, and its errors. Runs once."""

    def run(level):
        if not LEVELS.get(level, set()) <= HAS:
            pytest.skip(f"this machine is no {level}")
        return _run(level)

    return run
