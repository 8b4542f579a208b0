"""The comparison of eight methods: the experiments."""

import math

import pytest
import torch
from torch import nn

from papernets.comparisons.which_one import experiment
from papernets.comparisons.which_one.experiment import (
    BUDGETS,
    METHODS,
    STEM,
    arms,
    budgets,
    compare,
    narrow_widths,
    size,
    start,
)
from papernets.data import photograph_patches
from papernets.nn import ConvNet
from papernets.papers import lapp, lbc, lr_winograd, one_by_n
from papernets.training import Task, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_budgets_are_those_of_a_quarter_of_the_inner_weights():
    convs = [(27, 16, 32), (16 * 9, 32, 16), (32 * 9, 48, 8), (48 * 9, 64, 8)]  # inputs, filters, side of the output
    weights = [inputs * filters for inputs, filters, _ in convs]
    work = [weight * side**2 for weight, (_, _, side) in zip(weights, convs)]
    rest = 2 * (16 + 32 + 48 + 64) + 64 * 10 + 10  # batch norms and the classifier
    assert size(experiment.network()) == {"macs": sum(work) + 640, "params": sum(weights) + rest}
    assert budgets() == {"macs": work[0] + sum(work[1:]) // 4 + 640, "params": weights[0] + sum(weights[1:]) // 4 + rest}


@pytest.mark.parametrize("budget", BUDGETS)
def test_the_narrow_network_is_the_widest_that_fits(budget):
    widths = narrow_widths(budget)
    assert size(experiment.network(widths))[budget] <= budgets()[budget]
    wider = [math.ceil(64 * width / widths[-1] * (widths[-1] + 1) / 64) for width in widths]
    assert size(experiment.network(wider))[budget] > budgets()[budget]


def test_every_method_keeps_to_its_budget_and_comes_near(made):
    for slug, budget in arms():
        if slug == "dense":
            continue
        found = experiment.cost(made[slug, budget], experiment.EXAMPLE, timed=False)
        used = {"macs": found.macs, "params": found.parameters}
        for what in BUDGETS if METHODS[slug].both else (budget,):
            assert 0.85 * budgets()[what] < used[what] <= budgets()[what], (slug, budget, used)


def test_what_each_method_leaves_is_its_own(made):
    def kinds(slug: str) -> set[type]:
        return {type(module) for module in made[slug, "macs"].modules()}

    assert one_by_n.PackedConv2d in kinds("1xn") and lbc.PackedConv2d in kinds("lbc")
    assert lr_winograd.PackedWinograd in kinds("lr-winograd") and lapp.CompactConv2d in kinds("lapp")
    for slug in ("dense", "narrow", "dcff", "we"):
        assert kinds(slug) <= {ConvNet, nn.Sequential, nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.MaxPool2d, nn.Linear}
    for slug in ("lrpet", "cc"):
        assert sum(isinstance(module, nn.Conv2d) for module in made[slug, "macs"].modules()) > 4  # pairs
    for slug in ("1xn", "lbc", "lrpet", "lr-winograd"):
        assert type(made[slug, "macs"].get_submodule(STEM[0])) is nn.Conv2d  # the first layer stays whole


def test_first_weights_and_data_are_the_same_for_all():
    task = Task(*photograph_patches(60, 40, 3), epochs=2, seed=3)
    one, other = start(task), start(task)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))
    seed_everything(5)
    assert torch.equal(start(task).state_dict()["classifier.weight"], one.state_dict()["classifier.weight"])


def test_the_comparison_is_repeatable_and_gives_a_row_a_network_and_budget():
    one, other = (compare(1, train=40, test=40, epochs=2, pixels=32, turns=1) for _ in range(2))
    both = [(slug, "params") for slug, method in METHODS.items() if method.both]
    assert [(row["arm"], row["at"]) for row in one] == arms() + both
    for first, second in zip(one, other):
        for what in ("score", "macs", "params", "bytes", "seed"):
            assert first[what] == second[what], (first["arm"], what)
        assert first["time"] > 0 and first["seconds"] > 0
    by_arm = {(row["arm"], row["at"]): row["score"] for row in one}
    assert by_arm["lbc", "params"] == by_arm["lbc", "macs"]


def test_methods_train_what_they_say(made):
    """No network ends as another; evolved and plainly trained ones begin alike, and little evolves in a short run."""
    x = photograph_patches(60, 40, 0)[1].images[:8]
    with torch.no_grad():
        outputs = {arm: model(x) for arm, model in made.items()}
    names = list(outputs)
    for index, one in enumerate(names):
        assert torch.isfinite(outputs[one]).all()
        for other in (later for later in names[index + 1:] if later[0] != one[0]):  # two budgets may lead to one network
            assert not torch.equal(outputs[one], outputs[other]), (one, other)
