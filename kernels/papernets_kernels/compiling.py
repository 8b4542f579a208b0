"""CPU seconds that this process spent on compiling what is kept: a core, by Yosys and a C++ compiler.

They come once on a machine, in whatever runs first; who counts seconds can leave them out.
"""

import contextlib
import os
from collections.abc import Iterator

_spent: list[float] = []


def cpu_seconds() -> float:
    """All of this process so far, its children with it."""
    return sum(_spent)


def now() -> float:
    """The CPU seconds of this process and of its children that have ended."""
    return sum(os.times()[:4])


def add(seconds: float) -> None:
    _spent.append(seconds)


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """What happens inside is compilation."""
    start = now()
    try:
        yield
    finally:
        add(now() - start)
