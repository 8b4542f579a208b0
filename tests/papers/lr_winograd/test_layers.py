"""Low-rank Winograd: the layers and the verbs."""

import copy
import math

import pytest
import torch
from model_checks import lively
from papers.lr_winograd.samples import conv, layer
from torch import nn
from torch.nn import functional as F

from papernets.measure import macs
from papernets.nn import ConvNet
from papernets.papers.lr_winograd import (
    MODES,
    LowRankWinograd,
    PackedWinograd,
    Plan,
    WinogradConv,
    additions,
    compact,
    convertible,
    cubes,
    expand,
    layers,
    matrices,
    prune_,
    transform_,
    winograd,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("m", "most"), [(2, 1e-12), (4, 1e-10)])
@pytest.mark.parametrize(("batch", "Ci", "Co", "size", "padding"), [
    (1, 1, 1, (3, 3, 3), 0), (2, 3, 5, (5, 7, 9), 0), (2, 4, 3, (6, 8, 4), 1), (1, 64, 8, (4, 5, 6), 1),
    (1, 2, 2, (1, 2, 9), 1), (2, 3, 4, (7, 4, 5), (0, 1, 2))])
def test_it_is_the_direct_convolution(m, most, batch, Ci, Co, size, padding):
    W, x = torch.randn(Co, Ci, 3, 3, 3, dtype=torch.float64), torch.randn(batch, Ci, *size, dtype=torch.float64)
    padding = (padding,) * 3 if isinstance(padding, int) else padding
    found, expected = winograd(x, expand(W, m), Co, m, padding), F.conv3d(x, W, padding=padding)
    assert found.shape == expected.shape and float((found - expected).abs().max()) < most


def test_the_examples_by_hand():
    back, G, out = matrices(2)
    d, g = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64), torch.tensor([1.0, 0, -1], dtype=torch.float64)
    assert (back @ d).tolist() == [-2, 5, 1, -2] and (G @ g).tolist() == [1, 0, 0, -1]
    assert (out @ ((G @ g) * (back @ d))).tolist() == [-2, -2]
    ones = expand(torch.ones(1, 1, 3, 3, 3, dtype=torch.float64))
    vector = torch.tensor([1, 1.5, 0.5, 1], dtype=torch.float64)
    cube = vector[:, None, None] * vector[:, None] * vector
    assert torch.equal(ones.view(4, 4, 4), cube) and [float(cube[i, i, i]) for i in range(3)] == [1, 3.375, 0.125]
    y = winograd(torch.arange(64, dtype=torch.float64).view(1, 1, 4, 4, 4), ones, 1)
    assert y.flatten().tolist() == [567, 594, 675, 702, 999, 1026, 1107, 1134]
    delta = torch.zeros(1, 1, 3, 3, 3, dtype=torch.float64)
    delta[..., 1, 1, 1] = 1
    found = expand(delta).view(4, 4, 4)
    assert int((found != 0).sum()) == 8 and set(found[found != 0].abs().tolist()) == {1 / 8}
    assert float(found[1, 1, 1]) == 1 / 8 and float(found[1, 1, 2]) == -1 / 8


def test_single_precision_loses_more_digits_with_larger_tiles():
    x, W = torch.randn(1, 1, 6, 6, 6, dtype=torch.float64), torch.randn(8, 1, 3, 3, 3, dtype=torch.float64)
    exact = F.conv3d(x, W)
    gaps = [float((winograd(x.float(), expand(W, m).float(), 8, m).double() - exact).abs().max()) for m in (2, 4)]
    assert gaps[0] < 2e-5 < 1e-3 and 5 * gaps[0] < gaps[1] < 1e-2


@pytest.mark.parametrize("m", [2, 4])
def test_the_plan_counts_what_is_multiplied(monkeypatch, m):
    seen, real = [], torch.bmm
    monkeypatch.setattr(torch, "bmm", lambda a, b: seen.append(a.shape[0] * a.shape[1] * a.shape[2] * b.shape[2]) or real(a, b))
    x, one = torch.randn(2, 6, 5, 7, 9, dtype=torch.float64), layer("vanilla", m=m)
    one(x)
    one.keep(torch.tensor([0, 3, 5]))
    y = one(x)
    plan = Plan(m, (5, 7, 9))
    assert seen == [2 * 6 * 8 * plan.products(), 2 * 6 * 8 * plan.products(3)] and macs(one, x) == seen[1]
    assert plan.direct == 27 * math.prod(y.shape[2:])
    assert plan.additions() == tuple(math.prod(plan.tiles) * each for each in additions(m))


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("mode", "rank"), [("factor", 27), ("factor", 40), ("delta", 5), ("vanilla", 27), ("spatial", 27)])
def test_every_mode_starts_as_the_convolution(m, mode, rank):
    direct, x = conv(dtype=torch.float64), torch.randn(2, 6, 5, 4, 6, dtype=torch.float64)
    found = WinogradConv(direct, LowRankWinograd(m=m, mode=mode, rank=rank))
    torch.testing.assert_close(found(x), direct(x), atol=1e-10, rtol=0)


@pytest.mark.parametrize("mode", MODES)
def test_gradients_against_finite_differences(mode):
    W = nn.Conv3d(2, 2, 3, padding=1, bias=False, dtype=torch.float64)
    one = WinogradConv(W, LowRankWinograd(mode=mode, rank=4 if mode == "factor" else 3))
    one.keep(torch.tensor([0, 1, 5, 21, 22, 63]))
    x = torch.randn(1, 2, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    names = [name for name, _ in one.named_parameters()]
    values = tuple(p.detach().clone().requires_grad_() for p in one.parameters())
    if mode == "delta":
        values[0].data.normal_()

    def run(x, *values):
        return torch.func.functional_call(one, dict(zip(names, values)), x)

    assert torch.autograd.gradcheck(run, (x, *values), fast_mode=True)


def test_the_gradients_of_the_factors_are_those_of_the_formula():
    one, x = layer(rank=9), torch.randn(1, 6, 4, 4, 4, dtype=torch.float64)
    M = one.weights().detach().requires_grad_()
    winograd(x, M, 8, 2, (1, 1, 1)).pow(2).sum().backward()
    winograd(x, one.weights(), 8, 2, (1, 1, 1)).pow(2).sum().backward()
    torch.testing.assert_close(one.P.grad, M.grad @ one.Q.detach().T)
    torch.testing.assert_close(one.Q.grad, one.P.detach().T @ M.grad)


def test_an_update_of_low_rank():
    x, labels = torch.randn(8, 6, 4, 4, 4), torch.randn(8, 8, 4, 4, 4)
    direct = conv()
    one, vanilla = (WinogradConv(direct, LowRankWinograd(mode=mode, rank=3)) for mode in ("delta", "vanilla"))
    assert torch.equal(one(x), vanilla(x))
    start, optimizer = one.weights().detach().clone(), torch.optim.Adam(one.parameters(), 1e-2)
    for _ in range(5):
        optimizer.zero_grad()
        F.mse_loss(one(x), labels).backward()
        optimizer.step()
    change = (one.weights() - start).detach().double()
    assert float(change.norm()) > 1e-2 and int(torch.linalg.matrix_rank(change, rtol=1e-4)) == 3


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("m", [2, 4])
def test_the_columns_with_the_largest_norms_stay(mode, m):
    one, x = layer(mode, m=m), torch.randn(1, 6, 5, 6, 4, dtype=torch.float64)
    norms, M, whole, t3 = one.importance(), one.weights().detach(), one(x), (m + 2) ** 3
    one.prune(0)
    assert torch.equal(one(x), whole)
    one.prune(0.75)
    kept = one.columns()
    assert len(kept) == t3 - int(0.75 * t3) and float(norms[kept].min()) >= float(norms[~one.kept].max())
    masked = winograd(x, M * one.kept, 8, m, (1, 1, 1)) + one.bias.view(-1, 1, 1, 1)
    torch.testing.assert_close(one(x), masked, atol=1e-10, rtol=0)
    columns, U = one.export()
    assert torch.equal(columns, kept)
    torch.testing.assert_close(U[3], M[:, kept[3]].view(8, 6))


@pytest.mark.parametrize(("options", "message"), [
    (dict(stride=2), r"stride is \(2, 2, 2\)"), (dict(dilation=2), r"dilation is \(2, 2, 2\)"),
    (dict(groups=2), "groups is 2; the transform takes 1"), (dict(padding_mode="circular"), "padding_mode is circular"),
    (dict(padding="same"), "padding is 'same'")])
def test_convolutions_that_do_not_fit(options, message):
    bad = nn.Conv3d(4, 4, 3, **options)
    with pytest.raises(ValueError, match=message):
        WinogradConv(bad)
    model = nn.Sequential(nn.Conv3d(4, 4, 3, padding=1), bad)
    assert list(convertible(model)) == ["0"]


def test_other_kernels_stay_direct():
    with pytest.raises(ValueError, match=r"kernel_size is \(3, 3, 1\)"):
        WinogradConv(nn.Conv3d(4, 4, (3, 3, 1)))
    with pytest.raises(ValueError, match="no Conv3d or Conv2d of this network is left"):
        convertible(nn.Sequential(nn.Conv3d(4, 4, 1)))


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize(("size", "padding"), [((3, 3), (0, 0)), ((8, 8), (1, 1)), ((5, 9), (1, 0)), ((7, 6), (2, 1))])
def test_of_two_axes_it_is_the_direct_sum_as_well(m, size, padding):
    direct = nn.Conv2d(5, 4, 3, padding=padding).double()
    x = torch.randn(3, 5, *size, dtype=torch.float64)
    y = winograd(x, expand(direct.weight, m), 4, m, padding) + direct.bias.view(-1, 1, 1)
    torch.testing.assert_close(y, direct(x), atol=1e-11, rtol=0)
    plan = Plan(m, size, padding)
    assert (plan.products(), plan.direct) == (math.prod(plan.tiles) * (m + 2) ** 2, 9 * math.prod(y.shape[2:]))


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


def test_an_image_costs_16_products_where_the_direct_sum_has_36():
    direct = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1, bias=False))
    x, model = torch.zeros(2, 3, 8, 6), copy.deepcopy(direct)
    transform_(model)
    assert macs(direct, x) == 2 * 15 * 9 * 48 and macs(model, x) == macs(direct, x) * 16 // 36 == macs(compact(model), x)
    prune_(model, 0.5)
    assert macs(model, x) == macs(direct, x) * 8 // 36 == macs(compact(model), x) and compact(model)[0].stored == (120, 3856)
    back, _, out = matrices(2)
    assert additions(2, 2) == tuple(int((one != 0).sum() - len(one)) * (len(one) + 4) for one in (back, out))
    assert cubes(2, 2)[1].shape == (16, 9)


def test_the_kernel_is_given_only_what_is_left(monkeypatch):
    seen, real = [], layers.kernel.conv3d
    monkeypatch.setattr(layers.kernel, "conv3d", lambda x, packed, *rest, **more: seen.append(
        (len(packed.columns), packed.u.shape)) or real(x, packed, *rest, **more))
    one = layer(dtype=torch.float32)
    one.prune(0.75)
    PackedWinograd(one)(torch.randn(1, 6, 4, 4, 4))
    assert seen == [(16, (16, 8, 6))]
