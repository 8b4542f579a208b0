"""The kernels on machines with narrower registers, and the instructions they are made of."""

import json
import platform
import re

import llvmlite.binding as llvm
import pytest

pytestmark = [
    pytest.mark.xdist_group("machines"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the levels are those of x86-64"),
]

FLOATS, BITS = ("one_by_n", "n_of_m", "winograd3d", "sparse_conv3d"), ("binary", "hamming")
KERNELS = (*FLOATS, *BITS, "subbit")
HAS = {name for name, present in llvm.get_host_cpu_features().items() if present}


def counts(code: str, instruction: str, register: str) -> int:
    return len(re.findall(rf"\t{instruction}\w*\t.*%{register}\d", code))


def compiled(swept, level):
    """Bytes of a register, and the assembly of every kernel, of a process in which all kernels equalled their references."""
    printed, status, errors = swept(level)
    assert status == 0, f"after {printed[-1:]}\n{errors}"
    assert {f"anywhere {kernel}" for kernel in KERNELS} <= set(printed)
    width, code = json.loads(printed[-1])
    assert set(KERNELS) <= set(code)
    return width, code


def test_with_registers_of_32_bytes(swept):
    width, code = compiled(swept, "x86-64-v3")
    assert width == 32
    for kernel in KERNELS:
        assert not counts(code[kernel], "", "zmm"), kernel
    for kernel in FLOATS:
        assert counts(code[kernel], "vfmadd", "ymm"), kernel
    for kernel in BITS:
        assert counts(code[kernel], "vpshufb", "ymm"), kernel  # bits are counted by looking up half bytes
    assert counts(code["subbit"], "vpaddb", "ymm")


def test_with_registers_of_16_bytes(swept):
    width, code = compiled(swept, "x86-64-v2")
    assert width == 16
    for kernel in KERNELS:
        assert not counts(code[kernel], "", "[yz]mm"), kernel
    for kernel in BITS:
        assert counts(code[kernel], "pshufb", "xmm"), kernel
    assert counts(code["subbit"], "paddb", "xmm")


def test_on_this_machine_the_widest_registers_are_used(swept):
    width, code = compiled(swept, "host")
    assert width == (64 if "avx512f" in HAS else 32 if "avx2" in HAS else 16)
    register = {64: "zmm", 32: "ymm", 16: "xmm"}[width]
    for kernel in FLOATS if "fma" in HAS else ():
        assert counts(code[kernel], "vfmadd", register), kernel
    for kernel in BITS if "avx512vpopcntdq" in HAS else ():
        assert counts(code[kernel], "vpopcntq", "zmm"), kernel
    assert counts(code["subbit"], "v?paddb", register)
