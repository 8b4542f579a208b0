"""CC: the recipes."""

import json

import numpy as np
import pytest
import torch

from papernets.cards import card
from papernets.nn import ConvNet
from papernets.papers.cc import CC, clipped, compact, networks, recipes
from papernets.papers.cc.recipes import RECIPES
from papernets.training import loader, run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_claims_have_their_recipes():
    wanted = {claim.recipe for claim in card("cc").claims if claim.kind == "full"}
    assert wanted == {"papernets train cc --config resnet50-imagenet"} and "resnet50-imagenet" in RECIPES
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
    monkeypatch.setitem(networks.NETWORKS, "resnet50", (lambda: ConvNet((4, 6), classes=2, pool=(0, 1)), 224))
    monkeypatch.setattr(recipes, "RUNS", tmp_path / "runs")
    recipe, folder = RECIPES["resnet50-imagenet"], tmp_path / "runs" / "resnet50-imagenet"
    with pytest.raises(ValueError, match=r"best\.pt is not there; .* papernets train cc --config resnet50-dense-imagenet"):
        run_recipe(recipe(), folder, data=tmp_path, workers=0)
    dense = tmp_path / "runs" / "resnet50-dense-imagenet"
    dense.mkdir(parents=True)
    torch.save(ConvNet((4, 6), classes=2, pool=(0, 1)).state_dict(), dense / "best.pt")
    monkeypatch.setattr(recipes, "loader", lambda data, batch, shuffle, workers=0: loader(data, batch, shuffle, 0))
    monkeypatch.setattr(recipes, "CC", lambda: CC(target=0.1))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)
    kept = json.loads((folder / "plan.json").read_text())
    small = compact(ConvNet((4, 6), classes=2, pool=(0, 1)), kept)
    small.load_state_dict(torch.load(folder / "best.pt", weights_only=True))
    monkeypatch.setattr(recipes, "plan", lambda *a: pytest.fail("the plan is made once"))
    run_recipe(recipe(), folder, data=tmp_path, epochs=1, workers=0)  # goes on with the plan that is there


def test_the_schedules_of_the_recipes():
    cifar, imagenet = RECIPES["resnet56-cifar10"](), RECIPES["resnet50-imagenet"]()
    assert (cifar.epochs, cifar.batch, cifar.weight_decay, cifar.momentum) == (300, 128, 1e-4, 0.9)
    assert [cifar.lr(at) for at in (0, 149.9, 150, 225)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    assert cifar.augment.keywords == {"pad": 8} and cifar.optimizer is clipped and imagenet.batch == 256
    assert RECIPES["resnet56-dense-cifar10"]().optimizer is None
