"""1xN sparsity: the networks and their counts."""

import pytest
from torch import nn

from papernets.measure import count_of
from papernets.papers.one_by_n.networks import NETWORKS, counts


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match="network is 'vgg'; choose from mobilenetv1, mobilenetv2, mobilenetv3s"):
        counts("vgg")


def masked_by_the_code(name: str, layer: str, module: nn.Module) -> bool:
    """Its rule: every convolution of ResNet-50 but the stem, of MobileNets the pointwise ones, and all linear layers."""
    if isinstance(module, nn.Linear):
        return True
    return isinstance(module, nn.Conv2d) and module.groups == 1 and (
        layer != "conv1" if name == "resnet50" else module.kernel_size == (1, 1))


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_against_a_network_that_was_pruned(name):
    """Counted on the layers themselves; those of the classifier, which are the last, stay dense."""
    network = NETWORKS[name]
    model, whole = network.outline, count_of(network.build, network.shape)
    layers = [layer for layer, module in model.named_modules() if masked_by_the_code(name, layer, module)]
    assert counts(name)["layers"] == len(layers)
    layers = layers[:-2 if name.startswith("mobilenetv3") else -1]
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
