"""Sub-bit networks: the recipes."""

import functools
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from papers.snn.sample import names
from PIL import Image
from torch import nn

from papernets.nn import Network
from papernets.papers.snn import SubBitConv2d, compact, networks
from papernets.papers.snn.networks import BinaryResNet
from papernets.papers.snn.recipes import RECIPES
from papernets.training import lighting, run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", ["resnet18-1bit-imagenet", *(f"resnet18-tau{tau}-imagenet" for tau in (6, 5, 4))])
def test_the_second_stage_trains_without_decay_at_a_falling_rate(name):
    recipe = RECIPES[name]()
    assert (recipe.data, recipe.epochs, recipe.batch, recipe.weight_decay) == ("imagenet", 256, 512, 0.0)
    assert [recipe.lr(epoch) for epoch in (0, 128, 256)] == pytest.approx([1e-3, 5e-4, 0])
    assert recipe.augment is lighting and recipe.export is compact


def test_the_first_stage_and_the_teacher():
    first, real = RECIPES["resnet18-step1-imagenet"](), RECIPES["resnet34-teacher-imagenet"]()
    assert first.weight_decay == 1e-5 and first.export is None and not names(first.build(), SubBitConv2d)
    assert first.optimizer(nn.Linear(2, 2)).param_groups[0]["weight_decay"] == 1e-5
    assert [real.lr(epoch) for epoch in (0, 30, 60)] == pytest.approx([0.1, 0.01, 0.001]) and real.make_loss is None


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_without_data_says_what_it_needs(name, tmp_path):
    with pytest.raises(ValueError, match="imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES[name](), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def imagenet(tmp_path):
    """Two classes, three images each."""
    rng = np.random.default_rng(0)
    for part, kind in itertools.product(("train", "val"), ("n01", "n02")):
        (tmp_path / "imagenet" / part / kind).mkdir(parents=True)
        for index in range(3):
            pixels = rng.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "imagenet" / part / kind / f"{index}.png")
    return tmp_path / "imagenet"


def test_the_second_stage_starts_from_the_first_and_learns_from_the_teacher(imagenet, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = functools.partial(BinaryResNet, (1, 1, 1, 1))  # a quarter of the blocks
    monkeypatch.setitem(networks.NETWORKS, "resnet18", Network(small, (3, 224, 224)))
    recipe = RECIPES["resnet18-tau5-imagenet"]()
    with pytest.raises(ValueError, match=r"the second stage starts from.*papernets train snn --config resnet18-step1-imagenet"):
        run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    first = small()
    folder = Path("runs/snn/resnet18-step1-imagenet")
    folder.mkdir(parents=True)
    torch.save(first.state_dict(), folder / "best.pt")
    with pytest.raises(ValueError, match="the student learns from a real ResNet-34"):
        run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    folder = Path("runs/snn/resnet34-teacher-imagenet")
    folder.mkdir(parents=True)
    torch.save(networks.teacher().state_dict(), folder / "best.pt")
    history = run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    assert len(history.loss) == 1 and 5 < history.loss[0] < 12  # near log 1000 before it has learnt anything
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert best["blocks.0.conv.packed"].numel() == 64 * 64 * 5 // 8
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["model"]
    assert (last["blocks.0.conv.weight"] - first.blocks[0].conv.weight).abs().max() < 0.01  # one step from the first stage
