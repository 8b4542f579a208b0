"""The width of the registers, on machines that this one is told to be."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    ("name", "width"),
    [("x86-64", (16, 16)), ("x86-64-v2", (16, 16)), ("x86-64-v3", (32, 16)), ("x86-64-v4", (64, 32)), ("cortex-a72", (16, 16))],
)
def test_the_width_follows_the_machine_that_numba_compiles_for(name, width):
    imports = "from numba.core import config; from papernets_kernels.simd import machine"
    code = f"{imports}; config.CPU_NAME = {name!r}; print(machine._machine())"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(width)
