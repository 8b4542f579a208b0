"""Reordering filters: the network computes the same, and all that is joined moves alike."""

import pytest
import torch
from model_checks import lively
from torch import nn

from papernets.nn import ConvNet, MobileNetV1, MobileNetV2, MobileNetV3, ResNetBasic, ResNetCIFAR, surgery

pytestmark = pytest.mark.usefixtures("one_thread")



def _inner_layers(model):
    return [name for name, m in model.named_modules() if isinstance(m, nn.Conv2d) and name.endswith((".block.0", ".conv1"))]


class Joined(nn.Module):
    """Two convolutions of 4 and 5 filters side by side, a batch norm and a linear layer on the flattened image."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.bn, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1), nn.BatchNorm2d(9), nn.Linear(9 * 36, 2)

    def forward(self, x):
        return self.last(self.bn(torch.cat([self.a(x), self.b(x)], 1)).flatten(1))


@pytest.mark.parametrize(("build", "names", "pixels"), [
    (Joined, lambda model: ["b", "a"], 6),
    (lambda: ConvNet((5, 7, 11)), lambda model: ["features.0", "features.4", "features.8"], 16),
    (lambda: MobileNetV1(0.25, 7), lambda model: [n for n, m in model.named_modules()
                                                  if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)], 65),
    (lambda: MobileNetV2(0.25, 7), _inner_layers, 65),
    (lambda: MobileNetV3("small", 0.5, 7), _inner_layers, 65),
    (lambda: ResNetBasic(18, (3,) * 8, (5, 7, 11, 13), 7), _inner_layers, 65),
], ids=["joined", "convnet", "mobilenet v1", "mobilenet v2", "mobilenet v3", "resnet18"])
def test_a_reordered_network_computes_the_same(build, names, pixels):
    torch.manual_seed(0)
    model = lively(build())
    x, chosen = torch.randn(2, 3, pixels, pixels), names(model)
    orders = {name: torch.randperm(model.get_submodule(name).out_channels) for name in chosen}
    found, moved = surgery.permute_filters(model, orders, x[:1])
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), atol=1e-5, rtol=1e-5)
    for name in chosen:
        first, order = model.get_submodule(name), orders[name]
        assert torch.equal(moved[name], order)
        if not isinstance(build, type):
            continue
        assert torch.equal(found.get_submodule(name).weight, first.weight[order])
        assert torch.equal(found.get_submodule(name).bias, first.bias[order])
    assert not any(p.grad is not None for p in model.parameters())


def test_what_is_joined_follows():
    """The outputs of a block are added to its input: the projection before it and the one inside it move alike."""
    torch.manual_seed(0)
    model = lively(MobileNetV2(0.25, 7))
    last = "features.5.block.6"
    assert model.features[5].adds
    order = torch.randperm(model.get_submodule(last).out_channels)
    _, moved = surgery.permute_filters(model, {last: order}, torch.randn(1, 3, 65, 65))
    others = [name for name in moved if name != last]
    assert "features.4.block.6" in others and all(torch.equal(moved[name], order) for name in others)


@pytest.mark.parametrize(("orders", "message"), [
    ({"a": [0, 1, 2]}, "a: an order holds each filter from 0 to 3 once"),
    ({"a": [0, 1, 2, 2]}, "a: an order holds each filter"),
    ({"last": [0, 1]}, "'last' is no convolution of this network"),
])
def test_orders_that_are_refused(orders, message):
    with pytest.raises(ValueError, match=message):
        surgery.permute_filters(Joined(), {name: torch.tensor(order) for name, order in orders.items()},
                                torch.zeros(1, 3, 6, 6))


def test_orders_that_disagree_are_refused():
    model = ResNetCIFAR(8, stages=(4, 4, 4))
    with pytest.raises(ValueError, match="are joined and must be in the same order"):
        surgery.permute_filters(model, {"conv1": torch.tensor([1, 0, 2, 3]), "blocks.0.conv2": torch.tensor([0, 1, 3, 2])},
                                torch.zeros(1, 3, 32, 32))


def test_the_network_itself_is_not_reordered():
    with pytest.raises(ValueError, match="cannot be followed through this network"):
        surgery.permute_filters(nn.Sequential(nn.Conv2d(3, 4, 1)), {"0": torch.tensor([1, 0, 3, 2])}, torch.zeros(1, 3, 5, 5))


def test_without_strict_the_first_counts_and_the_rest_stays():
    """The stages of this network are joined by shortcuts that fill up channels: they cannot be followed, the blocks can."""
    torch.manual_seed(0)
    model = lively(ResNetCIFAR(8, (5, 6, 7), (4, 8, 16)))
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    orders = {name: torch.arange(model.get_submodule(name).out_channels).flip(0) for name in names}
    x = torch.randn(2, 3, 32, 32)
    found, moved = surgery.permute_filters(model, orders, x[:1], strict=False)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x), atol=1e-5, rtol=1e-5)
    assert {f"blocks.{block}.conv1" for block in range(3)} <= set(moved) < set(names)
    assert all(torch.equal(moved[name], orders[name]) for name in moved if name.endswith("conv1"))
