"""Low-rank Winograd: the networks and their counts."""

import math

import pytest
import torch

from papernets.measure import count
from papernets.papers.lr_winograd import LowRankWinograd, Plan, WinogradConv, prune_, transform_
from papernets.papers.lr_winograd.networks import C3D, counts, trained_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


def test_counts_against_a_network_that_was_transformed():
    with torch.device("meta"):
        model = C3D()
        whole = count(model, torch.empty(1, 3, 16, 112, 112))
    total = sum(cost.macs for name, cost in whole.items() if name != "classifier")
    assert total == counts("c3d")["macs"] == counts("c3d")["direct"]
    small = C3D(5, 0.125)
    transform_(small, LowRankWinograd(mode="vanilla"))
    prune_(small, 0.5)
    x = torch.randn(1, 3, 16, 16, 16)
    found = {name: cost.macs for name, cost in count(small, x).items() if name != "classifier"}
    layers = {name: module for name, module in small.named_modules() if isinstance(module, WinogradConv)}
    sizes = [(16, 16, 16), (16, 8, 8), (8, 4, 4), (8, 4, 4), (4, 2, 2), (4, 2, 2), (2, 1, 1), (2, 1, 1)]
    assert {name: 32 * one.in_channels * one.out_channels * math.prod(-(-n // 2) for n in size)
            for (name, one), size in zip(layers.items(), sizes, strict=True)} == {name: found[name] for name in layers}


def test_the_worked_layer():
    """256 to 256 channels on 8 x 28 x 28: what the text of the chapter says."""
    plan = Plan(2, (8, 28, 28))
    assert 65536 * plan.direct == pytest.approx(11.10e9, rel=1e-3)
    assert 65536 * plan.products() == pytest.approx(3.29e9, rel=1e-3) and plan.direct / plan.products(32) == 6.75
    assert trained_numbers(8, 8, LowRankWinograd(mode="spatial")) == 27 * 64
    assert trained_numbers(8, 8, LowRankWinograd(mode="delta", rank=5)) == 5 * (64 + 64)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="network is 'x'; choose from c3d, r3d"):
        counts("x")
