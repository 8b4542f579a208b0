"""LBC: the networks and their counts."""

import pytest
import torch
from torch import nn

from papernets.measure import count, parameters
from papernets.nn import ResNetBasic
from papernets.papers.lbc import LBC, SparseConv2d, sparsifiable, sparsify_
from papernets.papers.lbc.networks import NETWORKS, counts

pytestmark = pytest.mark.usefixtures("one_thread")


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="network is 'vgg'; choose from resnet18, resnet50, deitsmall"):
        counts("vgg")


def test_the_stem_and_the_classifier_stay_dense():
    for name, stem in (("resnet18", "conv1"), ("resnet50", "conv1"), ("deitsmall", "patches")):
        network = NETWORKS[name]
        layers = sparsifiable(network.outline, network.config)
        every = [at for at, module in network.outline.named_modules() if isinstance(module, nn.Conv2d | nn.Linear)]
        assert set(every) - set(layers) == {stem, "classifier"}


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
    assert parameters(NETWORKS["deitsmall"].outline) == 22_050_664
    assert counts("deitsmall")["layers"] == 48 and counts("deitsmall")["weights"] == 12 * 12 * 384**2
