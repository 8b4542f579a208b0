"""Refusals: an error names the value, the rule it breaks and the nearest legal choice.

Here are the rules that methods of several papers have in common. A rule of one method alone stays with the method.
"""

import contextlib
import functools
import inspect
import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

Called = TypeVar("Called", bound=Callable)


def one_of(name: str, value, options: Iterable):
    """``value``, if it is one of ``options``. ``ValueError`` lists them."""
    options = list(options)
    if value not in options:
        raise ValueError(f"{name} is {value!r}; choose from {', '.join(map(str, options))}")
    return value


def share(name: str, value: float, ends: str = "[)", step: float = 0.01) -> float:
    """``value``, if it lies between 0 and 1. ``ends`` says which of the two is legal: ``[)``, ``(]``, ``[]`` or ``()``.

    ``step`` is how far from an end that is not legal the nearest legal choice is that the ``ValueError`` names.
    """
    low, high = ends
    if not ((0 <= value if low == "[" else 0 < value) and (value <= 1 if high == "]" else value < 1)):
        near = (0 if low == "[" else step) if not value > 0 else 1 if high == "]" else 1 - step
        raise ValueError(f"{name} {value} is outside {low}0, 1{high}; the nearest is {near:g}")
    return value


def whole(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    """``value``, if it is a whole number from ``least`` to ``most``; numbers that a float or a bool stands for are none."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least or (most is not None and value > most):
        bounds = f"of at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {value!r}; it is a whole number {bounds}")
    return value


def above(name: str, value: float, such_as: float) -> float:
    """``value``, if it is a finite number above 0."""
    if not 0 < value < math.inf:
        raise ValueError(f"{name} is {value}; it is a finite number above 0, such as {such_as:g}")
    return value


def finite(name: str, values: torch.Tensor, why: str) -> torch.Tensor:
    """``values``, if all are finite; ``why`` says what needs them to be."""
    if not torch.isfinite(values).all():
        raise ValueError(f"{name} holds a value that is not finite; {why}")
    return values


@contextlib.contextmanager
def of(name: str, advice: str = "") -> Iterator[None]:
    """Put ``name``, such as that of a layer, before the message of a ``ValueError``, and ``advice`` behind it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}{f'; {advice}' if advice else ''}") from None


def renamed(**names: str) -> Callable[[Called], Called]:
    """For a function or a class: a keyword of old is refused by a ``TypeError`` that tells the new one, given as ``old="new"``.

    What stands behind a colon, as in ``target="removed: the share that goes, 1 - target"``, is told as well.
    """
    def wrap(called: Called) -> Called:
        target = called.__init__ if inspect.isclass(called) else called

        @functools.wraps(target)
        def refuse(*args, **options):
            for old in options.keys() & names.keys():
                new, _, note = names[old].partition(":")
                raise TypeError(f"{called.__name__} takes {new} in place of {old}{f' ({note.strip()})' if note else ''}")
            return target(*args, **options)

        if inspect.isclass(called):
            called.__init__ = refuse
            return called
        return refuse

    return wrap
