"""Between memory and registers: addresses, loads and stores of tiles, and memory that starts on a cache line.

An operation with ``first`` in its name touches only so many numbers: it is for the end of an array. What is computed from
what was loaded is not here; nor are loads that are half of a product (``products``) or of a test of bits (``bits``).
"""

import threading

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from papernets_kernels.simd import _llvm
from papernets_kernels.simd.machine import I64
from papernets_kernels.simd.tiles import Vector, f32, i8, i16, i32, i64

# ---- addresses -------------------------------------------------------------------------------------------------------


@intrinsic
def address(typingctx, array):
    """The address of an array's first number, as an integer one can add bytes to."""

    def emit(context, builder, signature, arguments):
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.ptrtoint(data, ir.IntType(64))

    return types.int64(array), emit


@intrinsic
def keep(typingctx, array):
    """Does nothing. Numba frees an array after its last use by name: scratch of which only the address is used needs this."""

    def emit(context, builder, signature, arguments):
        return context.get_dummy_value()

    return types.void(array), emit


@intrinsic
def prefetch(typingctx, start):
    """Asks for the cache line at an address, which need not exist."""

    def emit(context, builder, signature, arguments):
        pointer = _llvm.at(builder, arguments[0], 0, ir.IntType(8))
        function = ir.FunctionType(ir.VoidType(), [pointer.type, _llvm.I32, _llvm.I32, _llvm.I32])
        declared = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(declared, [pointer, *(ir.Constant(_llvm.I32, number) for number in (0, 3, 1))])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(types.int64), emit


# ---- loads -----------------------------------------------------------------------------------------------------------


def _loads(kind: Vector):
    @intrinsic(prefer_literal=True)
    def load(typingctx, start, count):
        tile = types.UniTuple(kind, *_llvm.literal(count))

        def emit(context, builder, signature, arguments):
            vector = context.get_value_type(kind)
            values = [_llvm.load(builder, arguments[0], v * _llvm.size(vector), vector) for v in range(tile.count)]
            return _llvm.make(context, builder, tile, values)

        return tile(types.int64, count), emit

    return load


def _loads_first(kind: Vector):
    @intrinsic(prefer_literal=True)
    def load_first(typingctx, start, count, inside):
        tile = types.UniTuple(kind, *_llvm.literal(count))

        def emit(context, builder, signature, arguments):
            start, _, inside = arguments
            vector = context.get_value_type(kind)
            values = [
                _llvm.load_first(builder, start, v * _llvm.size(vector), vector, v * kind.lanes, inside)
                for v in range(tile.count)
            ]
            return _llvm.make(context, builder, tile, values)

        return tile(types.int64, count, types.int64), emit

    return load_first


load_f32, load_i16, load_i8 = (_loads(kind) for kind in (f32, i16, i8))
load_f32_first, load_i64_first, load_i32_first = (_loads_first(kind) for kind in (f32, i64, i32))


@intrinsic(prefer_literal=True)
def transpose_i64(typingctx, start, words):
    """``I64`` rows of ``words`` 64-bit numbers, one behind the other, as ``words`` registers: number w of every row."""
    (words_,) = _llvm.literal(words)
    tile = types.UniTuple(i64, words_)

    def emit(context, builder, signature, arguments):
        wide = ir.VectorType(ir.IntType(64), I64 * words_)
        rows = _llvm.load(builder, arguments[0], 0, wide)
        places = [ir.Constant(ir.VectorType(_llvm.I32, I64), [i * words_ + w for i in range(I64)]) for w in range(words_)]
        found = [builder.shuffle_vector(rows, ir.Constant(wide, ir.Undefined), place) for place in places]
        return _llvm.make(context, builder, tile, found)

    return tile(types.int64, words), emit


@intrinsic
def read_i32(typingctx, start):
    """The int32 at an address: no check, and no turning of negative places."""

    def emit(context, builder, signature, arguments):
        return builder.sext(_llvm.load(builder, arguments[0], 0, _llvm.I32), ir.IntType(64))

    return types.int64(types.int64), emit


# ---- stores ----------------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def store(typingctx, start, stride, tile, rows):
    """The rows of ``tile`` to memory, ``stride`` bytes apart."""
    rows_, *_ = _llvm.literal(rows)

    def emit(context, builder, signature, arguments):
        start, stride, tile, _ = arguments
        values = _llvm.parts(builder, tile)
        for r in range(rows_):
            row = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
            for v, value in enumerate(values[r * len(values) // rows_ : (r + 1) * len(values) // rows_]):
                _llvm.store(builder, value, row, v * _llvm.size(value.type))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, tile, rows), emit


@intrinsic(prefer_literal=True)
def store_first(typingctx, start, stride, tile, rows, count):
    """As ``store``, only the first ``count`` numbers of each row; what lies behind them in memory is not touched."""
    rows_, *_ = _llvm.literal(rows)

    def emit(context, builder, signature, arguments):
        start, stride, tile, _, count = arguments
        values = _llvm.parts(builder, tile)
        kind = values[0].type
        width = len(values) // rows_
        for v in range(width):
            mask = _llvm.mask(builder, count, v * kind.count, kind.count)
            for r in range(rows_):
                row = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
                pointer = _llvm.at(builder, row, v * _llvm.size(kind), kind)
                _llvm.masked(builder, "store", ir.VoidType(), values[r * width + v], pointer, mask)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, tile, rows, types.int64), emit


@intrinsic
def copy(typingctx, target, source, count):
    """``count`` bytes from one address to another; the two do not overlap."""

    def emit(context, builder, signature, arguments):
        target, source, count = arguments
        byte = ir.IntType(8)
        cgutils.raw_memcpy(builder, _llvm.at(builder, target, 0, byte), _llvm.at(builder, source, 0, byte), count, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def clear(typingctx, target, count):
    """``count`` bytes of zero."""

    def emit(context, builder, signature, arguments):
        target, count = arguments
        cgutils.memset(builder, _llvm.at(builder, target, 0, ir.IntType(8)), count, 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


# ---- arrays ----------------------------------------------------------------------------------------------------------


def aligned(shape, dtype) -> np.ndarray:
    """An uninitialised array that starts on a cache line: a register then never straddles two lines."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    raw = np.empty(count * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count * dtype.itemsize].view(dtype).reshape(shape)


def align(x: np.ndarray) -> np.ndarray:
    """A contiguous copy of ``x`` that starts on a cache line."""
    copy = aligned(x.shape, x.dtype)
    copy[...] = x
    return copy


_kept = threading.local()
KEPT = 2**26  # bytes; what is larger is given back


def scratch(purpose: str, shape, dtype=np.float32) -> np.ndarray:
    """An uninitialised array on a cache line, in the same memory at every call of a thread for the same ``purpose``.

    New memory is given by the system page by page, filled with zeros, which can take longer than the work done in it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    memory = vars(_kept).get(purpose)
    if memory is None or memory.size < size:
        memory = aligned(size, np.uint8)
        if size <= KEPT:
            setattr(_kept, purpose, memory)
    return memory[:size].view(dtype).reshape(shape)
