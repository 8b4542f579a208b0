"""The inner steps of products of numbers: a column of scalars times a row of registers, added to a tile.

``outer_f32`` has its scalars a fixed number of bytes apart. Where rows are gathered by number, ``rows_at`` finds their
addresses, ``outer_rows_f32`` multiplies them, and ``add_to_rows`` brings a tile back to rows that lie anywhere. The product
of signs, which counts bits, is in ``bits``; the loops around a step belong to the kernels.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from papernets_kernels.simd import _llvm
from papernets_kernels.simd.machine import BYTES, F32
from papernets_kernels.simd.tiles import f32


def _outer_f32(context, builder, acc, starts: list, xs: list) -> list:
    """Register by register, ``acc`` plus the number at each of ``starts`` times each of ``xs``."""
    vector = context.get_value_type(f32)
    old, new = _llvm.parts(builder, acc), []
    for r, start in enumerate(starts):
        weight = _llvm.splat(builder, _llvm.load(builder, start, 0, ir.FloatType()), F32)
        new += [_llvm.call(builder, "llvm.fma.{}", vector, weight, x, old[r * len(xs) + v]) for v, x in enumerate(xs)]
    return new


@intrinsic(prefer_literal=True)
def outer_f32(typingctx, acc, scalars, stride, row, rows, vectors):
    """``acc[r, v] + scalars[r] * row[v]``: ``rows`` numbers ``stride`` bytes apart, ``vectors`` registers from ``row``."""
    rows_, vectors_ = _llvm.literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, stride, row = arguments[:4]
        xs = [_llvm.load(builder, row, v * BYTES, context.get_value_type(f32)) for v in range(vectors_)]
        starts = _llvm.rows_of(builder, scalars, stride, rows_)
        return _llvm.make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, types.int64, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def outer_f32_first(typingctx, acc, scalars, stride, row, count, rows, vectors):
    """As ``outer_f32`` on the first ``count`` numbers of ``row``, zeros behind them; the last register may be cut, no other."""
    rows_, vectors_ = _llvm.literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, stride, row, count = arguments[:5]
        vector, last = context.get_value_type(f32), vectors_ - 1
        xs = [_llvm.load(builder, row, v * BYTES, vector) for v in range(last)]
        xs.append(_llvm.load_first(builder, row, last * BYTES, vector, last * F32, count))
        starts = _llvm.rows_of(builder, scalars, stride, rows_)
        return _llvm.make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, types.int64, types.int64, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def rows_at(typingctx, indices, start, stride, rows):
    """The addresses ``start + stride i`` for ``rows`` int32 numbers i at ``indices``."""
    (rows_,) = _llvm.literal(rows)
    found = types.UniTuple(types.int64, rows_)

    def emit(context, builder, signature, arguments):
        indices, start, stride = arguments[:3]
        values = []
        for r in range(rows_):
            index = builder.sext(_llvm.load(builder, indices, 4 * r, _llvm.I32), ir.IntType(64))
            values.append(builder.add(start, builder.mul(stride, index)))
        return _llvm.make(context, builder, found, values)

    return found(types.int64, types.int64, types.int64, rows), emit


@intrinsic(prefer_literal=True)
def outer_rows_f32(typingctx, acc, scalars, offset, row, rows, vectors):
    """As ``outer_f32``; the r-th number is ``offset`` bytes behind the r-th of the addresses ``scalars``."""
    _, vectors_ = _llvm.literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, offset, row = arguments[:4]
        vector = context.get_value_type(f32)
        xs = [_llvm.load(builder, row, v * BYTES, vector) for v in range(vectors_)]
        starts = [builder.add(start, offset) for start in _llvm.parts(builder, scalars)]
        return _llvm.make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, scalars, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def add_to_rows(typingctx, targets, tile, rows):
    """Adds row r of ``tile`` to the numbers at the r-th of the addresses ``targets``."""
    (rows_,) = _llvm.literal(rows)

    def emit(context, builder, signature, arguments):
        values = _llvm.parts(builder, arguments[1])
        width = len(values) // rows_
        for r, target in enumerate(_llvm.parts(builder, arguments[0])):
            for v, value in enumerate(values[r * width : (r + 1) * width]):
                _llvm.store(builder, builder.fadd(_llvm.load(builder, target, v * BYTES, value.type), value), target, v * BYTES)
        return context.get_dummy_value()

    return types.void(targets, tile, rows), emit


@intrinsic(prefer_literal=True)
def add_to_rows_first(typingctx, targets, tile, rows, count):
    """As ``add_to_rows``, only the first ``count`` numbers of each row."""
    (rows_,) = _llvm.literal(rows)

    def emit(context, builder, signature, arguments):
        values = _llvm.parts(builder, arguments[1])
        width = len(values) // rows_
        for r, target in enumerate(_llvm.parts(builder, arguments[0])):
            for v, value in enumerate(values[r * width : (r + 1) * width]):
                pointer = _llvm.at(builder, target, v * BYTES, value.type)
                mask = _llvm.mask(builder, arguments[3], v * F32, F32)
                old = _llvm.masked(builder, "load", value.type, ir.Constant(value.type, None), pointer, mask)
                _llvm.masked(builder, "store", ir.VoidType(), builder.fadd(old, value), pointer, mask)
        return context.get_dummy_value()

    return types.void(targets, tile, rows, types.int64), emit
