"""1xN sparsity: the experiments."""

import numpy as np
import pytest

from papernets.data import digits
from papernets.papers.one_by_n import MaskedConv2d, OneByN, experiment, prune_
from papernets.papers.one_by_n.experiment import ARMS, compare
from papernets.papers.one_by_n.networks import SmallMobileNet
from papernets.training import cosine, fit, loader, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_pruned_network_learns_what_it_lost():
    """A wrong mask, a mask that moves or a blocked gradient leaves the accuracy where pruning has put it."""
    data = digits(1000, 0)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    seed_everything(0)
    model = SmallMobileNet((16, 32, 32, 32))
    fit(model, *loaders, epochs=5, lr=cosine(0.05, 5), seed=0)
    prune_(model, OneByN(rate=0.8, kernel=(1,)))
    before = experiment._accuracy(model, data[1])
    after = fit(model, *loaders, epochs=3, lr=cosine(0.02, 3), seed=1).accuracy[-1]
    assert before < 0.5 and after > 0.8
    kept = [float(m.mask.float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert kept == pytest.approx([0.2] * 3, abs=0.01)
    zero = [float((m.weight == 0).float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert zero == pytest.approx([0.8] * 3, abs=0.01)


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, test=150, epochs=1, tuning=1, rates=(0.5,)) for _ in range(2))
    right = 150 * first["dense"]
    assert right == pytest.approx(round(right), abs=1e-4)  # a share of as many images as were asked for
    assert first == second and set(first["arms"][0.5]) == set(ARMS) and first["packed"] < 1e-4
    kept = {name: arm["norm"] for name, arm in first["arms"][0.5].items()}
    assert kept["weight"] > kept["1x2"] > kept["1x4"] > kept["1x16"]
    assert kept["1x4 rearranged"] > kept["1x4"] and kept["1x16 rearranged"] > kept["1x16"]


def test_the_race_compares_results(monkeypatch):
    found = experiment.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real, seen = experiment.kernel.matmul, []
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: seen.append(len(packed.columns)) or real(packed, x))
    experiment.race(0, channels=16, side=3, repeats=1, N=8, rate=0.5)
    assert set(seen) == {16, 32}  # half of 2·16 blocks, and all of them
    monkeypatch.setattr(experiment.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        experiment.race(0, channels=16, side=3, repeats=1)
