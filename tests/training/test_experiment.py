"""The frame of an experiment: equal conditions for every arm, and the rows in which it answers."""

import pytest
import torch

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.training import Task, cosine, fit, loader, logits, pair, row, scores, seed_everything, single_thread, steps


def small():
    return ConvNet((4, 4), channels=1, pool=(0,))


def test_a_task_trains_as_the_loop_alone_does_to_the_last_bit():
    data = digits(60, 3)
    with single_thread():
        task = Task(*data, epochs=2, seed=3, lr=0.1, batch=16)
        model = task.start(small)
        history = task.learn(model)
        accuracy = task.accuracy(model)
        seed_everything(3)
        other = small()
        expected = fit(other, loader(data[0], 16, True), None, epochs=2, lr=cosine(0.1, 2), weight_decay=5e-4, seed=3)
        found = (logits(other, data[1].images).argmax(1) == data[1].labels).float().mean()
    assert history.loss == expected.loss and history.lr == expected.lr and accuracy == float(found) and not model.training
    assert all(torch.equal(one, two) for one, two in zip(model.state_dict().values(), other.state_dict().values()))


def test_every_arm_starts_alike_and_a_second_training_has_another_order():
    task = Task(*digits(60, 0), epochs=1, schedule=lambda lr, epochs: steps(lr, ()))
    with single_thread():
        one, two, three = (task.start(small) for _ in range(3))
        assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))
        first, second = task.learn(one), task.learn(two)
        other = task.learn(three, again=1, share=0.5)
    assert first.loss == second.loss != other.loss and (first.lr, other.lr) == ([0.05], [0.025])
    assert task.learn(two, 0).loss == []


def test_options_go_to_the_loop():
    task, seen = Task(*digits(60, 0), epochs=2), []
    history = task.learn(task.start(small), test=loader(task.test, 500, False), lr=cosine(0.01, 2),
                         before_epoch=lambda model, epoch: seen.append(epoch))
    assert seen == [0, 1] and len(history.scores) == 2 and history.lr[0] == 0.01


ROWS = [row(seed, arm, score + seed, at=at, gap=seed / 10)
        for seed in (1, 0) for arm, at, score in (("ours", 0.5, 7), ("narrow", 0.5, 5), ("ours", 0.9, 3), ("dense", None, 9))]


def test_scores_stand_by_rising_seed():
    assert scores(ROWS, "ours", 0.5) == [7, 8] and scores(ROWS, "dense") == [9, 10]
    assert scores(ROWS, "ours", 0.9, "gap") == [0.0, 0.1]
    assert pair(ROWS, "ours", "narrow", 0.5, scale=100) == ([700, 800], [500, 600])


def test_what_is_not_there_or_not_paired_is_refused():
    with pytest.raises(ValueError, match=r"arm and setting is \('wide', 0\.5\); choose from \('ours', 0\.5\), "
                                         r"\('narrow', 0\.5\)"):
        scores(ROWS, "wide", 0.5)
    with pytest.raises(ValueError, match="two rows of dense at None have one seed"):
        scores([*ROWS, row(1, "dense", 3)], "dense")
    with pytest.raises(ValueError, match=r"ours has the seeds \[0, 1\] and narrow \[0\]; paired runs share their seeds"):
        pair([one for one in ROWS if one["arm"] == "ours" or one["seed"] == 0], "ours", "narrow", 0.5)
