"""Sub-bit networks: the recipes."""

import itertools
import math
import tomllib

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from papernets.cards import cards_folder
from papernets.papers.snn import networks, recipes
from papernets.papers.snn.networks import BinaryResNet, Teacher
from papernets.papers.snn.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_recipe_of_the_card_is_there():
    with open(cards_folder() / "snn" / "card.toml", "rb") as file:
        claims = tomllib.load(file)["claims"]
    wanted = {claim["recipe"].rpartition(" ")[2] for claim in claims if claim["kind"] == "full"}
    assert wanted <= set(RECIPES) and len(wanted) == 4
    for name in wanted:
        recipe = RECIPES[name]()
        assert (recipe.data, recipe.epochs, recipe.batch, recipe.weight_decay) == ("imagenet", 256, 512, 0.0)
        assert [recipe.lr(epoch) for epoch in (0, 128, 256)] == pytest.approx([1e-3, 5e-4, 0])
    assert RECIPES["resnet18-step1-imagenet"]().weight_decay == 1e-5


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
    monkeypatch.setitem(networks.NETWORKS, "resnet18", (1, 1, 1, 1))  # a quarter of the blocks
    recipe = RECIPES["resnet18-tau5-imagenet"]()
    with pytest.raises(ValueError, match=r"the second stage starts from.*papernets train snn --config resnet18-step1-imagenet"):
        run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    first = BinaryResNet(networks.NETWORKS["resnet18"])
    folder = recipes.RUNS / "resnet18-step1-imagenet"
    folder.mkdir(parents=True)
    torch.save(first.state_dict(), folder / "best.pt")
    with pytest.raises(ValueError, match="the student learns from a real ResNet-34"):
        run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    folder = recipes.RUNS / "resnet34-teacher-imagenet"
    folder.mkdir(parents=True)
    torch.save(Teacher().state_dict(), folder / "best.pt")
    history = run_recipe(recipe, tmp_path / "run", data=imagenet, epochs=1, workers=0)
    assert len(history.loss) == 1 and 5 < history.loss[0] < 12  # near log 1000 before it has learnt anything
    best = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert best["blocks.0.conv.packed"].numel() == 64 * 64 * 5 // 8
    last = torch.load(tmp_path / "run" / "last.ckpt", weights_only=False)["model"]
    assert (last["blocks.0.conv.weight"] - first.blocks[0].conv.weight).abs().max() < 0.01  # one step from the first stage


def test_the_teachers_loss():
    teacher = nn.Linear(3, 4)
    loss = recipes.teacher_loss(teacher)
    images, outputs = torch.randn(5, 3), torch.randn(5, 4, requires_grad=True)
    value = loss(outputs, images, None)
    wanted, made = teacher(images).softmax(1).tolist(), outputs.softmax(1).tolist()
    slow = -sum(w * math.log(m) for rows in zip(wanted, made) for w, m in zip(*rows)) / 5
    assert value.item() == pytest.approx(slow, rel=1e-5)
    value.backward()
    torch.testing.assert_close(outputs.grad, (outputs.softmax(1) - teacher(images).softmax(1)).detach() / 5)
    assert teacher.weight.grad is None


def test_lighting_adds_one_colour_to_an_image():
    images = torch.zeros(4000, 3, 2, 2)
    found = recipes.lighting(images)
    assert torch.equal(found[..., :1, :1].expand_as(found), found)
    colours = found[:, :, 0, 0] * torch.tensor([0.229, 0.224, 0.225])
    spread = torch.linalg.eigvalsh(torch.cov(colours.T)).sqrt().flip(0)
    assert spread.tolist() == pytest.approx([0.02175, 0.00188, 0.00045], rel=0.05)
