"""Timing gives seconds of what was asked; how many is never asserted here."""

import math

import numpy as np
import pytest
import torch

from papernets.measure import median_seconds, take_turns


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


def test_all_take_part_in_every_turn_and_the_first_calls_do_not_count():
    order = []
    found = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, repeats=3, inner=2)
    assert order == ["a", "b"] + ["a", "a", "b", "b"] * 3
    assert all(len(times) == 3 and min(times) > 0 for times in found.values()) and list(found) == ["a", "b"]


def test_turns_are_taken_on_the_threads_asked_for_and_without_gradients():
    before, seen = torch.get_num_threads(), set()
    try:
        torch.set_num_threads(2)
        take_turns({"a": lambda: seen.add((torch.get_num_threads(), torch.is_grad_enabled()))}, repeats=1, inner=1)
        assert seen == {(1, False)} and torch.get_num_threads() == 2
        with pytest.raises(KeyError, match="gone"):
            take_turns({"a": lambda: {}["gone"]})
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("other", "why"), [
    (lambda: np.array([1.0, 2.1]), "b differs by 0.1 where the largest number is 2; no time is quoted"),
    (lambda: torch.tensor([1.0, math.nan]), "b differs by nan"),
    (lambda: np.array([1.0, 2.0, 0.0]), r"b gives the shape \(3,\) and not \(2,\)"),
])
def test_calls_that_give_other_numbers_are_not_timed(other, why):
    expected, calls = np.array([1.0, 2.0]), []

    def ours():
        calls.append(0)
        return expected

    with pytest.raises(ValueError, match=why):
        take_turns({"a": ours, "b": other}, {"a": expected, "b": expected})
    assert len(calls) == 1
    take_turns({"a": ours, "b": lambda: expected * (1 + 1e-5)}, dict.fromkeys("ab", expected), repeats=1, inner=1)


@pytest.mark.parametrize("wrong", [{"repeats": 0}, {"inner": 0}, {"threads": 0}])
def test_no_turns_are_refused(wrong):
    with pytest.raises(ValueError, match="each is at least 1"):
        take_turns({"a": int}, **wrong)
    with pytest.raises(ValueError, match="0 calls"):
        take_turns({})
