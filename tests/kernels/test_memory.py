"""No kernel reads or writes a byte outside its arrays: each runs with every array at the edge of forbidden memory."""

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.xdist_group("machines")

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the guard uses Linux's calls for pages")
SOURCES = sorted((Path(__file__).parents[2] / "kernels" / "papernets_kernels").rglob("*.py"))
KERNELS = ("one_by_n", "n_of_m", "binary", "subbit", "hamming", "winograd3d", "sparse_conv3d")

# sums registers of bytes: the first or the last one step too far
CONTROL = """
import sys
import numba, numpy as np
from kernel_guard import guarded
from papernets_kernels import simd

@numba.njit
def add(x, start, stop, y):
    acc = simd.zeros_i8(1, 1)
    for i in range(start, stop):
        acc = simd.add(acc, simd.load_i8(simd.address(x) + i, 1))
    simd.store(simd.address(y), 0, acc, 1)

side = sys.argv[1]
with guarded(side):
    x, y = np.zeros(3 * simd.BYTES, np.uint8), np.zeros(simd.BYTES, np.uint8)
    last = x.size - simd.BYTES
    add(x, 0, last + 1, y)
    print("inside", flush=True)
    add(x, -(side == "start"), last + 1 + (side == "end"), y)
    print("outside", flush=True)
"""


@linux
@pytest.mark.parametrize("level", ["host", "x86-64-v3", "x86-64-v2"])
def test_no_kernel_leaves_its_arrays(swept, level):
    printed, status, errors = swept(level)
    assert status == 0, f"after {printed[-1:]}\n{errors}"
    assert printed[:-1] == [f"{where} {kernel}" for where in ("anywhere", "end", "start") for kernel in KERNELS]


@linux
@pytest.mark.parametrize("side", ["end", "start"])
def test_a_kernel_that_does_is_killed(side):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-X", "faulthandler", "-c", CONTROL, side]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=240)
    assert done.stdout == "inside\n" and done.returncode == -signal.SIGSEGV, done.stderr


# --- scratch that compiled code allocates, which the guard does not see ------------------------------------------------


def unkept(source: str) -> list[str]:
    """Arrays that a compiled function makes and uses by address, and that its last lines do not ``keep``.

    Numba frees an array after its last use by name, so without that line the address would outlive it. What another
    function of the module returns may be such an address, too.
    """
    found = []
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef) or not any("njit" in ast.unparse(one) for one in function.decorator_list):
            continue
        made, addressed, kept = set(), set(), set()
        statements = {node.value for node in ast.walk(function) if isinstance(node, ast.Expr)}
        for node in ast.walk(function):
            if isinstance(node, ast.Assign) and "np." in ast.unparse(node.value):
                made |= {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            elif isinstance(node, ast.Call) and (name := ast.unparse(node.func)) and node not in statements:
                if name == "simd.address" or name.startswith("_"):
                    addressed |= {part.id for one in node.args for part in ast.walk(one) if isinstance(part, ast.Name)}
        for last in reversed(function.body):
            if not (isinstance(last, ast.Expr) and ast.unparse(last).startswith("simd.keep(")):
                if not isinstance(last, ast.Return):
                    break
                continue
            kept.add(last.value.args[0].id)
        found += [f"{function.name}: {name}" for name in sorted(made & addressed - kept)]
    return found


def test_scratch_outlives_its_address():
    assert len(SOURCES) > 9
    assert {file.name: names for file in SOURCES if (names := unkept(file.read_text(encoding="utf-8")))} == {}


SCRATCH = """
@numba.njit(nogil=True)
def kernel(x, y):
    memory = np.empty(64, np.float32)
    {before}
    panel = {address}
    for i in range(9):
        simd.store(panel, 0, simd.load_f32(simd.address(x), 1), 1)
        {inside}
    {after}
"""


@pytest.mark.parametrize("address", ["(simd.address(memory) + 63) & -64", "_filled(x, memory)"])
@pytest.mark.parametrize("place", ["before", "inside", "after", None])
def test_scratch_that_does_not_is_reported(place, address):
    lines = {name: "simd.keep(memory)" if name == place else "pass" for name in ("before", "inside", "after")}
    assert unkept(SCRATCH.format(address=address, **lines)) == ([] if place == "after" else ["kernel: memory"])
    assert unkept(SCRATCH.format(address="_filled(x, y)", **lines)) == []
