"""Vector registers in numba: what the kernels of this package are built on.

Numba compiles loops through LLVM, but leaves it to LLVM to find vector code in them, and an accumulator that is an array
stays in memory. This package gives numba a type for one vector register, and operations on *tiles*: tuples of registers that
stay in registers while a loop runs. The operations emit LLVM vector instructions (``numba.extending.intrinsic``), so

    acc = simd.zeros_f32(ROWS, VECTORS)
    for q in range(start, stop):
        acc = simd.outer_f32(acc, weight + 4 * ROWS * q, 4, x + stride * column[q], ROWS, VECTORS)

is ``ROWS * VECTORS`` fused multiply-adds a step, and little else. Addresses are integers (``address(array)`` plus bytes);
nothing here checks a bound, so a kernel's caller checks its arrays before. Counts of registers are constants of the
compilation (a global or a closure variable), never values.

The width follows the machine numba compiles for: 64 bytes with AVX-512, 32 with AVX2, else 16 (SSE, NEON). Code for wider
registers than a machine has would still be right: LLVM splits it.

Each module uses only those above it; ``threads`` uses none:

- ``machine``: how wide a register is, and how many there are
- ``tiles``: the type of a register, and what happens to numbers that are in registers
- ``memory``: addresses, loads and stores, arrays that start on a cache line
- ``products``: the inner steps of products of numbers
- ``bits``: words compared and counted, signs as bits
- ``threads``: the work of a kernel shared out

The pieces of LLVM that they emit are in ``_llvm``. A kernel imports ``simd`` and calls ``simd.load_f32``; what no kernel uses
is not listed here.
"""

from papernets_kernels.simd.bits import any_below, dots, lanes_below, lowest_bit, outer_popcount, put_sign, signs_i8
from papernets_kernels.simd.machine import BYTES, F32, I8, I16, I64, REGISTERS, registers
from papernets_kernels.simd.memory import (
    address,
    align,
    aligned,
    clear,
    copy,
    keep,
    load_f32,
    load_f32_first,
    load_i8,
    load_i16,
    load_i32_first,
    load_i64_first,
    prefetch,
    read_i32,
    scratch,
    store,
    store_first,
    transpose_i64,
)
from papernets_kernels.simd.products import (
    add_to_rows,
    add_to_rows_first,
    outer_f32,
    outer_f32_first,
    outer_rows_f32,
    rows_at,
)
from papernets_kernels.simd.threads import parts, share
from papernets_kernels.simd.tiles import (
    add,
    deinterleave,
    interleave,
    narrow_i16,
    subtract,
    widen_i16,
    widen_i32,
    zeros_f32,
    zeros_i8,
    zeros_i64,
)

__all__ = [
    "BYTES",
    "F32",
    "I8",
    "I16",
    "I64",
    "REGISTERS",
    "add",
    "add_to_rows",
    "add_to_rows_first",
    "address",
    "align",
    "aligned",
    "any_below",
    "clear",
    "copy",
    "deinterleave",
    "dots",
    "interleave",
    "keep",
    "lanes_below",
    "load_f32",
    "load_f32_first",
    "load_i8",
    "load_i16",
    "load_i32_first",
    "load_i64_first",
    "lowest_bit",
    "narrow_i16",
    "outer_f32",
    "outer_f32_first",
    "outer_popcount",
    "outer_rows_f32",
    "parts",
    "prefetch",
    "put_sign",
    "read_i32",
    "registers",
    "rows_at",
    "scratch",
    "share",
    "signs_i8",
    "store",
    "store_first",
    "subtract",
    "transpose_i64",
    "widen_i16",
    "widen_i32",
    "zeros_f32",
    "zeros_i8",
    "zeros_i64",
]
