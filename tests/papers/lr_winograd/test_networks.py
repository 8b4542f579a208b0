"""Low-rank Winograd: the networks and their counts."""

import copy
import math

import pytest
import torch
from model_checks import lively
from papers.lr_winograd.samples import conv, layer
from torch import nn

from papernets.measure import count
from papernets.papers.lr_winograd import (
    MODES,
    LowRankWinograd,
    Plan,
    WinogradConv,
    compact,
    expand,
    factors,
    matrices,
    prune_,
    transform_,
)
from papernets.papers.lr_winograd.networks import C3D, counts, trained_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("call", "message"), [
    (lambda: matrices(3), "m is 3; tiles have 2 or 4 outputs"), (lambda: LowRankWinograd(m=3), "tiles have 2 or 4"),
    (lambda: LowRankWinograd(rate=1), "rate 1 is outside .* at least one column"),
    (lambda: LowRankWinograd(rate=-0.1), "the nearest is 0"), (lambda: LowRankWinograd(rank=0), "the rank is 0"),
    (lambda: LowRankWinograd(rank=65), "tiles of 2 allow 1 to 64"), (lambda: LowRankWinograd(mode="x"), "choose from factor"),
    (lambda: LowRankWinograd(score="x"), "choose from column"), (lambda: LowRankWinograd(scope="x"), "choose from layer"),
    (lambda: factors(torch.ones(5, 64), 6), "allows 1 to 5, and the nearest is 5"),
    (lambda: layer("delta", 27, Ci=1, Co=2), "the nearest is 2"), (lambda: expand(torch.ones(2, 2, 3)), r"is \(Co, Ci, 3"),
    (lambda: prune_(nn.Sequential(conv())), "call transform_ first"), (lambda: transform_(conv()), "put it into"),
    (lambda: compact(nn.Sequential(layer(m=4))), "0: m is 4; the compiled kernel"), (lambda: counts("x"), "choose from c3d"),
    (lambda: layer().keep(torch.tensor([], dtype=torch.int64)), "at least 1"), (lambda: layer().importance("x"), "choose from"),
    (lambda: layer("delta").importance("factor"), "choose column or taylor"),
    (lambda: Plan(2, (2, 9, 9), (0, 0, 0)), "at least 3"),
    (lambda: layer()(torch.zeros(1, 5, 4, 4, 4, dtype=torch.float64)), r"with Ci = 6"),
    (lambda: transform_(nn.Sequential(nn.Conv3d(1, 2, 3))), "0: the rank is 27")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("rho", [0, 0.5, 0.98])
def test_trained_and_packed_networks_agree(mode, rho):
    model = lively(C3D(5, 0.125, norm=False))
    transform_(model, LowRankWinograd(mode=mode, rank=20))
    prune_(model, rho)
    x = torch.randn(2, 3, 16, 20, 36)
    with torch.no_grad():
        packed, expected = compact(model), model(x)
        assert float((packed(x) - expected).abs().max()) < 1e-5 * max(1, float(expected.abs().max()))
    again = compact(copy.deepcopy(model))
    prune_(model, 0.99)
    other = compact(model)
    other.load_state_dict(again.state_dict())
    assert torch.equal(other(x), packed(x))


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
