"""Seconds, measured so that a first call, a busy moment or a lazy compilation does not count."""

import statistics
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

import numpy as np
import torch


def median_seconds(call: Callable[[], object], threads: int = 1, at_least: float = 0.2) -> float:
    """Median seconds of one ``call()`` over repeats lasting ``at_least`` seconds, after a warm-up, with ``threads``."""
    if threads < 1:
        raise ValueError(f"threads is {threads}; the smallest is 1")
    from torch.utils.benchmark import Timer
    call()
    timer = Timer("call()", globals={"call": call}, num_threads=threads)
    return timer.blocked_autorange(min_run_time=at_least).median


def take_turns(calls: Mapping[Hashable, Callable[[], object]], expected: Mapping[Hashable, object] | None = None, *,
               repeats: int = 15, inner: int = 9, threads: int = 1, tolerance: float = 1e-4) -> dict[Hashable, list[float]]:
    """Seconds of each of ``calls``, turn by turn: all take part in every turn, so a busy moment hits all alike.

    In its turn a call is repeated ``inner`` times, and the median counts. Before, each is called once, without gradients and
    not timed, and its result compared with that of its name in ``expected`` (an array or a tensor).

    Raises:
        ValueError: A result differs by more than ``tolerance`` of the largest number expected; no time is quoted then.
    """
    if not calls or min(repeats, inner, threads) < 1:
        raise ValueError(f"{len(calls)} calls, repeats {repeats}, inner {inner}, threads {threads}; each is at least 1")
    from threadpoolctl import threadpool_limits
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with threadpool_limits(threads), torch.no_grad():
            for name, call in calls.items():
                found = call()
                if expected is not None and name in expected:
                    _compare(name, np.asarray(found), np.asarray(expected[name], np.float64), tolerance)
            taken = {name: [] for name in calls}
            for _ in range(repeats):
                for name, call in calls.items():
                    taken[name].append(statistics.median(_seconds(call) for _ in range(inner)))
    finally:
        torch.set_num_threads(before)
    return taken


def _compare(name: Hashable, found: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    if found.shape != expected.shape:
        raise ValueError(f"{name} gives the shape {found.shape} and not {expected.shape}; no time is quoted")
    gap, largest = np.abs(found - expected).max(initial=0), np.abs(expected).max(initial=0)
    if not gap <= tolerance * largest:  # written so that NaN is a difference
        raise ValueError(f"{name} differs by {gap:.3g} where the largest number is {largest:.3g}; no time is quoted")


def _seconds(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def products(W: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], object]]:
    """The libraries' ways to multiply ``W`` (Co, K) with ``x`` (K, P), all weights: the peers of a kernel that skips some."""
    weight, columns = torch.from_numpy(W), torch.from_numpy(x)
    return {"numpy": lambda: W @ x, "torch": lambda: weight @ columns}


def sparse_products(W: np.ndarray, x: np.ndarray) -> dict[str, Callable[[], object]]:
    """The libraries' ways to multiply the weights of ``W`` (Co, K) that are not 0, in compressed rows, with ``x`` (K, P)."""
    from scipy import sparse
    rows, columns = sparse.csr_matrix(W), torch.from_numpy(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch calls its sparse tensors a beta
        compressed = torch.from_numpy(W).to_sparse_csr()
    return {"scipy": lambda: rows @ x, "torch csr": lambda: compressed @ columns}


def fastest(taken: Mapping[Hashable, Sequence[float]], names: Iterable[Hashable]) -> float:
    """Of what ``take_turns`` gave, the median of the fastest of ``names``."""
    return min(statistics.median(taken[name]) for name in names)
