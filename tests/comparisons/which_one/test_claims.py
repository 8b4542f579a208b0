"""The comparison of eight methods: the claims."""

import pytest

from papernets.cards import card
from papernets.comparisons.which_one import claims
from papernets.comparisons.which_one.experiment import PAPERS, arms

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_exact_claim():
    found = claims.facts()
    exact = {claim.id: claim for claim in card("which-one").claims if claim.kind == "exact"}
    assert set(found) == set(exact)
    for name, claim in exact.items():
        assert found[name] == claim.paper, name


def test_the_records_pair_each_method_with_its_baseline():
    def run(seed):
        return [{"method": slug, "budget": budget, "accuracy": 0.01 * (seed + index), "ms": seed + index}
                for index, (slug, budget) in enumerate(arms())]

    found, at = claims.records([run(0), run(50)]), {arm: index for index, arm in enumerate(arms())}
    miniatures = {claim.id for claim in card("which-one").claims if claim.kind == "miniature"}
    assert set(found) == miniatures and len(miniatures) == 3 * len(PAPERS)
    assert found["lapp.params.accuracy"] == ([pytest.approx(at["lapp", "params"] + seed) for seed in (0, 50)],
                                             [pytest.approx(at["narrow", "params"] + seed) for seed in (0, 50)])
    assert found["lbc.params.accuracy"][0] == [pytest.approx(at["lbc", "macs"] + seed) for seed in (0, 50)]
    assert found["winograd.time"] == ([at["lr-winograd", "macs"], at["lr-winograd", "macs"] + 50], [0, 50])
