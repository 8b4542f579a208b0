"""``compiled``: numba's ``njit`` as every kernel uses it."""

from functools import partial

import numba


def compiled(function=None, *, fastmath: bool = False):
    """``function`` as a kernel: without the interpreter's lock."""
    if function is None:
        return partial(compiled, fastmath=fastmath)
    return numba.njit(nogil=True, fastmath=fastmath)(function)
