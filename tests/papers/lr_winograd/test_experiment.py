"""Low-rank Winograd: the experiments."""

import copy

import numpy as np
import pytest
import torch
from model_checks import lively
from papernets_kernels import winograd3d

from papernets.measure import count, report
from papernets.papers.lr_winograd import LowRankWinograd, compact, expand, experiment, factors, prune_, transform_
from papernets.papers.lr_winograd.experiment import ARMS, clips, compare, truncation
from papernets.papers.lr_winograd.networks import ClipNet
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def test_factors_are_the_best_of_their_rank():
    W = torch.randn(5, 7, 3, 3, 3, dtype=torch.float64)
    errors, tails = truncation(W)
    torch.testing.assert_close(errors, tails, atol=1e-12, rtol=0)
    assert (errors[:26].diff() < -1e-4).all() and float(errors[26:].max()) < 1e-12
    P, Q = factors(expand(W), 12)
    torch.testing.assert_close(P.norm(dim=0), Q.norm(dim=1))


def test_a_network_ranks_all_columns_together():
    model = ClipNet()
    transform_(model, ARMS["vanilla"])
    weak, strong = model.body[0], model.body[3]
    weak.M.data.mul_(1e-3)
    prune_(model, 0.5, LowRankWinograd(scope="network"))
    assert int(weak.kept.sum()) == 1 and int(strong.kept.sum()) == 63
    assert weak.columns()[0] == weak.importance().argmax()


def test_the_original_is_left_alone():
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    before = copy.deepcopy(model.state_dict())
    compact(model.train())
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_the_report_shows_what_is_saved():
    model = lively(ClipNet(16))
    pruned = copy.deepcopy(model)
    transform_(pruned, ARMS["low rank"])
    prune_(pruned, 0.5)
    x = torch.zeros(2, 1, 8, 16, 16)
    found = report(model, compact(pruned), x, timed=False)
    assert found.after.parameters - found.before.parameters == 2 * 16 * 16 * (32 - 27)
    assert found.after.bytes - found.before.bytes == 4 * 2 * 16 * 16 * (32 - 27) + 2 * 8
    assert found.before.macs - found.after.macs == 2 * 2 * 16 * 16 * (27 * 8**3 - 32 * 4**3)
    assert count(pruned, x)["body.0"].macs == count(compact(pruned), x)["body.0"].macs == 2 * 16 * 16 * 32 * 4**3


def test_clips_move_as_their_labels_say():
    train, test = clips(12, 8, 3, noise=0)
    assert train.images.shape == (12, 1, 8, 16, 16) and len(test) == 8
    for video, label in zip(train.images[:, 0], train.labels.tolist()):
        shift = experiment.MOVES[label]
        for frame in range(7):
            torch.testing.assert_close(video[frame].roll(shift, (0, 1)), video[frame + 1])
    assert float(clips(4, 2, 3)[0].images.std()) > float(train.images.std())


def test_a_low_rank_network_learns_and_columns_that_matter_stay():
    """A wrong gradient, transform or score leaves the accuracy near the 25 % of guessing."""
    first, second = clips(480, 200, 1)
    seed_everything(1)
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    experiment._train(model, first, 4, 1, lr=6e-3)
    assert experiment._accuracy(model, second) > 0.8
    random = experiment._without(model, 0.5, second, torch.Generator().manual_seed(0))
    assert experiment._without(model, 0.5, second) > random + 0.1
    assert experiment._accuracy(compact(model), second) == experiment._accuracy(model, second)


def test_the_comparison_is_fair_and_repeatable():
    one, other = (compare(2, train=48, test=40, epochs=1, draws=1) for _ in range(2))
    assert one == other and set(one["arms"]) == {"vanilla", "low rank"} and one["packed"] < 1e-4
    assert all(set(arm["kept"]) == set(arm["random"]) == {0.25, 0.5} for arm in one["arms"].values())


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
