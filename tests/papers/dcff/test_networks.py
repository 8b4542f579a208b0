"""Dynamic-coded filter fusion: the networks and their counts."""

import pytest
from papers.dcff.samples import COUNTS

from papernets.papers.dcff import networks

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_module(name):
    """The module's own function counts the pooling layers in, as the profiler does."""
    _, macs, stored, _, dense, dense_stored = COUNTS[name]
    found = networks.counts(name)
    assert (found["macs"], found["params"]) == (macs, stored)
    assert found["macs_cut"] == pytest.approx(100 * (dense - macs) / dense, rel=1e-12)
    assert found["params_cut"] == pytest.approx(100 * (dense_stored - stored) / dense_stored, rel=1e-12)
