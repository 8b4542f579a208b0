"""One seed for all generators; one thread, put back."""

import random

import numpy as np
import pytest
import torch

from papernets.training import seed_everything, single_thread


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002


@pytest.mark.parametrize("seed", [0, 7, 2**32 - 1])
def test_every_generator_starts_again(seed):
    seed_everything(seed)
    first = draws()
    assert draws() != first
    seed_everything(seed)
    assert draws() == first


def test_seeds_differ_in_every_generator():
    seed_everything(0)
    first = draws()
    seed_everything(1)
    assert all(a != b for a, b in zip(first, draws()))


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match=f"seed is {seed}; it must be from 0 to 4294967295"):
        seed_everything(seed)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_single_thread_is_put_back(two_threads):
    with single_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2


def test_single_thread_is_put_back_after_an_error(two_threads):
    with pytest.raises(KeyError), single_thread():
        raise KeyError("inside")
    assert torch.get_num_threads() == 2
