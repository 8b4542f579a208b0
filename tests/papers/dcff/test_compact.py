"""Dynamic-coded filter fusion: what is exported and what is stored."""

import math

import pytest
import torch
from papers.dcff.sample import wide
from torch import nn

from papernets.measure import parameters
from papernets.nn import ConvNet
from papernets.papers.dcff import (
    DCFF,
    FusedConv2d,
    compact,
    fuse_,
    refresh_,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("random", [False, True])
def test_state_dict_round_trip(random):
    config = DCFF(removed=0.6, random=random)
    models = []
    for seed in (3, 4):
        torch.manual_seed(seed)
        model = ConvNet((7, 11, 13), 5).eval()
        fuse_(model, config, torch.zeros(1, 3, 9, 9))
        models.append(model)
    first, second = models
    refresh_(first, 1, 20)
    x = torch.randn(2, 3, 9, 9)
    assert not torch.allclose(first(x), second(x))
    second.load_state_dict(first.state_dict())
    for one, other in zip(first.modules(), second.modules()):
        if isinstance(one, FusedConv2d):
            for name in ("phi", "score", "kept"):
                assert name in one.state_dict()
                assert torch.equal(getattr(one, name), getattr(other, name))
    assert torch.equal(first(x), second(x))
    assert torch.equal(compact(first)(x), compact(second)(x))
    # both go on alike: the next epoch keeps the same filters in the one that was loaded
    refresh_(first, 2, 20)
    refresh_(second, 2, 20)
    assert torch.equal(first(x), second(x))


def test_compact_of_a_network_without_blends_is_refused():
    with pytest.raises(ValueError, match="this network has no FusedConv2d; call fuse_ first"):
        compact(ConvNet((7, 11)))


def test_compact_of_a_single_layer():
    layer = wide(C=11, m=5)
    conv = compact(layer)
    assert type(conv) is nn.Conv2d
    x = torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(conv(x), layer(x), rtol=0, atol=1e-6)
    with torch.no_grad():
        conv.weight.zero_()
    assert layer(x).abs().sum() > 1  # a copy


@pytest.mark.parametrize("removed", [0.0, 0.37, 0.5])
def test_parameters_of_the_export_by_formula(removed):
    widths, classes = (13, 17, 29), 7
    model = ConvNet(widths, classes, channels=5)
    fuse_(model, DCFF(removed=removed), torch.zeros(1, 5, 9, 9))
    m = [math.floor(C * (1 - removed)) for C in widths]
    expected = sum(9 * a * b + 2 * b for a, b in zip([5, *m], m)) + m[-1] * classes + classes
    assert parameters(compact(model)) == expected
