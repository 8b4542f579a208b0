"""What this machine can do at best: multiply-adds per second and bytes per second.

The roofline model (Williams, Waterman, Patterson, "Roofline", 2009) bounds the time of a layer from below by the larger
of two times: its multiply-adds at the peak rate, and its bytes at the bandwidth of the memory.
"""

import time
from dataclasses import dataclass

import numba
import numpy as np


@numba.njit(nogil=True, fastmath=True, cache=True)
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


def _best(call, repeats: int) -> float:
    best = np.inf
    for _ in range(repeats + 1):
        start = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - start)
    return best
