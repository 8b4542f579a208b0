"""AccSS3D: the claims."""

import pytest

from papernets.cards import card
from papernets.papers.accss3d import experiment

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]


def test_the_core_counts_as_the_table():
    rows = {claim.id.removeprefix("rtl."): claim.paper for claim in card("accss3d").claims
            if claim.id.startswith("rtl.") and claim.unit == "cycle" and claim.id != "rtl.scene"}
    assert len(rows) == 19 and experiment.core_cycles() == rows
