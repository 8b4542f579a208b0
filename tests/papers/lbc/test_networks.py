"""LBC: the networks and their counts."""

import math

import pytest
import torch
from torch import nn

from papernets.measure import count, parameters
from papernets.nn import DeiT, ResNetBasic
from papernets.papers.lbc import LBC, SparseConv2d, compact, expected_density, networks, refresh_, remove, sparsify_, to_groups
from papernets.papers.lbc.networks import SmallMLP, counts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: LBC(0, 4), "N is 0; it is a whole number of at least 1"),
     (lambda: LBC(2.0, 4), "N is 2.0; it is a whole number"),
     (lambda: LBC(5, 4), "N is 5 of M = 4; the largest N is 4"),
     (lambda: LBC(8, 16), r"8:16 has 12870 supports, and the limit is 2000: .* take 804 times the memory .* 4:8 takes 8.75"),
     (lambda: LBC(t_i=5, t_f=5), "the removal ends at epoch 5 and starts at 5; it must end at 6 or later"),
     (lambda: LBC(t_i=-1), "the removal starts at epoch -1; the earliest is 0"),
     (lambda: LBC(rule="best"), "rule is 'best'; choose from scores, random, magnitude, ste"),
     (lambda: to_groups(torch.zeros(4, 6), 4), "M is 4, and 6 inputs are no multiple of it; the nearest M that divides is 3"),
     (lambda: to_groups(torch.zeros(4), 4), r"the weight has shape \(4,\); it is \(Co, Ci\) or"),
     (lambda: remove(torch.zeros(1, 6), torch.ones(1, 6, dtype=torch.bool), 0), "0 supports are to stay; .* from 1 to 6"),
     (lambda: remove(torch.full((1, 6), math.nan), torch.ones(1, 6, dtype=torch.bool), 2), "a score is not finite"),
     (lambda: expected_density(7, 2, 4), "c is 7; 2:4 has from 1 to 6 supports"),
     (lambda: networks.network("vgg"), "no network 'vgg'; choose from resnet18, resnet50, deitsmall"),
     (lambda: refresh_(SmallMLP(), 0), "this network has no N:M layer; call sparsify_ first"),
     (lambda: compact(SmallMLP()), "this network has no N:M layer; call sparsify_ first"),
     (lambda: sparsify_(nn.Linear(4, 4)), "the network is itself a layer; put it into")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_counts_against_a_network_that_was_made_sparse():
    """ResNet-18, its layers counted by their masks."""
    model = ResNetBasic()
    before = parameters(model)
    sparsify_(model, LBC(1, 4, rule="random", ignore=("conv1", "classifier")))
    layers = [m for m in model.modules() if isinstance(m, SparseConv2d)]
    found = counts("resnet18", 1, 4)
    assert len(layers) == found["layers"] and sum(m.weight.numel() for m in layers) == found["weights"]
    assert before - sum(int((~m.mask).sum()) for m in layers) == found["nonzero"]
    x = torch.zeros(1, 3, 32, 32)
    costs, plain = count(model, x), count(ResNetBasic(), x)
    inside = {name for name, m in model.named_modules() if isinstance(m, SparseConv2d)}
    assert all(costs[name].macs * (4 if name in inside else 1) == plain[name].macs for name in plain)


def test_the_transformer_has_the_published_size():
    with torch.device("meta"):
        model = DeiT()
    assert parameters(model) == 22_050_664
    assert counts("deitsmall")["layers"] == 48 and counts("deitsmall")["weights"] == 12 * 12 * 384**2
