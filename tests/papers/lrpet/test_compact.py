"""LRPET: the pairs that are left of projected layers."""

import copy

import pytest
import torch
from model_checks import lively
from torch import nn

from papernets.measure import macs, parameters, report
from papernets.nn import ConvNet, GoogLeNet, ResNetBasic, ResNetCIFAR
from papernets.papers.lrpet import LRPET, Silent, compact, project_, ranks

pytestmark = pytest.mark.usefixtures("one_thread")


def strided():
    return nn.Sequential(nn.Conv2d(3, 11, (5, 3), (2, 1), (2, 0)), nn.ReLU(), nn.Conv2d(11, 13, 3, dilation=2, padding="same"),
                         nn.BatchNorm2d(13), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 7))


NETS = {"convnet": lambda: ConvNet((16, 24, 32)), "resnet": lambda: ResNetCIFAR(8), "googlenet": GoogLeNet,
        "basic": lambda: ResNetBasic(18, stages=(8, 16, 24, 32)), "strided": strided}


@pytest.mark.parametrize("name", NETS)
def test_the_compact_network_gives_the_same_outputs(name):
    model = lively(NETS[name]())
    x, config = torch.randn(2, 3, 32, 32), LRPET(removed=0.7, linear=name == "strided")
    project_(model, config, x)
    pairs = compact(model)
    with torch.no_grad():
        expected = model(x)
        assert float((pairs(x) - expected).abs().max() / expected.abs().max()) < 1e-5
    assert parameters(pairs) < 0.7 * parameters(model)
    types = {type(module) for module in pairs.modules()}
    assert types <= {type(module) for module in model.modules()} | {nn.Sequential}


def test_a_network_that_was_not_projected_is_refused():
    model, example = lively(ConvNet((8, 12))), torch.zeros(1, 3, 8, 8)
    with pytest.raises(ValueError, match=r"none of these layers was projected: features.0, features.4, classifier; call proj"):
        compact(model)
    with pytest.raises(ValueError, match="was projected: the network itself"):
        compact(nn.Conv2d(3, 4, 3))
    before = copy.deepcopy(model)
    project_(model, LRPET(), example)
    model.features[0].weight.data.copy_(before.features[0].weight)
    with pytest.raises(ValueError, match=r"features.0: .* of the norm is beyond rank 1; call project_ with rho 0 first"):
        compact(model)
    project_(model, LRPET(rho=0.5), example)
    with pytest.raises(ValueError, match="call project_ with rho 0"):
        compact(model)
    conv = nn.Conv2d(3, 4, 3)
    project_(conv, LRPET(bn_rectify=False))
    with pytest.raises(ValueError, match=r"put it into an nn.Sequential"):
        compact(conv)


def test_each_layer_knows_its_rank_and_a_state_does_not():
    model = lively(ConvNet((8, 12, 16)))
    keys = set(model.state_dict())
    project_(model, LRPET(ranks={"features.4": 3}), torch.zeros(1, 3, 8, 8))
    project_(model, LRPET(ranks={"features.8": 5}), torch.zeros(1, 3, 8, 8))
    assert set(model.state_dict()) == keys
    pairs = compact(copy.deepcopy(model))
    assert [len(pairs.features[at][0].weight) for at in (4, 8)] == [3, 5] and isinstance(pairs.features[0], nn.Conv2d)
    project_(model, LRPET(ranks={"features.8": 2}), torch.zeros(1, 3, 8, 8))
    assert len(compact(model).features[8][0].weight) == 2
    fresh = ConvNet((8, 12, 16))
    fresh.load_state_dict(model.state_dict())
    with pytest.raises(ValueError, match="call project_ first"):
        compact(fresh)


def test_a_layer_that_costs_more_may_stay_whole():
    model = lively(ConvNet((8, 8, 8)))
    config = LRPET(ranks={"features.4": 7, "features.8": 8})
    project_(model, config, torch.zeros(1, 3, 8, 8))
    assert isinstance(compact(model).features[8], nn.Sequential)
    cheaper = compact(model, only_cheaper=True)
    assert isinstance(cheaper.features[8], nn.Conv2d) and isinstance(cheaper.features[4], nn.Sequential)


def test_a_dead_layer_gives_its_bias():
    model = lively(strided())
    model[0].weight.data.zero_()
    model[7].weight.data.mul_(1e-9)
    config = LRPET(removed=0.5, linear=True)
    project_(model, config, torch.randn(2, 3, 17, 19))
    small = compact(model)
    assert isinstance(small[0], Silent) and isinstance(small[7], Silent)
    x = torch.randn(2, 3, 17, 19)
    with torch.no_grad():
        torch.testing.assert_close(small[0](x), model[0](x))
        torch.testing.assert_close(small(x), model(x), atol=1e-6, rtol=1e-5)
    assert macs(small[0], x) == 0 and "0.bias" in small.state_dict()


def test_the_report_is_right():
    model = lively(ResNetCIFAR(8))
    example = torch.zeros(1, 3, 32, 32)
    project_(model, LRPET(), example)
    found = report(model, compact(model), example, timed=False)
    saved = removed = 0
    for name, r in ranks(model).items():
        conv = model.get_submodule(name)
        positions = (32 if "blocks" not in name else 32 >> int(name[7])) ** 2
        m, d = conv.out_channels, conv.in_channels * 9
        removed += m * d - r * (m + d)
        saved += positions * (m * d - r * (m + d))
    assert found.before.macs - found.after.macs == saved
    assert found.before.parameters - found.after.parameters == removed


def test_a_keyword_of_old_names_the_new_one():
    with pytest.raises(TypeError, match="compact takes example in place of config"):
        compact(ConvNet((8, 12)), config=LRPET())
