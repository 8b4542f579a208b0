"""The machine that numba compiles for: how wide its vector registers are, and how many it has.

Constants, read once at import and without compiling anything. What a register holds is in ``tiles``; no other module asks
which machine this is.
"""

import re

import llvmlite.binding as llvm
from numba.core import config


def _machine() -> tuple[int, int]:
    """Bytes of a vector register, and how many registers, of the machine numba compiles for (``NUMBA_CPU_NAME``)."""
    name = config.CPU_NAME or "host"
    if name == "host":
        has = {feature for feature, present in llvm.get_host_cpu_features().items() if present}
    else:  # the levels of x86-64 include one another; of any other name we assume the least
        level = int(found[1]) if (found := re.fullmatch(r"x86-64-v(\d)", name)) else 1
        has = {"avx512f"} if level >= 4 else {"avx2"} if level == 3 else set()
    if "avx512f" in has:
        return 64, 32
    if "avx2" in has:
        return 32, 16
    return 16, 32 if "neon" in has else 16


BYTES, REGISTERS = _machine()
F32, I64, I16, I8 = BYTES // 4, BYTES // 8, BYTES // 2, BYTES  # lanes of a register


def registers(rows: int, spare: int = 1) -> int:
    """How many registers wide a tile of ``rows`` rows can be: the tile, one row of inputs and ``spare`` others fit."""
    return max(1, (REGISTERS - spare) // (rows + 1))
