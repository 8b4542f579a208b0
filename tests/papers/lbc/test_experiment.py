"""LBC: the experiments."""

import numpy as np
import pytest
import torch
from papers.lbc.samples import HEAD

from papernets.papers import lbc
from papernets.papers.lbc import LBC, experiment, sparsify_
from papernets.papers.lbc.experiment import ARMS, compare, rescale_
from papernets.papers.lbc.networks import SmallMLP

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("rule", lbc.RULES)
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
    assert first == second and set(first["arms"][1, 4]) == set(ARMS) and first["packed"] < 1e-4
    assert first["density"][1, 4] == [1.0, 0.25] and all(0.1 < value < 1 for value in first["arms"][1, 4].values())


def test_the_race_compares_results(monkeypatch):
    found = experiment.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real = experiment.kernel.matmul
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        experiment.race(0, channels=16, side=3, repeats=1)
