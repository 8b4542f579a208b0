"""A race: a kernel and its peers take turns, each turn is timed, and each result is compared.

Taking turns lets a busy moment of the machine hit all alike. A time is quoted only if every result of every turn agreed.
"""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

#: The name under which the kernel runs; the peers have names of their own.
OURS = "ours"


class Unequal(ValueError):
    """Two ways to compute the same layer gave different numbers."""


@dataclass(frozen=True)
class Runner:
    """One way to compute a layer: ``call()`` computes it, ``view`` of the result is an array to compare.

    ``same`` is False for the dense layer that a pruned one replaces: it does the same job and gives other numbers.
    """

    call: Callable[[], object]
    view: Callable[[object], np.ndarray] = np.asarray
    same: bool = True


@dataclass(frozen=True)
class Race:
    """A kernel, its peers, and the work of the layer.

    macs: multiply-adds the kernel does (of a pruned layer those of the kept weights). dense: those of the dense layer.
    moved: bytes that must be read or written once. peak: ``fma`` or ``popcount``, the rate that bounds the kernel.
    beside: timed and compared, but no peers. missing: peers that cannot run here, and why.
    tolerance: largest difference allowed, as a share of the largest number of the result; 0 for whole numbers.
    """

    ours: Runner
    peers: Mapping[str, Runner]
    macs: float
    dense: float
    moved: float
    peak: str = "fma"
    tolerance: float = 2e-5
    beside: Mapping[str, Runner] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """How long to measure: from ``fewest`` to ``most`` rounds, until ``seconds`` are spent.

    A turn repeats a short call until it lasts ``turn`` seconds. Before that it calls for ``warm`` seconds, not counted, for
    threads that slept to wake up.
    """

    fewest: int = 5
    most: int = 25
    seconds: float = 4.0
    turn: float = 0.004
    warm: float = 0.0


THREADED = Pace(seconds=2.0, turn=0.01, warm=0.01)
QUICK = Pace(fewest=3, most=3, seconds=1.0, turn=0.001)


def run(race: Race, pace: Pace = Pace(), clock: Callable[[], float] = time.perf_counter,
        between: Callable[[], None] = lambda: None) -> dict[str, dict]:
    """Times by name, as ``summary`` gives them. ``Unequal`` if two results differ.

    ``between`` is called before each turn. After the fewest rounds, peers twice as slow as the fastest sit out.
    """
    runners = {**race.peers, OURS: race.ours, **race.beside}
    agree = _agreement(race)
    collecting = gc.isenabled()
    gc.disable()
    try:
        calls, warm = {}, {}
        for name, runner in runners.items():
            between()
            agree(name, runner.call())  # compiles, and fills caches
            once = max(1e-9, min(_turn(runner, 1, clock)[0] for _ in range(2)))
            calls[name] = max(1, math.ceil(pace.turn / once))
            warm[name] = math.ceil(pace.warm / once) if once < 10 * pace.warm else 0
        taken: dict[str, list[float]] = {name: [] for name in runners}
        running, begun = list(runners), clock()
        for number in range(pace.most):
            for name in running[number % len(running):] + running[:number % len(running)]:
                between()
                for _ in range(warm[name]):
                    runners[name].call()
                seconds, result = _turn(runners[name], calls[name], clock)
                agree(name, result)
                taken[name].append(seconds)
            if number + 1 >= pace.fewest:
                if clock() - begun >= pace.seconds:
                    break
                best = min((np.median(taken[name]) for name in race.peers), default=math.inf)
                running = [name for name in running if name not in race.peers or np.median(taken[name]) <= 2 * best]
    finally:
        if collecting:
            gc.enable()
    return {name: summary(seconds) for name, seconds in taken.items()}


def settle() -> None:
    """Wait until no thread of this process works any more: some libraries keep theirs awake for a tenth of a second."""
    for _ in range(50):
        before = time.process_time()
        time.sleep(0.01)
        if time.process_time() - before < 0.001:
            return


def summary(seconds: list[float]) -> dict:
    """The median, the quartiles (five digits each) and the number of turns."""
    low, median, high = (float(f"{value:.5g}") for value in np.quantile(seconds, [0.25, 0.5, 0.75]))
    return {"median": median, "low": low, "high": high, "turns": len(seconds)}


def _turn(runner: Runner, calls: int, clock) -> tuple[float, object]:
    """Seconds of one call, as the median of ``calls``, and the last result."""
    call, taken = runner.call, []
    for _ in range(calls):
        begun = clock()
        result = call()
        taken.append(clock() - begun)
    return statistics.median(taken), result


def _agreement(race: Race) -> Callable[[str, object], None]:
    """``agree(name, result)`` compares with the first result that came; ``Unequal`` names both."""
    runners = {**race.peers, OURS: race.ours, **race.beside}
    first: list[tuple[str, np.ndarray]] = []

    def agree(name: str, result) -> None:
        if not runners[name].same:
            return
        found = np.asarray(runners[name].view(result))
        if not first:
            first.append((name, found.astype(np.float64)))  # a copy: the next call may write into the same memory
        other, expected = first[0]
        if found.shape != expected.shape:
            raise Unequal(f"{name} gives the shape {found.shape} and {other} {expected.shape}")
        if not found.size:
            return
        with np.errstate(invalid="ignore"):
            difference, allowed = np.abs(found - expected).max(), race.tolerance * np.abs(expected).max()
        if not difference <= allowed:  # written so that NaN is a difference
            raise Unequal(f"{name} and {other} differ by {difference:.3g}; at most {allowed:.3g} is allowed")

    return agree
