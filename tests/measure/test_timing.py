"""Timing gives seconds of what was asked; how many is never asserted here."""

import math

import pytest
import torch

from papernets.measure import median_seconds


def test_gives_positive_seconds_and_calls_before_it_measures():
    calls = []
    found = median_seconds(lambda: calls.append(len(calls)), at_least=0.01)
    assert math.isfinite(found)
    assert found > 0
    assert len(calls) >= 2


def test_runs_on_the_threads_asked_for_and_puts_them_back():
    before, seen = torch.get_num_threads(), []
    try:
        torch.set_num_threads(2)
        median_seconds(lambda: seen.append(torch.get_num_threads()), threads=1, at_least=0.01)
        assert seen[-1] == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [0, -1])
def test_no_threads_are_refused(threads):
    with pytest.raises(ValueError, match=f"threads is {threads}; the smallest is 1"):
        median_seconds(lambda: None, threads=threads)


def test_a_failure_of_the_call_is_not_hidden():
    def fail():
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        median_seconds(fail, at_least=0.01)
