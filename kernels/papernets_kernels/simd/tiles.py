"""Registers, and tiles: tuples of registers. What happens to numbers that are in registers already.

Sums, differences, other widths, and lanes that change places. Nothing here reads or writes memory: that is ``memory``; bits
within a lane are ``bits``, and sums of products are ``products``.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.datamodel import models
from numba.extending import intrinsic, register_model

from papernets_kernels.simd import _llvm
from papernets_kernels.simd.machine import F32, I8, I16, I64


class Vector(types.Type):
    """One register: ``lanes`` numbers of type ``element``."""

    def __init__(self, element: types.Type, lanes: int):
        self.element, self.lanes = element, lanes
        super().__init__(name=f"Vector({element}, {lanes})")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind: Vector):
        element = ir.FloatType() if kind.element == types.float32 else ir.IntType(kind.element.bitwidth)
        super().__init__(manager, kind, ir.VectorType(element, kind.lanes))


f32, i64, i32, i16, i8 = (
    Vector(types.float32, F32),
    Vector(types.int64, I64),
    Vector(types.int32, F32),
    Vector(types.int16, I16),
    Vector(types.int8, I8),
)


def _zeros(kind: Vector):
    @intrinsic(prefer_literal=True)
    def zeros(typingctx, rows, vectors):
        tile = types.UniTuple(kind, int(np.prod(_llvm.literal(rows, vectors))))

        def emit(context, builder, signature, arguments):
            zero = ir.Constant(context.get_value_type(kind), None)
            return _llvm.make(context, builder, tile, [zero] * tile.count)

        return tile(rows, vectors), emit

    return zeros


zeros_f32, zeros_i64, zeros_i8 = (_zeros(kind) for kind in (f32, i64, i8))


def _pairwise(whole: str, real: str, meaning: str):
    @intrinsic
    def operation(typingctx, one, other):
        def emit(context, builder, signature, arguments):
            apply = getattr(builder, real if one.dtype == f32 else whole)
            pairs = zip(_llvm.parts(builder, arguments[0]), _llvm.parts(builder, arguments[1]), strict=True)
            return _llvm.make(context, builder, one, [apply(a, b) for a, b in pairs])

        return one(one, other), emit

    operation.__doc__ = f"The {meaning} of two tiles, register by register."
    return operation


add = _pairwise("add", "fadd", "sums")
subtract = _pairwise("sub", "fsub", "differences")


def _widens(kind: Vector):
    @intrinsic
    def widen(typingctx, tile):
        wide = types.UniTuple(kind, 2 * tile.count)

        def emit(context, builder, signature, arguments):
            found, half = [], tile.dtype.lanes // 2
            for value in _llvm.parts(builder, arguments[0]):
                for part in range(2):
                    places = [ir.Constant(_llvm.I32, part * half + i) for i in range(half)]
                    mask = ir.Constant(ir.VectorType(_llvm.I32, half), places)
                    lanes = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)
                    found.append(builder.sext(lanes, context.get_value_type(kind)))
            return _llvm.make(context, builder, wide, found)

        return wide(tile), emit

    return widen


widen_i16, widen_i32 = _widens(i16), _widens(i32)  # 8 to 16 and 16 to 32 bits: each register becomes two


@intrinsic
def narrow_i16(typingctx, tile):
    """The low 16 bits of each 64-bit lane."""
    kind = types.UniTuple(Vector(types.int16, I64), tile.count)

    def emit(context, builder, signature, arguments):
        narrow = context.get_value_type(kind.dtype)
        lanes = [builder.trunc(value, narrow) for value in _llvm.parts(builder, arguments[0])]
        return _llvm.make(context, builder, kind, lanes)

    return kind(tile), emit


@intrinsic
def interleave(typingctx, even, odd):
    """The lanes of two tiles of one register in turn: two registers."""
    wide = types.UniTuple(even.dtype, 2)

    def emit(context, builder, signature, arguments):
        (a,), (b,) = (_llvm.parts(builder, argument) for argument in arguments)
        lanes = a.type.count
        halves = []
        for half in range(2):
            places = [place for i in range(half * lanes // 2, (half + 1) * lanes // 2) for place in (i, lanes + i)]
            mask = ir.Constant(ir.VectorType(_llvm.I32, lanes), places)
            halves.append(builder.shuffle_vector(a, b, mask))
        return _llvm.make(context, builder, wide, halves)

    return wide(even, odd), emit


@intrinsic
def deinterleave(typingctx, tile):
    """The lanes of two registers with even and with odd places: two tiles of one register."""
    one = types.UniTuple(tile.dtype, 1)

    def emit(context, builder, signature, arguments):
        a, b = _llvm.parts(builder, arguments[0])
        lanes = a.type.count
        found = []
        for odd in range(2):
            mask = ir.Constant(ir.VectorType(_llvm.I32, lanes), [2 * i + odd for i in range(lanes)])
            found.append(_llvm.make(context, builder, one, [builder.shuffle_vector(a, b, mask)]))
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(one, 2)(tile), emit
