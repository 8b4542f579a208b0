"""CC: stage one, how much each layer gives."""

import math

import numpy as np
import pytest
import torch
from papers.cc.sample import FITS, normal

from papernets.papers import cc
from papernets.papers.cc import allocate, cost, curve, fit_curve, information_loss
from papernets.papers.cc.claims import THREE

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_curve_by_a_slow_form():
    W, G = normal(4, 3, 3, 3), normal(4, 3, 3, 3, seed=1)
    c, loss = curve(W, G)
    U, S, Vt = torch.linalg.svd(W.flatten(1), full_matrices=False)
    alone = [(information_loss(W, G, W * (torch.arange(3) != i)[None, :, None, None]), 0, i) for i in range(3)]
    alone += [(float((G.flatten(1) * S[r] * torch.outer(U[:, r], Vt[r])).square().sum()), 1, r) for r in range(4)]
    now, p, gone, expected = W.clone(), 0, [], []
    for _, kind, index in sorted(alone):
        if kind == 0:
            now[:, index] = 0
            p += 1
        else:
            U, S, Vt = torch.linalg.svd(now.flatten(1), full_matrices=False)
            S[sorted(set(range(4)) - set(gone)).index(index)] = 0  # its place among those not yet removed
            now = (U * S @ Vt).view_as(W)
            gone.append(index)
        expected.append((1 - cost(4, 3, 9, p, len(gone)) / 108, information_loss(W, G, now)))
    assert c == pytest.approx([x for x, _ in expected]) and loss == pytest.approx([y for _, y in expected])
    assert c[-1] == 1 and loss[-1] == pytest.approx(information_loss(W, G, torch.zeros_like(W)))
    assert curve(normal(6, 6, 1, 1), normal(6, 6, 1, 1, seed=1), "ranks")[0][0] < 0  # the first rank costs


def test_the_fit_finds_an_exponential_again():
    c = [-0.2, 0.1, 0.3, 0.5, 0.8, 1.0]
    assert fit_curve(c, [7 * math.exp(3 * x) for x in c]) == pytest.approx((math.exp(-3), 3), rel=1e-6)


def test_the_fit_weighs_by_the_root_of_the_loss():
    """Against a fitter whose weights multiply the residual before it is squared: they are then the fourth root."""
    draw = np.random.default_rng(0)
    c, loss = np.sort(draw.uniform(0.05, 1, 20)), np.sort(draw.uniform(0.01, 2, 20))
    share = loss / loss.max()
    slope, offset = np.polyfit(c, np.log(share + 1e-10), 1, w=share**0.25)
    assert fit_curve(c.tolist(), loss.tolist()) == pytest.approx((math.exp(offset), slope))


def test_what_cannot_be_fitted():
    assert fit_curve([0.1, 0.5], [0.0, 0.0]) is None  # no gradient
    assert fit_curve([-0.1, 0.5], [1.0, 2.0]) is None  # a single point
    assert fit_curve([0.1, 0.5, 0.9], [3.0, 2.0, 1.0]) is None  # falls
    assert fit_curve([0.5, 0.5], [1.0, 2.0]) is None  # one place


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


def test_layers_without_a_fit_get_the_share_of_all():
    assert allocate([None] * 3, [1.0, 2.0, 3.0], 3.0)[0] == pytest.approx([0.5] * 3)
    shares, _ = allocate([FITS[0], None, FITS[2]], [10.0, 20.0, 30.0], 24.0)
    assert shares[1] == pytest.approx(0.4) and np.dot(shares, [10, 20, 30]) == pytest.approx(24)
    assert allocate([None] * 2, [1.0, 1.0], 1.0, caps=[0.2, 0.95])[0] == pytest.approx([0.2, 0.8])


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="rule is 'best'; choose from equal_marginal, lagrange, uniform"):
        allocate(FITS, THREE["F"], 1.0, rule="best")
