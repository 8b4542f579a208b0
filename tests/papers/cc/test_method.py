"""CC: the functions on tensors."""

import math

import numpy as np
import pytest
import torch
from papers.cc.samples import FITS, normal

from papernets.papers import cc
from papernets.papers.cc import (
    Layer,
    allocate,
    break_even,
    cost,
    curve,
    directions,
    fit_curve,
    information_loss,
    method,
    ranks,
    reachable,
    rebuild,
    restored,
    score,
    search,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float32)[:, :, None, None]


def test_the_cost_of_a_layer():
    assert cost(64, 64, 9) == 36864 and cost(64, 64, 9, p=16) == 64 * 48 * 9
    assert cost(64, 64, 9, p=16, z=24) == 48 * 9 * 40 + 40 * 64
    assert cost(64, 64, 9, z=1) > cost(64, 64, 9)  # the first removals cost
    assert [break_even(64, 64, 9), break_even(64, 256, 1), break_even(512, 512, 9)] == [57.6, 51.2, 460.8]
    R = ranks(64, 64, 9)
    assert cost(64, 64, 9, z=R - 58) > 36864 > cost(64, 64, 9, z=R - 57)
    assert ranks(7, 2, 3) == 6 and ranks(5, 2, 9) == 5


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
    whole, parts = (method._squares(flat, G2, torch.arange(5), 9, budget) for budget in (1 << 24, 1))
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


def test_layers_without_a_fit_get_the_share_of_all():
    assert allocate([None] * 3, [1.0, 2.0, 3.0], 3.0)[0] == pytest.approx([0.5] * 3)
    shares, _ = allocate([FITS[0], None, FITS[2]], [10.0, 20.0, 30.0], 24.0)
    assert shares[1] == pytest.approx(0.4) and np.dot(shares, [10, 20, 30]) == pytest.approx(24)
    assert allocate([None] * 2, [1.0, 1.0], 1.0, caps=[0.2, 0.95])[0] == pytest.approx([0.2, 0.8])


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
        patch.setattr(method, "score", lambda *a, **k: Given())
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


def test_full_rank_is_the_layer_itself():
    W = normal(6, 4, 3, 3)
    first, second = rebuild(W, Layer(range(4), 6))
    assert first.shape == (6, 4, 3, 3) and second.shape == (6, 6, 1, 1)
    torch.testing.assert_close((second[:, :, 0, 0] @ first.flatten(1)).view_as(W), W, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(first.flatten(1).norm(dim=1), second[:, :, 0, 0].norm(dim=0))  # both take a root of S
