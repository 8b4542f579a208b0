"""Fixtures of several tests of the comparison of eight methods."""

import copy

import pytest

from papernets.comparisons.which_one.experiment import METHODS, arms, half
from papernets.data import photograph_patches
from papernets.training import Task, single_thread


@pytest.fixture(scope="module")
def made():
    """Every network of the comparison after two short epochs, by method and budget."""
    task = Task(*photograph_patches(60, 40, 0), epochs=2, seed=0)
    with single_thread():
        trained, _ = half(task)
        return {(slug, budget): METHODS[slug].make(task, budget, copy.deepcopy(trained)).eval() for slug, budget in arms()}
