"""Low-rank Winograd: the layers, and the verb that puts them into a network."""

import copy
import math

import pytest
import torch
from papers.lr_winograd.sample import conv, layer
from torch import nn
from torch.nn import functional

from papernets.measure import macs
from papernets.papers.lr_winograd import (
    MODES,
    LowRankWinograd,
    Plan,
    WinogradConv,
    additions,
    compact,
    convertible,
    cubes,
    expand,
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
    found, expected = winograd(x, expand(W, m), Co, m, padding), functional.conv3d(x, W, padding=padding)
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
    exact = functional.conv3d(x, W)
    gaps = [float((winograd(x.float(), expand(W, m).float(), 8, m).double() - exact).abs().max()) for m in (2, 4)]
    assert gaps[0] < 2e-5 < 1e-3 and 5 * gaps[0] < gaps[1] < 1e-2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_tiles_refuse_half_precision(dtype):
    with pytest.raises(ValueError, match="in half precision, use m=2 or float32"):
        layer(m=4, dtype=torch.float32).to(dtype)(torch.zeros(1, 6, 4, 4, 4, dtype=dtype))


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
        functional.mse_loss(one(x), labels).backward()
        optimizer.step()
    change = (one.weights() - start).detach().double()
    assert float(change.norm()) > 1e-2 and int(torch.linalg.matrix_rank(change, rtol=1e-4)) == 3


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


@pytest.mark.parametrize(("call", "message"), [
    (lambda: LowRankWinograd(m=3), "m, the side of a tile of outputs, is 3; choose from 2, 4"),
    (lambda: LowRankWinograd(removed=1), r"removed 1 is outside \[0, 1\); the nearest is 0.99"),
    (lambda: LowRankWinograd(removed=-0.1), "the nearest is 0"),
    (lambda: LowRankWinograd(rank=0), "the rank in tiles of 2 is 0; it is a whole number from 1 to 64"),
    (lambda: LowRankWinograd(rank=65), "is 65; it is a whole number from 1 to 64"),
    (lambda: LowRankWinograd(mode="x"), "choose from factor"), (lambda: LowRankWinograd(score="x"), "choose from column"),
    (lambda: LowRankWinograd(scope="x"), "choose from layer"),
    (lambda: layer("delta", 27, Ci=1, Co=2), "2 kernels and 64 positions is 27; it is a whole number from 1 to 2"),
    (lambda: Plan(2, (2, 9, 9), (0, 0, 0)), "at least 3"),
    (lambda: layer()(torch.zeros(1, 5, 4, 4, 4, dtype=torch.float64)), r"with Ci = 6"),
    (lambda: transform_(conv()), "put it into"),
    (lambda: transform_(nn.Sequential(nn.Conv3d(1, 2, 3))), "0: the rank for 2 kernels and 64 positions is 27")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
