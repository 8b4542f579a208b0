"""LAPP: the functions on tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_checks import lively
from torch import nn

from papernets.papers.lapp import LAPP, ThresholdConv2d, bell, gate, kept_by, push, runs, scores, standardise
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")
HAND = torch.tensor([1.0, 2.0, 3.0, 4.0])


def test_the_example_by_hand():
    z = standardise(HAND)
    assert z.tolist() == pytest.approx([-1.161895, -0.387298, 0.387298, 1.161895], abs=1e-6)
    assert kept_by(z, 0.0).tolist() == [False, False, True, True] and kept_by(z, -3.0).all()


def test_the_surrogate_gradient_by_hand():
    z, tau = standardise(HAND), torch.zeros((), requires_grad=True)
    assert bell(z).tolist() == pytest.approx([0.181525, 0.240855, 0.240855, 0.181525], abs=1e-6)
    gate(z, tau).sum().backward()
    assert float(tau.grad) == pytest.approx(-0.844759, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 9), st.floats(-2, 2), st.floats(0.2, 2), st.integers(0, 99))
def test_the_gradient_against_the_rule_in_plain_python(C, tau, delta, seed):
    draw = torch.Generator().manual_seed(seed)
    z, weights = standardise(torch.rand(C, generator=draw, dtype=torch.float64)), torch.randn(C, generator=draw).double()
    at = torch.tensor(tau, dtype=torch.float64, requires_grad=True)
    m = gate(z, at, delta)
    (m * weights).sum().backward()
    expected = 0.0
    for value, weight in zip(z.tolist(), weights.tolist()):
        share = 1 / (1 + math.exp(-(value - tau) / delta))
        expected -= weight * share * (1 - share) / delta
    assert float(at.grad) == pytest.approx(expected, abs=1e-9)
    assert m.tolist() == [float(value > tau or value == max(z.tolist())) for value in z.tolist()]


def test_scores_are_mean_absolute_weights_and_get_no_gradient():
    W = torch.tensor([[1.0, -3.0], [0.5, 0.5]]).view(2, 2, 1, 1).requires_grad_()
    assert scores(W).tolist() == [2.0, 0.5] and not standardise(scores(W)).requires_grad


@pytest.mark.parametrize("s", [torch.full((5,), 0.3), torch.tensor([0.7]), torch.zeros(4), 0.1 + 1e-9 * torch.arange(3)])
def test_scores_that_do_not_differ_keep_all(s):
    assert torch.equal(standardise(s), torch.zeros(len(s))) and kept_by(standardise(s), 5.0).all()


def test_the_best_filter_survives_any_threshold_and_still_pulls_on_it():
    z, tau = standardise(HAND), torch.tensor(9.0, requires_grad=True)
    m = gate(z, tau)
    assert m.tolist() == [0, 0, 0, 1]
    m[3].backward()
    assert float(tau.grad) == pytest.approx(-float(bell(z[3] - 9)), rel=1e-6) and tau.grad < 0


def test_the_push_is_a_hinge():
    r = torch.tensor([0.3, 0.4, 0.9], requires_grad=True)
    assert push(r, 0.4).tolist() == pytest.approx([0, 0, 0.5])
    assert push(r, 0.4, "square").tolist() == pytest.approx([0, 0, 0.25])
    push(r, 0.35).sum().backward()
    assert r.grad.tolist() == [0, 1, 1]


def test_runs_of_an_index():
    assert runs(torch.tensor([0, 1, 2, 5, 7, 8])) == ((0, 0, 3), (3, 5, 1), (4, 7, 2))


def unit_of(c=8, C=16, bypass="grouped", stride=1, **options):
    return ThresholdConv2d(nn.Conv2d(c, C, 3, stride, 1, bias=False), nn.BatchNorm2d(C), LAPP(bypass=bypass, **options))


def test_the_output_in_plain_terms():
    unit = lively(unit_of())
    with torch.no_grad():
        unit.threshold.zero_()
    x = torch.randn(2, 8, 7, 5)
    m = (unit.z() > 0).float()[:, None, None]
    assert 0 < m.sum() < 16
    torch.testing.assert_close(unit(x), m * unit.bn(unit.conv(x)) + unit.bn_bypass(unit.bypass(x)))


def test_pruned_filters_get_no_gradient_and_all_others_do():
    unit, x = unit_of(), torch.randn(4, 8, 5, 5)
    unit(x).square().sum().backward()
    assert (unit.conv.weight.grad.flatten(1).abs().sum(1) > 0).all() and unit.threshold.grad is not None
    unit.zero_grad()
    with torch.no_grad():
        unit.threshold.zero_()
    unit(x).square().sum().backward()
    grads = unit.conv.weight.grad.flatten(1).abs().sum(1)
    assert torch.equal(grads > 0, unit.gate() > 0) and 0 < int((grads > 0).sum()) < 16


def test_nothing_is_pruned_at_the_start_even_by_chance():
    for seed in range(30):
        seed_everything(seed)
        unit = unit_of(32, 64)
        assert unit.gate().all() and unit.threshold <= -3


def test_the_alternative_score_is_the_scale_of_the_batch_norm():
    unit = unit_of(C=4, score="bn")
    with torch.no_grad():
        unit.bn.weight.copy_(torch.tensor([1.0, -2.0, 3.0, -4.0]))
    assert unit.z().tolist() == pytest.approx(standardise(HAND).tolist())
