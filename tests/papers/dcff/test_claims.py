"""Dynamic-coded filter fusion: the claims."""

import math

import pytest
from papers.dcff.samples import costs

from papernets.cards import card

pytestmark = pytest.mark.usefixtures("one_thread")


def test_pinned_claims_of_the_card_are_these_counts():
    claims = {claim.id: claim for claim in card("dcff").claims}
    for name, prefix in (("vgg16", "vgg16"), ("resnet56", "r56"), ("resnet110", "r110"), ("googlenet", "googlenet"),
                         ("resnet50-b", "r50.b")):
        _, with_pooling, stored, _, dense, dense_stored = costs(name)
        assert claims[f"{prefix}.macs"].ours == with_pooling
        assert claims[f"{prefix}.params"].ours in (stored, None)
        claim = claims[f"{prefix}.macs_cut"]
        cut = 100 * (1 - with_pooling / dense)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)
        claim = claims[f"{prefix}.params_cut"]
        cut = 100 * (1 - stored / dense_stored)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)
