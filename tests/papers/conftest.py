"""Every test of a method begins from the same seed."""

import pytest

from papernets.training import seed_everything


@pytest.fixture(autouse=True)
def _seed():
    seed_everything(0)
