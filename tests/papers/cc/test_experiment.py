"""CC: the experiments."""

import pytest
import torch

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.cc import experiment, gradients, narrowed, search
from papernets.papers.cc.experiment import ARMS, compare, layer_times, outside
from papernets.training import Task, reestimate_, steps

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("Co", "Ci", "k"), [(7, 5, 3), (5, 11, 1), (4, 2, 3)])
def test_the_cost_is_that_of_the_rebuilt_layer(Co, Ci, k):
    assert experiment.cost_difference([(Co, Ci, k)]) == 0


def test_a_wrong_cost_is_seen(monkeypatch):
    monkeypatch.setattr(experiment, "cost", lambda Co, Ci, area, p=0, z=0: Co * (Ci - p) * area)
    assert experiment.cost_difference([(7, 5, 3)]) > 0


def test_no_layer_gives_less_or_a_unit_more():
    number, rows = outside(1, removed=0.4)
    assert number == 0 and len(rows) == 36 and all(row["whole"] >= 0.4 for row in rows)
    assert len({round(row["goal"], 6) for row in rows if row["units"] == "joint"}) == 12  # every layer its own


def test_a_compressed_network_still_knows_the_digits():
    """A wrong sign, order or index leaves far less; random order is the measure."""
    task = Task(*digits(600, 0), 8, weight_decay=1e-4, schedule=lambda lr, epochs: steps(lr, (5, 7)))
    model = task.start(ConvNet, (12, 16, 16), channels=1, pool=(0,))
    task.learn(model)
    batches = task.batches(False, 100)
    G, accuracy = gradients(model, batches, ["features.4", "features.7"]), {}
    for name, random in (("metric", False), ("random", True)):
        kept = {}
        for layer, g in G.items():
            W = model.get_submodule(layer).weight.detach()
            draw = torch.Generator().manual_seed(0) if random else None
            kept[layer] = search(W, g, 0.5, generator=draw).layer
        small = narrowed(model, kept)
        reestimate_(small, batches)
        accuracy[name] = task.accuracy(small)
    assert task.accuracy(model) > 0.9 and accuracy["metric"] > 0.8 and accuracy["metric"] > accuracy["random"] + 0.1


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=150, epochs=1, tuning=1, cuts=(0.5,)) for _ in range(2))
    assert first == second and {row["seed"] for row in first} == {3}
    assert [(row["arm"], row["at"]) for row in first] == [
        ("dense", None), *((arm, 0.5) for arm in ARMS), *((order, "order") for order in ("metric", "one step", "random"))]
    assert all(0.46 < row["macs"] <= 0.5 and 0 <= row["tuned"] <= 1 for row in first if row["at"] == 0.5)


def test_times_of_all_forms():
    times = layer_times(8, 7, repeats=1, inner=1)
    dense = times["dense"]["macs"]
    assert dense == 8 * 72 * 49 and set(times) == {"dense", *ARMS}
    assert all(0.4 < times[name]["macs"] / dense < 0.6 for name in ARMS)
    assert times["joint"]["second.macs"] == 49 * 8 * times["joint"]["rank"]
    assert all(times["joint"][key] > 0 for key in ("seconds", "first", "second", "copy")) and "first" not in times["pruning"]
