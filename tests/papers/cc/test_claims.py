"""CC: the claims."""

import math

import numpy as np
import pytest
import torch
from papers.cc.samples import FITS, some_batches
from torch import nn

from papernets.cards import card
from papernets.nn import ConvNet
from papernets.papers import cc
from papernets.papers.cc import CC, Layer, allocate, compact, compress, cost, gradients, networks, rebuild, score, search
from papernets.papers.cc.claims import THREE, facts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_root_of_the_global_problem():
    shares, x = allocate(FITS, THREE["F"], 0.5 * sum(THREE["F"]))
    assert [c * F for c, F in zip(shares, THREE["F"])] == pytest.approx([56.9038, 122.0486, 18.2995], abs=5e-5)
    assert x == pytest.approx(0.629620, abs=5e-7)
    assert [a * b * math.exp(b * c) for (a, b), c in zip(FITS, shares)] == pytest.approx([x] * 3)


def test_the_lagrange_rule_minimises_the_loss():
    work, goal = np.array(THREE["F"]), 0.3 * sum(THREE["F"])

    def total(shares):
        return sum(a * math.exp(b * c) for (a, b), c in zip(FITS, shares))

    best, _ = allocate(FITS, work.tolist(), goal, rule="lagrange")
    assert np.dot(best, work) == pytest.approx(goal) and total(best) == pytest.approx(0.2412, abs=5e-5)
    assert total(allocate(FITS, work.tolist(), goal)[0]) == pytest.approx(0.2822, abs=5e-5)
    draw = np.random.default_rng(0)
    for _ in range(200):  # nothing near it that removes as much is better
        move = draw.normal(size=3) * 0.02
        move -= work * np.dot(move, work) / np.dot(work, work)
        near = np.array(best) + move
        if near.min() >= 0:
            assert total(near) >= total(best) - 1e-12


@pytest.mark.parametrize("rule", cc.RULES)
def test_a_larger_target_never_takes_less_of_any_layer(rule):
    before = [0.0] * 3
    for target in np.linspace(0, 0.95, 20):
        shares, _ = allocate(FITS, THREE["F"], target * sum(THREE["F"]), rule=rule)
        assert all(now >= then - 1e-9 for now, then in zip(shares, before)) and 0 <= min(shares) <= max(shares) <= 0.95 + 1e-9
        assert sum(c * F for c, F in zip(shares, THREE["F"])) == pytest.approx(target * sum(THREE["F"]), abs=1e-6)
        before = shares


def test_the_ends_of_the_budget():
    assert allocate(FITS, THREE["F"], 0.0)[0] == [0, 0, 0]
    assert allocate(FITS, THREE["F"], 0.95 * sum(THREE["F"]))[0] == pytest.approx([0.95] * 3)
    with pytest.raises(ValueError, match=r"to remove 394\.5 is unreachable; it must be from 0 to 374\.7"):
        allocate(FITS, [117.0505728, 234.1011456, 43.352064], 394.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: CC(target=1.0), r"target 1.0 is outside \[0, 1\); the nearest is 0.95"),
     (lambda: CC(target=-0.1), r"target -0.1 is outside \[0, 1\); the nearest is 0"),
     (lambda: CC(rates={"a": 1.5}), r"rate of a 1.5 is outside \[0, 1\)"),
     (lambda: CC(gamma=-1), "gamma is -1; the nearest is 0"),
     (lambda: CC(gamma=math.nan), "gamma is nan"),
     (lambda: CC(cap=1.0), r"cap 1.0 is outside \(0, 1\)"),
     (lambda: CC(step=2), "step is 2; it is a share"),
     (lambda: CC(budget="bytes"), "budget is 'bytes'; choose from macs, params"),
     (lambda: CC(rule="best"), "rule is 'best'; choose from equal_marginal, lagrange, uniform"),
     (lambda: CC(units="filters"), "units is 'filters'; choose from joint, channels, ranks"),
     (lambda: CC(round_to=0), "round_to is 0"),
     (lambda: cost(4, 3, 9, p=4), "p = 4 channels of 3 and z = 0 ranks of 4 cannot be removed"),
     (lambda: score(torch.zeros(3, 3), torch.zeros(3, 3)), r"the weight has shape \(3, 3\); it is \(Co, Ci, k, k\)"),
     (lambda: score(torch.zeros(3, 3, 1, 1), torch.zeros(3, 2, 1, 1)), r"the gradient has shape \(3, 2, 1, 1\), and"),
     (lambda: search(torch.full((2, 2, 1, 1), math.nan), torch.zeros(2, 2, 1, 1), 0.2), "holds a value that is not finite"),
     (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, gamma=-1), "gamma is -1"),
     (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, step=-1), "step is -1"),
     (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, round_to=0), "round_to is 0"),
     (lambda: allocate(FITS, THREE["F"], 1.0, rule="best"), "rule is 'best'"),
     (lambda: Layer(()), "the kept channels must be distinct, from 0 on, and at least one"),
     (lambda: Layer((1, 1)), "the kept channels must be distinct"),
     (lambda: Layer((0,), 0), "rank 0 is too small; the smallest is 1"),
     (lambda: rebuild(torch.zeros(2, 2, 1, 1), Layer((2,))), "channel 2 is kept, and the layer has 2"),
     (lambda: compact(ConvNet((4, 4)), {"features.1": Layer((0,))}), "'features.1' is no convolution or linear layer"),
     (lambda: compact(ConvNet((4, 4)), {"features.4": Layer((7,))}), "features.4: channel 7 is kept, and the layer has 4"),
     (lambda: compact(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), {"0": Layer((0,))}), "0 has 2 groups; the method is def"),
     (lambda: compress(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4)), some_batches()),
      "no Conv2d of this network is left to work on"),
     (lambda: compress(ConvNet((4, 4)), []), "there is no batch"),
     (lambda: compress(ConvNet((4, 4)), iter(some_batches())), "batches is an iterator, of which the first would be lost"),
     (lambda: gradients(ConvNet((4, 4)), [], ["features.4"]), "there is no batch"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(ignore=("x",))), "ignore names 'x', which is no layer"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(rates={"features.0": 0.5})), "'features.0' is no layer to compress"),
     (lambda: compress(ConvNet((4, 4)), some_batches(), CC(rates={"features.4": 0.94})), "features.4: share 0.94 is unreach"),
     (lambda: networks.counts("alexnet"), "no network 'alexnet'; choose from resnet56, ")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.fixture(scope="module")
def measured():
    return facts()


def test_every_exact_claim_is_reproduced(measured):
    for claim in card("cc").claims:
        if claim.kind == "exact":
            assert claim.accept.absolute is not None
            assert abs(measured[claim.id] - claim.paper) <= claim.accept.absolute, claim.id
            assert claim.ours is None or measured[claim.id] == claim.ours


def test_facts_and_claims_are_the_same(measured):
    assert set(measured) == {claim.id for claim in card("cc").claims if claim.kind == "exact"}
