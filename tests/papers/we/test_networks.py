"""Weight Evolution: the networks and their counts."""

import pytest
import torch
from torch import nn

from papernets.measure import parameters
from papernets.papers.we.networks import CIFAR_NETWORKS, for_small_images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "parameters_"), [("mobilenet", 3_309_476), ("mobilenetv2", 2_351_972), ("resnet56", 858_868)])
def test_networks_for_small_images(name, parameters_):
    model = CIFAR_NETWORKS[name](100).eval()
    assert parameters(model) == parameters_
    sides = []
    if hasattr(model, "features"):
        model.features.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[2:]))
        model(torch.zeros(1, 3, 32, 32))
        assert sides == [(4, 4)]
    assert for_small_images(nn.Sequential(nn.Conv2d(1, 1, 1)))[0].stride == (1, 1)
