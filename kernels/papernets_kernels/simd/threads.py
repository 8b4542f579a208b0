"""Sharing out the work of a kernel among threads, where a part is worth handing over.

Plain Python, at run time: nothing here is compiled, and nothing knows of registers. How long a kernel takes is its own
estimate.
"""

import os
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache

from papernets_kernels import _check


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="papernets-kernels")


if hasattr(os, "register_at_fork"):  # a process that was forked has a copy of the pool, and none of its threads
    os.register_at_fork(after_in_child=_pool.cache_clear)

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
