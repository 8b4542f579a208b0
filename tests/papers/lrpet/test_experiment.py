"""LRPET: the experiments."""

import numpy as np
import pytest
import torch

from papernets.data import digits
from papernets.papers.lrpet import LRPET, compact, experiment, project_
from papernets.papers.lrpet.experiment import ARMS, compare, gradient_logs
from papernets.papers.lrpet.networks import PlainNet
from papernets.training import fit, loader, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_with_the_projection_learns_at_a_low_rank():
    """A wrong sign, a lost energy or a batch norm folded the wrong way leaves the network at the level of guessing."""
    train, test = digits(1000, 0)
    seed_everything(0)
    model, config, example = PlainNet(4), LRPET(share=0.7), torch.zeros(1, 1, 8, 8)
    fit(model, loader(train, 64, True), None, epochs=8, lr=steps(0.1, (4, 6)), weight_decay=1e-4, seed=0,
        after_epoch=lambda model, epoch, history: project_(model, config, example))
    pairs = compact(model, config)
    assert [len(pairs.features[at][0].weight) for at in (0, 3, 6, 9)] == [2, 4, 9, 9]
    assert experiment._accuracy(pairs, test) > 0.8
    untrained = PlainNet(4)
    project_(untrained, config, example)
    assert experiment._accuracy(compact(untrained, config), test) < 0.4


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, epochs=2, shares=(0.8,), depth=2) for _ in range(2))
    assert first == second and set(first["arms"][0.8]) == set(ARMS) and first["gap"] < 1e-3
    assert len(first["curves"][0.8]["before"]) == len(first["curves"][0.8]["after"]) == 2
    assert first["curves"][0.8]["after"][-1] == pytest.approx(first["arms"][0.8]["lrpet"], abs=0.005)


def test_gradients_vanish_without_the_transfer():
    runs = [gradient_logs(seed) for seed in range(10)]
    without, given = (np.array([run[name] for run in runs]) for name in ("without", "with"))
    assert (without[:, -1] < -4).all() and np.abs(given[:, -1]).mean() < 2
    slope = np.diff(without.mean(0)).mean()
    kept = float(torch.linalg.svdvals(torch.randn(5, 64, 64, dtype=torch.float64))[:, :12].square().sum(1).mean())
    assert slope == pytest.approx(0.5 * np.log(kept / 64**2), abs=0.1)  # the share of the energy that is kept, a layer


def test_times_and_multiplications_of_a_layer():
    found = experiment.layer_times(8, 16, 5, (1, 3), at_least=0.001)
    assert found["dense.macs"] == [16 * 72 * 25] and found["pair.macs"] == [88 * 25, 3 * 88 * 25]
    assert len(found["pair"]) == 2 and min(found["pair"] + found["dense"]) > 0
