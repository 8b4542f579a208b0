"""Bits: words that are compared and counted, lanes below a limit, and signs of numbers as bits.

The counts are 64-bit lanes. Sums of counts and their widths are operations like any other, in ``tiles``.
"""

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from papernets_kernels.simd import _llvm
from papernets_kernels.simd.machine import BYTES, F32, I64
from papernets_kernels.simd.tiles import Vector, f32, i64

# ---- bits that differ ------------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def outer_popcount(typingctx, acc, words, stride, row, rows, vectors):
    """``acc[r, v] + popcount(words[r] ^ row[v])`` on 64-bit words: as ``outer_f32``, the number of bits that differ."""
    rows_, vectors_ = _llvm.literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, words, stride, row = arguments[:4]
        vector = context.get_value_type(i64)
        xs = [_llvm.load(builder, row, v * BYTES, vector) for v in range(vectors_)]
        old, new = _llvm.parts(builder, acc), []
        for r, start in enumerate(_llvm.rows_of(builder, words, stride, rows_)):
            word = _llvm.splat(builder, _llvm.load(builder, start, 0, ir.IntType(64)), I64)
            for v, x in enumerate(xs):
                bits = _llvm.call(builder, "llvm.ctpop.{}", vector, builder.xor(word, x))
                new.append(builder.add(old[r * vectors_ + v], bits))
        return _llvm.make(context, builder, signature.return_type, new)

    return acc(acc, types.int64, types.int64, types.int64, rows, vectors), emit


@intrinsic
def dots(typingctx, counts, k):
    """``k - 2 counts`` as 32-bit numbers: dot products of signs, from the numbers of bits that differ."""
    half = types.UniTuple(Vector(types.int32, I64), counts.count)

    def emit(context, builder, signature, arguments):
        counts, k = arguments
        narrow = context.get_value_type(half.dtype)
        k = _llvm.splat(builder, builder.trunc(k, _llvm.I32), I64)
        found = []
        for count in _llvm.parts(builder, counts):
            count = builder.trunc(count, narrow)
            found.append(builder.sub(k, builder.add(count, count)))
        return _llvm.make(context, builder, half, found)

    return half(counts, types.int64), emit


# ---- lanes below a limit ---------------------------------------------------------------------------------------------


@intrinsic(prefer_literal=True)
def any_below(typingctx, tile, limits, rows):
    """Is a 64-bit lane of row r of ``tile`` below the r-th number at ``limits``, for any r?"""
    (rows_,) = _llvm.literal(rows)

    def emit(context, builder, signature, arguments):
        values = _llvm.parts(builder, arguments[0])
        width = len(values) // rows_
        below = None
        for r in range(rows_):
            least = values[r * width]
            for value in values[r * width + 1 : (r + 1) * width]:
                least = _llvm.call(builder, "llvm.smin.{}", least.type, least, value)
            limit = _llvm.splat(builder, _llvm.load(builder, arguments[1], 8 * r, ir.IntType(64)), I64)
            here = builder.icmp_signed("<", least, limit)
            below = here if below is None else builder.or_(below, here)
        bits = builder.bitcast(below, ir.IntType(I64))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(tile, types.int64, rows), emit


@intrinsic(prefer_literal=True)
def lanes_below(typingctx, start, limit, vectors):
    """Bit i is 1 where the i-th int64 behind ``start`` is below ``limit``; at most 64 lanes."""
    (vectors_,) = _llvm.literal(vectors)

    def emit(context, builder, signature, arguments):
        start, limit, _ = arguments
        limit = _llvm.splat(builder, limit, I64)
        found = ir.Constant(ir.IntType(64), 0)
        for v in range(vectors_):
            here = builder.icmp_signed("<", _llvm.load(builder, start, v * BYTES, context.get_value_type(i64)), limit)
            bits = builder.zext(builder.bitcast(here, ir.IntType(I64)), found.type)
            found = builder.or_(found, builder.shl(bits, ir.Constant(found.type, v * I64)))
        return found

    return types.int64(types.int64, types.int64, vectors), emit


@intrinsic
def lowest_bit(typingctx, bits):
    """The place of the lowest bit that is 1; ``bits`` is not 0."""

    def emit(context, builder, signature, arguments):
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), emit


# ---- signs -----------------------------------------------------------------------------------------------------------


@intrinsic
def signs_i8(typingctx, start, inside):
    """+1 or -1, as 8-bit numbers, for as many float32 as a register holds: +1 for those of at least 0 (NaN is not)."""
    kind = types.UniTuple(Vector(types.int8, F32), 1)

    def emit(context, builder, signature, arguments):
        start, inside = arguments
        numbers, small = context.get_value_type(f32), context.get_value_type(kind.dtype)
        zero = ir.Constant(numbers, None)
        x = _llvm.load_first(builder, start, 0, numbers, 0, inside)
        one, minus = (ir.Constant(small, [sign] * F32) for sign in (1, -1))
        return _llvm.make(context, builder, kind, [builder.select(builder.fcmp_ordered(">=", x, zero), one, minus)])

    return kind(types.int64, types.int64), emit


@intrinsic
def put_sign(typingctx, bits, start, inside, place):
    """Sets bit ``place`` of the 64-bit lanes whose float32, at ``start`` and behind, is at least 0 (NaN is not)."""

    def emit(context, builder, signature, arguments):
        bits, start, inside, place = arguments
        numbers = ir.VectorType(ir.FloatType(), I64)
        zero = ir.Constant(numbers, None)
        x = _llvm.load_first(builder, start, 0, numbers, 0, inside)
        bit = _llvm.splat(builder, builder.shl(ir.Constant(ir.IntType(64), 1), place), I64)
        (old,) = _llvm.parts(builder, bits)
        new = builder.select(builder.fcmp_ordered(">=", x, zero), builder.or_(old, bit), old)
        return _llvm.make(context, builder, signature.return_type, [new])

    return bits(bits, types.int64, types.int64, types.int64), emit
