"""1xN sparsity: the experiments."""

import numpy as np
import pytest

from papernets.data import digits
from papernets.nn import SmallMobileNet
from papernets.papers.one_by_n import MaskedConv2d, OneByN, experiment, prune_
from papernets.papers.one_by_n.experiment import ARMS, compare, speed_by_share
from papernets.training import Task, scores

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_pruned_network_learns_what_it_lost():
    """A wrong mask, a mask that moves or a blocked gradient leaves the accuracy where pruning has put it."""
    task = Task(*digits(1000, 0), 5)
    model = task.start(SmallMobileNet, (16, 32, 32, 32))
    task.learn(model)
    prune_(model, OneByN(removed=0.8, kernel=(1,)))
    before = task.accuracy(model)
    task.learn(model, 3, share=0.4, again=1)
    assert before < 0.5 and task.accuracy(model) > 0.8
    kept = [float(m.mask.float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert kept == pytest.approx([0.2] * 3, abs=0.01)
    zero = [float((m.weight == 0).float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert zero == pytest.approx([0.8] * 3, abs=0.01)


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, test=150, epochs=1, tuning=1, removed=(0.5,)) for _ in range(2))
    assert first == second and [(one["arm"], one["at"]) for one in first] == [("dense", None), *[(arm, 0.5) for arm in ARMS]]
    right = 150 * first[0]["score"]
    assert right == pytest.approx(round(right), abs=1e-4)  # a share of as many images as were asked for
    assert [one["arm"] for one in first if "gap" in one] == [arm for arm in ARMS if arm.startswith("1x")]
    assert all(one["gap"] < 1e-4 for one in first if "gap" in one)
    kept = {arm: scores(first, arm, 0.5, "norm")[0] for arm in ARMS}
    assert kept["weight"] > kept["1x2"] > kept["1x4"] > kept["1x16"]
    assert kept["1x4 rearranged"] > kept["1x4"] and kept["1x16 rearranged"] > kept["1x16"]


def test_all_arms_are_pruned_from_one_network_and_tuned_alike(monkeypatch):
    seen = []
    monkeypatch.setattr(experiment, "prune_", lambda model, config: seen.append(
        ([p.detach().clone() for p in model.parameters()], config.removed, config.kernel)) or prune_(model, config))
    compare(0, train=100, test=50, epochs=1, tuning=1, removed=(0.5, 0.9))
    assert [(share, kernel) for _, share, kernel in seen] == [(0.5, (1,))] * 7 + [(0.9, (1,))] * 7
    assert all(bool((a == b).all()) for weights, _, _ in seen for a, b in zip(weights, seen[0][0], strict=True))


def test_the_race_compares_results(monkeypatch):
    found = experiment.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real, seen = experiment.kernel.matmul, []
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: seen.append(len(packed.columns)) or real(packed, x))
    experiment.race(0, channels=16, side=3, repeats=1, N=8, removed=0.5)
    assert set(seen) == {16, 32}  # half of 2·16 blocks, and all of them
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        experiment.race(0, channels=16, side=3, repeats=1)


def test_the_race_is_run_at_every_share(monkeypatch):
    monkeypatch.setattr(experiment, "race", lambda seed, N, removed, repeats: {"ours": removed * N, "dense": repeats})
    assert speed_by_share(removed=(0.25, 0.5), repeats=3) == {"removed": [0.25, 0.5], "ours": [2.0, 4.0], "dense": [3, 3]}
