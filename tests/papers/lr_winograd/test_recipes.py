"""Low-rank Winograd: the recipes."""

import numpy as np
import pytest

from papernets.cards import card
from papernets.papers.lr_winograd import transform_
from papernets.papers.lr_winograd.experiment import ARMS
from papernets.papers.lr_winograd.networks import ClipNet
from papernets.papers.lr_winograd.recipes import RECIPES, ClipFolder
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recipes_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {claim.recipe.split("--config ")[1] for claim in card("lr-winograd").claims if claim.kind == "full"}
    assert names <= set(RECIPES)
    with pytest.raises(ValueError, match="give their folder with --data"):
        run_recipe(RECIPES["c3d-ucf101"](), tmp_path / "run")
    with pytest.raises(ValueError, match="papernets train lr-winograd --config c3d-spatial-ucf101"):
        RECIPES["c3d-ucf101"]().build()
    with pytest.raises(ValueError, match="is not there"):
        run_recipe(RECIPES["c3d-ucf101"](), tmp_path / "run", data=tmp_path)


def test_a_recipe_loses_its_columns_over_half_of_the_run():
    recipe = RECIPES["c3d-half-ucf101"]()
    model = ClipNet()
    transform_(model, ARMS["low rank"])
    left = []
    for epoch in range(recipe.epochs):
        recipe.before_epoch(model, epoch, recipe.epochs)
        left.append(int(model.body[0].kept.sum()))
    assert left[0] == 64 and left[20:] == [32] * 20 and left == sorted(left, reverse=True) and left[5] < 55


def test_clips_are_read_from_a_folder(tmp_path):
    for name, shade in (("b", 255), ("a", 0)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "clip.npy", np.full((18, 113, 120, 3), shade, np.uint8))
    found = ClipFolder(tmp_path, False)
    clip, label = found[1]
    assert found.classes == ("a", "b") and len(found) == 2 and label == 1
    assert clip.shape == (3, 16, 112, 112) and float(clip.min()) == 1
    np.save(tmp_path / "a" / "clip.npy", np.zeros((9, 113, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="a clip is uint8 of at least"):
        found[0]
