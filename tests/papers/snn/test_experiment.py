"""Sub-bit networks: the experiments."""

import numpy as np
import pytest
import torch
from papers.snn.samples import names

from papernets.data import digits
from papernets.papers.snn import SNN, SubBitConv2d, experiment, export
from papernets.papers.snn.experiment import entropy
from papernets.training import fit, loader

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("seed", [0, 1])
def test_digits_are_learnt_and_the_export_is_as_good(seed):
    model = experiment.small_network(seed, SNN(tau=5), width=16)
    data = digits(1000, seed)
    share = experiment.train_(model, data, 3, 0.01, seed)[-1]
    assert share > 0.8
    right = (export(model)(data[1].images).argmax(1) == data[1].labels).float().mean().item()
    assert right == pytest.approx(share, abs=2e-3)
    blind = experiment.small_network(seed, SNN(tau=5), width=16)
    for name, p in blind.named_parameters():
        if not name.startswith("classifier"):
            p.requires_grad_(False)
    optimizer = lambda model: torch.optim.Adam(model.classifier.parameters())  # noqa: E731
    found = fit(blind, loader(data[0], 32, True), loader(data[1], 1000, False), epochs=3, lr=lambda _: 0.01, seed=seed,
                optimizer=optimizer).accuracy[-1]
    assert found < share - 0.1


def test_entropy():
    assert entropy(np.arange(512)) == pytest.approx(9)
    assert entropy(np.zeros(7, int)) == 0
    assert entropy(np.array([3, 3, 8, 9])) == pytest.approx(1.5)
    chance = experiment.chance_entropy(576)
    assert chance.mean() == pytest.approx(8.26, abs=0.01) and chance.std() == pytest.approx(0.03, abs=0.01)


def test_compare():
    options = dict(train=60, epochs=1, tuning=1)
    one, again, other = experiment.compare(3, **options), experiment.compare(3, **options), experiment.compare(4, **options)
    assert one == again and one != other and one["seed"] == 3
    assert len(one["entropy"]) == 2 and 8 < one["chance"] < 8.5
    arms = [f"tau{tau}" for tau in (9, 5, 3, 2, 1)] + [f"{kind}{tau}" for tau in (5, 3, 2) for kind in
                                                      ("refined", "frequent", "random")]
    assert all(0 <= one[arm] <= 1 for arm in arms)


def test_arms_of_one_seed_start_alike():
    fixed, refined = (experiment.small_network(5, config) for config in (SNN(refine=False), SNN()))
    assert torch.equal(fixed.conv1.weight, refined.conv1.weight) and torch.equal(fixed.conv2.P, refined.conv2.P)
    other = experiment.small_network(6, SNN())
    assert not torch.equal(other.conv1.P, refined.conv1.P)
    wide = experiment.small_network(5, SNN(tau=9))
    assert torch.equal(wide.conv2.weight, fixed.conv2.weight) and torch.equal(wide.stem.weight, fixed.stem.weight)


def test_search_counts_signs_that_moved():
    found = experiment.search(0, [(1.0, 1.0, 5), (0.002, 1.0, 1)], train=120, epochs=2)
    assert found[None][1] == 0 and found[1.0, 1.0, 5][1] == 0 and found[0.002, 1.0, 1][1] > 0


def test_two_stages():
    found = experiment.two_stages(0, train=60, test=20, epochs=1, taus=(9, 2), widths=(4, 6))
    assert set(found["accuracy"]) == {"real", "tau9", "tau2"}
    assert names(found["models"]["real"], SubBitConv2d) == [] and len(names(found["models"]["tau2"], SubBitConv2d)) == 2
