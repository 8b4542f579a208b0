"""Sub-bit networks: the experiments."""

import numpy as np
import pytest
import torch
from hdl_checks import COMPILED
from papers.snn.sample import names

from papernets.data import digits
from papernets.papers.snn import SNN, SubBitConv2d, adam, compact, experiment, networks
from papernets.papers.snn.experiment import entropy
from papernets.training import Task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("seed", [0, 1])
def test_digits_are_learnt_and_the_compact_network_is_as_good(seed):
    task = Task(*digits(1000, seed), 3, seed, 0.01, batch=32)
    model, blind = (task.start(experiment.small_network, SNN(tau=5), 16) for _ in range(2))
    task.learn(model, optimizer=adam)
    share = task.accuracy(model)
    assert share > 0.8 and task.accuracy(compact(model)) == pytest.approx(share, abs=2e-3)
    for name, p in blind.named_parameters():
        if not name.startswith("classifier"):
            p.requires_grad_(False)
    task.learn(blind, lr=lambda _: 0.01, optimizer=lambda model: torch.optim.Adam(model.classifier.parameters()))
    assert task.accuracy(blind) < share - 0.1


def test_entropy():
    assert entropy(np.arange(512)) == pytest.approx(9)
    assert entropy(np.zeros(7, int)) == 0
    assert entropy(np.array([3, 3, 8, 9])) == pytest.approx(1.5)
    chance = experiment.chance_entropy(576)
    assert chance.mean() == pytest.approx(8.26, abs=0.01) and chance.std() == pytest.approx(0.03, abs=0.01)


def test_compare():
    options = dict(train=60, epochs=1, tuning=1)
    one, again, other = experiment.compare(3, **options), experiment.compare(3, **options), experiment.compare(4, **options)
    assert one == again and [row | {"seed": 4} for row in one] != other and {row["seed"] for row in one} == {3}
    arms = {(row["arm"], row["at"]): row for row in one}
    assert len(arms) == len(one) and set(arms) == {
        *(("kept", tau) for tau in (9, 5, 3, 2, 1)), *((arm, tau) for arm in ("refined", "frequent", "random")
                                                       for tau in (5, 3, 2)),
        *((arm, layer) for arm in ("entropy", "chance") for layer in ("layer1", "layer2"))}
    assert all(8 < arms["chance", layer]["score"] < 8.5 and 0 < arms["entropy", layer]["score"] < 9
               for layer in ("layer1", "layer2"))
    assert all(0 <= row["score"] <= 1 for row in one if row["arm"] not in ("entropy", "chance"))
    assert {row["arm"] for row in one if "cut" in row} == {"frequent", "random"}


def test_a_network_is_cut_before_it_is_tuned(monkeypatch):
    """What is compared as frequent and as random begins as the one network of τ = 9, which stays as it was."""
    seen = []

    def cut(model, config):
        seen.append((config.tau, config.subset, config.refine, {name: p.clone() for name, p in model.named_parameters()}))
        return real(model, config)

    real = experiment.cut
    monkeypatch.setattr(experiment, "cut", cut)
    experiment.compare(0, train=60, epochs=1, tuning=1)
    assert [one[:3] for one in seen] == [(tau, subset, False) for tau in (5, 3, 2) for subset in ("frequent", "random")]
    assert all(torch.equal(p, seen[0][3][name]) for *_, weights in seen for name, p in weights.items())


def test_arms_of_one_seed_start_alike():
    def start(seed, config):
        return Task(*digits(10, 0), 1, seed).start(experiment.small_network, config)

    fixed, refined = start(5, SNN(refine=False)), start(5, SNN())
    assert torch.equal(fixed.conv1.weight, refined.conv1.weight) and torch.equal(fixed.conv2.P, refined.conv2.P)
    other = start(6, SNN())
    assert not torch.equal(other.conv1.P, refined.conv1.P)
    wide = start(5, SNN(tau=9))
    assert torch.equal(wide.conv2.weight, fixed.conv2.weight) and torch.equal(wide.stem.weight, fixed.stem.weight)


def test_search_counts_signs_that_moved():
    rows = experiment.search(0, [(1.0, 1.0, 5), (0.002, 1.0, 1)], train=120, epochs=2)
    assert [row["arm"] for row in rows] == ["kept", "refined", "refined"]
    moved = {row["at"]: row["moved"] for row in rows}
    assert moved[None] == 0 and moved[1.0, 1.0, 5] == 0 and moved[0.002, 1.0, 1] > 0


def test_two_stages():
    found = experiment.two_stages(0, train=60, test=20, epochs=1, taus=(9, 2), widths=(4, 6))
    assert set(found["accuracy"]) == {"real", "tau9", "tau2"} and len(found["task"].test) == 20
    assert names(found["models"]["real"], SubBitConv2d) == [] and len(names(found["models"]["tau2"], SubBitConv2d)) == 2
    assert {name: [found["task"].accuracy(model)] for name, model in found["models"].items()} == found["accuracy"]


@COMPILED
def test_the_table_of_the_law():
    rows = experiment.check_law(most=64)
    assert [row["core"].replace("\u2011", "-") for row in rows] == ["sub-bit", "binary"]
    assert all(row["equal"] and row["cycles"] == row["law"] for row in rows)
    assert [row["law"] for row in rows] == [32 * 128 + 16 + 2, 64 * 128 + 2]
    assert [row["channels"] for row in rows] == [64, 64] and rows[1]["full"] == 12_845_058


def test_the_clock_compares_equal_results(monkeypatch):
    monkeypatch.setattr(experiment, "quickest", lambda call, *_: 0.5 + 0 * call().sum())
    monkeypatch.setattr(experiment, "middle_layers", lambda: [networks.Size("small", 8, 8, 5, 5)])
    times = experiment.cpu_times()
    assert times == {"float32 (torch)": [0.5], "bits counted": [0.5], "results shared": [0.5]}
    right = experiment.subbit_kernel.conv2d
    monkeypatch.setattr(experiment.subbit_kernel, "conv2d", lambda *args, **options: right(*args, **options) + 1)
    with pytest.raises(AssertionError, match="the three ways do not agree"):
        experiment.cpu_times()


def test_the_quickest_call_counts(monkeypatch):
    now, lengths = [0.0], iter([9.0, 3.0, 1.0, 5.0, 100.0])  # the first call is not timed

    def call():
        now[0] += next(lengths)

    monkeypatch.setattr(experiment.time, "perf_counter", lambda: now[0])
    assert experiment.quickest(call, 15.0) == 1.0
