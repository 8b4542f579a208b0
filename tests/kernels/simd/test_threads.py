"""Work that is shared out: every item once, parts that are worth it, and errors."""

import os
import subprocess
import sys
import time

import numba
import numpy as np
import pytest
from papernets_kernels import simd


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 100])
def test_every_item_is_worked_on_once(threads):
    @numba.njit(nogil=True)
    def work(first, last, found):
        for i in range(first, last):
            found[i] += 1

    for size in (0, 1, 4, 7):
        found = np.zeros(size, np.int64)
        simd.share(work, size, threads, np.inf, found)
        assert (found == 1).all()


@pytest.mark.parametrize(
    ("nanoseconds", "expected"),
    [
        (0, [(0, 10)]),
        (119_999, [(0, 10)]),
        (120_000, [(0, 5), (5, 10)]),
        (180_000, [(0, 3), (3, 6), (6, 10)]),
        (1e9, [(0, 3), (3, 6), (6, 10)]),
    ],
)
def test_a_part_is_worth_handing_over(monkeypatch, nanoseconds, expected):
    monkeypatch.setattr(simd.threads, "HAND_OVER", 60_000.0)
    found = []
    simd.share(lambda first, last: found.append((first, last)), 10, 3, nanoseconds)
    assert sorted(found) == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
def test_a_forked_process_has_threads_of_its_own():
    """As loaders of data and multiprocessing fork: what had used threads before must answer there, too."""
    program = """
import multiprocessing, sys
import numpy as np
from papernets_kernels import simd
def work(first, last, found):
    found[first:last] = 1
def share(_):
    found = np.zeros(10)
    simd.share(work, 10, 2, np.inf, found)
    return found.sum()
assert share(0) == 10
with multiprocessing.get_context("fork").Pool(1) as pool:
    assert pool.apply_async(share, (0,)).get(20) == 10
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_an_error_in_another_thread_is_not_lost():
    def work(first, last):
        if first:
            raise ValueError(f"part {first}")

    with pytest.raises(ValueError, match="part 5"):
        simd.share(work, 10, 2, np.inf)


def test_after_an_error_no_part_is_still_at_work():
    ended = []

    def work(first, last):
        if not first:
            raise ValueError("part 0")
        time.sleep(0.05)
        ended.append(first)

    with pytest.raises(ValueError, match="part 0"):
        simd.share(work, 10, 2, np.inf)
    assert ended == [5]


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, None])
def test_a_number_of_threads_is_whole_and_positive(threads):
    with pytest.raises(ValueError, match=f"threads is {threads!r}; it is a whole number of at least 1"):
        simd.share(None, 1, threads, np.inf)
