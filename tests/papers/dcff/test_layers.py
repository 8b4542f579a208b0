"""Dynamic-coded filter fusion: the configuration and the layer."""

import math
import warnings

import numpy as np
import pytest
import torch
from papers.dcff.sample import slow_distances, slow_fuse, slow_importance, slow_log_proxy, wide
from torch import nn
from torch.nn import functional

from papernets.papers.dcff import (
    DCFF,
    FusedConv2d,
    temperature,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("epochs", [1, 7, 20, 90, 180, 300])
@pytest.mark.parametrize("growth", [1.0, "slow"])
def test_schedule_starts_and_ends_where_it_says(epochs, growth):
    config = DCFF(growth=growth)
    assert config.temperature(0, epochs) == pytest.approx(1, abs=1e-8)
    assert config.temperature(epochs, epochs) == pytest.approx(1e4, rel=1e-12)
    values = [config.temperature(epoch, epochs) for epoch in np.linspace(0, epochs, 31)]
    assert values == sorted(values)


def test_slow_schedule():
    found = [DCFF(growth="slow").temperature(epoch, 300) for epoch in (0, 1, 30, 150, 300)]
    assert found == pytest.approx([1, 167.65, 4622.1, 9867.1, 10000], abs=0.06)


@pytest.mark.parametrize("growth", [1e-20, 1e-12, 1e3, 1e6])
def test_extreme_growth_keeps_both_ends_or_is_refused(growth):
    try:
        found = [DCFF(growth=growth).temperature(epoch, 10) for epoch in (0, 5, 10)]
    except ValueError:
        return
    assert found[0] == pytest.approx(1, abs=1)
    assert found[2] == pytest.approx(1e4, rel=1e-3)
    assert found == sorted(found)


@pytest.mark.parametrize("options", [
    {"T_s": 0}, {"T_s": -1}, {"T_s": 5, "T_e": 4}, {"T_e": math.inf}, {"T_s": math.nan},
    {"growth": 0}, {"growth": -1}, {"growth": "fast"}, {"growth": math.nan},
    {"removed": 1}, {"removed": 1.0}, {"removed": -0.1}, {"removed": math.nan}, {"removed": {"a": 1}}])
def test_configuration_refuses(options):
    with pytest.raises(ValueError, match=r"temperatures|growth|removed"):
        DCFF(**options)


def test_infinite_growth_is_refused():
    """Its schedule would be NaN at the first epoch."""
    with pytest.raises(ValueError, match="growth"):
        DCFF(growth=math.inf)


ONE_HOT = DCFF(T_s=1e7, T_e=1e7)  # a temperature at which every blend is a selection, from the first epoch on


def test_an_exchange_moves_no_other_channel():
    """One filter leaves and one comes: all other outputs of the layer stay the same channels (in ascending order they
    would all shift)."""
    layer = FusedConv2d(nn.Conv2d(3, 4, 1), 7, ONE_HOT)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(7, 3).reshape(7, 3, 1, 1) * torch.tensor([9.0, 8, 7, 1, 1, 1, 1]).reshape(7, 1, 1, 1))
        layer.weight[3, 1] = 5.0
    layer.restart()
    assert layer.kept.tolist() == [0, 1, 2, 3]
    before = layer.fused()[0].clone()
    with torch.no_grad():
        layer.weight[0] = 0.0  # the first filter joins the crowd at 0, and filter 6 leaves it
        layer.weight[6, 2] = -9.0
    layer.refresh(1e7)
    assert layer.kept.tolist() == [6, 1, 2, 3]
    assert torch.equal(layer.fused()[0][1:], before[1:])


def test_stride_dilation_and_padding_are_the_convolutions():
    narrow = nn.Conv2d(3, 5, (3, 1), stride=(2, 1), padding=(2, 0), dilation=(2, 1))
    layer, x = FusedConv2d(narrow, 11), torch.randn(2, 3, 13, 7)
    assert layer(x).shape == narrow(x).shape
    torch.testing.assert_close(layer.to_conv()(x), layer(x))
    assert layer.to_conv().dilation == (2, 1)


def test_layer_refuses():
    with pytest.raises(ValueError, match="3 groups"):
        FusedConv2d(nn.Conv2d(3, 6, 3, groups=3), 12)
    with pytest.raises(ValueError, match="6 groups"):
        FusedConv2d(nn.Conv2d(6, 6, 3, groups=6), 12)
    with pytest.raises(ValueError, match="full must be at least 5"):
        FusedConv2d(nn.Conv2d(3, 5, 3), 4)


def test_one_filter_is_kept_as_it_is():
    layer = wide(C=1, m=1)
    assert layer.kept.tolist() == [0]
    assert layer.phi.tolist() == [[1.0]]
    assert layer.score.tolist() == [0.0]
    torch.testing.assert_close(layer.fused()[0], layer.weight)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("T", [0.0, 1.0, 40.0, 1e4])
def test_layer_is_a_convolution_with_blended_filters(bias, T):
    layer = wide(C=11, c=3, m=5, bias=bias)
    layer.refresh(T)
    W, b, phi = layer.weight.detach(), layer.bias, layer.phi
    filters = W.flatten(1).double().tolist()
    D = slow_distances(filters)
    scores = slow_importance(D, T)
    kept = sorted(sorted(range(11), key=lambda j: -scores[j])[:5]) if T else layer.kept.tolist()
    assert layer.kept.tolist() == kept
    np.testing.assert_allclose(phi, np.exp(slow_log_proxy(D, T))[kept], rtol=1e-5, atol=1e-7)
    weight = torch.tensor(slow_fuse(filters, phi.tolist()), dtype=torch.float32).view(5, 3, 3, 3)
    offset = None if b is None else torch.tensor([sum(p * v for p, v in zip(row, b.tolist())) for row in phi.tolist()])
    x = torch.randn(2, 3, 7, 5)
    y = layer(x)
    assert y.shape == (2, 5, 7, 5)
    torch.testing.assert_close(y, functional.conv2d(x, weight, offset, padding=1), rtol=1e-5, atol=1e-5)
    assert (W.amin(0) - 1e-6 <= layer.fused()[0]).all()
    assert (layer.fused()[0] <= W.amax(0) + 1e-6).all()
    np.testing.assert_allclose(phi.sum(1), np.ones(5), rtol=1e-6)


@pytest.mark.parametrize("T", [1.0, 1e7])
def test_gradient_is_the_transposed_blend(T):
    layer = wide(C=11, c=3, m=4, dtype=torch.float64)
    layer.refresh(T)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    pull = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    (layer(x) * pull).sum().backward()
    weight, bias = (value.detach().requires_grad_() for value in layer.fused())
    (functional.conv2d(x, weight, bias, padding=1) * pull).sum().backward()
    by_hand = torch.zeros_like(layer.weight)
    for j in range(11):
        for i in range(4):
            by_hand[j] += layer.phi[i, j] * weight.grad[i]
    torch.testing.assert_close(layer.weight.grad, by_hand, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(layer.bias.grad, layer.phi.T @ bias.grad, rtol=1e-10, atol=1e-12)
    dropped = sorted(set(range(11)) - set(layer.kept.tolist()))
    assert len(dropped) == 7
    each = layer.weight.grad[dropped].abs().amax((1, 2, 3))
    assert (each > 1e-3).all() if T == 1.0 else (each == 0).all()
    assert (layer.weight.grad[layer.kept].abs().amax((1, 2, 3)) > 1e-3).all()
    assert not layer.phi.requires_grad


def test_rate_zero_is_still_a_mixing_matrix_at_the_start():
    layer = wide(C=7, m=7)
    assert layer.kept.tolist() == list(range(7))
    assert (layer.phi - torch.eye(7)).abs().max() > 0.3
    assert not torch.allclose(layer.fused()[0], layer.weight, atol=1e-2)
    layer.refresh(1e7)
    assert torch.equal(layer.phi, torch.eye(7))
    torch.testing.assert_close(layer.fused()[0], layer.weight)


def test_phi_changes_only_when_refreshed():
    layer = wide()
    phi = layer.phi.clone()
    with torch.no_grad():
        layer.weight.mul_(3)
    layer(torch.randn(1, 3, 5, 5))
    assert torch.equal(layer.phi, phi)
    layer.refresh(1.0)
    assert not torch.equal(layer.phi, phi)


def test_a_layer_that_refuses_to_refresh_is_untouched():
    layer = wide()
    with torch.no_grad():
        layer.weight[2, 1, 0, 0] = math.nan
    phi, score, kept = layer.phi.clone(), layer.score.clone(), layer.kept.clone()
    with pytest.raises(ValueError, match="finite"):
        layer.refresh(7.0)
    assert torch.equal(layer.phi, phi)
    assert torch.equal(layer.score, score)
    assert torch.equal(layer.kept, kept)


def test_default_initialisation_is_that_of_a_convolution():
    layer, fan_in = wide(C=97, c=5, m=7), 45
    for value in (layer.weight, layer.bias):
        assert value.abs().max() <= 1 / math.sqrt(fan_in)
        assert value.abs().max() > 0.9 / math.sqrt(fan_in)
        assert value.std().item() == pytest.approx(1 / math.sqrt(3 * fan_in), rel=0.15)


def test_the_stable_form_follows_the_weights():
    layer = wide(C=13, m=5)
    layer.refresh(temperature(1, 300))
    before = layer.kept.tolist()
    target = sorted(set(range(13)) - set(before))[0]
    with torch.no_grad():
        layer.weight[target] += 10  # now farthest from all others
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer.refresh(temperature(2, 300))
    assert target in layer.kept.tolist()
