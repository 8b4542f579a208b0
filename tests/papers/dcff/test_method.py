"""Dynamic-coded filter fusion: the functions on tensors."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.dcff.sample import slow_distances, slow_fuse, slow_importance, slow_log_proxy
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from papernets.papers.dcff import (
    DCFF,
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

pytestmark = pytest.mark.usefixtures("one_thread")


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


@pytest.mark.parametrize(("I", "m", "kept"), [
    ([3, 1, 2], 2, [0, 2]), ([1, 1, 1, 1], 2, [0, 1]), ([1, 5, 5, 9], 2, [1, 3]), ([2.0], 1, [0])])
def test_select(I, m, kept):
    assert select(torch.tensor(I), m).tolist() == kept


@pytest.mark.parametrize("m", [0, -1, 4])
def test_select_refuses(m):
    with pytest.raises(ValueError, match=f"number of kept filters is {m}; it is a whole number from 1 to 3"):
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


@pytest.mark.parametrize(("C", "removed", "plain", "guarded"), [
    (160, 0.8, 31, 32), (160, 0.9, 15, 16), (64, 0.5, 32, 32), (128, 0.4, 76, 76), (256, 0.35, 166, 166),
    (512, 0.85, 76, 76), (7, 0.0, 7, 7), (7, 0.5, 3, 3), (1, 0.0, 1, 1)])
def test_kept_width(C, removed, plain, guarded):
    assert kept_width(C, removed) == plain == math.floor(C * (1 - removed))
    assert kept_width(C, removed, guarded=True) == guarded


def test_ten_filters_at_nine_tenths():
    with pytest.raises(ValueError, match="removed leaves no filter"):
        kept_width(10, 0.9)
    assert kept_width(10, 0.9, guarded=True) == 1


@pytest.mark.parametrize("removed", [1, 1.0, 1.5, -0.1, math.nan])
def test_kept_width_refuses_shares_outside(removed):
    with pytest.raises(ValueError, match=r"outside \[0, 1\)"):
        kept_width(7, removed)


def test_the_share_was_once_called_the_rate():
    for call in (lambda: kept_width(7, rate=0.5), lambda: DCFF(rate=0.5)):
        with pytest.raises(TypeError, match="takes removed in place of rate"):
            call()


@pytest.mark.parametrize("C", [2, 3, 7, 10, 13, 97])
@pytest.mark.parametrize("removed", [1.0, 0.9999])
def test_the_share_a_refusal_advises_is_accepted(C, removed):
    with pytest.raises(ValueError, match="removed") as caught:
        kept_width(C, removed)
    advised = float(re.findall(r"\d+(?:\.\d+)?(?:e-\d+)?", str(caught.value))[-1])
    assert kept_width(C, advised) >= 1


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
