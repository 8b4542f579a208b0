"""CC: the recipes."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from papernets.nn import ConvNet, Network
from papernets.papers.cc import CC, narrowed, networks, recipes
from papernets.papers.cc.recipes import RECIPES
from papernets.training import clipped_sgd, loader, run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_recipes_of_the_code_are_there():
    assert {"resnet50-dense-imagenet", "resnet56-cifar10", "densenet40-cifar10", "vgg16-dense-cifar10"} <= set(RECIPES)


def test_a_recipe_names_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES["resnet50-imagenet"](), tmp_path)


def test_a_recipe_from_the_dense_network_to_the_fine_tuned_one(tmp_path, monkeypatch):
    """On a small network and a data set of a few images in the published format of folders."""
    from PIL import Image
    for part in ("train", "val"):
        for label in ("cat", "dog"):
            (tmp_path / part / label).mkdir(parents=True)
            for at in range(4):
                pixels = np.random.default_rng(at).integers(0, 255, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / part / label / f"{at}.png")

    def build():
        return ConvNet((4, 6), classes=2, pool=(0, 1))

    monkeypatch.setitem(networks.NETWORKS, "resnet50", Network(build, (3, 224, 224)))
    monkeypatch.chdir(tmp_path)
    recipe, folder = RECIPES["resnet50-imagenet"], tmp_path / "runs" / "cc" / "resnet50-imagenet"
    with pytest.raises(ValueError, match=r"best\.pt is not there; .* papernets train cc --config resnet50-dense-imagenet"):
        run_recipe(recipe(), folder, data=tmp_path, workers=0)
    dense = tmp_path / "runs" / "cc" / "resnet50-dense-imagenet"
    dense.mkdir(parents=True)
    torch.save(build().state_dict(), dense / "best.pt")
    monkeypatch.setattr(recipes, "loader", lambda data, batch, shuffle, workers=0: loader(data, batch, shuffle, 0))
    monkeypatch.setattr(recipes, "CC", lambda: CC(removed=0.1))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)
    kept = json.loads((folder / "plan.json").read_text())
    small = narrowed(build(), kept)
    small.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    monkeypatch.setattr(recipes, "plan", lambda *a: pytest.fail("the plan is made once"))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)  # goes on with the plan that is there


def test_the_schedules_of_the_recipes():
    cifar, imagenet = RECIPES["resnet56-cifar10"](), RECIPES["resnet50-imagenet"]()
    assert (cifar.epochs, cifar.batch, cifar.weight_decay, cifar.momentum) == (300, 128, 1e-4, 0.9)
    assert [cifar.lr(at) for at in (0, 149.9, 150, 225)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert cifar.augment.keywords == {"pad": 8} and cifar.optimizer is clipped_sgd and imagenet.batch == 256
    assert RECIPES["resnet56-dense-cifar10"]().optimizer is None


def test_the_fine_tuning_cuts_a_long_gradient_and_leaves_a_short_one():
    for size, expected in ((3.0, 0.1), (0.2, 0.02)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(model.weight)
        optimizer = RECIPES["resnet56-cifar10"]().optimizer(model)
        model.weight.grad = torch.full((1, 1), size)
        optimizer.step()
        assert model.weight.item() == pytest.approx(-expected, rel=1e-5)
