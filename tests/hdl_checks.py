"""What the tests of the cores share: the two engines, and settings of the searches."""

import pytest
from hypothesis import settings
from papernets_kernels.hdl import simulate

COMPILED = pytest.mark.skipif(bool(simulate.missing()), reason=simulate.missing() or "nothing is missing")
ENGINES = ["amaranth", pytest.param("compiled", marks=COMPILED)]

# each example of the slow engine takes some hundredths of a second
SEARCH = settings(max_examples=25, deadline=None, database=None, derandomize=True)
