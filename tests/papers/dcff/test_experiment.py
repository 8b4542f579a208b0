"""Dynamic-coded filter fusion: the experiments."""

import math

import pytest
import torch
from papers.dcff.sample import same, snapshot
from torch import nn

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.dcff import DCFF, FusedConv2d
from papernets.papers.dcff.experiment import ARMS, compare, keep_largest, learn
from papernets.training import Task

pytestmark = pytest.mark.usefixtures("one_thread")


def task(epochs: int, seed: int = 0, batch: int = 32, lr: float = 0.05) -> Task:
    """Sixty digits."""
    return Task(digits(61, 0)[0], digits(1700, 0)[1], epochs, seed, lr, batch)


def blends(model: nn.Module) -> list[FusedConv2d]:
    return [module for module in model.modules() if isinstance(module, FusedConv2d)]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_repeats_itself(arm):
    (model, accuracies, _), (again, others, _) = (learn(task(3, 5, 16), arm, widths=(7, 11)) for _ in range(2))
    assert accuracies == others
    assert len(accuracies) == 3
    assert all(0 <= share <= 1 for share in accuracies)
    for one, other in zip(model.state_dict().values(), again.state_dict().values()):
        assert torch.equal(one, other)
    assert model.features[1].num_features == 3
    assert model.classifier.in_features == 5
    assert [len(m.weight) for m in blends(model)] == ([7, 11] if arm in ("fused", "random") else [])
    other, _, _ = learn(task(3, 6, 16), arm, widths=(7, 11))
    assert not torch.equal(other.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_all_its_epochs(arm, epochs):
    assert len(learn(task(epochs), arm, widths=(3, 5))[1]) == epochs


def test_random_arm_keeps_one_random_set():
    kept = [[m.kept.tolist() for m in blends(learn(task(epochs, 2), "random", widths=(13, 17))[0])] for epochs in (1, 4)]
    assert kept[0] == kept[1]  # training does not change it
    assert all(one == sorted(one) for one in kept[0])
    assert kept[0] != [list(range(6)), list(range(8))]


def test_exchanged_filters_are_counted():
    """κ = 10/E keeps the scores moving; a random set never changes; the other arms have no kept set."""
    slow = DCFF(growth="slow")
    exchanged = {arm: learn(task(5, 2, 8, 0.3), arm, widths=(13, 17), config=slow)[2] for arm in ARMS}
    assert len(exchanged["fused"]) == 4
    assert sum(exchanged["fused"]) > 0
    assert all(0 <= number <= 14 for number in exchanged["fused"])  # 6 of 13 and 8 of 17 are kept
    assert exchanged["random"] == [0] * 4
    assert exchanged["narrow"] == exchanged["l1"] == []


def test_unknown_arm_is_refused():
    with pytest.raises(ValueError, match=r"arm is 'wide'; choose from fused, narrow, l1, random"):
        learn(task(1), "wide")


def test_compare_leaves_the_number_of_threads():
    torch.set_num_threads(2)
    compare(0, train=40, test=20, epochs=1, widths=(3,), arms=("narrow",))
    assert torch.get_num_threads() == 2


def test_compare():
    options = dict(train=40, test=20, epochs=2, widths=(5, 7), removed=0.5)
    rows, again, others = compare(3, **options), compare(3, **options), compare(4, **options)
    assert rows == again
    assert rows != others
    assert [(row["seed"], row["arm"], row["at"]) for row in rows] == [(3, arm, None) for arm in ARMS]
    assert all(len(row["accuracies"]) == 2 and row["score"] == row["accuracies"][-1] for row in rows)
    assert [row["difference"] < 1e-5 for row in rows if "difference" in row] == [True] and "difference" in rows[0]


def test_an_arm_alone_and_another_form_of_the_method():
    options = dict(train=160, test=200, epochs=3, widths=(13, 17))
    rows, blurred = compare(3, **options), DCFF(T_e=1.0)  # the blends stay blends
    assert compare(3, arms=("fused",), **options) == rows[:1]
    form = compare(3, arms=("fused",), config=blurred, **options)[0]
    assert len(form["exchanged"]) == 2 and form["accuracies"] != rows[0]["accuracies"]


@pytest.mark.parametrize("removed", [0.0, 0.3, 0.6])
def test_keep_largest_keeps_the_largest_l1_norms(removed):
    model = ConvNet((7, 11, 13), 5).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.rand(len(module.weight), 1, 1, 1) + 0.5)
    before = snapshot(model)
    narrow = keep_largest(model, removed, torch.zeros(1, 3, 9, 9))
    same(model, before)
    channels = list(range(3))
    for index in (0, 4, 8):
        weight = model.features[index].weight.detach()
        norms = [sum(abs(v) for v in row) for row in weight.flatten(1).tolist()]
        m = math.floor(len(norms) * (1 - removed))
        kept = sorted(sorted(range(len(norms)), key=lambda j: -norms[j])[:m])
        assert torch.equal(narrow.features[index].weight, weight[kept][:, channels])
        assert torch.equal(narrow.features[index + 1].weight, model.features[index + 1].weight[kept])
        channels = kept
    assert torch.equal(narrow.classifier.weight, model.classifier.weight[:, channels])
