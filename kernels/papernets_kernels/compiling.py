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


@contextlib.contextmanager
def counted() -> Iterator[None]:
    """What happens inside is compilation."""
    start = sum(os.times()[:4])
    try:
        yield
    finally:
        _spent.append(sum(os.times()[:4]) - start)
