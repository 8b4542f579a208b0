"""CC: stage two, which units of a layer go."""

import math

import pytest
import torch
from papers.cc.sample import normal

from papernets.papers import cc
from papernets.papers.cc import (
    Layer,
    cost,
    curve,
    directions,
    fit_curve,
    information_loss,
    reachable,
    rebuild,
    restored,
    score,
    search,
    unit_search,
)

pytestmark = pytest.mark.usefixtures("one_thread")


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


def test_without_looking_ahead_the_metric_is_the_backward_term():
    W, G = normal(5, 7, 3, 3), normal(5, 7, 3, 3, seed=1)
    found = score(W, G)
    assert torch.equal(found.metric(0)[0], found.channels) and torch.equal(found.metric(0)[1], found.ranks)
    torch.testing.assert_close(found.channels, (G * W).square().sum((0, 2, 3)))
    path = search(W, G, 0.3, gamma=0, units="channels", step=1)
    assert [step.index for step in path.steps] == torch.argsort((G * W).square().sum((0, 2, 3))).tolist()[:len(path.steps)]


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
        patch.setattr(unit_search, "score", lambda *a, **k: Given())
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


@pytest.mark.parametrize(("call", "message"), [
    (lambda: search(torch.full((2, 2, 1, 1), math.nan), torch.zeros(2, 2, 1, 1), 0.2), "holds a value that is not finite"),
    (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, gamma=-1), "gamma is -1"),
    (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, step=-1),
     r"step -1 is outside \[0, 1\]; the nearest is 0"),
    (lambda: search(torch.ones(2, 2, 1, 1), torch.ones(2, 2, 1, 1), 0.2, round_to=0), "round_to is 0")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
