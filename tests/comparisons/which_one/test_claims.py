"""The comparison of eight methods: the claims."""

import pytest

from papernets.cards import card
from papernets.comparisons.which_one import claims
from papernets.comparisons.which_one.experiment import METHODS, PAPERS, arms
from papernets.training import row

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    found = claims.facts()
    exact = {claim.id: claim for claim in card("which-one").claims if claim.kind == "exact"}
    assert set(found) == set(exact)
    for name, claim in exact.items():
        assert found[name] == claim.paper, name


def test_the_records_pair_each_method_with_its_baseline():
    every = [*arms(), *((slug, "params") for slug, method in METHODS.items() if method.both)]

    def run(seed):
        return [row(seed, slug, 0.01 * (seed + index), budget, time=(seed + index) / 1e3)
                for index, (slug, budget) in enumerate(every)]

    records, at = claims.records([*run(0), *run(50)]), {arm: index for index, arm in enumerate(every)}
    miniatures = {claim.id for claim in card("which-one").claims if claim.kind == "miniature"}
    assert set(records) == miniatures and len(miniatures) == 3 * len(PAPERS)
    assert records["lapp.params.accuracy"] == ([pytest.approx(at["lapp", "params"] + seed) for seed in (0, 50)],
                                               [pytest.approx(at["narrow", "params"] + seed) for seed in (0, 50)])
    assert records["winograd.time"] == ([pytest.approx(at["lr-winograd", "macs"] + seed) for seed in (0, 50)],
                                        [pytest.approx(seed) for seed in (0, 50)])
