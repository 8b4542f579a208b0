"""LAPP: networks are trained, and become compact on the way."""

import copy
from itertools import pairwise

import pytest
import torch
from papers.lapp.sample import same_state
from torch import nn

from papernets.data import digits
from papernets.measure import macs
from papernets.papers import lapp
from papernets.papers.lapp import (
    LAPP,
    attach_,
    kept,
    objective,
    optimiser,
    train,
)
from papernets.papers.lapp.networks import DIGIT, small_net
from papernets.training import accuracy, cosine, fit, loader, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def loaders(images=300, seed=0):
    data = digits(images, seed)
    return loader(data[0], 32, True), loader(data[1], 2000, False)


def test_a_target_of_parameters_is_hit():
    data = digits(64, 0)
    loaders = loader(data[0], 32, True), None
    small, progress = train(small_net((8, 16, 16, 16)), loaders, LAPP(removed=0.5, budget="params", progressive=1), epochs=2)
    weights = sum(m.weight.numel() for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    whole = sum(m.weight.numel() for m in small_net((8, 16, 16, 16)).modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert 0.42 < weights / whole <= 0.5 and progress.remaining[-1] == pytest.approx(weights / whole)
    with pytest.raises(ValueError, match="budget is 'bytes'; choose from macs, params"):
        LAPP(budget="bytes")


def test_slimming_in_the_middle_changes_nothing_in_what_is_learned():
    """Trained on with masks or without the masked filters: the same network in the end."""
    model, config = small_net((4, 8, 12)), LAPP(removed=0.5, progressive=1, lr=5.0)
    data = loaders()
    seed_everything(0)
    small, progress = train(model, (data[0], None), config, epochs=2, lr=lambda epoch: 0.05, example=DIGIT)
    masked, flops = copy.deepcopy(model), None
    seed_everything(0)
    flops = attach_(masked, config, DIGIT)

    def after(model, epoch, history):
        if epoch == 0:
            lapp.finish_(model, flops, config)

    fit(masked, data[0], None, epochs=2, lr=lambda epoch: 0.05, after_epoch=after, loss=objective(masked, flops, config),
        optimizer=lambda model: optimiser(model, flops, config))
    x = torch.randn(5, 1, 8, 8)
    assert progress.kept[-1] == kept(masked) and progress.remaining[-1] < 0.5
    torch.testing.assert_close(small.eval()(x), masked.eval()(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bypass", ["grouped", "depthwise", None])
def test_learning_reaches_the_target_step_by_step_and_still_reads_digits(bypass):
    """A wrong sign leaves r at 1; a wrong gradient of the share stops it; a wrong mask or export loses the accuracy."""
    model, data = small_net((16, 24, 24, 24)), loaders(600)
    before = copy.deepcopy(model.state_dict())
    config = LAPP(removed=0.7, bypass=bypass, progressive=8, lr=0.15 if bypass else 0.08)
    small, progress = train(model, data, config, epochs=12, lr=cosine(0.05, 12))
    assert same_state(before, model)
    r = progress.remaining
    assert len(r) == 13 and r[0] >= 1 and r[-1] <= 0.3 and len(progress.scores) == len(progress.loss) == 12
    assert macs(small, DIGIT) / macs(model, DIGIT) == pytest.approx(r[-1])
    assert sum(1 > value > 0.35 for value in r) >= 2, "falls over several epochs"
    assert all(later <= earlier + 0.02 for earlier, later in pairwise(r)), "never rises but for single filters"
    shares = [left / 24 for left in progress.kept[-1].values()]
    assert max(shares) - min(shares) > 0.15, "each layer has its own rate"
    assert progress.scores[-1] == pytest.approx(accuracy(small, data[1])) and progress.scores[-1] > 0.9


def test_the_constraint_acts_before_the_last_shift():
    """Without it, or with the wrong sign, nothing is pruned until the masks are made final."""
    data = loaders(300)
    options = dict(epochs=6, lr=cosine(0.05, 6), example=DIGIT)
    configs = (LAPP(removed=0.6, progressive=6, lr=0.3, strength=strength) for strength in (10.0, 0.0))
    with_it, without = (train(small_net((8, 16, 16)), (data[0], None), config, **options)[1] for config in configs)
    assert with_it.remaining[5] < 0.7 < 0.95 < without.remaining[5]
    assert with_it.steepest < without.steepest


@pytest.mark.parametrize("rule", ["uniform", "one-shot"])
def test_the_baselines(rule):
    _, progress = train(small_net((8, 16, 16)), loaders(), LAPP(removed=0.6, progressive=4, bypass=None), epochs=5, rule=rule,
                        example=DIGIT)
    r = progress.remaining
    assert r[0] == 1 and r[-1] <= 0.4 and len(set(progress.kept[-1].values())) == 1
    falls = [before - after for before, after in pairwise(r)]
    assert (falls[:3] == [0, 0, 0]) == (rule == "one-shot") and (max(falls) < 0.3) == (rule == "uniform")


def test_a_target_of_one_is_ordinary_training():
    model, data = small_net((4, 8, 8)), loaders()
    small, progress = train(model, (data[0], None), LAPP(removed=0, progressive=1), epochs=3, lr=cosine(0.05, 3), example=DIGIT)
    plain = copy.deepcopy(model)
    fit(plain, data[0], None, epochs=3, lr=cosine(0.05, 3))
    assert progress.remaining == [1.0] * 4
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), plain.state_dict().values(), strict=True))


def test_the_same_seed_gives_the_same_network():
    model, config = small_net((4, 8, 8)), LAPP(progressive=2, lr=0.5)
    one, other = (train(model, (loaders()[0], None), config, epochs=3, example=DIGIT, seed=3)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
