"""Dynamic-coded filter fusion: the formulas, the layer, the verbs, the published counts and the published behaviour."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from papernets.cards import card
from papernets.data import digits
from papernets.measure import count, parameters
from papernets.nn import GOOGLENET_WIDTHS, VGG, VGG16_WIDTHS, ConvNet, GoogLeNet, ResNetCIFAR
from papernets.papers import dcff
from papernets.papers.dcff import (
    ARMS,
    DCFF,
    NETWORKS,
    RECIPES,
    FusedConv2d,
    compact,
    compare,
    distances,
    fuse,
    fuse_,
    fuse_narrow_,
    importance,
    importance_of_code,
    keep_largest,
    kept_width,
    log_proxy,
    network,
    places,
    proxy,
    refresh_,
    select,
    temperature,
    trial,
)
from papernets.training import cosine, fit, loader, seed_everything

ONE_HOT = DCFF(T_s=1e7, T_e=1e7)  # a temperature at which every blend is a selection, from the first epoch on


pytestmark = pytest.mark.usefixtures("one_thread")


# --- slow oracles, in plain Python -----------------------------------------------------------------------------------


def slow_distances(filters):
    return [[math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other))) for other in filters] for one in filters]


def slow_log_proxy(D, T):
    rows = []
    for row in D:
        total = sum(math.exp(-T * d) for d in row)  # at least 1: the distance to itself is 0
        rows.append([-T * d - math.log(total) for d in row])
    return rows


def slow_importance(D, T):
    log_p, C = slow_log_proxy(D, T), len(D)
    scores = []
    for j in range(C):
        score = 0.0
        for k in range(C):
            for g in range(C):
                score += math.exp(log_p[j][g]) * (log_p[j][g] - log_p[k][g]) / C
        scores.append(score)
    return scores


def slow_fuse(filters, phi):
    width = len(filters[0])
    return [[sum(row[j] * filters[j][i] for j in range(len(filters))) for i in range(width)] for row in phi]


def wide(C=7, c=3, k=3, seed=0, bias=True, m=3, dtype=torch.float32):
    """A fused layer of odd sizes."""
    torch.manual_seed(seed)
    return FusedConv2d(nn.Conv2d(c, m, k, padding=k // 2, bias=bias, dtype=dtype), C)


# --- the hand example ------------------------------------------------------------------------------------------------

HAND = torch.tensor([0.0, 1.0, 3.0]).view(3, 1, 1, 1)
HAND_P = torch.tensor([[0.705385, 0.259496, 0.035119], [0.244728, 0.665241, 0.090031], [0.042010, 0.114195, 0.843795]],
                      dtype=torch.float64)


def test_hand_example():
    D = distances(HAND)
    assert D.dtype == torch.float64
    assert D.tolist() == [[0, 1, 3], [1, 0, 2], [3, 2, 0]]
    torch.testing.assert_close(proxy(D, 1.0), HAND_P, atol=1e-6, rtol=0)
    I = importance(D, 1.0)
    torch.testing.assert_close(I, torch.tensor([0.853496, 0.618022, 1.361088], dtype=torch.float64), atol=1e-6, rtol=0)
    assert select(I, 2).tolist() == [0, 2]
    assert select(I, 1).tolist() == [2]
    W = fuse(HAND.double(), proxy(D, 1.0))
    assert W.shape == (3, 1, 1, 1)
    assert W.flatten().tolist() == pytest.approx([0.364854, 0.935333, 2.645579], abs=1e-6)


def test_hand_example_as_the_code_computes_it():
    found = importance_of_code(distances(HAND, torch.float32), 1.0)
    assert found.tolist() == pytest.approx([0.853496, 0.618022, 1.361087], abs=2e-6)


def test_hand_example_at_high_temperature():
    D = distances(HAND)
    torch.testing.assert_close(proxy(D, 50.0), torch.eye(3, dtype=torch.float64), atol=1e-15, rtol=0)
    I = importance(D, 50.0)
    assert I.tolist() == pytest.approx([66.6667, 50, 83.3333], abs=1e-4)
    torch.testing.assert_close(I, 50 / 3 * D.sum(1), atol=1e-9, rtol=0)


# --- functions against the oracles -----------------------------------------------------------------------------------

ODD = st.sampled_from([1, 2, 3, 5, 7, 11, 13])
TEMPERATURES = st.sampled_from([0.0, 0.37, 1.0, 7.0, 167.65, 4621.709455, 1e4])


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(C=ODD, c=st.sampled_from([1, 3, 5]), k=st.sampled_from([1, 3]), T=TEMPERATURES, seed=st.integers(0, 999),
       scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_functions_match_the_triple_loop(C, c, k, T, seed, scale):
    W = torch.from_numpy(np.random.default_rng(seed).normal(0, scale, (C, c, k, k)))
    filters = W.flatten(1).tolist()
    D = distances(W)
    slow = slow_distances(filters)
    np.testing.assert_allclose(D, slow, rtol=1e-12, atol=1e-12 * scale)
    np.testing.assert_allclose(log_proxy(D, T), slow_log_proxy(slow, T), rtol=1e-9, atol=1e-9)
    P = proxy(D, T)
    np.testing.assert_allclose(P.sum(1), np.ones(C), rtol=1e-12)
    assert (P.diagonal() == P.max(1).values).all()
    scores = importance(D, T)
    oracle = slow_importance(slow, T)
    np.testing.assert_allclose(scores, oracle, rtol=1e-9, atol=1e-9)
    m = 1 + seed % C
    kept = select(scores, m)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert len(kept) == m
    margin = 1e-6 + 1e-8 * max(map(abs, oracle))
    assert min(oracle[j] for j in kept) > max((oracle[j] for j in set(range(C)) - set(kept.tolist())),
                                              default=-math.inf) - margin
    fused = fuse(W, P[kept])
    np.testing.assert_allclose(fused.flatten(1), slow_fuse(filters, P[kept].tolist()), rtol=1e-9, atol=1e-11 * scale)
    # convex: every fused weight lies between the least and the greatest filter at its place
    slack = 1e-12 * scale
    assert (fused >= W.amin(0) - slack).all()
    assert (fused <= W.amax(0) + slack).all()


@settings(max_examples=25, deadline=None, database=None, derandomize=True)
@given(C=ODD, seed=st.integers(0, 999), T=TEMPERATURES)
def test_permuting_filters_permutes_everything(C, seed, T):
    rng = np.random.default_rng(seed)
    W, order = torch.from_numpy(rng.normal(size=(C, 3, 3, 3))), torch.from_numpy(rng.permutation(C))
    D, E = distances(W), distances(W[order])
    torch.testing.assert_close(E, D[order][:, order])
    torch.testing.assert_close(proxy(E, T), proxy(D, T)[order][:, order])
    torch.testing.assert_close(importance(E, T), importance(D, T)[order])


@pytest.mark.parametrize("C", [1, 3, 7, 13])
def test_limits_of_the_temperature(C):
    D = distances(torch.randn(C, 3, 3, 3, dtype=torch.float64))
    torch.testing.assert_close(proxy(D, 0.0), torch.full((C, C), 1 / C, dtype=torch.float64))
    torch.testing.assert_close(importance(D, 0.0), torch.zeros(C, dtype=torch.float64))
    assert torch.equal(proxy(D, 1e6), torch.eye(C, dtype=torch.float64))
    I = importance(D, 1e6)
    assert torch.isfinite(I).all()
    torch.testing.assert_close(I, 1e6 / C * D.sum(1), rtol=1e-12, atol=0)
    assert torch.isfinite(log_proxy(D, 1e300)).all()


def test_small_distances_survive():
    """A Gram matrix in float32 loses what explicit differences in float64 keep."""
    W = torch.ones(3, 5, 3, 3) * 100
    W[1, 2, 1, 1] += 1e-3
    step = float(W[1, 2, 1, 1]) - 100
    D = distances(W)
    assert D[0, 1].item() == pytest.approx(step, rel=1e-9)
    assert D[0, 2] == 0
    assert D[0, 0] == 0


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor that any operation makes."""

    size = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for value in made if isinstance(made, tuple | list) else [made]:
            if isinstance(value, torch.Tensor):
                self.size = max(self.size, value.numel())
        return made


def test_importance_needs_no_cubic_memory():
    """With 512 filters C³ numbers would be a gigabyte."""
    D = distances(torch.randn(31, 5))
    with Largest() as seen:
        importance(D, 3.0)
    assert seen.size == 31**2


def test_identical_filters_tie_by_index():
    W = torch.randn(5, 3, 3, 3)[[0, 1, 2, 1, 3, 1, 4]]  # filters 1, 3 and 5 are one
    D = distances(W)
    assert D[1, 3] == D[3, 5] == 0
    I = importance(D, 1.0)
    torch.testing.assert_close(proxy(D, 1.0)[1], proxy(D, 1.0)[3], rtol=0, atol=0)
    assert I[1] == I[3] == I[5]
    for m in range(1, 8):
        kept = set(select(I, m).tolist())
        assert (5 in kept) <= (3 in kept) <= (1 in kept)
    same = torch.randn(1, 3, 3, 3).expand(7, 3, 3, 3)
    assert select(importance(distances(same), 1.0), 3).tolist() == [0, 1, 2]


def test_one_filter_is_kept_as_it_is():
    layer = wide(C=1, m=1)
    assert layer.kept.tolist() == [0]
    assert layer.phi.tolist() == [[1.0]]
    assert layer.score.tolist() == [0.0]
    torch.testing.assert_close(layer.fused()[0], layer.weight)


@pytest.mark.parametrize(("I", "m", "kept"), [
    ([3, 1, 2], 2, [0, 2]), ([1, 1, 1, 1], 2, [0, 1]), ([1, 5, 5, 9], 2, [1, 3]), ([2.0], 1, [0])])
def test_select(I, m, kept):
    assert select(torch.tensor(I), m).tolist() == kept


@pytest.mark.parametrize("m", [0, -1, 4])
def test_select_refuses(m):
    with pytest.raises(ValueError, match=f"cannot keep {m} of 3 filters; choose from 1 to 3"):
        select(torch.tensor([1.0, 2.0, 3.0]), m)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    W = torch.randn(5, 3, 3, 3)
    W[3, 1, 2, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        distances(W)


@pytest.mark.parametrize("T", [-1.0, -1e-9, math.inf, math.nan])
def test_wrong_temperatures_are_refused(T):
    with pytest.raises(ValueError, match="temperature"):
        proxy(distances(HAND), T)


# --- the schedule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epochs", [1, 7, 20, 90, 180, 300])
@pytest.mark.parametrize("growth", [1.0, "slow"])
def test_schedule_starts_and_ends_where_it_says(epochs, growth):
    config = DCFF(growth=growth)
    assert config.temperature(0, epochs) == pytest.approx(1, abs=1e-8)
    assert config.temperature(epochs, epochs) == pytest.approx(1e4, rel=1e-12)
    values = [config.temperature(epoch, epochs) for epoch in np.linspace(0, epochs, 31)]
    assert values == sorted(values)


def test_schedule_of_the_code():
    found = [temperature(epoch, 300) for epoch in (0, 1, 2, 3, 5, 10)]
    assert found == pytest.approx([1, 4621.709455, 7616.18, 9051.58, 9866.16, 9999.09], abs=5e-3)
    assert temperature(1, 300) == pytest.approx(4621.709455, abs=1e-6)


def test_slow_schedule():
    found = [DCFF(growth="slow").temperature(epoch, 300) for epoch in (0, 1, 30, 150, 300)]
    assert found == pytest.approx([1, 167.65, 4622.1, 9867.1, 10000], abs=0.06)


@pytest.mark.parametrize(("epoch", "epochs"), [(-1, 10), (10.5, 10), (0, 0), (0, -3), (math.nan, 10), (0, math.nan)])
def test_schedule_refuses(epoch, epochs):
    with pytest.raises(ValueError, match="epoch"):
        temperature(epoch, epochs)


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
    {"rate": 1}, {"rate": 1.0}, {"rate": -0.1}, {"rate": math.nan}, {"rate": {"a": 1}}])
def test_configuration_refuses(options):
    with pytest.raises(ValueError, match=r"temperatures|growth|rate"):
        DCFF(**options)


def test_configuration_is_frozen():
    with pytest.raises(AttributeError):
        DCFF().rate = 0.3


def test_infinite_growth_is_refused():
    """Its schedule would be NaN at the first epoch."""
    with pytest.raises(ValueError, match="growth"):
        DCFF(growth=math.inf)


# --- places ----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 13), st.randoms(use_true_random=False))
def test_a_filter_that_stays_keeps_its_place(m, random):
    before, S = random.sample(range(17), m), sorted(random.sample(range(17), m))
    after = places(torch.tensor(before), torch.tensor(S)).tolist()
    assert sorted(after) == S
    assert all(new == old for new, old in zip(after, before) if old in S)
    newcomers = [new for new in after if new not in before]
    assert newcomers == sorted(newcomers)


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


# --- the floor -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("C", "rate", "plain", "guarded"), [
    (160, 0.8, 31, 32), (160, 0.9, 15, 16), (64, 0.5, 32, 32), (128, 0.4, 76, 76), (256, 0.35, 166, 166),
    (512, 0.85, 76, 76), (7, 0.0, 7, 7), (7, 0.5, 3, 3), (1, 0.0, 1, 1)])
def test_kept_width(C, rate, plain, guarded):
    assert kept_width(C, rate) == plain == math.floor(C * (1 - rate))
    assert kept_width(C, rate, guarded=True) == guarded


def test_ten_filters_at_nine_tenths():
    with pytest.raises(ValueError, match="rate leaves no filter"):
        kept_width(10, 0.9)
    assert kept_width(10, 0.9, guarded=True) == 1


@pytest.mark.parametrize("rate", [1, 1.0, 1.5, -0.1, math.nan])
def test_kept_width_refuses_rates_outside(rate):
    with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
        kept_width(7, rate)


@pytest.mark.parametrize("C", [2, 3, 7, 10, 13, 97])
@pytest.mark.parametrize("rate", [1.0, 0.9999])
def test_the_rate_a_refusal_advises_is_accepted(C, rate):
    with pytest.raises(ValueError, match="filter") as caught:
        kept_width(C, rate)
    advised = float(re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", str(caught.value))[-1])
    assert kept_width(C, advised) >= 1


# --- the layer -------------------------------------------------------------------------------------------------------


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
    torch.testing.assert_close(y, F.conv2d(x, weight, offset, padding=1), rtol=1e-5, atol=1e-5)
    assert (W.amin(0) - 1e-6 <= layer.fused()[0]).all()
    assert (layer.fused()[0] <= W.amax(0) + 1e-6).all()
    np.testing.assert_allclose(phi.sum(1), np.ones(5), rtol=1e-6)


def test_stride_dilation_and_padding_are_the_convolutions():
    narrow = nn.Conv2d(3, 5, (3, 1), stride=(2, 1), padding=(2, 0), dilation=(2, 1))
    layer, x = FusedConv2d(narrow, 11), torch.randn(2, 3, 13, 7)
    assert layer(x).shape == narrow(x).shape
    torch.testing.assert_close(layer.to_conv()(x), layer(x))
    assert layer.to_conv().dilation == (2, 1)


@pytest.mark.parametrize("T", [1.0, 1e7])
def test_gradient_is_the_transposed_blend(T):
    layer = wide(C=11, c=3, m=4, dtype=torch.float64)
    layer.refresh(T)
    x = torch.randn(2, 3, 7, 5, dtype=torch.float64)
    pull = torch.randn(2, 4, 7, 5, dtype=torch.float64)
    (layer(x) * pull).sum().backward()
    weight, bias = (value.detach().requires_grad_() for value in layer.fused())
    (F.conv2d(x, weight, bias, padding=1) * pull).sum().backward()
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


def test_layer_refuses():
    with pytest.raises(ValueError, match="3 groups"):
        FusedConv2d(nn.Conv2d(3, 6, 3, groups=3), 12)
    with pytest.raises(ValueError, match="6 groups"):
        FusedConv2d(nn.Conv2d(6, 6, 3, groups=6), 12)
    with pytest.raises(ValueError, match="full must be at least 5"):
        FusedConv2d(nn.Conv2d(3, 5, 3), 4)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_padding_is_refused_before_anything_is_built(mode):
    model = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1, padding_mode=mode), nn.ReLU(), nn.Conv2d(7, 5, 1),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    before = snapshot(model)
    with pytest.raises(ValueError, match="padding"):
        fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9))
    same(model, before)


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


# --- what the published code does ------------------------------------------------------------------------------------

VGG_LAYERS = [(64, 3), (64, 32), (128, 76), (256, 166), (512, 76)]


@pytest.mark.parametrize(("C", "c"), VGG_LAYERS)
def test_scores_of_the_code_are_nan_at_the_second_epoch(C, c):
    W = nn.Conv2d(c, C, 3).weight
    D = distances(W, torch.float32)
    assert 0.75 < D[D > 0].mean() < 0.9
    T = temperature(1, 300)
    assert torch.isnan(importance_of_code(D, T)).all()
    assert torch.equal(proxy(D, T), torch.eye(C))
    assert torch.isfinite(importance(distances(W), T)).all()


@pytest.mark.parametrize(("C", "c"), VGG_LAYERS)
def test_scores_of_the_code_agree_at_the_first_epoch(C, c):
    """Without its epsilon to 1e-6; with it they differ by what the epsilon does, Σ_g P_jg mean_k log(1 + ε/P_kg)."""
    W = nn.Conv2d(c, C, 3).weight
    D = distances(W)
    stable = importance(D, 1.0)
    plain = importance_of_code(D.float(), 1.0, eps=0.0).double()
    torch.testing.assert_close(plain, stable, rtol=0, atol=1e-6)
    P = proxy(D, 1.0)
    shift = (P * torch.log1p(1e-7 / P).mean(0)).sum(1)
    torch.testing.assert_close(importance_of_code(D.float(), 1.0).double() + shift, stable, rtol=0, atol=1e-6)


def test_the_code_keeps_the_score_of_epoch_zero():
    torch.manual_seed(1)
    model = VGG([32, 32, 76, 76, *[5] * 9])
    names = ["features.0", "features.3", "features.7", "features.10"]
    fuse_narrow_(model, dict(zip(names, (64, 64, 128, 128))), DCFF(stable=False))
    layers = [model.get_submodule(name) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refresh_(model, 0, 300) == pytest.approx(1)
    scores, kept = [layer.score.clone() for layer in layers], [layer.kept.clone() for layer in layers]
    assert all(score.abs().sum() > 0 for score in scores)
    for layer in layers:  # training moves the weights
        with torch.no_grad():
            layer.weight.add_(0.01 * torch.randn_like(layer.weight))
    for epoch in (1, 2, 299):
        with pytest.warns(RuntimeWarning, match="importance is not finite") as caught:
            T = refresh_(model, epoch, 300)
        assert len(caught) == 1
        assert "4 of 4 layers" in str(caught[0].message)
        assert T == temperature(epoch, 300)
        for layer, score, S in zip(layers, scores, kept):
            assert torch.equal(layer.score, score)
            assert torch.equal(layer.kept, S)
            assert torch.equal(layer.phi, torch.eye(layer.phi.shape[1])[S])  # the blend itself is not stale


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


# --- the verbs -------------------------------------------------------------------------------------------------------


def snapshot(model):
    return ([(name, type(module), module.training, repr(module)) for name, module in model.named_modules()],
            {key: value.clone() for key, value in model.state_dict().items()},
            {name: p.requires_grad for name, p in model.named_parameters()}, list(map(id, model.parameters())))


def same(model, before):
    after = snapshot(model)
    assert after[0] == before[0]
    assert list(after[1]) == list(before[1])
    for key, value in after[1].items():
        torch.testing.assert_close(value, before[1][key], rtol=0, atol=0, equal_nan=True)
    assert after[2:] == before[2:]


class Residual(nn.Module):
    """A stem and one block; ``b`` and ``short`` are added."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 11, 3, padding=1), nn.BatchNorm2d(11)
        self.a, self.bn_a = nn.Conv2d(11, 14, 3, 2, 1, bias=False), nn.BatchNorm2d(14)
        self.b, self.bn_b = nn.Conv2d(14, 10, 3, 1, 1), nn.BatchNorm2d(10)
        self.short = nn.Conv2d(11, 10, 1, 2)
        self.fc = nn.Linear(10, 5)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        y = self.bn_b(self.b(self.bn_a(self.a(x)).relu())) + self.short(x)
        return self.fc(y.relu().mean((2, 3)))


def mobile():
    return nn.Sequential(nn.Conv2d(3, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU6(),
                         nn.Conv2d(10, 10, 3, padding=1, groups=10), nn.BatchNorm2d(10), nn.ReLU6(),
                         nn.Conv2d(10, 6, 1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 9, 3, padding=1)
        self.bn, self.last, self.fc = nn.BatchNorm2d(15), nn.Conv2d(15, 7, 3), nn.Linear(7, 5)

    def forward(self, x):
        x = self.bn(torch.cat([self.one(x), self.three(x)], 1)).relu()
        return self.fc(self.last(x).relu().mean((2, 3)))


def small_googlenet():
    return GoogLeNet(dict.fromkeys(GOOGLENET_WIDTHS, (4, 5, 6, 3, 4, 5, 3)), classes=5)


A3 = [f"a3.branch{branch}" for branch in ("1.0", "2.0", "2.3", "3.0", "3.3", "3.6", "4.1")]
CASES = {
    "plain": (lambda: ConvNet((7, 11, 13), 5), 0.5, (9, 7),
              {"features.0": (3, 7), "features.4": (5, 11), "features.8": (6, 13)}),
    "residual": (Residual, 0.5, (9, 7), {"stem": (5, 11), "a": (7, 14), "b": (5, 10), "short": (5, 10)}),
    "two rates": (Residual, {"stem": 0.0, "a": 0.7, "b": 0.4, "short": 0.4}, (9, 7),
                  {"stem": (11, 11), "a": (4, 14), "b": (6, 10), "short": (6, 10)}),
    "cifar": (lambda: ResNetCIFAR(8, classes=5), {f"blocks.{i}.conv1": rate for i, rate in enumerate((0.5, 0.7, 0.2))},
              (16, 16), {"blocks.0.conv1": (8, 16), "blocks.1.conv1": (9, 32), "blocks.2.conv1": (51, 64)}),
    "depthwise": (mobile, 0.5, (9, 7), {"0": (5, 10), "6": (3, 6)}),
    "concatenated": (Concatenated, {"one": 0.5, "three": 0.7, "last": 0.3}, (9, 7),
                     {"one": (3, 6), "three": (2, 9), "last": (4, 7)}),
    "googlenet": (small_googlenet, dict.fromkeys(A3, 0.5), (32, 32),
                  dict(zip(A3, [(2, 4), (2, 5), (3, 6), (1, 3), (2, 4), (2, 5), (1, 3)]))),
}


@pytest.mark.parametrize("case", CASES)
def test_fuse(case):
    build, rate, size, expected = CASES[case]
    model = build().eval()
    x = torch.randn(3, 3, *size)
    fuse_(model, DCFF(rate=rate), x[:1])
    found = {name: (len(m.phi), len(m.weight)) for name, m in model.named_modules() if isinstance(m, FusedConv2d)}
    assert found == expected
    assert model(x).shape == (3, 5)
    # one step of training, so that nothing is at its first value
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    F.cross_entropy(model(x), torch.tensor([0, 3, 1])).backward()
    assert all(m.weight.grad.abs().sum() > 0 for m in model.modules() if isinstance(m, FusedConv2d))
    optimizer.step()
    model.eval()
    exported = compact(model)
    assert (exported(x) - model(x)).abs().max() < 1e-5
    ordinary = ("torch.nn", "papernets.nn", __name__)
    assert all(type(m).__module__.startswith(ordinary) for m in exported.modules())
    assert any(isinstance(m, FusedConv2d) for m in model.modules())  # the fused network itself is left as it is
    for name, (m, _) in expected.items():
        conv = exported.get_submodule(name)
        assert type(conv) is nn.Conv2d
        assert conv.out_channels == len(conv.weight) == m
    for convention in ("mac", "thop"):
        ours, theirs = count(model, x[:1], convention), count(exported, x[:1], convention)
        assert {name: cost.macs for name, cost in ours.items()} == {name: cost.macs for name, cost in theirs.items()}


def test_fuse_narrows_every_googlenet_branch():
    model = small_googlenet().eval()
    fuse_(model, DCFF(rate=0.4), torch.zeros(1, 3, 32, 32))
    layers = [m for m in model.modules() if isinstance(m, FusedConv2d)]
    assert len(layers) == 64
    assert not any(type(m) is nn.Conv2d for m in model.modules())
    assert [len(m.phi) for m in layers] == [kept_width(len(m.weight), 0.4) for m in layers]
    x = torch.randn(2, 3, 32, 32)
    assert (compact(model)(x) - model(x)).abs().max() < 1e-5


def test_depthwise_follows_its_input():
    model = mobile()
    fuse_(model, DCFF(rate=0.7), torch.zeros(1, 3, 9, 7))
    assert type(model[3]) is nn.Conv2d
    assert model[3].groups == model[3].in_channels == model[3].out_channels == 3
    assert model[4].num_features == 3


def test_widths_are_rounded_and_layers_are_filtered():
    model, x = ConvNet((12, 20, 30), channels=1), torch.zeros(1, 1, 9, 9)
    fuse_(model, DCFF(rate=0.4, round_to=8, filter_fn=lambda name, module: name != "features.4"), x)
    assert [len(model.get_submodule(name).phi) for name in ("features.0", "features.8")] == [8, 16]  # 7.2 and 18
    assert type(model.features[4]) is nn.Conv2d and model.features[4].weight.shape[:2] == (20, 8)
    small = ConvNet((5, 7), channels=1)
    fuse_(small, DCFF(rate=0.5, round_to=8), x)
    assert [len(small.features[at].phi) for at in (0, 4)] == [5, 7]  # fewer than 8: all stay
    with pytest.raises(ValueError, match="round_to is 0"):
        DCFF(round_to=0)
    with pytest.raises(ValueError, match="no Conv2d of this network is left"):
        fuse_(ConvNet((5, 7), channels=1), DCFF(filter_fn=lambda name, module: False), x)


def test_ignored_layers_keep_their_weights():
    model = ConvNet((7, 11, 13), 5)
    first = model.features[0].weight.clone()
    fuse_(model, DCFF(rate=0.5, ignore=("features.0",)), torch.zeros(1, 3, 9, 9))
    assert torch.equal(model.features[0].weight, first)
    assert type(model.features[0]) is nn.Conv2d
    assert len(model.features[4].phi) == 5


def test_guarded_reaches_the_layers():
    model = ConvNet((10, 160), 5)
    fuse_(model, DCFF(rate=0.9, guarded=True), torch.zeros(1, 3, 9, 9))
    assert [len(m.phi) for m in model.modules() if isinstance(m, FusedConv2d)] == [1, 16]


def test_fuse_keeps_the_type_of_the_weights_and_the_class_of_the_model():
    model = ConvNet((7, 11), 5).double()
    fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9, dtype=torch.float64))
    assert type(model) is ConvNet
    assert model.features[0].phi.dtype == torch.float64
    assert model(torch.zeros(2, 3, 9, 9, dtype=torch.float64)).shape == (2, 5)
    assert (compact(model.eval())(x := torch.randn(2, 3, 9, 9).double()) - model(x)).abs().max() < 1e-12


def grouped():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def bare():
    """Its output is that of its last convolution."""
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3))


@pytest.mark.parametrize(("build", "config", "says"), [
    (Residual, DCFF(rate={"stem": 0.5, "a": 0.5, "b": 0.5, "short": 0.2}), r"b and short are added together.*5 and 8"),
    (Residual, DCFF(rate={"stem": 0.5, "b": 0.5}), r"b and short are added together.*5 and 10"),
    (Residual, DCFF(rate=0.5, ignore=("short",)), r"b and short are added together"),
    (lambda: ResNetCIFAR(8), DCFF(rate=0.5), "added together"),
    (Residual, DCFF(rate={"stem": 0.5, "steam": 0.5}), r"'steam' is no convolution.*choose from stem, a, b, short"),
    (Residual, DCFF(rate={"fc": 0.5}), "'fc' is no convolution"),
    (Residual, DCFF(ignore=("nothing",)), "ignore names 'nothing'"),
    (mobile, DCFF(rate={"0": 0.5, "3": 0.5}), "3 has 10 groups"),
    (grouped, DCFF(rate={"2": 0.5}), "2 has 2 groups"),
    (bare, DCFF(rate=0.5), "outputs would lose channels"),
    (lambda: ConvNet((10, 7)), DCFF(rate=0.9), "rate leaves no filter: 10 filters"),
    (lambda: ConvNet((7, 10)), DCFF(rate={"features.0": 0.1, "features.4": 0.9}), "rate leaves no filter: 10 filters"),
])
def test_fuse_refuses_and_leaves_the_model_as_it_was(build, config, says):
    model = build()
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(ValueError, match=says):
        fuse_(model, config, torch.zeros(1, 3, 16, 16))
    same(model, before)


def test_fuse_needs_an_example():
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"example is missing; .*torch.zeros"):
        fuse_(model, DCFF())
    same(model, before)


def test_an_example_that_does_not_fit_leaves_the_model_as_it_was():
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        fuse_(model, DCFF(), torch.zeros(1, 5, 9, 9))
    same(model, before)


@pytest.mark.parametrize(("full", "says"), [({"features.0": 11, "nothing": 5}, "'nothing' is no convolution"),
                                            ({"features.0": 11, "classifier": 5}, "'classifier' is no convolution"),
                                            ({"features.0": 11, "features.4": 10}, "full must be at least 11")])
def test_fuse_narrow_refuses_and_leaves_the_model_as_it_was(full, says):
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(ValueError, match=says):
        fuse_narrow_(model, full)
    same(model, before)


def test_refresh_without_a_fused_layer_is_refused():
    with pytest.raises(ValueError, match="call fuse_ first"):
        refresh_(ConvNet((7, 11)), 0, 10)


def test_refresh_refuses_epochs_outside():
    model = ConvNet((7, 11))
    fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9))
    before = snapshot(model)
    with pytest.raises(ValueError, match="epoch 11 is outside 0 to 10"):
        refresh_(model, 11, 10)
    same(model, before)


def test_refresh_reaches_every_layer():
    model = ConvNet((7, 11, 13))
    fuse_(model, DCFF(growth="slow"), torch.zeros(1, 3, 9, 9))
    T = refresh_(model, 3, 10)
    assert T == DCFF(growth="slow").temperature(3, 10) == temperature(3, 10, growth=1.0)
    for layer in (m for m in model.modules() if isinstance(m, FusedConv2d)):
        D = distances(layer.weight)
        torch.testing.assert_close(layer.phi, proxy(D, T)[layer.kept].float())
        torch.testing.assert_close(layer.score, importance(D, T))


@pytest.mark.parametrize("random", [False, True])
def test_state_dict_round_trip(random):
    config = DCFF(rate=0.6, random=random)
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


def test_compact_of_a_single_layer():
    layer = wide(C=11, m=5)
    conv = compact(layer)
    assert type(conv) is nn.Conv2d
    x = torch.randn(2, 3, 7, 5)
    torch.testing.assert_close(conv(x), layer(x), rtol=0, atol=1e-6)
    with torch.no_grad():
        conv.weight.zero_()
    assert layer(x).abs().sum() > 1  # a copy


@pytest.mark.parametrize("rate", [0.0, 0.37, 0.5])
def test_parameters_of_the_export_by_formula(rate):
    widths, classes = (13, 17, 29), 7
    model = ConvNet(widths, classes, channels=5)
    fuse_(model, DCFF(rate=rate), torch.zeros(1, 5, 9, 9))
    m = [math.floor(C * (1 - rate)) for C in widths]
    expected = sum(9 * a * b + 2 * b for a, b in zip([5, *m], m)) + m[-1] * classes + classes
    assert parameters(compact(model)) == expected


def test_parameters_of_the_vgg_export_by_formula():
    m = [32, 32, 76, 76, 166, 166, 166, *[76] * 6]
    assert [kept_width(C, r) for C, r in zip(VGG16_WIDTHS, [0.5] * 2 + [0.4] * 2 + [0.35] * 3 + [0.85] * 6)] == m
    assert sum(9 * a * b + 3 * b for a, b in zip([3, *m], m)) + 76 * 10 + 10 == 1071248
    with torch.device("meta"):
        assert parameters(VGG(m)) == 1071248


# --- the published counts --------------------------------------------------------------------------------------------

#: MACs without pooling and with it (thop's convention), parameters: of the narrow network, then of the dense one.
COUNTS = {
    "vgg16": (72_771_880, 72_772_032, 1_071_248, 314_031_104, 314_032_128, 14_728_266),
    "resnet56": (55_831_680, 55_835_840, 384_316, 126_550_656, 126_554_816, 853_018),
    "resnet110": (85_295_488, 85_297_568, 555_368, 254_984_832, 254_988_992, 1_727_962),
    "googlenet": (457_214_400, 457_223_616, 2_079_250, 1_529_420_800, 1_529_430_016, 6_166_250),
    "resnet50-b": (1_490_503_882, 1_490_585_782, 10_581_581, 4_111_412_224, 4_111_514_624, 25_557_032),
}
#: Per cent of MACs (pooling left out) and of parameters removed.
CUTS = {"vgg16": (76.83, 92.73), "resnet56": (55.88, 54.95), "resnet110": (66.55, 67.86), "googlenet": (70.105, 66.28),
        "resnet50-a": (76.697, 71.032), "resnet50-b": (63.75, 58.596), "resnet50-c": (45.304, 40.668),
        "resnet50-d": (62.958, 56.774), "resnet50-e": (66.413, 53.774), "resnet50-f": (75.112, 74.329)}


def cost(model, example):
    """MACs without and with the pooling layers, and parameters."""
    layers, modules = count(model, example, "thop"), dict(model.named_modules())
    pooled = sum(layer.macs for name, layer in layers.items() if "Pool" in type(modules[name]).__name__)
    total = sum(layer.macs for layer in layers.values())
    return total - pooled, total, parameters(model)


def costs(name):
    with torch.device("meta"):
        chosen = network(name)
        example = torch.zeros(chosen.example)
        return cost(chosen.narrow(), example) + cost(chosen.dense(), example)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_to_the_last_digit(name):
    assert costs(name) == COUNTS[name]


@pytest.mark.parametrize("name", CUTS)
def test_cuts(name):
    plain, _, stored, dense, _, dense_stored = costs(name)
    found = 100 * (1 - plain / dense), 100 * (1 - stored / dense_stored)
    for value, stated in zip(found, CUTS[name]):
        digits_given = len(str(stated).partition(".")[2])
        assert round(value, digits_given) == stated


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_module(name):
    """The module's own function counts the pooling layers in, as the profiler does."""
    _, macs, stored, _, dense, dense_stored = COUNTS[name]
    found = dcff.counts(name)
    assert (found["macs"], found["params"]) == (macs, stored)
    assert found["macs_cut"] == pytest.approx(100 * (dense - macs) / dense, rel=1e-12)
    assert found["params_cut"] == pytest.approx(100 * (dense_stored - stored) / dense_stored, rel=1e-12)


def test_printed_counts_of_the_resnets():
    printed = {"a": (0.96e9, 7.40e6), "b": (1.49e9, 10.58e6), "c": (2.25e9, 15.16e6), "d": (1.52e9, 11.05e6),
               "e": (1.38e9, 11.81e6), "f": (1.02e9, 6.56e6)}
    for key, (macs, stored) in printed.items():
        found = costs(f"resnet50-{key}")
        assert found[0] == pytest.approx(macs, abs=5e6)
        assert found[2] == pytest.approx(stored, abs=5e3)


def test_pinned_claims_of_the_card_are_these_counts():
    claims = {claim.id: claim for claim in card("dcff").claims}
    for name, prefix in (("vgg16", "vgg16"), ("resnet56", "r56"), ("resnet110", "r110"), ("googlenet", "googlenet"),
                         ("resnet50-b", "r50.b")):
        _, with_pooling, stored, _, dense, dense_stored = costs(name)
        assert claims[f"{prefix}.macs"].ours == with_pooling
        assert claims[f"{prefix}.params"].ours in (stored, None)
        claim = claims[f"{prefix}.macs_cut"]
        cut = 100 * (1 - with_pooling / dense)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)
        claim = claims[f"{prefix}.params_cut"]
        cut = 100 * (1 - stored / dense_stored)
        assert math.isclose(claim.ours, cut, rel_tol=1e-12) if claim.ours else claim.accept.allows(cut, claim.paper)


def test_widths_of_the_googlenet():
    widths = {"a3": (19, 3, 6), "b3": (12, 3, 9), "a4": (9, 1, 4), "b4": (11, 2, 6), "c4": (25, 4, 12),
              "d4": (28, 6, 12), "e4": (31, 6, 25), "a5": (15, 3, 12), "b5": (19, 4, 12)}
    with torch.device("meta"):
        model = network("googlenet").narrow()
    for unit, found in widths.items():
        dense = GOOGLENET_WIDTHS[unit]
        convs = [m.out_channels for m in model.get_submodule(unit).modules() if isinstance(m, nn.Conv2d)]
        assert convs == [dense[0], found[0], dense[2], found[1], found[2], dense[5], dense[6]]


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"no network 'vgg19'; choose from vgg16, resnet56"):
        network("vgg19")


# --- the networks and recipes of the paper ---------------------------------------------------------------------------

FUSED_LAYERS = {"vgg16": 13, "resnet56": 55, "resnet110": 109, "googlenet": 63,
                **{f"resnet50-{key}": 48 for key in "abcdef"}}


@pytest.fixture
def weightless(monkeypatch):
    """Networks without weights, so that the large ones can be built in no time; their blends are then not computed."""
    monkeypatch.setattr(FusedConv2d, "refresh", lambda self, T: True)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds(recipe, weightless):
    made = RECIPES[recipe]()
    name = recipe.rpartition("-")[0]
    chosen = network(name)
    model, narrow, dense = made.build(), chosen.narrow(), chosen.dense()
    layers = {key: m for key, m in model.named_modules() if isinstance(m, FusedConv2d)}
    assert len(layers) == FUSED_LAYERS[name]
    for key, layer in layers.items():
        m, wide = narrow.get_submodule(key), dense.get_submodule(key)
        assert layer.phi.shape == (m.out_channels, wide.out_channels)
        assert layer.weight.shape == (wide.out_channels, *m.weight.shape[1:])
        assert (layer.bias is None) == (m.bias is None)
    left = [key for key, m in model.named_modules() if type(m) is nn.Conv2d]
    assert all(key == "conv1" or key == "stem.0" or ".shortcut." in key for key in left)
    exported = made.export(model)
    assert cost(exported, torch.zeros(chosen.example)) == cost(narrow, torch.zeros(chosen.example))
    assert cost(model, torch.zeros(chosen.example))[:2] == cost(narrow, torch.zeros(chosen.example))[:2]
    assert made.before_epoch is refresh_


def test_the_recipes_are_those_of_the_networks():
    assert {name.rpartition("-")[0] for name in RECIPES} == set(NETWORKS)
    assert len(RECIPES) == 10


@pytest.mark.parametrize("name", ["resnet56", "vgg16", "resnet50-f"])
def test_network_is_ready_to_train(name):
    torch.manual_seed(2)
    chosen = network(name)
    model = chosen.build()
    for key, layer in model.named_modules():
        if isinstance(layer, FusedConv2d) and len(layer.weight) <= 128:
            D = distances(layer.weight)  # the blend belongs to the weights as they were initialised in the end
            torch.testing.assert_close(layer.phi, proxy(D, 1.0)[layer.kept].float())
        if isinstance(layer, FusedConv2d) and layer.weight.numel() > 3000:
            fan_out = len(layer.weight) * layer.weight[0, 0].numel()
            std = {"fan_in": math.sqrt(2 / layer.weight[0].numel()), "fan_out": math.sqrt(2 / fan_out),
                   "default": 1 / math.sqrt(3 * layer.weight[0].numel())}[chosen.init]
            assert layer.weight.std().item() == pytest.approx(std, rel=0.08), key
    exported = compact(model)
    with torch.device("meta"):
        assert parameters(exported) == parameters(chosen.narrow())
    if name != "resnet50-f":
        x = torch.randn(2, *chosen.example[1:])
        model.eval()
        assert model(x).shape == (2, 10)
        assert (exported.eval()(x) - model(x)).abs().max() < 1e-5


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("cifar10")])
def test_cifar_recipe(name):
    made = RECIPES[name]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("cifar10", 300, 256, 5e-4, 0.9)
    for epoch, lr in ((0, 0.1), (149.99, 0.1), (150, 0.01), (224.99, 0.01), (225, 0.001), (299.99, 0.001)):
        assert made.lr(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("key", "abc")
def test_imagenet_step_recipe(key):
    made = RECIPES[f"resnet50-{key}-imagenet"]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("imagenet", 90, 256, 1e-4, 0.9)
    for epoch, lr in ((0, 0), (1, 0.02), (2.5, 0.05), (5, 0.1), (29.99, 0.1), (30, 0.01), (59.99, 0.01), (60, 0.001),
                      (80, 1e-4), (89.99, 1e-4)):
        assert made.lr(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("key", "def")
def test_imagenet_cosine_recipe(key):
    made = RECIPES[f"resnet50-{key}-imagenet"]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("imagenet", 180, 256, 1e-4, 0.99)
    for epoch, lr in ((0, 0), (2.5, 0.005), (5, 0.01), (92.5, 0.005), (180, 0),
                      (48.75, 0.005 * (1 + math.cos(math.pi / 4)))):
        assert made.lr(epoch) == pytest.approx(lr, abs=1e-15)


# --- learning --------------------------------------------------------------------------------------------------------


def batches(n, size=17):
    rng = np.random.default_rng(5)
    for _ in range(n):
        yield (torch.from_numpy(rng.normal(size=(size, 3, 9, 7)).astype(np.float32)),
               torch.from_numpy(rng.integers(0, 5, size)))


def train(model, steps=8, lr=0.1, momentum=0.9, weight_decay=0.01):
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)
    model.train()
    for x, y in batches(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()


def test_one_hot_fusion_is_training_of_the_kept_filters():
    """At a temperature where blends are selections, the wide network's kept filters go the narrow network's way."""
    model = ConvNet((3, 5, 4), 5)
    names = ["features.0", "features.4", "features.8"]
    fuse_narrow_(model, dict(zip(names, (7, 11, 13))), ONE_HOT)
    narrow = ConvNet((3, 5, 4), 5)
    state = narrow.state_dict()
    start = {name: model.get_submodule(name).weight.detach().clone() for name in names}
    kept = {name: model.get_submodule(name).kept.clone() for name in names}
    for name in names:
        layer = model.get_submodule(name)
        assert torch.equal(layer.phi, torch.eye(layer.phi.shape[1])[layer.kept])
        state[f"{name}.weight"] = start[name][kept[name]]
    for key, value in model.state_dict().items():
        if key in state and value.shape == state[key].shape and key.rpartition(".")[0] not in names:
            state[key] = value.clone()
    narrow.load_state_dict(state)
    train(model)
    train(narrow)
    for name in names:
        layer = model.get_submodule(name)
        theirs = narrow.get_submodule(name).weight
        assert (layer.weight[layer.kept] - theirs).abs().max() < 1e-6
        assert (layer.fused()[0] - theirs).abs().max() < 1e-6
        assert (theirs - start[name][kept[name]]).abs().max() > 1e-2  # it did move
        # the dropped filters feel nothing but the weight decay
        rest = sorted(set(range(len(layer.weight))) - set(kept[name].tolist()))
        value, velocity = start[name][rest].double(), 0.0
        for _ in range(8):
            velocity = 0.9 * velocity + 0.01 * value
            value = value - 0.1 * velocity
        torch.testing.assert_close(layer.weight[rest].double(), value, rtol=0, atol=1e-6)
    for one, other in zip(model.classifier.parameters(), narrow.classifier.parameters()):
        assert (one - other).abs().max() < 1e-6
    for one, other in zip(model.buffers(), compact(model).buffers()):
        assert one is not other
    ours, theirs = model.features[1], narrow.features[1]
    assert (ours.running_mean - theirs.running_mean).abs().max() < 1e-6
    # and the export goes on being the narrow network
    x = next(batches(1))[0]
    assert (compact(model).eval()(x) - narrow.eval()(x)).abs().max() < 1e-5


def test_at_temperature_one_training_is_not_that_of_the_kept_filters():
    """The same comparison where blends are blends: the equality above does not come for free."""
    model = ConvNet((3, 5), 5)
    fuse_narrow_(model, {"features.0": 7, "features.4": 11})
    narrow = compact(model)
    train(model)
    train(narrow)
    assert (model.features[4].fused()[0] - narrow.features[4].weight).abs().max() > 1e-3


def learn(seed, frozen, epochs=15):
    """Fused training on the digits; ``frozen`` lets no gradient reach the wide filters."""
    seed_everything(seed)
    first, second = digits(600, seed)
    model = ConvNet((6, 8, 8), 10, channels=1)
    fuse_narrow_(model, {"features.0": 16, "features.4": 24, "features.8": 24})
    if frozen:
        for layer in model.modules():
            if isinstance(layer, FusedConv2d):
                layer.weight.requires_grad_(False)
    found = fit(model, loader(first, 32, True), loader(second, 500, False), epochs=epochs, lr=cosine(0.05, epochs),
                seed=seed, before_epoch=lambda model, epoch: refresh_(model, epoch, epochs)).accuracy
    return found[-1], model


@pytest.mark.parametrize("seed", [0, 1])
def test_fused_training_learns_the_digits(seed):
    """95 % of the test digits; with the gradient to the wide filters blocked it is about 50 %."""
    share, model = learn(seed, frozen=False)
    assert share > 0.85
    _, test = digits(600, seed)
    exported = compact(model).eval()
    right = (exported(test.images).argmax(1) == test.labels).float().mean().item()
    assert right == pytest.approx(share, abs=2e-3)
    blocked, _ = learn(seed, frozen=True)
    assert blocked < 0.68


# --- the chapter's experiment ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny():
    return digits(61, 0)[0], digits(1700, 0)[1]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_repeats_itself(arm, tiny):
    runs = [trial(arm, tiny, widths=(7, 11), epochs=3, seed=5, batch=16) for _ in range(2)]
    assert runs[0].accuracy == runs[1].accuracy
    assert len(runs[0].accuracy) == 3
    assert all(0 <= share <= 1 for share in runs[0].accuracy)
    for one, other in zip(runs[0].model.state_dict().values(), runs[1].model.state_dict().values()):
        assert torch.equal(one, other)
    model = runs[0].model
    assert model.features[1].num_features == 3
    assert model.classifier.in_features == 5
    fused = [m for m in model.modules() if isinstance(m, FusedConv2d)]
    assert [len(m.weight) for m in fused] == ([7, 11] if arm in ("fused", "random") else [])
    other = trial(arm, tiny, widths=(7, 11), epochs=3, seed=6, batch=16)
    assert not torch.equal(other.model.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_all_its_epochs(arm, epochs, tiny):
    assert len(trial(arm, tiny, widths=(3, 5), epochs=epochs, batch=32).accuracy) == epochs


def test_random_arm_keeps_one_random_set(tiny):
    kept = [[m.kept.tolist() for m in trial("random", tiny, widths=(13, 17), epochs=e, seed=2, batch=32).model.modules()
             if isinstance(m, FusedConv2d)] for e in (1, 4)]
    assert kept[0] == kept[1]  # training does not change it
    assert all(one == sorted(one) for one in kept[0])
    assert kept[0] != [list(range(6)), list(range(8))]


def test_exchanged_filters_are_counted(tiny):
    """κ = 10/E keeps the scores moving; a random set never changes; the other arms have no kept set."""
    slow = DCFF(growth="slow")
    found = {arm: trial(arm, tiny, widths=(13, 17), epochs=5, seed=2, batch=8, lr=0.3, config=slow).exchanged
             for arm in ARMS}
    assert len(found["fused"]) == 4
    assert sum(found["fused"]) > 0
    assert all(0 <= number <= 14 for number in found["fused"])  # 6 of 13 and 8 of 17 are kept
    assert found["random"] == [0] * 4
    assert found["narrow"] == found["l1"] == []


def test_unknown_arm_is_refused(tiny):
    with pytest.raises(ValueError, match=r"no arm 'wide'; choose from fused, narrow, l1, random"):
        trial("wide", tiny)


def test_trial_leaves_the_number_of_threads(tiny):
    torch.set_num_threads(2)
    trial("narrow", tiny, widths=(3,), epochs=1, batch=32)
    assert torch.get_num_threads() == 2


def test_compare():
    options = dict(train=40, test=20, epochs=2, widths=(5, 7), rate=0.5)
    one, again, other = compare(3, **options), compare(3, **options), compare(4, **options)
    assert one == again
    assert one != other
    assert set(one) == {"seed", "export", *ARMS}
    assert one["seed"] == 3
    assert one["export"] < 1e-5
    assert all(len(one[arm]) == 2 for arm in ARMS)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6])
def test_keep_largest_keeps_the_largest_l1_norms(rate):
    model = ConvNet((7, 11, 13), 5).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.rand(len(module.weight), 1, 1, 1) + 0.5)
    before = snapshot(model)
    found = keep_largest(model, rate, torch.zeros(1, 3, 9, 9))
    same(model, before)
    channels = list(range(3))
    for index in (0, 4, 8):
        weight = model.features[index].weight.detach()
        norms = [sum(abs(v) for v in row) for row in weight.flatten(1).tolist()]
        m = math.floor(len(norms) * (1 - rate))
        kept = sorted(sorted(range(len(norms)), key=lambda j: -norms[j])[:m])
        assert torch.equal(found.features[index].weight, weight[kept][:, channels])
        assert torch.equal(found.features[index + 1].weight, model.features[index + 1].weight[kept])
        channels = kept
    assert torch.equal(found.classifier.weight, model.classifier.weight[:, channels])


def test_public_names_exist():
    assert all(hasattr(dcff, name) for name in dcff.__all__)
