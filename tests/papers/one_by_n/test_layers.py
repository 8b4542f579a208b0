"""1xN sparsity: the layers and the verbs."""

import copy

import pytest
import torch
from papers.one_by_n.sample import masked
from torch import nn

from papernets.measure import macs
from papernets.nn import SmallMobileNet
from papernets.papers.one_by_n import MaskedConv2d, OneByN, compact, prunable, prune_
from papernets.papers.one_by_n.experiment import WIDTHS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_macs_are_those_of_the_kept_weights():
    layer, x = masked(nn.Conv2d(5, 8, 3), 0.4), torch.zeros(2, 5, 9, 7)
    kept = 8 * 45 - 4 * 9 * int(2 * 5 * 0.4)
    assert macs(layer, x) == 2 * 7 * 5 * kept
    assert macs(layer, x, "thop") == 2 * 7 * 5 * (kept + 8)
    packed = compact(nn.Sequential(layer))
    assert macs(packed, x) == 2 * 7 * 5 * kept and macs(packed, x, "thop") == 2 * 7 * 5 * (kept + 8)


def test_what_is_pruned_by_default_and_what_is_left_out():
    model = SmallMobileNet(WIDTHS)
    pointwise = ["features.6", "features.12", "features.18"]
    assert list(prunable(model, OneByN(kernel=(1,)))) == pointwise
    assert list(prunable(model)) == ["features.0", *pointwise]
    assert list(prunable(model, OneByN(ignore=("features.6",)))) == ["features.0", *pointwise[1:]]
    assert list(prunable(model, OneByN(filter_fn=lambda name, module: module.in_channels == 64))) == pointwise[1:]


def test_shares_by_layer():
    model = SmallMobileNet(WIDTHS)
    prune_(model, OneByN(removed={"features.6": 0.5, "features.18": 0.75}))
    kept = {name: float(m.mask.float().mean()) for name, m in model.named_modules() if isinstance(m, MaskedConv2d)}
    assert kept == {"features.6": 0.5, "features.18": 0.25}


@pytest.mark.parametrize(
    ("config", "message"),
    [(OneByN(removed={"features.3": 0.5}), "a name of removed is 'features.3'; choose from features.0, features.6"),
     (OneByN(rearrange=("stem",)), "a name of rearrange is 'stem'; choose from features.0, features.6"),
     (OneByN(ignore=("stem",)), "ignore names 'stem', which is no layer"),
     (OneByN(N=24), "features.0: N is 24, and 32 filters are no multiple of it; the nearest N that divides is 16"),
     (OneByN(kernel=(5,)), "no Conv2d of this network is left to work on")])
def test_a_refused_network_is_unchanged(config, message):
    model = SmallMobileNet(WIDTHS)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        prune_(model, config)
    assert not any(isinstance(module, MaskedConv2d) for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_twice_is_refused():
    model = SmallMobileNet(WIDTHS)
    prune_(model)
    with pytest.raises(ValueError, match=r"features.0 is pruned already; prune the dense network"):
        prune_(model)


def test_a_convolution_alone_is_refused():
    conv = nn.Conv2d(3, 4, 1)
    before = conv.weight.detach().clone()
    with pytest.raises(ValueError, match=r"the network is itself a layer; put it into an nn\.Sequential"):
        prune_(conv)
    assert type(conv) is nn.Conv2d and torch.equal(conv.weight, before)


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(removed=1), r"removed 1 is outside \[0, 1\); the nearest is 0.99"),
     (dict(removed={"a": -1.0}), r"removed -1.0 is outside \[0, 1\); the nearest is 0"),
     (dict(N=0), "N is 0; it is a whole number of at least 1"),
     (dict(pattern="row"), "pattern is 'row'; choose from block, weight, kernel, filter, random")])
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        OneByN(**options)


def test_the_share_that_goes_is_called_removed():
    with pytest.raises(TypeError, match=r"OneByN takes removed in place of rate \(the same share\)"):
        OneByN(rate=0.5)
