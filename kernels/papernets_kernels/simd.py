"""Vector registers in numba: what the kernels of this package are built on.

Numba compiles loops through LLVM, but leaves it to LLVM to find vector code in them, and an accumulator that is an array
stays in memory. This module gives numba a type for one vector register, and operations on *tiles*: tuples of registers that
stay in registers while a loop runs. The operations emit LLVM vector instructions (``numba.extending.intrinsic``), so

    acc = zeros_f32(ROWS, VECTORS)
    for q in range(start, stop):
        acc = outer_f32(acc, weight + 4 * ROWS * q, 4, x + stride * column[q], ROWS, VECTORS)

is ``ROWS * VECTORS`` fused multiply-adds a step, and little else. Addresses are integers (``address(array)`` plus bytes);
nothing here checks a bound, so a kernel's caller checks its arrays before. Counts of registers are constants of the
compilation (a global or a closure variable), never values.

The width follows the machine numba compiles for: 64 bytes with AVX-512, 32 with AVX2, else 16 (SSE, NEON). Code for wider
registers than a machine has would still be right: LLVM splits it.
"""

import re
import threading
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils, config
from numba.core.datamodel import models
from numba.core.errors import RequireLiteralValue
from numba.extending import intrinsic, register_model

from papernets_kernels import _check

# ---- the machine -----------------------------------------------------------------------------------------------------


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

# ---- LLVM pieces -----------------------------------------------------------------------------------------------------

_i32 = ir.IntType(32)


def _size(kind) -> int:
    """Bytes of an LLVM number or vector."""
    if isinstance(kind, ir.VectorType):
        return kind.count * _size(kind.element)
    return 4 if isinstance(kind, ir.FloatType) else kind.width // 8


def _at(builder, address, offset: int, kind):
    if offset:
        address = builder.add(address, ir.Constant(address.type, offset))
    return builder.inttoptr(address, kind.as_pointer())


def _load(builder, address, offset: int, kind):
    value = builder.load(_at(builder, address, offset, kind))
    value.align = _size(kind.element if isinstance(kind, ir.VectorType) else kind)  # numpy aligns numbers, not vectors
    return value


def _store(builder, value, address, offset: int) -> None:
    builder.store(value, _at(builder, address, offset, value.type)).align = _size(value.type.element)


def _splat(builder, scalar, lanes: int):
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(_i32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(_i32, lanes), [0] * lanes))


def _call(builder, name: str, result, *arguments):
    """An LLVM intrinsic; ``{}`` in the name is the suffix of the first vector among the arguments."""
    kind = next(argument.type for argument in arguments if isinstance(argument.type, ir.VectorType))
    suffix = f"v{kind.count}f32" if isinstance(kind.element, ir.FloatType) else f"v{kind.count}i{kind.element.width}"
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name.format(suffix)), arguments)


def _mask(builder, count, first: int, lanes: int):
    """Lanes ``first``, ``first + 1``, ... that lie before ``count``."""
    places = ir.Constant(ir.VectorType(count.type, lanes), [first + i for i in range(lanes)])
    return builder.icmp_signed("<", places, _splat(builder, count, lanes))


def _masked(builder, what: str, result, value, pointer, mask):
    """LLVM's masked load or store: the lanes outside the mask touch no memory."""
    kind = mask.type.count, value.type.element
    suffix = f"v{kind[0]}" + ("f32" if isinstance(kind[1], ir.FloatType) else f"i{kind[1].width}")
    align = ir.Constant(_i32, _size(kind[1]))
    arguments = [pointer, align, mask, value] if what == "load" else [value, pointer, align, mask]
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    declared = cgutils.get_or_insert_function(builder.module, function, f"llvm.masked.{what}.{suffix}.p0")
    return builder.call(declared, arguments)


def _literal(*counts) -> list[int]:
    for count in counts:
        if not isinstance(count, types.IntegerLiteral):
            raise RequireLiteralValue("the number of registers must be a constant of the compilation")
    return [count.literal_value for count in counts]


def _make(context, builder, kind: types.UniTuple, values: list):
    return context.make_tuple(builder, kind, values)


def _parts(builder, value) -> list:
    return cgutils.unpack_tuple(builder, value)


# ---- addresses and whole tiles ---------------------------------------------------------------------------------------


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


def _zeros(kind: Vector):
    @intrinsic(prefer_literal=True)
    def zeros(typingctx, rows, vectors):
        tile = types.UniTuple(kind, int(np.prod(_literal(rows, vectors))))

        def emit(context, builder, signature, arguments):
            zero = ir.Constant(context.get_value_type(kind), None)
            return _make(context, builder, tile, [zero] * tile.count)

        return tile(rows, vectors), emit

    return zeros


def _loads(kind: Vector):
    @intrinsic(prefer_literal=True)
    def load(typingctx, start, count):
        tile = types.UniTuple(kind, *_literal(count))

        def emit(context, builder, signature, arguments):
            vector = context.get_value_type(kind)
            values = [_load(builder, arguments[0], v * _size(vector), vector) for v in range(tile.count)]
            return _make(context, builder, tile, values)

        return tile(types.int64, count), emit

    return load


def _loads_first(kind: Vector):
    @intrinsic(prefer_literal=True)
    def load_first(typingctx, start, count, inside):
        tile = types.UniTuple(kind, *_literal(count))

        def emit(context, builder, signature, arguments):
            start, _, inside = arguments
            vector = context.get_value_type(kind)
            values = []
            for v in range(tile.count):
                pointer = _at(builder, start, v * _size(vector), vector)
                mask = _mask(builder, inside, v * kind.lanes, kind.lanes)
                values.append(_masked(builder, "load", vector, ir.Constant(vector, None), pointer, mask))
            return _make(context, builder, tile, values)

        return tile(types.int64, count, types.int64), emit

    return load_first


zeros_f32, zeros_i64, zeros_i8 = (_zeros(kind) for kind in (f32, i64, i8))
load_f32, load_i16, load_i8 = (_loads(kind) for kind in (f32, i16, i8))
load_f32_first, load_i64_first, load_i32_first = (_loads_first(kind) for kind in (f32, i64, i32))


@intrinsic
def copy(typingctx, target, source, count):
    """``count`` bytes from one address to another; the two do not overlap."""

    def emit(context, builder, signature, arguments):
        target, source, count = arguments
        byte = ir.IntType(8)
        cgutils.raw_memcpy(builder, _at(builder, target, 0, byte), _at(builder, source, 0, byte), count, 1)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), emit


@intrinsic
def clear(typingctx, target, count):
    """``count`` bytes of zero."""

    def emit(context, builder, signature, arguments):
        target, count = arguments
        cgutils.memset(builder, _at(builder, target, 0, ir.IntType(8)), count, 0)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), emit


@intrinsic
def prefetch(typingctx, start):
    """Asks for the cache line at an address, which need not exist."""

    def emit(context, builder, signature, arguments):
        pointer = _at(builder, arguments[0], 0, ir.IntType(8))
        function = ir.FunctionType(ir.VoidType(), [pointer.type, _i32, _i32, _i32])
        declared = cgutils.get_or_insert_function(builder.module, function, "llvm.prefetch.p0")
        builder.call(declared, [pointer, *(ir.Constant(_i32, number) for number in (0, 3, 1))])  # to read, keep, data
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic
def read_i32(typingctx, start):
    """The int32 at an address: no check, and no turning of negative places."""

    def emit(context, builder, signature, arguments):
        return builder.sext(_load(builder, arguments[0], 0, _i32), ir.IntType(64))

    return types.int64(types.int64), emit


@intrinsic(prefer_literal=True)
def store(typingctx, start, stride, tile, rows):
    """The rows of ``tile`` to memory, ``stride`` bytes apart."""
    rows_, *_ = _literal(rows)

    def emit(context, builder, signature, arguments):
        start, stride, tile, _ = arguments
        values = _parts(builder, tile)
        for r in range(rows_):
            row = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
            for v, value in enumerate(values[r * len(values) // rows_ : (r + 1) * len(values) // rows_]):
                _store(builder, value, row, v * _size(value.type))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, tile, rows), emit


@intrinsic(prefer_literal=True)
def store_first(typingctx, start, stride, tile, rows, count):
    """As ``store``, only the first ``count`` numbers of each row; what lies behind them in memory is not touched."""
    rows_, *_ = _literal(rows)

    def emit(context, builder, signature, arguments):
        start, stride, tile, _, count = arguments
        values = _parts(builder, tile)
        kind = values[0].type
        width = len(values) // rows_
        for v in range(width):
            mask = _mask(builder, count, v * kind.count, kind.count)
            for r in range(rows_):
                row = builder.add(start, builder.mul(stride, ir.Constant(stride.type, r)))
                pointer = _at(builder, row, v * _size(kind), kind)
                _masked(builder, "store", ir.VoidType(), values[r * width + v], pointer, mask)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, tile, rows, types.int64), emit


def _pairwise(whole: str, real: str, meaning: str):
    @intrinsic
    def operation(typingctx, one, other):
        def emit(context, builder, signature, arguments):
            apply = getattr(builder, real if one.dtype == f32 else whole)
            pairs = zip(_parts(builder, arguments[0]), _parts(builder, arguments[1]), strict=True)
            return _make(context, builder, one, [apply(a, b) for a, b in pairs])

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
            for value in _parts(builder, arguments[0]):
                for part in range(2):
                    places = [ir.Constant(_i32, part * half + i) for i in range(half)]
                    mask = ir.Constant(ir.VectorType(_i32, half), places)
                    lanes = builder.shuffle_vector(value, ir.Constant(value.type, ir.Undefined), mask)
                    found.append(builder.sext(lanes, context.get_value_type(kind)))
            return _make(context, builder, wide, found)

        return wide(tile), emit

    return widen


widen_i16, widen_i32 = _widens(i16), _widens(i32)  # 8 to 16 and 16 to 32 bits: each register becomes two


@intrinsic
def interleave(typingctx, even, odd):
    """The lanes of two tiles of one register in turn: two registers."""
    wide = types.UniTuple(even.dtype, 2)

    def emit(context, builder, signature, arguments):
        (a,), (b,) = (_parts(builder, argument) for argument in arguments)
        lanes = a.type.count
        halves = []
        for half in range(2):
            places = [place for i in range(half * lanes // 2, (half + 1) * lanes // 2) for place in (i, lanes + i)]
            mask = ir.Constant(ir.VectorType(_i32, lanes), places)
            halves.append(builder.shuffle_vector(a, b, mask))
        return _make(context, builder, wide, halves)

    return wide(even, odd), emit


@intrinsic
def deinterleave(typingctx, tile):
    """The lanes of two registers with even and with odd places: two tiles of one register."""
    one = types.UniTuple(tile.dtype, 1)

    def emit(context, builder, signature, arguments):
        a, b = _parts(builder, arguments[0])
        lanes = a.type.count
        found = []
        for odd in range(2):
            mask = ir.Constant(ir.VectorType(_i32, lanes), [2 * i + odd for i in range(lanes)])
            found.append(_make(context, builder, one, [builder.shuffle_vector(a, b, mask)]))
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(one, 2)(tile), emit


# ---- the inner steps of the products ---------------------------------------------------------------------------------


def _rows_of(builder, start, stride, rows: int) -> list:
    """The addresses of ``rows`` numbers or rows, ``stride`` bytes apart."""
    return [builder.add(start, builder.mul(stride, ir.Constant(stride.type, r))) for r in range(rows)]


def _outer_f32(context, builder, acc, starts: list, xs: list) -> list:
    """Register by register, ``acc`` plus the number at each of ``starts`` times each of ``xs``."""
    vector = context.get_value_type(f32)
    old, new = _parts(builder, acc), []
    for r, start in enumerate(starts):
        weight = _splat(builder, _load(builder, start, 0, ir.FloatType()), F32)
        new += [_call(builder, "llvm.fma.{}", vector, weight, x, old[r * len(xs) + v]) for v, x in enumerate(xs)]
    return new


@intrinsic(prefer_literal=True)
def outer_f32(typingctx, acc, scalars, stride, row, rows, vectors):
    """``acc[r, v] + scalars[r] * row[v]``: ``rows`` numbers ``stride`` bytes apart, ``vectors`` registers from ``row``."""
    rows_, vectors_ = _literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, stride, row = arguments[:4]
        xs = [_load(builder, row, v * BYTES, context.get_value_type(f32)) for v in range(vectors_)]
        starts = _rows_of(builder, scalars, stride, rows_)
        return _make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, types.int64, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def outer_f32_first(typingctx, acc, scalars, stride, row, count, rows, vectors):
    """As ``outer_f32`` on the first ``count`` numbers of ``row``, zeros behind them; the last register may be cut, no other."""
    rows_, vectors_ = _literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, stride, row, count = arguments[:5]
        vector = context.get_value_type(f32)
        xs = [_load(builder, row, v * BYTES, vector) for v in range(vectors_ - 1)]
        pointer = _at(builder, row, (vectors_ - 1) * BYTES, vector)
        mask = _mask(builder, count, (vectors_ - 1) * F32, F32)
        xs.append(_masked(builder, "load", vector, ir.Constant(vector, None), pointer, mask))
        starts = _rows_of(builder, scalars, stride, rows_)
        return _make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, types.int64, types.int64, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def rows_at(typingctx, indices, start, stride, rows):
    """The addresses ``start + stride i`` for ``rows`` int32 numbers i at ``indices``."""
    (rows_,) = _literal(rows)
    found = types.UniTuple(types.int64, rows_)

    def emit(context, builder, signature, arguments):
        indices, start, stride = arguments[:3]
        values = []
        for r in range(rows_):
            index = builder.sext(_load(builder, indices, 4 * r, _i32), ir.IntType(64))
            values.append(builder.add(start, builder.mul(stride, index)))
        return _make(context, builder, found, values)

    return found(types.int64, types.int64, types.int64, rows), emit


@intrinsic(prefer_literal=True)
def outer_rows_f32(typingctx, acc, scalars, offset, row, rows, vectors):
    """As ``outer_f32``; the r-th number is ``offset`` bytes behind the r-th of the addresses ``scalars``."""
    _, vectors_ = _literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, scalars, offset, row = arguments[:4]
        vector = context.get_value_type(f32)
        xs = [_load(builder, row, v * BYTES, vector) for v in range(vectors_)]
        starts = [builder.add(start, offset) for start in _parts(builder, scalars)]
        return _make(context, builder, signature.return_type, _outer_f32(context, builder, acc, starts, xs))

    return acc(acc, scalars, types.int64, types.int64, rows, vectors), emit


@intrinsic(prefer_literal=True)
def add_to_rows(typingctx, targets, tile, rows):
    """Adds row r of ``tile`` to the numbers at the r-th of the addresses ``targets``."""
    (rows_,) = _literal(rows)

    def emit(context, builder, signature, arguments):
        values = _parts(builder, arguments[1])
        width = len(values) // rows_
        for r, target in enumerate(_parts(builder, arguments[0])):
            for v, value in enumerate(values[r * width : (r + 1) * width]):
                _store(builder, builder.fadd(_load(builder, target, v * BYTES, value.type), value), target, v * BYTES)
        return context.get_dummy_value()

    return types.void(targets, tile, rows), emit


@intrinsic(prefer_literal=True)
def add_to_rows_first(typingctx, targets, tile, rows, count):
    """As ``add_to_rows``, only the first ``count`` numbers of each row."""
    (rows_,) = _literal(rows)

    def emit(context, builder, signature, arguments):
        values = _parts(builder, arguments[1])
        width = len(values) // rows_
        for r, target in enumerate(_parts(builder, arguments[0])):
            for v, value in enumerate(values[r * width : (r + 1) * width]):
                pointer = _at(builder, target, v * BYTES, value.type)
                mask = _mask(builder, arguments[3], v * F32, F32)
                old = _masked(builder, "load", value.type, ir.Constant(value.type, None), pointer, mask)
                _masked(builder, "store", ir.VoidType(), builder.fadd(old, value), pointer, mask)
        return context.get_dummy_value()

    return types.void(targets, tile, rows, types.int64), emit


@intrinsic(prefer_literal=True)
def outer_popcount(typingctx, acc, words, stride, row, rows, vectors):
    """``acc[r, v] + popcount(words[r] ^ row[v])`` on 64-bit words: as ``outer_f32``, the number of bits that differ."""
    rows_, vectors_ = _literal(rows, vectors)

    def emit(context, builder, signature, arguments):
        acc, words, stride, row = arguments[:4]
        vector = context.get_value_type(i64)
        xs = [_load(builder, row, v * BYTES, vector) for v in range(vectors_)]
        old, new = _parts(builder, acc), []
        for r, start in enumerate(_rows_of(builder, words, stride, rows_)):
            word = _splat(builder, _load(builder, start, 0, ir.IntType(64)), I64)
            for v, x in enumerate(xs):
                bits = _call(builder, "llvm.ctpop.{}", vector, builder.xor(word, x))
                new.append(builder.add(old[r * vectors_ + v], bits))
        return _make(context, builder, signature.return_type, new)

    return acc(acc, types.int64, types.int64, types.int64, rows, vectors), emit


# ---- bits and signs --------------------------------------------------------------------------------------------------


@intrinsic
def dots(typingctx, counts, k):
    """``k - 2 counts`` as 32-bit numbers: dot products of signs, from the numbers of bits that differ."""
    half = types.UniTuple(Vector(types.int32, I64), counts.count)

    def emit(context, builder, signature, arguments):
        counts, k = arguments
        narrow = context.get_value_type(half.dtype)
        k = _splat(builder, builder.trunc(k, _i32), I64)
        found = []
        for count in _parts(builder, counts):
            count = builder.trunc(count, narrow)
            found.append(builder.sub(k, builder.add(count, count)))
        return _make(context, builder, half, found)

    return half(counts, types.int64), emit


@intrinsic
def narrow_i16(typingctx, tile):
    """The low 16 bits of each 64-bit lane."""
    kind = types.UniTuple(Vector(types.int16, I64), tile.count)

    def emit(context, builder, signature, arguments):
        narrow = context.get_value_type(kind.dtype)
        return _make(context, builder, kind, [builder.trunc(value, narrow) for value in _parts(builder, arguments[0])])

    return kind(tile), emit


@intrinsic(prefer_literal=True)
def any_below(typingctx, tile, limits, rows):
    """Is a 64-bit lane of row r of ``tile`` below the r-th number at ``limits``, for any r?"""
    (rows_,) = _literal(rows)

    def emit(context, builder, signature, arguments):
        values = _parts(builder, arguments[0])
        width = len(values) // rows_
        below = None
        for r in range(rows_):
            least = values[r * width]
            for value in values[r * width + 1 : (r + 1) * width]:
                least = _call(builder, "llvm.smin.{}", least.type, least, value)
            limit = _splat(builder, _load(builder, arguments[1], 8 * r, ir.IntType(64)), I64)
            here = builder.icmp_signed("<", least, limit)
            below = here if below is None else builder.or_(below, here)
        bits = builder.bitcast(below, ir.IntType(I64))
        return builder.icmp_unsigned("!=", bits, ir.Constant(bits.type, 0))

    return types.boolean(tile, types.int64, rows), emit


@intrinsic(prefer_literal=True)
def lanes_below(typingctx, start, limit, vectors):
    """Bit i is 1 where the i-th int64 behind ``start`` is below ``limit``; at most 64 lanes."""
    (vectors_,) = _literal(vectors)

    def emit(context, builder, signature, arguments):
        start, limit, _ = arguments
        limit = _splat(builder, limit, I64)
        found = ir.Constant(ir.IntType(64), 0)
        for v in range(vectors_):
            here = builder.icmp_signed("<", _load(builder, start, v * BYTES, context.get_value_type(i64)), limit)
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


@intrinsic(prefer_literal=True)
def transpose_i64(typingctx, start, words):
    """``I64`` rows of ``words`` 64-bit numbers, one behind the other, as ``words`` registers: number w of every row."""
    (words_,) = _literal(words)
    tile = types.UniTuple(i64, words_)

    def emit(context, builder, signature, arguments):
        wide = ir.VectorType(ir.IntType(64), I64 * words_)
        rows = _load(builder, arguments[0], 0, wide)
        places = [ir.Constant(ir.VectorType(_i32, I64), [i * words_ + w for i in range(I64)]) for w in range(words_)]
        found = [builder.shuffle_vector(rows, ir.Constant(wide, ir.Undefined), place) for place in places]
        return _make(context, builder, tile, found)

    return tile(types.int64, words), emit


@intrinsic
def signs_i8(typingctx, start, inside):
    """+1 or -1, as 8-bit numbers, for as many float32 as a register holds: +1 for those of at least 0 (NaN is not)."""
    kind = types.UniTuple(Vector(types.int8, F32), 1)

    def emit(context, builder, signature, arguments):
        start, inside = arguments
        numbers, small = context.get_value_type(f32), context.get_value_type(kind.dtype)
        zero = ir.Constant(numbers, None)
        x = _masked(builder, "load", numbers, zero, _at(builder, start, 0, numbers), _mask(builder, inside, 0, F32))
        one, minus = (ir.Constant(small, [sign] * F32) for sign in (1, -1))
        return _make(context, builder, kind, [builder.select(builder.fcmp_ordered(">=", x, zero), one, minus)])

    return kind(types.int64, types.int64), emit


@intrinsic
def put_sign(typingctx, bits, start, inside, place):
    """Sets bit ``place`` of the 64-bit lanes whose float32, at ``start`` and behind, is at least 0 (NaN is not)."""

    def emit(context, builder, signature, arguments):
        bits, start, inside, place = arguments
        numbers = ir.VectorType(ir.FloatType(), I64)
        zero = ir.Constant(numbers, None)
        x = _masked(builder, "load", numbers, zero, _at(builder, start, 0, numbers), _mask(builder, inside, 0, I64))
        bit = _splat(builder, builder.shl(ir.Constant(ir.IntType(64), 1), place), I64)
        (old,) = _parts(builder, bits)
        new = builder.select(builder.fcmp_ordered(">=", x, zero), builder.or_(old, bit), old)
        return _make(context, builder, signature.return_type, [new])

    return bits(bits, types.int64, types.int64, types.int64), emit


# ---- memory ----------------------------------------------------------------------------------------------------------


def registers(rows: int, spare: int = 1) -> int:
    """How many registers wide a tile of ``rows`` rows can be: the tile, one row of inputs and ``spare`` others fit."""
    return max(1, (REGISTERS - spare) // (rows + 1))


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


# ---- threads ---------------------------------------------------------------------------------------------------------


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="papernets-kernels")


#: What it takes to hand a part to another thread, in nanoseconds (40 000 to 60 000 were measured on two cores).
HAND_OVER = 60_000.0


def parts(size: int, threads: int, nanoseconds: float) -> int:
    """Into how many parts to share work on ``size`` items that takes one thread about so long: 1 if it is soon done."""
    return max(1, int(min(_check.threads(threads), size, nanoseconds / HAND_OVER)))


def share(kernel, size: int, threads: int, nanoseconds: float, *arguments) -> None:
    """``kernel(first, last, *arguments)`` over ``range(size)`` in at most ``threads`` parts, each on its own thread.

    ``nanoseconds`` is what the whole takes one thread, roughly: a part must be worth handing over. The kernel must release
    the interpreter lock (``nogil``) and compute each item without regard to the part it is in; then the result is the same
    for every number of threads.
    """
    count = parts(size, threads, nanoseconds)
    if count == 1:
        if size:
            kernel(0, size, *arguments)
        return
    edges = [size * part // count for part in range(count + 1)]
    waiting = [_pool(count - 1).submit(kernel, *edges[part : part + 2], *arguments) for part in range(1, count)]
    try:
        kernel(edges[0], edges[1], *arguments)
    finally:  # no part may still write when an error lets the caller go on
        wait(waiting)
    for future in waiting:
        future.result()
