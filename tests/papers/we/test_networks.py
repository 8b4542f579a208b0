"""Weight Evolution: the networks and their counts."""

import pytest
import torch
from torch import nn

from papernets.measure import parameters
from papernets.papers.we import WE, WE_IMAGENET
from papernets.papers.we.networks import NETWORKS, for_small_images

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "parameters_"), [("mobilenet", 3_309_476), ("mobilenetv2", 2_351_972), ("resnet56", 858_868)])
def test_networks_for_small_images(name, parameters_):
    model = NETWORKS[f"{name}-cifar100"].build().eval()
    assert parameters(model) == parameters_
    sides = []
    if hasattr(model, "features"):
        model.features.register_forward_hook(lambda module, inputs, output: sides.append(output.shape[2:]))
        model(torch.zeros(1, 3, 32, 32))
        assert sides == [(4, 4)]
    assert for_small_images(nn.Sequential(nn.Conv2d(1, 1, 1)))[0].stride == (1, 1)


def test_an_unknown_network_is_refused():
    with pytest.raises(ValueError, match=r"network is 'resnet18-cifar10'; choose from mobilenet-cifar10, "):
        NETWORKS["resnet18-cifar10"]


def test_the_networks_are_set_for_their_data():
    assert [made.config for name, made in NETWORKS.items() if name.endswith("imagenet")] == [WE_IMAGENET] * 2
    assert {made.config for name, made in NETWORKS.items() if not name.endswith("imagenet")} == {WE()}
    assert [NETWORKS[name].shape[1] for name in ("vgg16-cifar10", "resnet34-imagenet", "mobilenetv2-0.25-imagenet")] == [
        32, 224, 128]
