"""Learning rates by hand, and what every schedule has in common."""

import math

import pytest

from papernets.training import cosine, steps, warm_cosine, with_warmup


def test_steps_by_hand():
    schedule = steps(0.1, (3, 7))
    assert [schedule(epoch) for epoch in (0, 2.99, 3, 5, 6.99, 7, 100)] == pytest.approx(
        [0.1, 0.1, 0.01, 0.01, 0.01, 0.001, 0.001])


def test_steps_of_another_factor():
    schedule = steps(1.0, (2, 3, 5), factor=0.5)
    assert [schedule(epoch) for epoch in range(7)] == [1, 1, 0.5, 0.25, 0.25, 0.125, 0.125]


def test_steps_without_a_border_are_constant():
    assert {steps(0.3, ())(epoch) for epoch in (0, 1.5, 1000)} == {0.3}


def test_cosine_by_hand():
    schedule = cosine(0.2, 12)
    assert [schedule(epoch) for epoch in (0, 3, 4, 6, 8, 12)] == pytest.approx(
        [0.2, 0.1 * (1 + math.sqrt(0.5)), 0.15, 0.1, 0.05, 0], abs=1e-12)


def test_cosine_is_flat_outside():
    schedule = cosine(0.2, 11, start=5)
    assert schedule(0) == schedule(5) == 0.2
    assert schedule(8) == pytest.approx(0.1)
    assert schedule(11) == schedule(100) == 0


def test_cosine_never_rises():
    values = [cosine(0.1, 7, 2)(epoch / 10) for epoch in range(100)]
    assert values == sorted(values, reverse=True)
    assert min(values) >= 0


@pytest.mark.parametrize(("epochs", "start"), [(0, 0), (5, 5), (3, 7), (-1, 0), (float("nan"), 0)])
def test_a_cosine_without_length_is_refused(epochs, start):
    with pytest.raises(ValueError, match=f"a cosine to epoch {epochs} cannot start at {start}; it must start earlier"):
        cosine(0.1, epochs, start)


def test_warmup_rises_linearly_then_follows():
    schedule = with_warmup(steps(0.1, (7,)), 5)
    assert [schedule(epoch) for epoch in (0, 1, 2.5, 5, 6, 7)] == pytest.approx([0, 0.02, 0.05, 0.1, 0.1, 0.01])


def test_warmup_over_a_falling_schedule():
    inner = cosine(0.1, 11)
    schedule = with_warmup(inner, 3)
    for epoch in (0.5, 1, 2.9):
        assert schedule(epoch) == pytest.approx(inner(epoch) * epoch / 3)
    for epoch in (3, 5, 11):
        assert schedule(epoch) == inner(epoch)


def test_no_warmup_changes_nothing():
    inner = steps(0.1, (3,))
    assert [with_warmup(inner, 0)(epoch) for epoch in (0, 1, 3)] == [inner(0), inner(1), inner(3)]


def test_the_learning_rate_of_detection():
    """Of a run of 200 epochs: from a tenth in three epochs, down to a hundredth for the last ten, one rate an epoch."""
    lr = warm_cosine(1e-2, 200)
    assert [lr(at) for at in (0, 1, 2, 3, 3.9)] == pytest.approx([1e-3, 2e-3, 5e-3, 1e-2, 1e-2])
    assert lr(96.5) == pytest.approx(0.01 * 1e-2 + 0.5 * 0.99e-2 * (1 + math.cos(math.pi * 93 / 187)))
    assert [lr(at) for at in (190, 195.5, 199)] == [1e-4] * 3
    assert all(lr(at) > lr(at + 1) for at in range(3, 189))
