"""CC: the experiments."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.cc.samples import normal

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.cc import compact, experiment, gradients, ranks, reestimate_, score, search
from papernets.papers.cc.experiment import ARMS, compare, layer_times, outside, slow_forward
from papernets.training import fit, loader, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("Co", "Ci", "k"), [(7, 5, 3), (5, 11, 1), (4, 2, 3)])
def test_the_cost_is_that_of_the_rebuilt_layer(Co, Ci, k):
    assert experiment.cost_difference([(Co, Ci, k)]) == 0


def test_a_wrong_cost_is_seen(monkeypatch):
    monkeypatch.setattr(experiment, "cost", lambda Co, Ci, area, p=0, z=0: Co * (Ci - p) * area)
    assert experiment.cost_difference([(7, 5, 3)]) > 0


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 6), st.integers(1, 5), st.sampled_from([1, 2, 3]), st.integers(0, 99))
def test_the_closed_forward_term_is_the_mean_over_what_is_left(Co, Ci, k, seed):
    W, G = normal(Co, Ci, k, k, seed=seed), normal(Co, Ci, k, k, seed=seed + 1000)
    if Ci + ranks(Co, Ci, k * k) < 3:
        return
    found = score(W, G)
    for closed, slow in zip((found.channels_forward, found.ranks_forward), slow_forward(W, G)):
        torch.testing.assert_close(closed, slow, rtol=1e-6, atol=1e-9)


def test_no_layer_gives_less_or_a_unit_more():
    number, rows = outside(1, target=0.4)
    assert number == 0 and len(rows) == 36 and all(row["whole"] >= 0.4 for row in rows)
    assert len({round(row["goal"], 6) for row in rows if row["units"] == "joint"}) == 12  # every layer its own


def test_a_compressed_network_still_knows_the_digits():
    """A wrong sign, order or index leaves far less; random order is the measure."""
    train, test = digits(600, 0)
    seed_everything(0)
    model = ConvNet((12, 16, 16), channels=1, pool=(0,))
    fit(model, loader(train, 64, True), None, epochs=8, lr=steps(0.05, (5, 7)), weight_decay=1e-4, seed=0)
    batches = loader(train, 100, False)
    G = gradients(model.eval(), batches, ["features.4", "features.7"])
    found = {}
    for name, random in (("metric", False), ("random", True)):
        kept = {}
        for layer, g in G.items():
            W = model.get_submodule(layer).weight.detach()
            draw = torch.Generator().manual_seed(0) if random else None
            kept[layer] = search(W, g, 0.5, generator=draw).layer
        small = compact(model, kept)
        reestimate_(small, batches)
        found[name] = experiment._accuracy(small, test)
    assert experiment._accuracy(model, test) > 0.9 and found["metric"] > 0.8 and found["metric"] > found["random"] + 0.1


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=150, epochs=1, tuning=1, cuts=(0.5,)) for _ in range(2))
    assert first == second and set(first["arms"][0.5]) == set(ARMS) and set(first["order"]) == {"metric", "one step", "random"}
    assert all(0.46 < arm["macs"] <= 0.5 for arm in first["arms"][0.5].values())


def test_times_of_all_forms():
    found = layer_times(8, 7, repeats=1, inner=1)
    dense = found["dense"]["macs"]
    assert dense == 8 * 72 * 49 and set(found) == {"dense", *ARMS}
    assert all(0.4 < found[name]["macs"] / dense < 0.6 for name in ARMS)
    assert found["joint"]["second.macs"] == 49 * 8 * found["joint"]["rank"]
    assert all(found["joint"][key] > 0 for key in ("ms", "first", "second", "copy")) and "first" not in found["pruning"]
