"""What this machine can do at best: multiply-adds per second and bytes per second.

The roofline model (Williams, Waterman, Patterson, "Roofline", 2009) bounds the time of a layer from below by the larger
of two times: its multiply-adds at the peak rate, and its bytes at the bandwidth of the memory.
"""

import time
from dataclasses import dataclass

import numba
import numpy as np

from papernets_kernels import simd


@numba.njit(nogil=True, fastmath=True)
def _triad(a, b, c):
    for i in range(a.size):
        a[i] = b[i] + 3.0 * c[i]


@dataclass(frozen=True)
class Roofline:
    """``macs``: multiply-adds per second in float32; ``bytes``: bytes per second. One thread."""

    macs: float
    bytes: float

    def seconds(self, macs: float, moved: float) -> float:
        """The least time for ``macs`` multiply-adds that read and write ``moved`` bytes."""
        return max(macs / self.macs, moved / self.bytes)


def measure(size: int = 512, megabytes: int = 64, repeats: int = 5) -> Roofline:
    """Best of ``repeats``: a product of two (size, size) matrices, and a triad over ``megabytes``.

    The product runs on as many threads as numpy was started with; start it with one for a rate of one core.
    """
    if size < 16 or megabytes < 1 or repeats < 1:
        raise ValueError(f"size {size}, megabytes {megabytes}, repeats {repeats}: the smallest are 16, 1 and 1")
    rng = np.random.default_rng(0)
    one, other = (rng.random((size, size), np.float32) for _ in range(2))
    a, b, c = (np.zeros(megabytes * 2**20 // 12, np.float32) for _ in range(3))
    _triad(a[:16], b[:16], c[:16])  # compile
    product = _best(lambda: one @ other, repeats)
    triad = _best(lambda: _triad(a, b, c), repeats)
    return Roofline(size**3 / product, 3 * a.nbytes / triad)


# ---- the peaks the kernels of this package are held against ----------------------------------------------------------

ROWS, WIDTH = (4, 4) if simd.REGISTERS >= 32 else (3, 3)  # sums that do not wait for each other; all fits the registers


@numba.njit(nogil=True)
def _multiply_adds(steps, x, y):
    acc = simd.zeros_f32(ROWS, WIDTH)
    for _ in range(steps):
        acc = simd.outer_f32(acc, simd.address(x), 4, simd.address(x), ROWS, WIDTH)
    simd.store(simd.address(y), 0, acc, 1)


@numba.njit(nogil=True)
def _counts(steps, x, y):
    acc = simd.zeros_i64(ROWS, WIDTH)
    for i in range(steps):
        place = simd.address(x) + 8 * (i & 15)  # other words at every step, so that no count is left out as known
        acc = simd.outer_popcount(acc, place, 8, place, ROWS, WIDTH)
    simd.store(simd.address(y), 0, acc, 1)


def fma_peak(steps: int = 200_000, repeats: int = 5) -> float:
    """Float32 multiply-adds per second of one thread, on registers."""
    return _peak(_multiply_adds, ROWS * WIDTH * simd.F32, np.float32, steps, repeats)


def popcount_peak(steps: int = 200_000, repeats: int = 5) -> float:
    """Products of signs per second of one thread: exclusive or, count of bits and addition, on words in the nearest cache."""
    return _peak(_counts, ROWS * WIDTH * simd.I64 * 64, np.int64, steps, repeats)


def _peak(kernel, each: int, dtype, steps: int, repeats: int) -> float:
    x, y = np.zeros(16 * simd.BYTES, dtype), simd.aligned(ROWS * WIDTH * simd.BYTES, dtype)
    kernel(1, x, y)  # compile
    return steps * each / _best(lambda: kernel(steps, x, y), repeats)


def bandwidth(size: int, repeats: int = 5) -> float:
    """Bytes per second that one thread reads from ``size`` bytes, over and over: from the cache that holds them, or memory."""
    if size < 4096:
        raise ValueError(f"size is {size} bytes; the smallest is 4096")
    x = simd.aligned(size // 4, np.float32)
    x[:] = 1
    rounds = max(1, 2**24 // size)
    _sum(x[:16], 1)  # compile
    return x.nbytes * rounds / _best(lambda: _sum(x, rounds), repeats)


@numba.njit(nogil=True, fastmath=True)
def _sum(x, rounds):
    total = np.float32(0)
    for _ in range(rounds):
        for i in range(x.size):
            total += x[i]
        total *= np.float32(0.5)  # so that the rounds are not made one
    return total


def _best(call, repeats: int) -> float:
    best = np.inf
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
