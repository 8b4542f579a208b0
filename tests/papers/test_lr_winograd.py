"""Low-rank Winograd: transforms, layers, factors, columns, the packed form, the counts and what training shows."""

import copy
import math

import numpy as np
import pytest
import torch
from model_checks import lively
from torch import nn
from torch.nn import functional as F

from papernets.cards import card
from papernets.measure import count, macs, report
from papernets.nn import ConvNet
from papernets.papers import lr_winograd
from papernets.papers.lr_winograd import (
    ARMS,
    C3D,
    MODES,
    RECIPES,
    ClipFolder,
    ClipNet,
    LowRankWinograd,
    PackedWinograd,
    Plan,
    WinogradConv,
    additions,
    clips,
    compact,
    compare,
    convertible,
    counts,
    cubes,
    expand,
    factors,
    facts,
    matrices,
    prune_,
    rate_at,
    removed,
    stored_numbers,
    trained_numbers,
    transform_,
    truncation,
    winograd,
)
from papernets.training import run_recipe, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def conv(Ci=6, Co=8, padding=1, bias=True, dtype=torch.float32):
    return nn.Conv3d(Ci, Co, 3, padding=padding, bias=bias, dtype=dtype)


def layer(mode="factor", rank=27, m=2, dtype=torch.float64, **options):
    return WinogradConv(conv(dtype=dtype, **options), LowRankWinograd(m=m, mode=mode, rank=rank))


# --- transforms ------------------------------------------------------------------------------------------------------


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


def test_axes_are_in_the_order_of_the_volume():
    delta = torch.zeros(1, 1, 3, 3, 3, dtype=torch.float64)
    delta[..., 0, 1, 2] = 1
    found = expand(delta).view(4, 4, 4)
    assert float(found[0, 1, 3]) == 0.5 and float(found[3, 1, 0]) == 0


@pytest.mark.parametrize(("m", "condition"), [(2, 8.0), (4, 64.42)])
def test_condition_of_the_transform(m, condition):
    S = torch.linalg.svdvals(cubes(m)[1])
    assert float(S[0] / S[-1]) == pytest.approx(condition, abs=0.005)


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


# --- the layers ------------------------------------------------------------------------------------------------------


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


# --- factors and columns ---------------------------------------------------------------------------------------------


def test_factors_are_the_best_of_their_rank():
    W = torch.randn(5, 7, 3, 3, 3, dtype=torch.float64)
    errors, tails = truncation(W)
    torch.testing.assert_close(errors, tails, atol=1e-12, rtol=0)
    assert (errors[:26].diff() < -1e-4).all() and float(errors[26:].max()) < 1e-12
    P, Q = factors(expand(W), 12)
    torch.testing.assert_close(P.norm(dim=0), Q.norm(dim=1))


def test_beyond_rank_27_the_product_stays_and_learns():
    M = expand(torch.randn(8, 8, 3, 3, 3, dtype=torch.float64))
    P, Q = factors(M, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(P @ Q, M, atol=1e-12, rtol=0)
    assert not Q[27:].any() and 0 < float(P[:, 27:].abs().max()) < 0.1 * float(P.abs().max())
    gradient = P.T @ torch.randn_like(M)
    assert float(gradient[27:].abs().min(1).values.max()) > 0


def test_spatial_factors_are_exact():
    W = torch.randn(4, 9, 3, 3, 3, dtype=torch.float64)
    assert torch.equal(W.reshape(-1, 27) @ cubes()[1].T, expand(W))
    assert int(torch.linalg.matrix_rank(expand(W))) == 27


def test_importance_does_not_depend_on_the_scales():
    one = layer(rank=10)
    for score in ("column", "factor"):
        before = one.importance(score)
        other = copy.deepcopy(one)
        scale = torch.rand(10, dtype=torch.float64) + 0.5
        other.P.data.mul_(scale)
        other.Q.data.div_(scale[:, None])
        torch.testing.assert_close(other.importance(score), before)
    torch.testing.assert_close(one.importance(), (one.P @ one.Q).detach().norm(dim=0))
    P, Q = one.P.detach(), one.Q.detach()
    slow = [math.sqrt(sum((float(P[:, j].norm()) * float(Q[j, p])) ** 2 for j in range(10))) for p in range(64)]
    assert one.importance("factor").tolist() == pytest.approx(slow)


def test_first_order_scores_are_summed():
    one, x = layer(rank=5), torch.randn(2, 6, 4, 4, 4, dtype=torch.float64)
    expected = torch.zeros(64, dtype=torch.float64)
    for _ in range(2):
        one.zero_grad()
        one(x).pow(2).mean().backward()
        one.accumulate()
        expected += (one.Q * one.Q.grad).sum(0).abs().detach()
        one.Q.data.sub_(0.1 * one.Q.grad)
    torch.testing.assert_close(one.importance("taylor"), expected)
    with pytest.raises(ValueError, match="call backward first"):
        layer("spatial").accumulate()


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


def test_columns_that_are_kept_by_hand_cannot_be_those_removed():
    one = layer()
    one.keep(torch.tensor([0, 1, 9]))
    one.keep(torch.tensor([1, 2, 9]))
    assert one.columns().tolist() == [1, 9]
    with pytest.raises(ValueError, match="no column would be left"):
        one.keep(torch.tensor([0, 2]))
    assert one.columns().tolist() == [1, 9]


def test_equal_scores_leave_the_lower_positions():
    one = layer("vanilla")
    one.M.data.fill_(1)
    one.prune(0.5)
    assert one.columns().tolist() == list(range(32))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_brings_a_column_back(mode):
    one, x = layer(mode), torch.randn(4, 6, 4, 4, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(one.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    for step in range(4):
        if step == 2:
            one.prune(0.5)
            gone = ~one.kept
        optimizer.zero_grad()
        one(x).pow(2).mean().backward()
        if step >= 2 and mode != "spatial":
            W = one.M if mode == "vanilla" else one.Q
            assert not W.grad[:, gone].any() and (W.grad[:, one.kept].abs().sum(0) > 0).any()
        optimizer.step()
    assert not one.importance()[gone].any() and int(one.kept.sum()) == 32 == len(one.export()[1])
    one.prune(0.25)
    assert torch.equal(~one.kept, gone)
    one.prune(0.75)
    assert int(one.kept.sum()) == 16 and not (one.kept & gone).any()


def test_a_network_ranks_all_columns_together():
    model = ClipNet()
    transform_(model, ARMS["vanilla"])
    weak, strong = model.body[0], model.body[3]
    weak.M.data.mul_(1e-3)
    prune_(model, 0.5, LowRankWinograd(scope="network"))
    assert int(weak.kept.sum()) == 1 and int(strong.kept.sum()) == 63
    assert weak.columns()[0] == weak.importance().argmax()


def test_the_rate_rises_cubically():
    assert [rate_at(e, 4, 0.8) for e in (0, 2, 4, 9)] == pytest.approx([0, 0.8 * 7 / 8, 0.8, 0.8])
    assert [removed(64, rho) for rho in (0, 0.25, 0.5, 0.7, 0.999)] == [0, 16, 32, 44, 63]


# --- refusals --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_tiles_refuse_half_precision(dtype):
    with pytest.raises(ValueError, match="in half precision, use m=2 or float32"):
        layer(m=4, dtype=torch.float32).to(dtype)(torch.zeros(1, 6, 4, 4, 4, dtype=dtype))


# --- the packed form -------------------------------------------------------------------------------------------------


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


def test_the_original_is_left_alone():
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    before = copy.deepcopy(model.state_dict())
    compact(model.train())
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_the_kernel_is_given_only_what_is_left(monkeypatch):
    seen, real = [], lr_winograd.kernel.conv3d
    monkeypatch.setattr(lr_winograd.kernel, "conv3d", lambda x, packed, *rest, **more: seen.append(
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


def test_storage_breaks_even():
    assert stored_numbers(256, 256, 27, 27)[0] == 27 * 65536
    dense, factored = zip(*(stored_numbers(256, 256, 27, columns) for columns in (26, 27, 28)))
    assert [a < b for a, b in zip(dense, factored)] == [True, True, False]


# --- the counts ------------------------------------------------------------------------------------------------------


def test_every_exact_claim():
    found = facts()
    for claim in card("lr-winograd").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id


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


# --- at work ---------------------------------------------------------------------------------------------------------


def test_clips_move_as_their_labels_say():
    train, test = clips(12, 8, 3, noise=0)
    assert train.images.shape == (12, 1, 8, 16, 16) and len(test) == 8
    for video, label in zip(train.images[:, 0], train.labels.tolist()):
        shift = lr_winograd.MOVES[label]
        for frame in range(7):
            torch.testing.assert_close(video[frame].roll(shift, (0, 1)), video[frame + 1])
    assert float(clips(4, 2, 3)[0].images.std()) > float(train.images.std())


def test_a_low_rank_network_learns_and_columns_that_matter_stay():
    """A wrong gradient, transform or score leaves the accuracy near the 25 % of guessing."""
    first, second = clips(480, 200, 1)
    seed_everything(1)
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    lr_winograd._train(model, first, 4, 1, lr=6e-3)
    assert lr_winograd._accuracy(model, second) > 0.8
    random = lr_winograd._without(model, 0.5, second, torch.Generator().manual_seed(0))
    assert lr_winograd._without(model, 0.5, second) > random + 0.1
    assert lr_winograd._accuracy(compact(model), second) == lr_winograd._accuracy(model, second)


def test_the_comparison_is_fair_and_repeatable():
    one, other = (compare(2, train=48, test=40, epochs=1, draws=1) for _ in range(2))
    assert one == other and set(one["arms"]) == {"vanilla", "low rank"} and one["packed"] < 1e-4
    assert all(set(arm["kept"]) == set(arm["random"]) == {0.25, 0.5} for arm in one["arms"].values())


def test_the_race_compares_results(monkeypatch):
    found = lr_winograd.race(0, channels=8, size=(4, 5, 6), repeats=1)
    assert found["peer"] == min(found["peers"].values()) > 0 and set(found["ours"]) == {0, 0.5}
    real = lr_winograd.kernel.conv3d
    monkeypatch.setattr(lr_winograd.kernel, "conv3d", lambda *a, **k: real(*a, **k) + np.float32(0.1))
    with pytest.raises(ValueError, match="no time is quoted"):
        lr_winograd.race(0, channels=8, size=(4, 5, 6), repeats=1)


def test_the_timed_layers_are_one_layer_with_and_without_columns():
    whole, fewer = lr_winograd.tuned_layers(0, width=6, train=24, epochs=1, tuning=1)
    assert len(whole.place) == 64 and len(fewer.place) == 32 and whole.U.shape[1:] == fewer.U.shape[1:] == (6, 6)
    times = lr_winograd.pair_of_times((whole, fewer), 2, (4, 4, 4))
    assert [len(side) for side in times] == [2, 2] and min(times[0] + times[1]) > 0


# --- recipes ---------------------------------------------------------------------------------------------------------


def test_recipes_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {claim.recipe.split("--config ")[1] for claim in card("lr-winograd").claims if claim.kind == "full"}
    assert names <= set(RECIPES)
    with pytest.raises(ValueError, match="give their folder with --data"):
        run_recipe(RECIPES["c3d-ucf101"](), tmp_path / "run")
    with pytest.raises(ValueError, match="papernets train lr-winograd --config c3d-spatial-ucf101"):
        RECIPES["c3d-ucf101"]().build()
    with pytest.raises(ValueError, match="is not there"):
        run_recipe(RECIPES["c3d-ucf101"](), tmp_path / "run", data=tmp_path)


def test_a_recipe_loses_its_columns_over_half_of_the_run():
    recipe = RECIPES["c3d-half-ucf101"]()
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    left = []
    for epoch in range(recipe.epochs):
        recipe.before_epoch(model, epoch, recipe.epochs)
        left.append(int(model.body[0].kept.sum()))
    assert left[0] == 64 and left[20:] == [32] * 20 and left == sorted(left, reverse=True) and left[5] < 55


def test_clips_are_read_from_a_folder(tmp_path):
    for name, shade in (("b", 255), ("a", 0)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "clip.npy", np.full((18, 113, 120, 3), shade, np.uint8))
    found = ClipFolder(tmp_path, False)
    clip, label = found[1]
    assert found.classes == ("a", "b") and len(found) == 2 and label == 1
    assert clip.shape == (3, 16, 112, 112) and float(clip.min()) == 1
    np.save(tmp_path / "a" / "clip.npy", np.zeros((9, 113, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="a clip is uint8 of at least"):
        found[0]
