"""1xN sparsity: the dense and the packed network that a pruned one becomes."""

import copy

import pytest
import torch
from model_checks import lively
from torch import nn

from papernets.measure import report
from papernets.nn import ConvNet, MobileNetV1, MobileNetV2, MobileNetV3, ResNetCIFAR, SmallMobileNet
from papernets.papers.one_by_n import OneByN, PackedConv2d, compact, dense, prune_, stored_bytes
from papernets.papers.one_by_n.experiment import WIDTHS

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bytes_by_hand():
    assert stored_bytes(32_768, 8192, 64) == 131_072 + 16_384 + 260
    packed = PackedConv2d(torch.ones(8, 3, 1, 1), torch.zeros(8), 4, (1, 1), (0, 0))
    assert packed.stored == (24 + 8, 8 * (4 * 32 + 2 * 6 + 4 * 3))


@pytest.mark.parametrize(("k", "stride", "padding", "bias"), [(1, 1, 0, False), (1, 2, 0, True), (3, 1, 1, True),
                                                              (3, 2, 0, False)])
@pytest.mark.parametrize("rearrange", [False, True])
def test_the_packed_layer_computes_the_same(k, stride, padding, bias, rearrange):
    model = nn.Sequential(nn.Conv2d(5, 12, k, stride, padding, bias=bias))
    prune_(model, OneByN(removed=0.6, N=4, rearrange=rearrange))
    x = torch.randn(3, 5, 9, 7)
    packed = compact(model)
    assert isinstance(packed[0], PackedConv2d)
    torch.testing.assert_close(packed(x), model(x).detach(), atol=1e-5, rtol=1e-5)


def test_a_packed_network_is_saved_and_loaded(tmp_path):
    models = []
    for removed in (0.5, 0.8):
        model = lively(SmallMobileNet(WIDTHS))
        prune_(model, OneByN(removed=removed, kernel=(1,)))
        models.append(compact(model, torch.zeros(1, 1, 8, 8)))
    torch.save(models[0].state_dict(), tmp_path / "packed.pt")
    models[1].load_state_dict(torch.load(tmp_path / "packed.pt", weights_only=True))
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(models[1](x), models[0](x))


NETS = {"convnet": (lambda: ConvNet((16, 24, 32)), 32, None), "small": (lambda: SmallMobileNet(WIDTHS), 8, None),
        "mobilenet v1": (lambda: MobileNetV1(0.25, 7), 65, (1,)), "mobilenet v2": (lambda: MobileNetV2(0.25, 7), 65, (1,)),
        "mobilenet v3": (lambda: MobileNetV3("small", 0.5, 7), 65, (1,)),
        "resnet": (lambda: ResNetCIFAR(20, (8,) * 9, (8, 16, 32)), 32, None)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("rearrange", [False, True])
def test_masked_dense_and_packed_networks_agree(name, rearrange):
    build, pixels, kernel = NETS[name]
    model = lively(build())
    prune_(model, OneByN(removed=0.6, N=4, kernel=kernel, rearrange=rearrange, pad=True))
    x = torch.randn(2, next(model.parameters()).shape[1], pixels, pixels)
    with torch.no_grad():
        expected = model(x)
        for other in (dense(model), compact(model), compact(model, x[:1])):
            torch.testing.assert_close(other(x), expected, atol=1e-5, rtol=1e-5)


def test_reordered_filters_need_nothing_at_run_time():
    model = lively(SmallMobileNet(WIDTHS))
    prune_(model, OneByN(kernel=(1,)))
    x = torch.randn(1, 1, 8, 8)
    without, within = compact(model), compact(model, x)
    assert [m.back is None for m in without.modules() if isinstance(m, PackedConv2d)] == [False] * 3
    assert [m.back is None for m in within.modules() if isinstance(m, PackedConv2d)] == [True] * 3
    assert not torch.equal(within.features[9].weight, model.features[9].weight)  # a depthwise convolution in between


def test_filters_on_a_residual_are_put_back_at_run_time():
    """Two projections that are added cannot both be in the order of their own norms."""
    model = lively(MobileNetV2(0.25, 7))
    prune_(model, OneByN(kernel=(1,), pad=True))
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        packed = compact(model, x)
        torch.testing.assert_close(packed(x), model(x), atol=1e-5, rtol=1e-5)
    backs = {name: m.back is None for name, m in packed.named_modules() if isinstance(m, PackedConv2d)}
    assert all(backs[name] for name in backs if name.endswith(".block.0"))
    assert not all(backs.values())


def test_the_original_is_left_alone():
    model = lively(SmallMobileNet(WIDTHS))
    prune_(model, OneByN(kernel=(1,)))
    before = copy.deepcopy(model.state_dict())
    compact(model.train(), torch.zeros(1, 1, 8, 8))
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_dilated_convolutions_cannot_be_packed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2))
    prune_(model)
    assert dense(model)(torch.zeros(1, 3, 9, 9)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"0 has dilation \(2, 2\).*; the kernel takes dilation 1"):
        compact(model)


def test_the_report_shows_what_is_saved():
    model = lively(SmallMobileNet(WIDTHS))
    pruned = copy.deepcopy(model)
    prune_(pruned, OneByN(kernel=(1,)))
    found = report(model, compact(pruned), torch.zeros(1, 1, 8, 8), timed=False)
    removed = (32 * 64 + 2 * 64 * 64) // 2
    assert found.before.parameters - found.after.parameters == removed
    indices = 2 * removed // 4 + 4 * 3 * 17
    assert found.before.bytes - found.after.bytes == 4 * removed - indices


def test_what_was_not_pruned_has_no_other_form():
    for verb in (dense, compact):
        with pytest.raises(ValueError, match="this network has no MaskedConv2d; call prune_ first"):
            verb(nn.Sequential(nn.Conv2d(3, 4, 1)))


def test_the_kernel_takes_as_many_threads_as_it_is_told():
    model = nn.Sequential(nn.Conv2d(5, 8, 1))
    prune_(model)
    x = torch.randn(2, 5, 4, 3)
    packed = compact(model, threads=2)
    assert packed[0].threads == 2 and torch.equal(packed(x), compact(model)(x))
    with pytest.raises(ValueError, match="threads is 0; it is a whole number of at least 1"):
        compact(model, threads=0)
