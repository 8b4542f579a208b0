"""1xN sparsity: the networks and their counts."""

import math

import pytest
import torch
from papers.one_by_n.samples import HAND
from torch import nn

from papernets.measure import count
from papernets.papers.one_by_n import OneByN, compact, mask, networks
from papernets.papers.one_by_n.networks import NETWORKS, counts

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: mask(HAND, -0.1), r"rate -0.1 is outside \[0, 1\]; the nearest is 0"),
     (lambda: mask(HAND, 1.5), r"rate 1.5 is outside \[0, 1\]; the nearest is 1"),
     (lambda: mask(HAND, 0.5, 3), "N is 3, and 4 filters are no multiple of it; the nearest N that divides is 2"),
     (lambda: mask(torch.zeros(6, 4, 1, 1), 0.5, 4), "N is 4, and 6 filters are no multiple .* is 3"),
     (lambda: mask(HAND, 0.5, 0), "N is 0; a block is a whole number of kernels, at least 1"),
     (lambda: mask(HAND, 0.5, 2.0), "N is 2.0; a block is a whole number"),
     (lambda: mask(HAND[:, :, 0, 0], 0.5), r"the weight has shape \(4, 2\); it is \(Co, Ci, k, k\)"),
     (lambda: mask(HAND * math.nan, 0.5), "holds a value that is not finite"),
     (lambda: mask(HAND, 0.5, pattern="row"), "pattern is 'row'; choose from block, weight, kernel, filter, random"),
     (lambda: OneByN(rate=2), r"rate 2 is outside \[0, 1\]"),
     (lambda: OneByN(rate={"a": -1.0}), r"rate -1.0 is outside \[0, 1\]; the nearest is 0"),
     (lambda: OneByN(N=0), "N is 0"),
     (lambda: OneByN(pattern="row"), "pattern is 'row'"),
     (lambda: networks.network("vgg"), "no network 'vgg'; choose from mobilenetv1, "),
     (lambda: compact(nn.Sequential(nn.Conv2d(3, 4, 1))), "this network has no pruned convolution; call prune_ first")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_against_a_network_that_was_pruned(name):
    """A fifth of the width, so that every layer has other sizes; counted on the layers themselves."""
    chosen = NETWORKS[name]
    with torch.device("meta"):
        model = chosen.build()
        whole = count(model, torch.empty(1, 3, 224, 224))
    layers = [layer for layer, module in model.named_modules() if chosen.masked(layer, module)][:-chosen.spared]
    saved = removed = 0
    for layer in layers:
        W = model.get_submodule(layer).weight
        assert W.shape[0] % 4 == 0
        keep = int(W.shape[0] // 4 * W.shape[1] * 0.5)
        positions = whole[layer].macs // W.numel()
        saved += positions * keep * 4 * W.shape[2] * W.shape[3]
        removed += keep * 4 * W.shape[2] * W.shape[3]
    found = counts(name)
    assert found["dense.macs"] - found["macs"] == saved and found["removed"] == removed
