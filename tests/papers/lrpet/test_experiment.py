"""LRPET: the experiments."""

import numpy as np
import pytest
import torch

from papernets.data import digits
from papernets.papers.lrpet import LRPET, compact, experiment, project_
from papernets.papers.lrpet.experiment import ARMS, compare, gradient_logs
from papernets.papers.lrpet.networks import PlainNet
from papernets.training import Task, scores

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_with_the_projection_learns_at_a_low_rank():
    """A wrong sign, a lost energy or a batch norm folded the wrong way leaves the network at the level of guessing."""
    task = Task(*digits(1000, 0), 8, 0, 0.1, weight_decay=1e-4, schedule=experiment._falling)
    model, config, example = task.start(PlainNet, 4), LRPET(removed=0.7), torch.zeros(1, 1, 8, 8)
    task.learn(model, after_epoch=lambda model, epoch, history: project_(model, config, example))
    pairs = compact(model)
    assert [len(pairs.features[at][0].weight) for at in (0, 3, 6, 9)] == [2, 4, 9, 9]
    assert task.accuracy(pairs) > 0.8
    untrained = PlainNet(4)
    project_(untrained, config, example)
    assert task.accuracy(compact(untrained)) < 0.4


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, epochs=2, shares=(0.8,), depth=2) for _ in range(2))
    assert first == second and [(row["arm"], row["at"]) for row in first] == [("full", None), *((arm, 0.8) for arm in ARMS)]
    assert {row["seed"] for row in first} == {3} and max(row.get("gap", 0) for row in first) < 1e-3
    last = first[-1]
    assert last["arm"] == "lrpet" and len(last["before"]) == len(last["after"]) == 2
    assert last["after"][-1] == pytest.approx(last["score"], abs=0.005)


def test_gradients_vanish_without_the_transfer():
    rows = [row for seed in range(10) for row in gradient_logs(seed)]
    without, given = (np.array(scores(rows, name, key="logs")) for name in ("without", "with"))
    assert (without[:, -1] < -4).all() and np.abs(given[:, -1]).mean() < 2
    assert scores(rows, "with") == np.abs(given[:, -1]).tolist()
    slope = np.diff(without.mean(0)).mean()
    kept = float(torch.linalg.svdvals(torch.randn(5, 64, 64, dtype=torch.float64))[:, :12].square().sum(1).mean())
    assert slope == pytest.approx(0.5 * np.log(kept / 64**2), abs=0.1)  # the share of the energy that is kept, a layer


def test_times_and_multiplications_of_a_layer():
    times = experiment.layer_times(8, 16, 5, (1, 3), at_least=0.001)
    assert times["dense.macs"] == [16 * 72 * 25] and times["pair.macs"] == [88 * 25, 3 * 88 * 25]
    assert len(times["pair"]) == 2 and min(times["pair"] + times["dense"]) > 0
