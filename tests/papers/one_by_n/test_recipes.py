"""1xN sparsity: the recipes."""

import warnings
from pathlib import Path

import pytest
import torch

from papernets.measure import parameters
from papernets.nn import MobileNetV1, MobileNetV2
from papernets.papers.one_by_n import MaskedConv2d, OneByN, prune_
from papernets.papers.one_by_n.networks import NETWORKS, counts
from papernets.papers.one_by_n.recipes import RECIPES, config_of

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_recipe_prunes_what_the_counts_say():
    model = MobileNetV2()
    before = parameters(model)
    prune_(model, config_of("mobilenetv2", "1x4"))
    layers = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert len(layers) == counts("mobilenetv2")["layers"] - 1
    assert sum(int((~m.mask).sum()) for m in layers) == counts("mobilenetv2")["removed"] and parameters(model) == before
    straight = [torch.equal(m.order, torch.arange(len(m.order))) for m in layers]
    assert sum(straight) == 17  # the projections


@pytest.mark.parametrize("pattern", ["weight", "filter", "kernel-l1", "kernel-random", "1x32"])
def test_every_pattern_of_a_recipe(pattern):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MobileNetV1(0.25, 7)
        config = config_of("mobilenetv1", pattern, 0.4)
        prune_(model, config)
    layers = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert len(layers) == 13
    for layer in layers:
        pieces = {"weight": layer.weight.numel(), "filter": layer.out_channels}.get(pattern)
        if pieces:
            assert int((~layer.mask).sum()) == int(pieces * 0.4) * layer.weight.numel() // pieces


def test_recipes_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert RECIPES["mobilenetv1-dense-imagenet"]().build().classifier[0].out_features == 1000
    with pytest.raises(ValueError, match="papernets train 1xn --config mobilenetv2-dense-imagenet"):
        RECIPES["mobilenetv2-1x4-imagenet"]().build()


def test_a_recipe_starts_from_the_dense_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = MobileNetV1()
    folder = Path("runs/1xn/mobilenetv1-dense-imagenet")
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "best.pt")
    recipe = RECIPES["mobilenetv1-1x4-imagenet"]()
    pruned = recipe.build()
    layer = pruned.features[6]
    assert isinstance(layer, MaskedConv2d) and torch.equal(layer.weight, model.features[6].weight * layer.mask)
    assert recipe.lr(0) == 0 and recipe.lr(5) == pytest.approx(0.01) and recipe.lr(180) == pytest.approx(0, abs=1e-12)


def test_only_filters_whose_outputs_are_added_to_nothing_are_rearranged():
    first = {name: config_of(name, "1x4").rearrange for name in NETWORKS}
    assert {name: (len(layers), layers[-1]) for name, layers in first.items()} == {
        "mobilenetv1": (13, "features.78"), "mobilenetv2": (17, "features.20"), "mobilenetv3s": (11, "features.14"),
        "mobilenetv3l": (15, "features.18"), "resnet50": (32, "blocks.15.conv2")}


def test_the_arms_of_a_recipe():
    plain, random = config_of("resnet50", "1x8", 0.3, rearrange=False), config_of("mobilenetv2", "kernel-random")
    assert plain == OneByN(removed=0.3, N=8, pad=True, rearrange=False, ignore=("conv1",))
    assert random == OneByN(N=1, pattern="random", rearrange=False, kernel=(1,))
    dense, tuned = RECIPES["resnet50-dense-imagenet"](), RECIPES["resnet50-filter-p30-imagenet"]()
    assert dense.lr(5) == pytest.approx(0.05) and dense.export is None and tuned.export is not None
