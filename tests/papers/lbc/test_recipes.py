"""LBC: the recipes."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from papernets.measure import parameters
from papernets.nn import DeiT
from papernets.papers.lbc import SparseConv2d, SparseLinear, recipes, violations
from papernets.papers.lbc.networks import counts
from papernets.papers.lbc.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recipes():
    assert {"resnet50-ste-imagenet", "deitsmall-ste-imagenet"} <= set(RECIPES)
    recipe = RECIPES["resnet50-imagenet"]()
    assert (recipe.epochs, recipe.batch, recipe.momentum, recipe.weight_decay) == (120, 256, 0.9, 1e-4)
    assert recipe.lr(0) == 0 and recipe.lr(5) == pytest.approx(0.1) and recipe.lr(120) == pytest.approx(0, abs=1e-12)
    model = RECIPES["resnet18-1of16-imagenet"]().build()
    assert isinstance(model.conv1, nn.Conv2d) and not isinstance(model.conv1, SparseConv2d)
    assert sum(isinstance(m, SparseConv2d) for m in model.modules()) == 19
    first, second = recipe.optimizer(model).param_groups
    assert second["weight_decay"] == 0 and first["weight_decay"] == 1e-4
    assert len(first["params"]) == 1 + 19 * 2 + 1 and all(p.dim() > 1 for p in first["params"])
    RECIPES["resnet18-1of16-imagenet"]().before_epoch(model, 60)
    assert violations(model) == 0
    exported = recipe.export(model)
    assert parameters(exported) == counts("resnet18")["params"]
    outputs, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    assert recipe.make_loss()(outputs, None, labels) == functional.cross_entropy(outputs, labels, label_smoothing=0.1)


def test_the_recipe_of_the_transformer():
    recipe = RECIPES["deitsmall-imagenet"]()
    model = recipe.build()
    layers = [m for m in model.modules() if isinstance(m, SparseLinear)]
    assert recipe.epochs == 300 and len(layers) == 48 and {m.config.t_f for m in layers} == {200}
    assert [block.drop for block in model.blocks] == pytest.approx([0.1 * block / 11 for block in range(12)])
    assert RECIPES["deitsmall-dense-imagenet"]().build().blocks[11].drop == pytest.approx(0.1)
    plain = recipe.optimizer(model).param_groups[1]
    assert plain["weight_decay"] == 0 and any(p is model.token for p in plain["params"])


def test_the_images_of_the_transformer_are_repeated_erased_and_mixed():
    """As the released script does: three times in a row, a quarter of them with a rectangle of noise, and every batch mixed."""
    torch.manual_seed(0)
    recipe, images = RECIPES["deitsmall-imagenet"](), torch.full((1200, 1, 16, 16), 9.0)
    gone = (recipe.augment(images) != 9).flatten(1).float().mean(1)
    assert recipe.repeats == 3 and (gone > 0).float().mean() == pytest.approx(0.25, abs=0.04) and gone.max() < 0.4
    batch, labels, seen = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 1, 8, 8), torch.arange(32), []
    for _ in range(20):
        recipe.step(lambda x: seen.append(x) or torch.zeros(32, 32), batch, labels)
    assert not any(torch.equal(one, batch) for one in seen)


@pytest.mark.parametrize("name", ["deitsmall-imagenet", "deitsmall-ste-1of4-imagenet", "deitsmall-dense-imagenet"])
def test_the_recipe_of_the_transformer_runs_on_pictures(name, tmp_path, monkeypatch):
    """Changed, erased, repeated and mixed images of a folder, and a network that ends N:M."""
    draw = np.random.default_rng(0)
    for part, images in (("train", 3), ("val", 2)):
        for label in ("no", "yes"):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for index in range(images):
                pixels = draw.integers(0, 100, (19, 23, 3)) + 150 * (label == "yes")
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / part / label / f"{index}.png")
    monkeypatch.setattr(recipes, "DeiT", lambda drop: DeiT(16, 12, 2, 224, 112, 2, drop=drop))
    changed, steps = [], []
    monkeypatch.setattr(recipes, "rand_augment", lambda picture: changed.append(picture.size) or picture)
    own = RECIPES[name]()
    recipe = replace(own, batch=4, step=lambda model, images, labels: steps.append(images) or own.step(model, images, labels))
    history = run_recipe(recipe, tmp_path / "run", data=tmp_path / "data", epochs=1, workers=0)
    assert changed == [(224, 224)] * 6 and [len(images) for images in steps] == [4, 2] and math.isfinite(history.loss[0])
    assert 0 <= history.scores[0] <= 1
    saved = torch.load(tmp_path / "run" / "best.pt")
    assert saved["blocks.11.attn.qkv.weight"].shape == (48, 16) and not any("scores" in key for key in saved)
