"""One seed for everything, and one thread where results must not depend on how many there are."""

import contextlib
import random

import numpy as np
import torch


def seed_everything(seed: int) -> None:
    """Seed Python, numpy and torch."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}; it must be from 0 to {2**32 - 1}")
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002  libraries still draw from the global generator
    torch.manual_seed(seed)


@contextlib.contextmanager
def single_thread():
    """Run torch on one thread: sums are then added in one order, and two runs agree to the last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
