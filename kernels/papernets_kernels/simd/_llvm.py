"""Pieces of LLVM that the operations of this package emit their code from. Nothing here is called by a kernel.

Every piece takes the builder of the function that is being compiled, and LLVM values. What numba sees, its types and
intrinsics, is in the modules that use these pieces.
"""

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import RequireLiteralValue

I32 = ir.IntType(32)


def size(kind) -> int:
    """Bytes of an LLVM number or vector."""
    if isinstance(kind, ir.VectorType):
        return kind.count * size(kind.element)
    return 4 if isinstance(kind, ir.FloatType) else kind.width // 8


def at(builder, address, offset: int, kind):
    if offset:
        address = builder.add(address, ir.Constant(address.type, offset))
    return builder.inttoptr(address, kind.as_pointer())


def load(builder, address, offset: int, kind):
    value = builder.load(at(builder, address, offset, kind))
    value.align = size(kind.element if isinstance(kind, ir.VectorType) else kind)  # numpy aligns numbers, not vectors
    return value


def store(builder, value, address, offset: int) -> None:
    builder.store(value, at(builder, address, offset, value.type)).align = size(value.type.element)


def splat(builder, scalar, lanes: int):
    kind = ir.VectorType(scalar.type, lanes)
    undefined = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(I32, lanes), [0] * lanes))


def call(builder, name: str, result, *arguments):
    """An LLVM intrinsic; ``{}`` in the name is the suffix of the first vector among the arguments."""
    kind = next(argument.type for argument in arguments if isinstance(argument.type, ir.VectorType))
    suffix = f"v{kind.count}f32" if isinstance(kind.element, ir.FloatType) else f"v{kind.count}i{kind.element.width}"
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name.format(suffix)), arguments)


def mask(builder, count, first: int, lanes: int):
    """Lanes ``first``, ``first + 1``, ... that lie before ``count``."""
    places = ir.Constant(ir.VectorType(count.type, lanes), [first + i for i in range(lanes)])
    return builder.icmp_signed("<", places, splat(builder, count, lanes))


def masked(builder, what: str, result, value, pointer, mask):
    """LLVM's masked load or store: the lanes outside the mask touch no memory."""
    kind = mask.type.count, value.type.element
    suffix = f"v{kind[0]}" + ("f32" if isinstance(kind[1], ir.FloatType) else f"i{kind[1].width}")
    align = ir.Constant(I32, size(kind[1]))
    arguments = [pointer, align, mask, value] if what == "load" else [value, pointer, align, mask]
    function = ir.FunctionType(result, [argument.type for argument in arguments])
    declared = cgutils.get_or_insert_function(builder.module, function, f"llvm.masked.{what}.{suffix}.p0")
    return builder.call(declared, arguments)


def load_first(builder, address, offset: int, kind, first: int, count):
    """As ``load``, of a vector whose lanes are numbers ``first``, ``first + 1``, ...: 0 in place of those from ``count`` on."""
    pointer = at(builder, address, offset, kind)
    inside = mask(builder, count, first, kind.count)
    return masked(builder, "load", kind, ir.Constant(kind, None), pointer, inside)


def rows_of(builder, start, stride, rows: int) -> list:
    """The addresses of ``rows`` numbers or rows, ``stride`` bytes apart."""
    return [builder.add(start, builder.mul(stride, ir.Constant(stride.type, r))) for r in range(rows)]


def literal(*counts) -> list[int]:
    for count in counts:
        if not isinstance(count, types.IntegerLiteral):
            raise RequireLiteralValue("the number of registers must be a constant of the compilation")
    return [count.literal_value for count in counts]


def make(context, builder, kind: types.UniTuple, values: list):
    return context.make_tuple(builder, kind, values)


def parts(builder, value) -> list:
    return cgutils.unpack_tuple(builder, value)
