"""Processes that compile the kernels for a machine of their own."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from papernets_kernels import simd

TESTS = Path(__file__).parents[1]
HAS = {name for name, present in llvm.get_host_cpu_features().items() if present}
LEVELS = {
    "x86-64-v2": {"cx16", "popcnt", "sahf", "sse4.2", "ssse3"},
    "x86-64-v3": {"avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"},
}


@pytest.fixture(autouse=True, scope="session")
def hand_over_at_once():
    """All work is shared, however small: the sizes here are."""
    before, simd.HAND_OVER = simd.HAND_OVER, 1e-9
    yield
    simd.HAND_OVER = before


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
