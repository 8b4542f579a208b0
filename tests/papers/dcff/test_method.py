"""Dynamic-coded filter fusion: the functions on tensors."""

import math
import re
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.dcff.samples import COUNTS, costs, wide
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from papernets.measure import parameters
from papernets.nn import GOOGLENET_WIDTHS, VGG, VGG16_WIDTHS
from papernets.papers.dcff import (
    distances,
    fuse,
    importance,
    importance_of_code,
    kept_width,
    log_proxy,
    places,
    proxy,
    select,
    temperature,
)
from papernets.papers.dcff.networks import network

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_schedule_of_the_code():
    found = [temperature(epoch, 300) for epoch in (0, 1, 2, 3, 5, 10)]
    assert found == pytest.approx([1, 4621.709455, 7616.18, 9051.58, 9866.16, 9999.09], abs=5e-3)
    assert temperature(1, 300) == pytest.approx(4621.709455, abs=1e-6)


@pytest.mark.parametrize(("epoch", "epochs"), [(-1, 10), (10.5, 10), (0, 0), (0, -3), (math.nan, 10), (0, math.nan)])
def test_schedule_refuses(epoch, epochs):
    with pytest.raises(ValueError, match="epoch"):
        temperature(epoch, epochs)


@given(st.integers(1, 13), st.randoms(use_true_random=False))
def test_a_filter_that_stays_keeps_its_place(m, random):
    before, S = random.sample(range(17), m), sorted(random.sample(range(17), m))
    after = places(torch.tensor(before), torch.tensor(S)).tolist()
    assert sorted(after) == S
    assert all(new == old for new, old in zip(after, before) if old in S)
    newcomers = [new for new in after if new not in before]
    assert newcomers == sorted(newcomers)


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


def test_parameters_of_the_vgg_export_by_formula():
    m = [32, 32, 76, 76, 166, 166, 166, *[76] * 6]
    assert [kept_width(C, r) for C, r in zip(VGG16_WIDTHS, [0.5] * 2 + [0.4] * 2 + [0.35] * 3 + [0.85] * 6)] == m
    assert sum(9 * a * b + 3 * b for a, b in zip([3, *m], m)) + 76 * 10 + 10 == 1071248
    with torch.device("meta"):
        assert parameters(VGG(m)) == 1071248


#: Per cent of MACs (pooling left out) and of parameters removed.
CUTS = {"vgg16": (76.83, 92.73), "resnet56": (55.88, 54.95), "resnet110": (66.55, 67.86), "googlenet": (70.105, 66.28),
        "resnet50-a": (76.697, 71.032), "resnet50-b": (63.75, 58.596), "resnet50-c": (45.304, 40.668),
        "resnet50-d": (62.958, 56.774), "resnet50-e": (66.413, 53.774), "resnet50-f": (75.112, 74.329)}


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


def test_printed_counts_of_the_resnets():
    printed = {"a": (0.96e9, 7.40e6), "b": (1.49e9, 10.58e6), "c": (2.25e9, 15.16e6), "d": (1.52e9, 11.05e6),
               "e": (1.38e9, 11.81e6), "f": (1.02e9, 6.56e6)}
    for key, (macs, stored) in printed.items():
        found = costs(f"resnet50-{key}")
        assert found[0] == pytest.approx(macs, abs=5e6)
        assert found[2] == pytest.approx(stored, abs=5e3)


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
