"""What the kernels ask of their arrays, before an address is taken. Each refusal is a ``ValueError``."""

import difflib
from collections.abc import Iterable

import numpy as np


def array(name: str, x, dtype, axes: str) -> np.ndarray:
    """``x`` as a contiguous array; it must already have ``dtype`` and the ``axes``, named like ``"C P"``."""
    x = np.asarray(x)
    if x.dtype != dtype:
        raise ValueError(f"{name} is {x.dtype}; {np.dtype(dtype)} is expected: give {name}.astype(np.{np.dtype(dtype)})")
    if x.ndim != len(axes.split()):
        raise ValueError(f"{name} has shape {x.shape}; its axes are ({axes.replace(' ', ', ')})")
    return np.ascontiguousarray(x)


def integers(name: str, x, axes: str, low: int, high: int) -> np.ndarray:
    """``x`` as a contiguous array of whole numbers from ``low`` to ``high`` - 1."""
    x = np.asarray(x)
    if x.dtype.kind not in "iu":
        raise ValueError(f"{name} is {x.dtype}; whole numbers are expected")
    if axes and x.ndim != len(axes.split()):
        raise ValueError(f"{name} has shape {x.shape}; its axes are ({axes.replace(' ', ', ')})")
    if x.size and (x.min() < low or x.max() >= high):
        wrong = x.min() if x.min() < low else x.max()
        raise ValueError(f"{name} holds {wrong}; its entries lie in {low} ... {high - 1}")
    return np.ascontiguousarray(x)


def pointers(name: str, x: np.ndarray, last: int) -> None:
    """``x`` must begin at 0, end at ``last`` and never fall."""
    steps = np.diff(x.astype(np.int64))
    if not len(x) or x[0] != 0 or x[-1] != last or (steps < 0).any():
        held = f"goes from {x[0]} to {x[-1]}{' and falls between' * bool((steps < 0).any())}" if len(x) else "is empty"
        raise ValueError(f"{name} {held}; it begins at 0, never falls, and ends at {last}")


def signs(name: str, x, axes: str) -> np.ndarray:
    """``x`` as a contiguous array of +1 and -1, of any number type."""
    x = np.asarray(x)
    if x.ndim != len(axes.split()):
        raise ValueError(f"{name} has shape {x.shape}; its axes are ({axes.replace(' ', ', ')})")
    wrong = x[(x != 1) & (x != -1)]
    if wrong.size:
        raise ValueError(f"{name} holds {wrong.flat[0]}; its entries are +1 or -1: give np.where({name} >= 0, 1, -1)")
    return np.ascontiguousarray(x)


def whole(name: str, value, least: int) -> int:
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} is {value!r}; it is a whole number of at least {least}")
    return int(value)


def nearest(name: str, names: Iterable[str]) -> str:
    """The one of ``names`` that is most like a wrong one."""
    return max(names, key=lambda other: difflib.SequenceMatcher(None, name, other).ratio())


def threads(value) -> int:
    return whole("threads", value, 1)


def each(name: str, value, axes: int, least: int) -> tuple[int, ...]:
    """A setting that is one number for all axes or one for each."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * axes
    if len(values) != axes:
        raise ValueError(f"{name} is {value!r}; it is one number, or {axes}")
    return tuple(whole(name, number, least) for number in values)


def same(name: str, found: int, other: str, expected: int) -> None:
    if found != expected:
        raise ValueError(f"{name} is {found}, but {other} is {expected}; they must be equal")


def output_size(size: tuple, kernel: tuple, stride: tuple, padding: tuple) -> tuple[int, ...]:
    """Sizes of a convolution's output; refused if the kernel is larger than the padded input."""
    found = []
    for length, k, step, pad in zip(size, kernel, stride, padding, strict=True):
        if length + 2 * pad < k:
            least = -(-(k - length) // 2)
            raise ValueError(f"the kernel is {k} long, the padded input {length + 2 * pad}; padding must be at least {least}")
        found.append((length + 2 * pad - k) // step + 1)
    return tuple(found)
