"""Low-rank Winograd: the recipes."""

import pytest

from papernets.papers.lr_winograd import transform_
from papernets.papers.lr_winograd.experiment import ARMS
from papernets.papers.lr_winograd.networks import ClipNet
from papernets.papers.lr_winograd.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_recipes_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
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
        recipe.before_epoch(model, epoch)
        left.append(int(model.body[0].kept.sum()))
    assert left[0] == 64 and left[20:] == [32] * 20 and left == sorted(left, reverse=True) and left[5] < 55
