"""LBC: the layers and the verbs."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from papers.lbc.sample import HEAD, finished
from torch import nn
from torch.nn import functional

from papernets.data import digits
from papernets.measure import macs, parameters
from papernets.nn import ResNetCIFAR, SmallMLP
from papernets.papers.lbc import (
    LBC,
    SparseConv2d,
    SparseLinear,
    compact,
    density,
    left,
    refresh_,
    remove,
    sparsifiable,
    sparsify_,
    start,
    supports,
    to_groups,
    union,
    violations,
)
from papernets.training import Task, single_thread

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_size_of_a_score_scales_nothing():
    layer = SparseLinear(nn.Linear(8, 6), LBC(), torch.Generator())
    nn.init.normal_(layer.scores)
    layer.refresh_(25)
    x = torch.randn(3, 8)
    before = layer(x)
    with torch.no_grad():
        layer.scores[5] *= 7
    assert torch.equal(layer(x), before)


def test_scores_are_sums_of_elements_while_nothing_is_removed():
    """One accumulator for each weight explains all scores: the best support is that of the N largest."""
    model = nn.Sequential(nn.Linear(8, 6))
    sparsify_(model, LBC())
    layer, optimizer = model[0], torch.optim.SGD(model.parameters(), 0.05)
    elements = torch.zeros(12, 4)
    for _ in range(5):
        w, x = layer.weight.detach().clone(), torch.randn(9, 8)
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        elements -= 0.05 * to_groups(w * layer.weight.grad, 4)
        optimizer.step()
    torch.testing.assert_close(layer.scores.detach(), start(2, 4) + elements @ supports(2, 4).T)
    best = union(remove(layer.scores, layer.alive, 1), supports(2, 4))
    assert torch.equal(best, torch.zeros(12, 4, dtype=torch.bool).scatter_(1, elements.topk(2, 1).indices, True))


def rehearse(config, epochs=8):
    """Scores that fall and then rise: what was removed first is the best at the end."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    sparsify_(model, config)
    layer, seen = model[0], []
    for epoch in range(epochs):
        refresh_(model, epoch)
        model(torch.ones(1, 4))
        seen.append(tuple(torch.nonzero(layer.alive[0]).flatten().tolist()))
        with torch.no_grad():
            layer.scores += 0.1 * torch.tensor([[-1.0, 1, 0, 2, 3, 4]]) if epoch < 3 else torch.tensor([[5.0, 0, 0, 0, 0, 0]])
    return layer, seen


def test_permanent_and_re_ranked_removal_differ():
    layer, seen = rehearse(LBC(t_f=6))
    assert 0 not in seen[-1] and len(seen[-1]) == 1 and all(set(b) <= set(a) for a, b in pairwise(seen))
    layer, again = rehearse(LBC(t_f=6, rerank=True))
    assert again[-1] == (0,) and any(not set(b) <= set(a) for a, b in pairwise(again))
    assert [len(s) for s in again] == [len(s) for s in seen] == [left(e, 2, 4, 0, 6) for e in range(8)]
    assert layer.final


@pytest.mark.parametrize("rerank", [False, True])
def test_after_the_last_removal_nothing_moves(rerank):
    model = SmallMLP(8, 12)
    finished(model, LBC(t_f=3, ignore=HEAD, rerank=rerank)).train()
    masks = [model.fc1.mask.clone(), model.fc2.mask.clone()]
    assert violations(model) == 0 and density(model) == 0.5
    rows = {tuple(row) for row in supports(2, 4).bool().tolist()}
    assert {tuple(row) for row in to_groups(masks[0], 4).tolist()} <= rows
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for epoch in range(4, 9):
        refresh_(model, epoch)
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        assert (model.fc1.scores.grad == 0).all() and (model.fc1.weight.grad[~masks[0]] == 0).all()
        optimizer.step()
        with torch.no_grad():
            model.fc1.scores.normal_()
    assert torch.equal(model.fc1.mask, masks[0]) and torch.equal(model.fc2.mask, masks[1])


def test_an_earlier_epoch_brings_nothing_back():
    model = SmallMLP(8, 12)
    finished(model, LBC(t_f=3, ignore=HEAD))
    refresh_(model, 0)
    assert violations(model) == 0 and int(model.fc1.removed) == 5


def test_a_resumed_run_goes_on_where_it_was():
    first, second = SmallMLP(8, 12), SmallMLP(8, 12)
    for model, epoch in ((first, 4), (second, 0)):
        sparsify_(model, LBC(t_f=6, ignore=HEAD))
        nn.init.normal_(model.fc1.scores)
        refresh_(model, epoch)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 8)
    assert torch.equal(second(x), first(x)) and int(second.fc1.removed) == int(first.fc1.removed) == 4
    assert torch.equal(second.fc1.alive, first.fc1.alive) and not second.fc1.alive.all()


def test_n_of_n_is_the_dense_layer():
    model = SmallMLP(8, 12)
    x, expected = torch.randn(3, 8), None
    expected = model(x)
    sparsify_(model, LBC(4, 4, ignore=HEAD))
    refresh_(model, 60)
    assert torch.equal(model(x), expected) and density(model) == 1 and model.fc1.final
    torch.testing.assert_close(compact(model)(x), expected)


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(12, 5, 3, padding=1), nn.Conv2d(12, 5, (1, 2), 2, bias=False)])
def test_at_the_start_it_is_the_dense_layer_bit_for_bit(layer):
    model = nn.Sequential(copy.deepcopy(layer))
    sparsify_(model)
    x = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 12, 7, 6)
    assert torch.equal(model(x), layer(x)) and density(model) == 1
    refresh_(model, 0)
    assert torch.equal(model(x), layer(x))


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(12, 5, 3, padding=1)])
def test_the_gradient_of_the_weight_is_the_masked_dense_one(layer):
    model, plain = nn.Sequential(copy.deepcopy(layer)), layer
    finished(model, LBC(1, 4))
    x = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 12, 7, 6)
    with torch.no_grad():
        plain.weight *= model[0].mask
    upstream = torch.randn_like(plain(x))
    (model(x) * upstream).sum().backward()
    (plain(x) * upstream).sum().backward()
    gone = ~model[0].mask
    assert gone.float().mean() == 0.75 and (model[0].weight.grad[gone] == 0).all()
    torch.testing.assert_close(model[0].weight.grad, plain.weight.grad * ~gone)
    assert (plain.weight.grad[gone] != 0).all()


def test_the_rules_to_compare_with():
    x, seen = torch.randn(7, 8), {}
    base = nn.Linear(8, 6)
    for rule in ("random", "magnitude", "ste"):
        model = nn.Sequential(copy.deepcopy(base))
        sparsify_(model, LBC(rule=rule))
        refresh_(model, 3)
        assert violations(model) == 0 and parameters(model) == parameters(base)
        out = model(x)
        torch.testing.assert_close(out, functional.linear(x, base.weight * model[0].mask, base.bias))
        out.sum().backward()
        seen[rule] = model[0]
        torch.testing.assert_close(compact(model)(x), out.detach())
    by_size = torch.zeros(12, 4, dtype=torch.bool).scatter_(1, to_groups(base.weight, 4).abs().topk(2, 1).indices, True)
    assert torch.equal(to_groups(seen["ste"].mask, 4), by_size) and torch.equal(seen["magnitude"].mask, seen["ste"].mask)
    assert not torch.equal(seen["random"].mask, seen["ste"].mask)
    for rule in ("random", "magnitude"):
        assert (seen[rule].weight.grad[~seen[rule].mask] == 0).all()
    torch.testing.assert_close(seen["ste"].weight.grad, x.sum(0).expand(6, 8))  # dense: as without a mask
    with torch.no_grad():  # the choice by size is made anew, the random one is not
        for layer in seen.values():
            before = layer.mask.clone()
            layer.weight.copy_(torch.randn(6, 8))
            assert torch.equal(layer.mask, before) is (layer is seen["random"])


@pytest.mark.parametrize("rule", ["scores", "magnitude"])
def test_macs_are_those_of_the_mask(rule):
    model = nn.Sequential(nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 7 * 5, 4))
    sparsify_(model, LBC(1, 2, rule=rule, t_f=4))
    x = torch.zeros(2, 8, 9, 7)
    full = 2 * (35 * 6 * 72 + 4 * 210)
    assert macs(model, x) == (full if rule == "scores" else full // 2)
    refresh_(model, 4)
    assert macs(model, x) == full // 2 and macs(model, x, "thop") == full // 2 + 2 * 35 * 6
    packed = compact(model)
    assert macs(packed, x) == full // 2 and macs(packed, x, "thop") == full // 2 + 2 * 35 * 6


def test_what_is_made_sparse_by_default_and_what_is_left_out():
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 12, 1), nn.Linear(12, 8))
    assert list(sparsifiable(model)) == ["0", "2", "3"]
    assert list(sparsifiable(model, LBC(ignore=("3",)))) == ["0", "2"]
    assert list(sparsifiable(model, LBC(filter_fn=lambda name, module: isinstance(module, nn.Linear)))) == ["3"]
    assert list(sparsifiable(model, LBC(1, 8, skip=True))) == ["0", "2"]


@pytest.mark.parametrize(
    ("config", "message"),
    [(LBC(), r"conv1: M is 4, and 3 inputs are .* is 3; leave the layer dense with ignore=\('conv1',\) or skip=True"),
     (LBC(1, 5, ignore=("conv1",)), r"blocks.0.conv1: M is 5, and 16 inputs are no multiple of it; the nearest M .* is 4"),
     (LBC(ignore=("stem",)), "ignore names 'stem', which is no layer"),
     (LBC(filter_fn=lambda name, module: False), "no Conv2d or Linear of this network is left to work on")])
def test_a_refused_network_is_unchanged(config, message):
    model = ResNetCIFAR(8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        sparsify_(model, config)
    assert not any(isinstance(module, SparseLinear | SparseConv2d) for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_twice_is_refused():
    model = SmallMLP()
    sparsify_(model, LBC(ignore=HEAD))
    with pytest.raises(ValueError, match="fc1 has scores already; begin with the dense network"):
        sparsify_(model, LBC(ignore=HEAD))


def test_scores_that_are_not_finite_name_their_layer():
    model = SmallMLP()
    sparsify_(model, LBC(ignore=HEAD))
    with torch.no_grad():
        model.fc2.scores[3, 1] = math.nan
    with pytest.raises(ValueError, match="fc2: s holds a value that is not finite; supports are ranked by finite scores"):
        refresh_(model, 30)


def test_a_network_learns_while_it_loses_its_weights():
    with single_thread():
        task, seen = Task(*digits(1000, 0), 12, weight_decay=1e-4), []
        model = task.start(SmallMLP)
        sparsify_(model, LBC(1, 8, t_f=5, ignore=HEAD))
        task.learn(model, before_epoch=refresh_, after_epoch=lambda model, epoch, history: seen.append(density(model)))
        assert task.accuracy(model) > 0.9
    assert seen[0] == 1 and seen[5:] == [0.125] * 7 and seen == sorted(seen, reverse=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [(dict(N=0), "N is 0; it is a whole number of at least 1"), (dict(N=5), "N is 5 of M = 4; the largest N is 4"),
     (dict(t_f=0), "t_f, where the removal ends, is 0; it is a whole number of at least 1"),
     (dict(t_i=-1), "t_i, where the removal starts, is -1; it is a whole number of at least 0"),
     (dict(rule="best"), "rule is 'best'; choose from scores, random, magnitude, ste")])
def test_a_wrong_configuration_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LBC(**options)


def test_what_is_not_sparse_is_refused():
    for verb in (lambda model: refresh_(model, 0), density, violations):
        with pytest.raises(ValueError, match="this network has no N:M layer; call sparsify_ first"):
            verb(SmallMLP())


def test_a_network_that_is_itself_a_layer_is_refused():
    model = nn.Linear(4, 4)
    with pytest.raises(ValueError, match=r"the network is itself a layer; put it into an nn\.Sequential"):
        sparsify_(model)
    assert type(model) is nn.Linear and "scores" not in model.state_dict()
