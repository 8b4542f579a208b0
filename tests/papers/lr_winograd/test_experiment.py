"""Low-rank Winograd: the experiments."""

import dataclasses

import numpy as np
import pytest
import torch
from papernets_kernels import winograd3d

from papernets.data import moving_digits
from papernets.papers.lr_winograd import compact, experiment, transform_
from papernets.papers.lr_winograd.experiment import ARMS, compare
from papernets.papers.lr_winograd.networks import ClipNet

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_low_rank_network_learns_and_columns_that_matter_stay():
    """A wrong gradient, transform or score leaves the accuracy near the 25 % of guessing."""
    task = dataclasses.replace(experiment._task(*moving_digits(480, 200, 1), epochs=4, seed=1), lr=6e-3)
    model = task.start(ClipNet)
    transform_(model, ARMS["low rank"])
    task.learn(model, optimizer=experiment._adam)
    assert task.accuracy(model) > 0.8
    random = task.accuracy(experiment._pruned(model, 0.5, torch.Generator().manual_seed(0)))
    assert task.accuracy(experiment._pruned(model, 0.5)) > random + 0.1
    assert task.accuracy(compact(model)) == task.accuracy(model)


def test_the_comparison_is_fair_and_repeatable():
    one, other = (compare(2, train=48, test=40, epochs=1, draws=1) for _ in range(2))
    assert one == other and {row["seed"] for row in one} == {2}
    wanted = {(arm, share) for arm in ("vanilla", "low rank") for share in (0.0, 0.25, 0.5)}
    wanted |= {(f"{arm}, random", share) for arm in ("vanilla", "low rank") for share in (0.25, 0.5)}
    assert {(row["arm"], row["at"]) for row in one} == wanted and len(one) == len(wanted)
    assert all(0 <= row["score"] <= 1 for row in one) and max(row["packed"] for row in one if row["at"] == 0) < 1e-4


def test_the_race_compares_results(monkeypatch):
    found = experiment.race(0, channels=8, size=(4, 5, 6), repeats=1)
    assert found["peer"] == min(found["peers"].values()) > 0 and set(found["ours"]) == {0, 0.5}
    real = winograd3d.conv3d
    monkeypatch.setattr(winograd3d, "conv3d", lambda *a, **k: real(*a, **k) + np.float32(0.1))
    with pytest.raises(ValueError, match="no time is quoted"):
        experiment.race(0, channels=8, size=(4, 5, 6), repeats=1)


def test_the_timed_layers_are_one_layer_with_and_without_columns():
    whole, fewer = experiment.tuned_layers(0, width=6, train=24, epochs=1, tuning=1)
    assert len(whole.place) == 64 and len(fewer.place) == 32 and whole.U.shape[1:] == fewer.U.shape[1:] == (6, 6)
    times = experiment.pair_of_times((whole, fewer), 2, (4, 4, 4))
    assert [len(side) for side in times] == [2, 2] and min(times[0] + times[1]) > 0
