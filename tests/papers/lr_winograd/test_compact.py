"""Low-rank Winograd: what is left, packed for the compiled kernel."""

import copy

import pytest
import torch
from model_checks import lively
from papers.lr_winograd.sample import layer
from torch import nn

from papernets.measure import count, macs, report
from papernets.nn import ConvNet
from papernets.papers.lr_winograd import (
    MODES,
    LowRankWinograd,
    PackedWinograd,
    WinogradConv,
    compact,
    layers,
    prune_,
    transform_,
)
from papernets.papers.lr_winograd.experiment import ARMS
from papernets.papers.lr_winograd.networks import C3D, ClipNet

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("rho", [0, 0.5, 0.93])
def test_a_network_for_images_is_packed_the_same(mode, m, rho):
    model = lively(ConvNet((6, 8, 7), channels=1))
    original, x = copy.deepcopy(model), torch.randn(2, 1, 9, 8)
    transform_(model, LowRankWinograd(m=m, mode=mode, ignore=("features.0",)))
    layers = [module for module in model.modules() if isinstance(module, WinogradConv)]
    assert [one.axes for one in layers] == [2] * len(layers) and layers
    with torch.no_grad():
        torch.testing.assert_close(model(x), original(x), atol=1e-4, rtol=1e-4)  # rank 9 is enough for 3×3 kernels
        prune_(model, rho)
        packed, expected = compact(model), model(x)
        torch.testing.assert_close(packed(x), expected, atol=1e-5, rtol=1e-4)
    again = compact(copy.deepcopy(model))
    prune_(model, 0.95)
    other = compact(model)
    other.load_state_dict(again.state_dict())
    assert torch.equal(other(x), packed(x)) and macs(packed, x) == macs(again, x)


def test_the_kernel_is_given_only_what_is_left(monkeypatch):
    seen, real = [], layers.kernel.conv3d
    monkeypatch.setattr(layers.kernel, "conv3d", lambda x, packed, *rest, **more: seen.append(
        (len(packed.columns), packed.u.shape)) or real(x, packed, *rest, **more))
    one = layer(dtype=torch.float32)
    one.prune(0.75)
    PackedWinograd(one)(torch.randn(1, 6, 4, 4, 4))
    assert seen == [(16, (16, 8, 6))]


def test_the_report_shows_what_is_saved():
    model = lively(ClipNet(16))
    pruned = copy.deepcopy(model)
    transform_(pruned, ARMS["low rank"])
    prune_(pruned, 0.5)
    x = torch.zeros(2, 1, 8, 16, 16)
    found = report(model, compact(pruned), x, timed=False)
    assert found.after.parameters - found.before.parameters == 2 * 16 * 16 * (32 - 27)
    assert found.after.bytes - found.before.bytes == 4 * 2 * 16 * 16 * (32 - 27) + 2 * 8
    assert found.before.macs - found.after.macs == 2 * 2 * 16 * 16 * (27 * 8**3 - 32 * 4**3)
    assert count(pruned, x)["body.0"].macs == count(compact(pruned), x)["body.0"].macs == 2 * 16 * 16 * 32 * 4**3


def test_a_network_that_is_itself_the_layer():
    one, x = layer(dtype=torch.float32), torch.randn(1, 6, 4, 4, 4)
    one.prune(0.5)
    torch.testing.assert_close(compact(one)(x), one(x).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: compact(nn.Sequential(layer(m=4))), "0: m is 4; the compiled kernel"),
    (lambda: compact(nn.Sequential(nn.ReLU())), "no WinogradConv; call transform_ first")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
