"""The ports of a core as rows of 32-bit words: their places, and numbers to words and back.

Both engines of ``simulate`` exchange such rows with a core. What happens at a port, and when, is not known here.
"""

from dataclasses import dataclass, field

import numpy as np
from amaranth.hdl import Shape, Value
from amaranth.lib import data, wiring


@dataclass(frozen=True)
class Port:
    """One port of a core: ``count`` numbers of ``width`` bits, in words of 32 bits from ``word`` on."""

    name: str
    value: object = field(repr=False, compare=False)
    width: int
    signed: bool
    count: int | None  # None: a single number, not an array of one
    word: int

    @property
    def bits(self) -> int:
        return self.width * (self.count or 1)

    @property
    def words(self) -> int:
        return -(-self.bits // 32)

    def encode(self, values) -> np.ndarray:
        """Numbers (rows,) or (rows, count), or those of one row without that axis, as words (rows, words) uint32."""
        values = np.asarray(values)
        low, high = (-(2 ** (self.width - 1)), 2 ** (self.width - 1)) if self.signed else (0, 2**self.width)
        whole = values.dtype.kind in "iub"
        if values.size and not (whole and low <= int(values.min()) and int(values.max()) < high):
            wrong = next(v for v in values.flat if not low <= int(v) < high) if whole else values.dtype
            raise ValueError(f"port {self.name} is given {wrong}; it takes whole numbers from {low} to {high - 1}")
        shape = () if self.count is None else (self.count,)
        if values.shape[max(0, values.ndim - len(shape)) :] not in (shape, ()) or values.ndim > 1 + len(shape):
            raise ValueError(f"port {self.name} is given values of shape {values.shape}; rows of shape {shape} are expected")
        rows = len(values) if values.ndim > len(shape) else 1
        values = np.broadcast_to(values, (rows, *shape)).reshape(rows, self.count or 1)
        if self.count is None and self.width <= 32:
            return (values.astype(np.int64) & (2**self.width - 1)).astype(np.uint32)
        bits = np.zeros((rows, 32 * self.words), np.uint8)
        number = values.astype(np.uint64) if values.dtype.kind == "u" else values.astype(np.int64).view(np.uint64)
        bits[:, : self.bits] = (number[..., None] >> np.arange(self.width, dtype=np.uint64) & np.uint64(1)).reshape(rows, -1)
        return np.packbits(bits, axis=1, bitorder="little").view("<u4").astype(np.uint32, copy=False)

    def decode(self, words: np.ndarray) -> np.ndarray:
        """The inverse: words (rows, words) as int64 (uint64 where a port has 64 unsigned bits), (rows,) or (rows, count)."""
        bytes_ = np.ascontiguousarray(words).astype("<u4", copy=False).view(np.uint8)
        bits = np.unpackbits(bytes_, axis=1, bitorder="little", count=self.bits)
        bits = bits.reshape(len(words), self.count or 1, self.width)
        wide = np.zeros((*bits.shape[:2], 64), np.uint8)
        wide[..., : self.width] = bits
        if self.signed:
            wide[..., self.width :] = bits[..., -1:]
        numbers = np.packbits(wide, axis=2, bitorder="little").view("<u8")[..., 0].astype(np.uint64, copy=False)
        numbers = numbers if self.width == 64 and not self.signed else numbers.view(np.int64)
        return numbers[:, 0] if self.count is None else numbers


def ports(core) -> tuple[dict[str, Port], dict[str, Port]]:
    """The inputs and the outputs of a core, by name. The reset of its clock domain is the input ``rst``."""
    found = {wiring.In: {}, wiring.Out: {}}
    for path, member, value in core.signature.flatten(core):
        name, shape, count = "__".join(map(str, path)), member.shape, None
        if isinstance(shape, data.ArrayLayout):
            shape, count = shape.elem_shape, shape.length
        shape = Shape.cast(shape)
        if shape.width > 64:
            raise ValueError(f"port {name} has {shape.width} bits; a number has at most 64, so make it an ArrayLayout")
        side = found[member.flow]
        side[name] = Port(name, Value.cast(value), shape.width, shape.signed, count, sum(port.words for port in side.values()))
    inputs, outputs = found.values()
    inputs["rst"] = Port("rst", None, 1, False, None, sum(port.words for port in inputs.values()))
    return inputs, outputs


def words_of(ports: dict[str, Port]) -> int:
    """The length of a row that holds all ``ports``."""
    return sum(port.words for port in ports.values())


def decoded(ports: dict[str, Port], rows: np.ndarray, names=None) -> dict[str, np.ndarray]:
    """The numbers of ``rows`` (cycles, words), by port: of all ``ports``, or of those ``names``."""
    return {name: ports[name].decode(rows[:, ports[name].word :][:, : ports[name].words]) for name in names or ports}
