"""Dynamic-coded filter fusion: the recipes."""

import math

import pytest
import torch
from papers.dcff.sample import cost
from torch import nn

from papernets.papers.dcff import FusedConv2d, refresh_
from papernets.papers.dcff.networks import NARROW, NETWORKS
from papernets.papers.dcff.recipes import RECIPES

pytestmark = pytest.mark.usefixtures("one_thread")

FUSED_LAYERS = {"vgg16": 13, "resnet56": 55, "resnet110": 109, "googlenet": 63,
                **{f"resnet50-{key}": 48 for key in "abcdef"}}


@pytest.fixture
def weightless(monkeypatch):
    """Networks without weights, so that the large ones can be built in no time; their blends are then not computed."""
    monkeypatch.setattr(FusedConv2d, "refresh", lambda self, T: True)
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_builds(recipe, weightless):
    made = RECIPES[recipe]()
    name = recipe.rpartition("-")[0]
    model, narrow, dense = made.build(), NARROW[name](), NETWORKS[name].build()
    example = NETWORKS[name].example
    layers = {key: m for key, m in model.named_modules() if isinstance(m, FusedConv2d)}
    assert len(layers) == FUSED_LAYERS[name]
    for key, layer in layers.items():
        m, wide = narrow.get_submodule(key), dense.get_submodule(key)
        assert layer.phi.shape == (m.out_channels, wide.out_channels)
        assert layer.weight.shape == (wide.out_channels, *m.weight.shape[1:])
        assert (layer.bias is None) == (m.bias is None)
    left = [key for key, m in model.named_modules() if type(m) is nn.Conv2d]
    assert all(key == "conv1" or key == "stem.0" or ".shortcut." in key for key in left)
    exported = made.export(model)
    assert cost(exported, example) == cost(narrow, example)
    assert cost(model, example)[:2] == cost(narrow, example)[:2]
    assert made.before_epoch.func is refresh_ and made.before_epoch.keywords == {"epochs": made.epochs}


def test_the_recipes_are_those_of_the_networks():
    assert {name.rpartition("-")[0] for name in RECIPES} == set(NETWORKS)
    assert len(RECIPES) == 10


@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("cifar10")])
def test_cifar_recipe(name):
    made = RECIPES[name]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("cifar10", 300, 256, 5e-4, 0.9)
    for epoch, lr in ((0, 0.1), (149.99, 0.1), (150, 0.01), (224.99, 0.01), (225, 0.001), (299.99, 0.001)):
        assert made.lr(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("key", "abc")
def test_imagenet_step_recipe(key):
    made = RECIPES[f"resnet50-{key}-imagenet"]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("imagenet", 90, 256, 1e-4, 0.9)
    for epoch, lr in ((0, 0), (1, 0.02), (2.5, 0.05), (5, 0.1), (29.99, 0.1), (30, 0.01), (59.99, 0.01), (60, 0.001),
                      (80, 1e-4), (89.99, 1e-4)):
        assert made.lr(epoch) == pytest.approx(lr)


@pytest.mark.parametrize("key", "def")
def test_imagenet_cosine_recipe(key):
    made = RECIPES[f"resnet50-{key}-imagenet"]()
    assert (made.data, made.epochs, made.batch, made.weight_decay, made.momentum) == ("imagenet", 180, 256, 1e-4, 0.99)
    for epoch, lr in ((0, 0), (2.5, 0.005), (5, 0.01), (92.5, 0.005), (180, 0),
                      (48.75, 0.005 * (1 + math.cos(math.pi / 4)))):
        assert made.lr(epoch) == pytest.approx(lr, abs=1e-15)
