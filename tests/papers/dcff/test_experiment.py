"""Dynamic-coded filter fusion: the experiments."""

import math

import pytest
import torch
from papers.dcff.samples import same, snapshot
from torch import nn

from papernets.data import digits
from papernets.nn import ConvNet
from papernets.papers.dcff import DCFF, FusedConv2d
from papernets.papers.dcff.experiment import ARMS, compare, keep_largest, trial

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def tiny():
    return digits(61, 0)[0], digits(1700, 0)[1]


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_runs_and_repeats_itself(arm, tiny):
    runs = [trial(arm, tiny, widths=(7, 11), epochs=3, seed=5, batch=16) for _ in range(2)]
    assert runs[0].accuracy == runs[1].accuracy
    assert len(runs[0].accuracy) == 3
    assert all(0 <= share <= 1 for share in runs[0].accuracy)
    for one, other in zip(runs[0].model.state_dict().values(), runs[1].model.state_dict().values()):
        assert torch.equal(one, other)
    model = runs[0].model
    assert model.features[1].num_features == 3
    assert model.classifier.in_features == 5
    fused = [m for m in model.modules() if isinstance(m, FusedConv2d)]
    assert [len(m.weight) for m in fused] == ([7, 11] if arm in ("fused", "random") else [])
    other = trial(arm, tiny, widths=(7, 11), epochs=3, seed=6, batch=16)
    assert not torch.equal(other.model.classifier.weight, model.classifier.weight)


@pytest.mark.parametrize("epochs", [1, 2, 5])
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_all_its_epochs(arm, epochs, tiny):
    assert len(trial(arm, tiny, widths=(3, 5), epochs=epochs, batch=32).accuracy) == epochs


def test_random_arm_keeps_one_random_set(tiny):
    kept = [[m.kept.tolist() for m in trial("random", tiny, widths=(13, 17), epochs=e, seed=2, batch=32).model.modules()
             if isinstance(m, FusedConv2d)] for e in (1, 4)]
    assert kept[0] == kept[1]  # training does not change it
    assert all(one == sorted(one) for one in kept[0])
    assert kept[0] != [list(range(6)), list(range(8))]


def test_exchanged_filters_are_counted(tiny):
    """κ = 10/E keeps the scores moving; a random set never changes; the other arms have no kept set."""
    slow = DCFF(growth="slow")
    found = {arm: trial(arm, tiny, widths=(13, 17), epochs=5, seed=2, batch=8, lr=0.3, config=slow).exchanged
             for arm in ARMS}
    assert len(found["fused"]) == 4
    assert sum(found["fused"]) > 0
    assert all(0 <= number <= 14 for number in found["fused"])  # 6 of 13 and 8 of 17 are kept
    assert found["random"] == [0] * 4
    assert found["narrow"] == found["l1"] == []


def test_unknown_arm_is_refused(tiny):
    with pytest.raises(ValueError, match=r"no arm 'wide'; choose from fused, narrow, l1, random"):
        trial("wide", tiny)


def test_trial_leaves_the_number_of_threads(tiny):
    torch.set_num_threads(2)
    trial("narrow", tiny, widths=(3,), epochs=1, batch=32)
    assert torch.get_num_threads() == 2


def test_compare():
    options = dict(train=40, test=20, epochs=2, widths=(5, 7), rate=0.5)
    one, again, other = compare(3, **options), compare(3, **options), compare(4, **options)
    assert one == again
    assert one != other
    assert set(one) == {"seed", "export", *ARMS}
    assert one["seed"] == 3
    assert one["export"] < 1e-5
    assert all(len(one[arm]) == 2 for arm in ARMS)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6])
def test_keep_largest_keeps_the_largest_l1_norms(rate):
    model = ConvNet((7, 11, 13), 5).eval()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(torch.rand(len(module.weight), 1, 1, 1) + 0.5)
    before = snapshot(model)
    found = keep_largest(model, rate, torch.zeros(1, 3, 9, 9))
    same(model, before)
    channels = list(range(3))
    for index in (0, 4, 8):
        weight = model.features[index].weight.detach()
        norms = [sum(abs(v) for v in row) for row in weight.flatten(1).tolist()]
        m = math.floor(len(norms) * (1 - rate))
        kept = sorted(sorted(range(len(norms)), key=lambda j: -norms[j])[:m])
        assert torch.equal(found.features[index].weight, weight[kept][:, channels])
        assert torch.equal(found.features[index + 1].weight, model.features[index + 1].weight[kept])
        channels = kept
    assert torch.equal(found.classifier.weight, model.classifier.weight[:, channels])
