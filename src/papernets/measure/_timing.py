"""Seconds, measured so that a first call, a busy moment or a lazy compilation does not count."""

from collections.abc import Callable

from torch.utils.benchmark import Timer


def median_seconds(call: Callable[[], object], threads: int = 1, at_least: float = 0.2) -> float:
    """Median seconds of one ``call()`` over repeats lasting ``at_least`` seconds, after a warm-up, with ``threads``."""
    if threads < 1:
        raise ValueError(f"threads is {threads}; the smallest is 1")
    call()
    timer = Timer("call()", globals={"call": call}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=at_least).median
