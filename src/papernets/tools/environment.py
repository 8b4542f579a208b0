"""What this process may use and is told: its cores, and the variables that steer the libraries we measure against.

Those make the libraries slower, or faster, than they are by themselves.
"""

import os
from collections.abc import Mapping

#: What the names of such variables begin with.
STEERING = ("OPENBLAS_", "GOTO_", "BLIS_", "MKL_", "OMP_", "GOMP_", "KMP_", "DNNL_", "ONEDNN_", "ATEN_", "NUMBA_")
#: This one says where compiled kernels are kept, and changes no speed.
HARMLESS = ("NUMBA_CACHE_DIR",)


def cleaned(environment: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """``environment`` without the variables that steer libraries, and their names."""
    removed = sorted(name for name in environment if name.startswith(STEERING) and name not in HARMLESS)
    return {name: value for name, value in environment.items() if name not in removed}, removed


def cores() -> int:
    """How many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
