"""LBC: the experiments."""

import numpy as np
import pytest
import torch
from papers.lbc.sample import HEAD

from papernets.nn import SmallMLP
from papernets.papers.lbc import LBC, RULES, experiment, sparsify_
from papernets.papers.lbc.experiment import ARMS, RACED, compare, rescale_, speed_by_pattern
from papernets.training import scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("rule", RULES)
def test_every_arm_begins_with_signals_of_one_strength(rule):
    model, plain = SmallMLP(16, 24), SmallMLP(16, 24)
    plain.load_state_dict(model.state_dict())
    sparsify_(model, LBC(1, 8, rule=rule, ignore=HEAD))
    rescale_(model)
    for name in ("fc1", "fc2"):
        layer, W = model.get_submodule(name), plain.get_submodule(name).weight
        torch.testing.assert_close((layer.weight * layer.mask).norm(), W.norm())
        assert torch.equal(layer.weight, W) is (rule == "scores")


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, epochs=2, patterns=((1, 4),)) for _ in range(2))
    assert first == second and [(row["arm"], row["at"]) for row in first] == [
        ("dense", None), *[(arm, (1, 4)) for arm in ARMS]]
    assert all(row["gap"] < 1e-4 and 0.1 < row["score"] < 1 for row in first[1:])
    assert scores(first, "lbc", (1, 4), "density") == [[1.0, 0.25]]
    assert all(scores(first, arm, (1, 4), "density") == [[0.25, 0.25]] for arm in ("random", "magnitude", "ste"))


def test_every_arm_of_the_comparison_is_rescaled(monkeypatch):
    seen = []
    monkeypatch.setattr(experiment, "rescale_", seen.append)
    compare(0, train=100, epochs=1, patterns=((2, 4), (1, 8)))
    assert [model.fc1.config.rule for model in seen] == 2 * ["scores", "random", "magnitude", "ste"]
    assert {model.fc1.config.M for model in seen[4:]} == {8}


def test_the_race_compares_results(monkeypatch):
    found = experiment.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real = experiment.kernel.matmul
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        experiment.race(0, channels=16, side=3, repeats=1)


def test_the_race_is_run_at_every_pattern(monkeypatch):
    monkeypatch.setattr(experiment, "race", lambda seed, N, M, repeats: {"ours": N / M, "dense": repeats})
    assert speed_by_pattern(repeats=3) == {"ours": [N / M for N, M in RACED], "dense": [3] * len(RACED)}
