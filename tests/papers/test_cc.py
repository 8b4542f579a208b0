"""CC: units, cost, metric, shares, search, the compact network, the recipes and the published behaviour."""

import copy
import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_checks import lively
from torch import nn

from papernets.cards import card
from papernets.data import digits
from papernets.measure import count, macs, parameters, report
from papernets.nn import ConvNet, DenseNetCIFAR, GoogLeNet, MobileNetV2, ResNetBasic, ResNetCIFAR
from papernets.papers import cc
from papernets.papers.cc import (
    ARMS,
    CC,
    RECIPES,
    THREE,
    Layer,
    Select,
    allocate,
    break_even,
    clipped,
    compact,
    compare,
    compress,
    compressible,
    cost,
    curve,
    directions,
    facts,
    fit_curve,
    gradients,
    information_loss,
    layer_times,
    outside,
    plan,
    ranks,
    reachable,
    rebuild,
    reestimate_,
    restored,
    score,
    search,
    search_all,
    share_out,
    slow_forward,
)
from papernets.training import fit, loader, run_recipe, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def some_batches(channels=3, side=8, number=2, classes=10):
    return [(torch.randn(6, channels, side, side), torch.randint(0, classes, (6,))) for _ in range(number)]


# --- units and cost --------------------------------------------------------------------------------------------------


def test_the_cost_of_a_layer():
    assert cost(64, 64, 9) == 36864 and cost(64, 64, 9, p=16) == 64 * 48 * 9
    assert cost(64, 64, 9, p=16, z=24) == 48 * 9 * 40 + 40 * 64
    assert cost(64, 64, 9, z=1) > cost(64, 64, 9)  # the first removals cost
    assert [break_even(64, 64, 9), break_even(64, 256, 1), break_even(512, 512, 9)] == [57.6, 51.2, 460.8]
    R = ranks(64, 64, 9)
    assert cost(64, 64, 9, z=R - 58) > 36864 > cost(64, 64, 9, z=R - 57)
    assert ranks(7, 2, 3) == 6 and ranks(5, 2, 9) == 5


@pytest.mark.parametrize(("Co", "Ci", "k"), [(7, 5, 3), (5, 11, 1), (4, 2, 3)])
def test_the_cost_is_that_of_the_rebuilt_layer(Co, Ci, k):
    assert cc.cost_difference([(Co, Ci, k)]) == 0


def test_a_wrong_cost_is_seen(monkeypatch):
    monkeypatch.setattr(cc, "cost", lambda Co, Ci, area, p=0, z=0: Co * (Ci - p) * area)
    assert cc.cost_difference([(7, 5, 3)]) > 0


@pytest.mark.parametrize("units", cc.UNITS)
@pytest.mark.parametrize(("Co", "Ci", "k"), [(5, 4, 3), (3, 7, 1), (6, 1, 3), (1, 6, 1), (9, 2, 1)])
def test_the_largest_share_can_be_had_and_no_more(units, Co, Ci, k):
    W, G = normal(Co, Ci, k, k), normal(Co, Ci, k, k, seed=1)
    most = reachable(Co, Ci, k * k, units)
    layer = search(W, G, most, units=units).layer
    left = sum(part.numel() for part in rebuild(W, layer))
    assert 1 - left / W.numel() >= most - 1e-12 and layer.kept and (layer.rank is None or layer.rank >= 1)
    with pytest.raises(ValueError, match=rf"share {most + 0.01:g} is unreachable .* must be from 0 to {most:g}"):
        search(W, G, most + 0.01, units=units)


# --- the metric ------------------------------------------------------------------------------------------------------


def test_the_first_example_by_hand():
    """All four units of a diagonal weight are alike."""
    found = score(matrix([2, 0], [0, 1]), matrix([0.5, 0.1], [0.2, 1]))
    for values, expected in ((found.channels, 1), (found.ranks, 1), (found.channels_forward, 5 / 3),
                             (found.ranks_forward, 5 / 3), (found.metric(0.9)[0], 2.5), (found.metric(0.9)[1], 2.5)):
        assert values.tolist() == pytest.approx([expected] * 2)


def test_the_second_example_by_hand():
    channels, by_rank = score(matrix([2, 1], [1, 2]), torch.ones(2, 2, 1, 1)).metric(0.9)
    assert channels.tolist() == pytest.approx([12.5, 12.5]) and by_rank.tolist() == pytest.approx([17.7, 7.3])
    step = search(matrix([2, 1], [1, 2]), torch.ones(2, 2, 1, 1), 0.4, step=0).steps[0]
    assert (step.kind, step.index) == ("rank", 1)  # the smaller singular value goes first


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_the_closed_forward_term_is_the_mean_over_what_is_left(Co, Ci, k, seed):
    W, G = normal(Co, Ci, k, k, seed=seed), normal(Co, Ci, k, k, seed=seed + 1000)
    if Ci + ranks(Co, Ci, k * k) < 3:
        return
    found = score(W, G)
    for closed, slow in zip((found.channels_forward, found.ranks_forward), slow_forward(W, G)):
        torch.testing.assert_close(closed, slow, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (9, 4, 1, 1), (4, 6, 1, 1)])
def test_in_the_middle_of_a_search_the_metric_is_still_the_definition(shape):
    """Two channels and a rank are gone: the brute force goes over the units that are left."""
    W, G = normal(*shape), normal(*shape, seed=1)
    Co, Ci = shape[:2]
    now = W.clone()
    now[:, [0, 2]] = 0
    P, Q = directions(now.flatten(1))
    left = min(ranks(Co, Ci, shape[2] ** 2) - 1, Q.shape[0] - 1)
    now = (P[:, :left] @ Q[:left]).view(shape)
    alive = torch.ones(Ci, dtype=torch.bool)
    alive[[0, 2]] = False
    found = score(W, G, now, alive, left)

    def without(K, kind, index):
        K = K.clone()
        if kind == "channel":
            K[:, index] = 0
            return K
        P, Q = directions(K.flatten(1))
        return K - (P[:, index:index + 1] @ Q[index:index + 1]).view(shape)

    every = [("channel", c) for c in alive.nonzero()[:, 0].tolist()]
    n = len(every) + left
    for kind, index in [*every, *(("rank", r) for r in range(left))]:
        K = without(now, kind, index)
        losses = [information_loss(W, G, without(K, *other)) for other in every if other != (kind, index)]
        losses += [information_loss(W, G, without(K, "rank", r)) for r in range(left - (kind == "rank"))]
        B, Fwd = (found.channels, found.channels_forward) if kind == "channel" else (found.ranks, found.ranks_forward)
        assert len(losses) == n - 1
        assert float(B[index]) == pytest.approx(information_loss(W, G, K), rel=1e-9)
        assert float(Fwd[index]) == pytest.approx(np.mean(losses), rel=1e-6)
    assert torch.isinf(found.channels[[0, 2]]).all()


@pytest.mark.parametrize("units", ["channels", "ranks"])
def test_one_kind_alone_averages_over_its_own_kind(units):
    W, G = normal(5, 4, 3, 3), normal(5, 4, 3, 3, seed=1)
    found = score(W, G, units=units)
    if units == "channels":
        assert len(found.ranks) == 0
        for c in range(4):
            K = W.clone()
            K[:, c] = 0
            losses = []
            for other in set(range(4)) - {c}:
                one = K.clone()
                one[:, other] = 0
                losses.append(information_loss(W, G, one))
            assert float(found.channels_forward[c]) == pytest.approx(np.mean(losses))
    else:
        U, S, Vt = torch.linalg.svd(W.flatten(1), full_matrices=False)
        for r in range(5):
            losses = [information_loss(W, G, (U * (S * torch.tensor([i not in (r, other) for i in range(5)]))
                                              @ Vt).view_as(W)) for other in set(range(5)) - {r}]
            assert float(found.ranks_forward[r]) == pytest.approx(np.mean(losses))


def test_without_looking_ahead_the_metric_is_the_backward_term():
    W, G = normal(5, 7, 3, 3), normal(5, 7, 3, 3, seed=1)
    found = score(W, G)
    assert torch.equal(found.metric(0)[0], found.channels) and torch.equal(found.metric(0)[1], found.ranks)
    torch.testing.assert_close(found.channels, (G * W).square().sum((0, 2, 3)))
    path = search(W, G, 0.3, gamma=0, units="channels", step=1)
    assert [step.index for step in path.steps] == torch.argsort((G * W).square().sum((0, 2, 3))).tolist()[:len(path.steps)]


def test_many_candidates_are_made_in_parts():
    W, G = normal(6, 5, 3, 3), normal(6, 5, 3, 3, seed=1)
    flat, G2 = W.flatten(1), G.flatten(1).square()
    whole, parts = (cc._squares(flat, G2, torch.arange(5), 9, budget) for budget in (1 << 24, 1))
    torch.testing.assert_close(whole, parts)


def test_no_candidate_touches_the_weight():
    W, G = normal(5, 4, 3, 3), normal(5, 4, 3, 3, seed=1)
    before = W.clone(), G.clone()
    for units in cc.UNITS:
        first, second = (search(W, G, 0.6, units=units) for _ in range(2))
        assert first.steps == second.steps
        curve(W, G, units)
        score(W, G, units=units)
        rebuild(W, first.layer)[0].zero_()
    assert torch.equal(W, before[0]) and torch.equal(G, before[1])


# --- stage one -------------------------------------------------------------------------------------------------------


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


FITS = list(zip(THREE["a"], THREE["b"]))


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


def test_layers_without_a_fit_get_the_share_of_all():
    assert allocate([None] * 3, [1.0, 2.0, 3.0], 3.0)[0] == pytest.approx([0.5] * 3)
    shares, _ = allocate([FITS[0], None, FITS[2]], [10.0, 20.0, 30.0], 24.0)
    assert shares[1] == pytest.approx(0.4) and np.dot(shares, [10, 20, 30]) == pytest.approx(24)
    assert allocate([None] * 2, [1.0, 1.0], 1.0, caps=[0.2, 0.95])[0] == pytest.approx([0.2, 0.8])


def test_the_ends_of_the_budget():
    assert allocate(FITS, THREE["F"], 0.0)[0] == [0, 0, 0]
    assert allocate(FITS, THREE["F"], 0.95 * sum(THREE["F"]))[0] == pytest.approx([0.95] * 3)
    with pytest.raises(ValueError, match=r"to remove 394\.5 is unreachable; it must be from 0 to 374\.7"):
        allocate(FITS, [117.0505728, 234.1011456, 43.352064], 394.5)


# --- stage two -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", cc.UNITS)
@pytest.mark.parametrize("target", [0.0, 0.2, 0.5, 0.7])
@pytest.mark.parametrize(("shape", "step"), [((8, 6, 3, 3), 0.01), ((8, 12, 3, 3), 0.3), ((12, 9, 1, 1), 0.2)])
def test_the_cut_is_reached_with_less_than_a_unit_to_spare(units, target, shape, step):
    W, G = normal(*shape), normal(*shape, seed=1)
    if target > reachable(*shape[:2], shape[2] ** 2, units):
        return
    path = search(W, G, target, units=units, step=step)
    cut = 1 - sum(part.numel() for part in rebuild(W, path.layer)) / W.numel()
    assert target - 1e-12 <= cut and (target == 0 or cut < target + path.unit)
    assert (target > 0) == bool(path.steps)
    if units == "channels":
        assert path.layer.rank is None
    if units == "ranks" and target:
        assert len(path.layer.kept) == shape[1] and path.layer.rank < min(shape[0], shape[1] * shape[2] ** 2)


def test_the_first_ranks_may_cost_and_the_search_goes_on():
    path = search(normal(8, 6, 3, 3), normal(8, 6, 3, 3, seed=1), 0.3, units="ranks")
    assert path.steps[0].cost > 8 * 6 * 9 and path.steps[-1].cost <= 0.7 * 8 * 6 * 9


def test_pruning_alone_if_it_reaches_the_target():
    """A rank goes first, as it costs no loss at all; then channels of no gradient reach the target by themselves."""
    W, G = normal(8, 6, 3, 3), torch.ones(8, 6, 3, 3, dtype=torch.float64)
    P, Q = directions(W.flatten(1))
    W = (P[:, :7] @ Q[:7]).view(8, 6, 3, 3)  # the last singular value is 0
    W[:, :3] *= 1e-6
    path = search(W, G, 0.5)
    kinds = [step.kind for step in path.steps]
    assert "rank" in kinds and kinds.count("channel") == 3 and path.layer == Layer((3, 4, 5))
    assert path.steps[-1].cost > 0.5 * 8 * 6 * 9  # as two layers it would still cost more


def test_several_ranks_of_one_step():
    """Indices 2, 0 and 1 of one step are, one after the other, at 2, 0 and 0 of what is left."""
    U, V = torch.linalg.qr(normal(4, 4))[0], torch.linalg.qr(normal(9, 4, seed=1))[0]
    W = (U * torch.tensor([4.0, 3, 2, 1])) @ V.T
    order, target = [2, 0, 1], 1 - 1 * (9 + 4) / 36
    W = W.view(4, 1, 3, 3)

    class Given:
        def metric(self, gamma):
            scores = torch.full((4,), 9.0)
            scores[order] = torch.tensor([0.0, 1, 2])
            return torch.tensor([10.0]), scores

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cc, "score", lambda *a, **k: Given())
        path = search(W, torch.ones_like(W), target, step=1)
    assert [step.index for step in path.steps] == [2, 0, 0]
    kept = W.double() - sum(s * torch.outer(U[:, i], V[:, i]) for i, s in enumerate((4, 3, 2))).view_as(W)
    assert path.steps[-1].loss == pytest.approx(float((kept - W).square().sum()))  # 4, 3 and 2 went


def test_the_structure_that_was_planted_is_found():
    """Channels without effect and three directions: a wrong order, sign or index removes something else."""
    W = torch.zeros(12, 10, 3, 3, dtype=torch.float64)
    used = [0, 2, 3, 5, 7, 9]
    W[:, used] = (normal(12, 3) @ normal(3, 54, seed=1)).view(12, 6, 3, 3)
    idle = [c for c in range(10) if c not in used]
    W[:, idle] = 1e-4 * normal(12, 4, 3, 3, seed=2)
    G = 1 + 0.3 * normal(12, 10, 3, 3, seed=3)
    target = 1 - cost(12, 10, 9, 4, 9) / cost(12, 10, 9)
    path = search(W, G, target)
    assert path.layer == Layer(tuple(used), 3)
    assert information_loss(W, G, restored(W, path.layer)) < 1e-4
    random = search(W, G, target, generator=torch.Generator().manual_seed(0))
    assert information_loss(W, G, restored(W, random.layer)) > 1
    for units in ("channels", "ranks"):
        assert information_loss(W, G, restored(W, search(W, G, target, units=units).layer)) > 1


def test_what_is_left_may_be_a_multiple():
    W, G = normal(16, 12, 3, 3), normal(16, 12, 3, 3, seed=1)
    for units in cc.UNITS:
        plain, path = search(W, G, 0.5, units=units), search(W, G, 0.5, units=units, round_to=4)
        assert len(path.layer.kept) % 4 == 0 and (path.layer.rank is None or path.layer.rank % 4 == 0)
        kept, before = set(path.layer.kept), set(plain.layer.kept)
        assert kept <= before or before <= kept
    assert search(W[:, :3], G[:, :3], 0.3, units="channels", round_to=4).layer.kept == (0, 1, 2)


def test_random_order_is_repeatable():
    W, G = normal(8, 6, 3, 3), normal(8, 6, 3, 3, seed=1)
    first, again, other = (search(W, G, 0.5, generator=torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.steps == again.steps and first.steps != other.steps


@pytest.mark.parametrize("what", ["gradient", "weight"])
def test_a_layer_that_changes_nothing(what):
    W, G = normal(4, 3, 3, 3), normal(4, 3, 3, 3, seed=1)
    W, G = (W, 0 * G) if what == "gradient" else (0 * W, G)
    assert fit_curve(*curve(W, G)) is None
    path = search(W, G, 0.5)
    assert sum(part.numel() for part in rebuild(W, path.layer)) <= 54
    assert all(torch.isfinite(part).all() for part in rebuild(W, path.layer))


# --- rebuilt layers --------------------------------------------------------------------------------------------------


def test_full_rank_is_the_layer_itself():
    W = normal(6, 4, 3, 3)
    first, second = rebuild(W, Layer(range(4), 6))
    assert first.shape == (6, 4, 3, 3) and second.shape == (6, 6, 1, 1)
    torch.testing.assert_close((second[:, :, 0, 0] @ first.flatten(1)).view_as(W), W, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(first.flatten(1).norm(dim=1), second[:, :, 0, 0].norm(dim=0))  # both take a root of S


def conv(**options):
    return nn.Conv2d(5, 7, 3, **options)


LAYERS = {"plain": conv(), "stride": conv(stride=2, padding=1), "dilated": conv(dilation=2, padding="same"),
          "reflect": conv(padding=1, padding_mode="reflect", bias=False), "wide": nn.Conv2d(5, 7, (1, 3), padding=(0, 1)),
          "pointwise": nn.Conv2d(5, 7, 1), "linear": nn.Linear(5, 7)}


@pytest.mark.parametrize("layer", [Layer((0, 2, 4)), Layer((1, 3), 2), Layer(range(5), 4), Layer((0, 1, 2, 3), 99)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_rebuilt_layer_computes_what_the_changed_weight_does(name, layer):
    module = copy.deepcopy(LAYERS[name]).double()
    model = nn.Sequential(module)
    x = normal(2, 6, 5) if name == "linear" else normal(2, 5, 9, 8)
    small = compact(model, {"0": layer})
    with torch.no_grad():
        module.weight.copy_(restored(cc._weight(module), layer).view_as(module.weight))
        torch.testing.assert_close(small(x), model(x), rtol=1e-8, atol=1e-10)
    kinds = [type(part) for part in small[0].children()] if isinstance(small[0], nn.Sequential) else [type(small[0])]
    assert (Select in kinds) == (len(layer.kept) < 5) and len(kinds) - (Select in kinds) == 1 + (layer.rank is not None)


NETS = {"convnet": (lambda: ConvNet((6, 8, 10)), 8), "resnet": (lambda: ResNetCIFAR(8, stages=(4, 6, 8)), 16),
        "resnet18": (lambda: ResNetBasic(18, (4,) * 8, (4, 6, 8, 10), 7), 33), "densenet": (lambda: DenseNetCIFAR(10, 5), 8),
        "mobilenet": (lambda: MobileNetV2(0.25, 7), 33), "googlenet": (GoogLeNet, 32)}


@pytest.mark.parametrize("name", NETS)
def test_a_compact_network_equals_the_changed_one(name):
    build, side = NETS[name]
    model, x = lively(build()), torch.randn(2, 3, side, side)
    before = copy.deepcopy(model.state_dict())
    layers = compressible(model, x[:1])
    chosen = {}
    for at, (layer, module) in enumerate(layers.items()):
        Ci = module.in_channels
        kept = range(at % 2, Ci, 1 + (Ci > 4)) if Ci > 2 else range(Ci)
        chosen[layer] = Layer(kept, None if at % 3 == 0 else 1 + module.out_channels // 2)
    small = compact(model, chosen)
    changed = copy.deepcopy(model)
    for layer, left in chosen.items():
        changed.get_submodule(layer).weight.data.copy_(restored(layers[layer].weight.detach(), left))
    with torch.no_grad():
        expected, found = changed(x), small(x)
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert macs(small, x[:1]) != macs(model, x[:1])


def test_what_is_saved_is_loaded_into_the_structure_of_the_plan():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    made = plan(model, batches, CC(target=0.4))
    small = compact(model, made)
    text = json.dumps({name: asdict(layer) for name, layer in made.items()})
    fresh = compact(ConvNet((6, 8, 10)), json.loads(text)).eval()
    fresh.load_state_dict(copy.deepcopy(small.state_dict()))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fresh(x), small(x))
    assert report(model, small, x[:1], timed=False).after.parameters == parameters(small)


# --- gradients, batch norms, clipping --------------------------------------------------------------------------------


def test_gradients_are_the_mean_over_the_batches_in_evaluation_mode():
    model, name = lively(ConvNet((5, 6))).train(), "features.4"
    model.features[4].weight.requires_grad_(False)
    batches = some_batches(number=3)
    state = copy.deepcopy(model.state_dict())
    found = gradients(model, batches, [name])
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    total = sum(nn.functional.cross_entropy(twin(x), y) for x, y in batches) / 3
    total.backward()
    torch.testing.assert_close(found[name], twin.get_submodule(name).weight.grad)
    assert model.training and all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.features[4].weight.requires_grad
    with torch.no_grad():  # also inside a block without gradients
        torch.testing.assert_close(gradients(model, batches, [name])[name], found[name])


def test_batch_norms_are_measured_anew():
    model = lively(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 2, 1)))
    model[1].momentum, batches = 0.3, some_batches(number=2)
    weights = [p.clone() for p in model.parameters()]
    reestimate_(model, batches)
    with torch.no_grad():
        outputs = [model[0](x) for x, _ in batches]
    torch.testing.assert_close(model[1].running_mean, sum(y.mean((0, 2, 3)) for y in outputs) / 2)
    torch.testing.assert_close(model[1].running_var, sum(y.var((0, 2, 3)) for y in outputs) / 2)
    assert model[1].momentum == 0.3 and not model[1].training
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters()))


def test_a_long_gradient_is_cut_and_a_short_one_is_not():
    for size, expected in ((3.0, 0.5), (0.2, 0.1)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = clipped(model, lr=0.5, momentum=0, weight_decay=0)
        model.weight.grad = torch.full((1, 1), size)
        optimizer.step()
        assert model.weight.item() == pytest.approx(-expected, rel=1e-5)


# --- the whole method ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("units", cc.UNITS)
@pytest.mark.parametrize("rule", cc.RULES)
def test_the_target_is_that_of_the_whole_network(units, rule):
    model, batches = lively(ResNetCIFAR(8, stages=(6, 8, 10))), some_batches(side=16)
    small = compress(model, batches, CC(target=0.3, units=units, rule=rule))
    cut = 1 - macs(small, batches[0][0][:1]) / macs(model, batches[0][0][:1])
    assert 0.3 <= cut < 0.3 + 0.17
    assert small.conv1.weight.shape == model.conv1.weight.shape  # the stem and the classifier are not touched
    assert small.classifier.weight.shape == model.classifier.weight.shape


def test_a_budget_of_parameters():
    model, batches = lively(ConvNet((8, 10, 12))), some_batches()
    small = compress(model, batches, CC(target=0.4, budget="params"))
    assert 0.4 <= 1 - parameters(small) / parameters(model) < 0.55
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    G = gradients(model, batches, ["features.4", "features.8"])
    shares = share_out(model, G, batches[0][0][:1], CC(target=0.4, budget="params"))
    assert shares.work == {"features.4": 720, "features.8": 1080} and norms == 60
    assert sum(shares.share[name] * work for name, work in shares.work.items()) == pytest.approx(0.4 * parameters(model))


def test_no_layer_gives_less_or_a_unit_more():
    number, rows = outside(1, target=0.4)
    assert number == 0 and len(rows) == 36 and all(row["whole"] >= 0.4 for row in rows)
    assert len({round(row["goal"], 6) for row in rows if row["units"] == "joint"}) == 12  # every layer its own


def test_layers_are_left_out():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    assert set(plan(model, batches, CC(target=0.1, ignore=("features.4",)))) == {"features.8"}
    assert set(plan(model, batches, CC(target=0.1, filter_fn=lambda name, module: module.in_channels == 6))) == {"features.4"}
    assert set(plan(model, batches, CC(target=0.3, stem=True, linear=True))) <= {
        "features.0", "features.4", "features.8", "classifier"}
    found = plan(model, batches, CC(rates={"features.8": 0.5}))
    assert set(found) == {"features.8"}
    assert all(module.groups == 1 for module in compressible(NETS["mobilenet"][0](), torch.zeros(1, 3, 33, 33)).values())


def test_a_linear_layer_takes_part():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10)).eval()
    batches = some_batches(side=2)
    small = compress(model, batches, CC(target=0.5, linear=True))
    assert 0.5 <= 1 - macs(small, batches[0][0][:1]) / 440 < 0.6 and small(batches[0][0]).shape == (6, 10)


def test_a_target_of_nothing():
    model, batches = lively(ConvNet((6, 8))), some_batches()
    assert plan(model, batches, CC(target=0.0)) == {}
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(compress(model, batches, CC(target=0.0))(x), model(x))


def test_the_largest_target():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    example = batches[0][0][:1]
    layers = compressible(model, example)
    most = sum(cc._caps(layers, CC())[name] * count(model, example)[name].macs for name in layers) / macs(model, example)
    small = compress(model, batches, CC(target=most))
    assert 1 - macs(small, example) / macs(model, example) >= most - 1e-9
    with pytest.raises(ValueError, match=rf"target {round(most + 0.01, 3)} is unreachable: the layers .* can give {most:.3g}"):
        compress(model, batches, CC(target=round(most + 0.01, 3)))


def test_a_network_without_gradient_gets_uniform_shares():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    nn.init.zeros_(model.classifier.weight)
    G = gradients(model, batches, ["features.4", "features.8"])
    shares = share_out(model, G, batches[0][0][:1], CC(target=0.3))
    assert shares.fits == {"features.4": None, "features.8": None}
    assert len({round(share, 9) for share in shares.share.values()}) == 1
    assert search_all(model, G, shares.share)


def test_a_layer_of_one_channel():
    model, batches = lively(ConvNet((1, 4, 4))), some_batches()
    small = compress(model, batches, CC(target=0.2))
    assert small(batches[0][0]).shape == (6, 10)
    assert reachable(1, 1, 1) == 0 and reachable(4, 1, 9, "channels") == 0


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
     (lambda: cc.counts("alexnet"), "no network 'alexnet'; choose from resnet56, ")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_refused_call_leaves_the_network_as_it_was():
    model, batches = lively(ConvNet((4, 4, 4))), some_batches()
    model.train()
    state = copy.deepcopy(model.state_dict())
    for config in (CC(target=0.99), CC(rates={"features.4": 0.94}), CC(ignore=("nothing",))):
        with pytest.raises(ValueError, match=r"unreachable|no layer of this network"):
            compress(model, batches, config)
    with torch.no_grad():
        model.features[4].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        compress(model, batches, CC(target=0.2))
    model.features[4].weight.data.copy_(state["features.4.weight"])
    assert model.training and all(torch.equal(state[key], value) for key, value in model.state_dict().items())


# --- the paper's networks --------------------------------------------------------------------------------------------


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


def test_the_claims_have_their_recipes():
    wanted = {claim.recipe for claim in card("cc").claims if claim.kind == "full"}
    assert wanted == {"papernets train cc --config resnet50-imagenet"} and "resnet50-imagenet" in RECIPES
    assert {"resnet50-dense-imagenet", "resnet56-cifar10", "densenet40-cifar10", "vgg16-dense-cifar10"} <= set(RECIPES)


def test_a_recipe_names_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES["resnet50-imagenet"](), tmp_path)


def test_a_recipe_from_the_dense_network_to_the_fine_tuned_one(tmp_path, monkeypatch):
    """On a small network and a data set of a few images in the published format of folders."""
    from PIL import Image
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for at in range(4):
                pixels = np.random.default_rng(at).integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / label / f"{at}.png")
    monkeypatch.setitem(cc.NETWORKS, "resnet50", (lambda: ConvNet((4, 6), classes=2, pool=(0, 1)), 224))
    monkeypatch.setattr(cc, "RUNS", tmp_path / "runs")
    recipe, folder = RECIPES["resnet50-imagenet"], tmp_path / "runs" / "resnet50-imagenet"
    with pytest.raises(ValueError, match=r"best\.pt is not there; .* papernets train cc --config resnet50-dense-imagenet"):
        run_recipe(recipe(), folder, data=tmp_path, workers=0)
    dense = tmp_path / "runs" / "resnet50-dense-imagenet"
    dense.mkdir(parents=True)
    torch.save(ConvNet((4, 6), classes=2, pool=(0, 1)).state_dict(), dense / "best.pt")
    monkeypatch.setattr(cc, "loader", lambda data, batch, shuffle, workers=0: loader(data, batch, shuffle, 0))
    monkeypatch.setattr(cc, "CC", lambda: CC(target=0.1))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)
    kept = json.loads((folder / "plan.json").read_text())
    small = compact(ConvNet((4, 6), classes=2, pool=(0, 1)), kept)
    small.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    monkeypatch.setattr(cc, "plan", lambda *a: pytest.fail("the plan is made once"))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)  # goes on with the plan that is there


def test_the_schedules_of_the_recipes():
    cifar, imagenet = RECIPES["resnet56-cifar10"](), RECIPES["resnet50-imagenet"]()
    assert (cifar.epochs, cifar.batch, cifar.weight_decay, cifar.momentum) == (300, 128, 1e-4, 0.9)
    assert [cifar.lr(at) for at in (0, 149.9, 150, 225)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert cifar.augment.keywords == {"pad": 8} and cifar.optimizer is clipped and imagenet.batch == 256
    assert RECIPES["resnet56-dense-cifar10"]().optimizer is None


# --- at work ---------------------------------------------------------------------------------------------------------


def test_a_compressed_network_still_knows_the_digits():
    """A wrong sign, order or index leaves far less; random order is the measure."""
    train, test = digits(600, 0)
    seed_everything(0)
    model = ConvNet((12, 16, 16), channels=1, pool=(0,))
    fit(model, loader(train, 64, True), None, epochs=8, lr=steps(0.05, (5, 7)), weight_decay=1e-4, seed=0)
    batches = loader(train, 100, False)
    G = gradients(model.eval(), batches, ["features.4", "features.7"])
    found = {}
    for name, random in (("metric", False), ("random", True)):
        kept = {}
        for layer, g in G.items():
            W = model.get_submodule(layer).weight.detach()
            draw = torch.Generator().manual_seed(0) if random else None
            kept[layer] = search(W, g, 0.5, generator=draw).layer
        small = compact(model, kept)
        reestimate_(small, batches)
        found[name] = cc._accuracy(small, test)
    assert cc._accuracy(model, test) > 0.9 and found["metric"] > 0.8 and found["metric"] > found["random"] + 0.1


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=150, epochs=1, tuning=1, cuts=(0.5,)) for _ in range(2))
    assert first == second and set(first["arms"][0.5]) == set(ARMS) and set(first["order"]) == {"metric", "one step", "random"}
    assert all(0.46 < arm["macs"] <= 0.5 for arm in first["arms"][0.5].values())


def test_times_of_all_forms():
    found = layer_times(8, 7, repeats=1, inner=1)
    dense = found["dense"]["macs"]
    assert dense == 8 * 72 * 49 and set(found) == {"dense", *ARMS}
    assert all(0.4 < found[name]["macs"] / dense < 0.6 for name in ARMS)
    assert found["joint"]["second.macs"] == 49 * 8 * found["joint"]["rank"]
    assert all(found["joint"][key] > 0 for key in ("ms", "first", "second", "copy")) and "first" not in found["pruning"]
