"""Dynamic-coded filter fusion: the claims."""

import math

import pytest
from papers.dcff.sample import costs

from papernets.cards import card
from papernets.papers.dcff import claims
from papernets.training import row

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pinned_claims_of_the_card_are_these_counts():
    pinned = {claim.id: claim for claim in card("dcff").claims}
    for name, prefix in (("vgg16", "vgg16"), ("resnet56", "r56"), ("resnet110", "r110"), ("googlenet", "googlenet"),
                         ("resnet50-b", "r50.b")):
        _, with_pooling, stored, _, dense, dense_stored = costs(name)
        assert pinned[f"{prefix}.macs"].ours == with_pooling
        assert pinned[f"{prefix}.params"].ours in (stored, None)
        claim = pinned[f"{prefix}.macs_cut"]
        cut = 100 * (1 - with_pooling / dense)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)
        claim = pinned[f"{prefix}.params_cut"]
        cut = 100 * (1 - stored / dense_stored)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)


def rows(difference: float = 2e-6) -> list[dict]:
    return [row(seed, arm, share + 0.01 * seed, difference=difference + seed * 1e-6)
            for seed in (0, 1) for arm, share in (("fused", 0.8), ("narrow", 0.7), ("l1", 0.6), ("random", 0.5))]


def test_every_exact_claim_has_a_fact_and_holds():
    facts = claims.facts(rows())
    exact = {claim.id: claim for claim in card("dcff").claims if claim.kind == "exact"}
    assert facts.keys() == exact.keys()
    for name, claim in exact.items():
        if claim.differs:
            assert math.isclose(facts[name], claim.ours, rel_tol=1e-12)
        else:
            assert claim.accept.allows(facts[name], claim.paper), name
    assert facts["export.difference"] == 3e-6
    assert facts["r50.pairing"] == facts["r50.d.macs_cut"] != facts["r50.macs_cut"] == facts["r50.b.macs_cut"]


def test_every_miniature_has_its_pairs():
    records = claims.records(rows())
    assert list(records) == [claim.id for claim in card("dcff").claims if claim.kind == "miniature"]
    for arm, points in (("narrow", 70), ("l1", 60), ("random", 50)):
        ours, baseline = records[f"fusion.{arm}"]
        assert ours == pytest.approx([80, 81]) and baseline == pytest.approx([points, points + 1])
