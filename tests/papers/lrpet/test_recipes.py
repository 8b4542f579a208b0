"""LRPET: the recipes."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from voc_files import write_boxes, write_masks

from papernets.measure import macs
from papernets.nn import ConvNet, FasterRCNN, PSPNet
from papernets.papers.lrpet import LRPET, ranks, recipes
from papernets.papers.lrpet.networks import FRCNN_CONFIG, VIT_CONFIG, vit_counts
from papernets.papers.lrpet.recipes import RECIPES, projecting
from papernets.training import run_recipe, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_number_of_steps_that_is_none_is_refused():
    with pytest.raises(ValueError, match="every is 0; it is a whole number of at least 1"):
        projecting(nn.Linear(2, 2), LRPET(), torch.ones(1, 2), 0)


def test_a_cifar_recipe_projects_after_every_epoch():
    recipe = RECIPES["resnet56-q80-cifar10"]()
    assert (recipe.epochs, recipe.batch, recipe.weight_decay, recipe.momentum) == (400, 128, 1e-4, 0.9)
    assert [recipe.lr(at) for at in (0, 199.9, 200, 300)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    model = recipe.build()
    before = copy.deepcopy(model.state_dict())
    recipe.before_epoch(model, 0)
    assert torch.equal(before["conv1.weight"], model.conv1.weight)
    recipe.before_epoch(model, 1)
    assert int(torch.linalg.matrix_rank(model.conv1.weight.detach().flatten(1), rtol=1e-4)) == 3
    assert macs(recipe.export(recipe.build().eval()), torch.zeros(1, 3, 32, 32)) == 26_232_448


def test_an_imagenet_recipe_projects_between_steps():
    recipe = RECIPES["resnet50-q62-imagenet"]()
    assert (recipe.epochs, recipe.batch) == (120, 256) and recipe.lr(60) == pytest.approx(1e-3)
    model = ConvNet((8, 12))
    optimizer = projecting(model, LRPET(removed=0.5), torch.zeros(1, 3, 8, 8), every=3)
    found = []
    for _ in range(6):
        optimizer.zero_grad()
        (model(torch.randn(4, 3, 8, 8)).square().mean() / 10).backward()
        optimizer.step()
        found.append(int(torch.linalg.matrix_rank(model.features[4].weight.detach().flatten(1), rtol=1e-4)))
    assert found == [12, 12, 6, 12, 12, 6]


def test_the_vision_transformer_is_projected_after_every_epoch():
    recipe, full = RECIPES["vit-cifar100"](), RECIPES["vit-full-cifar10"]()
    assert full.export is None and full.before_epoch is None
    assert (recipe.epochs, recipe.batch, recipe.repeats, recipe.data) == (100, 128, 3, "cifar100")
    seed_everything(0)
    model, x = recipe.build().eval(), torch.randn(2, 3, 32, 32)
    assert model.classifier.out_features == 100
    assert ranks(model, VIT_CONFIG) == {f"blocks.{at}.{layer}": 57 for at in range(9) for layer in ("fc1", "fc2")}
    before = model.blocks[0].fc1.weight.clone()
    recipe.before_epoch(model, 0)
    assert torch.equal(model.blocks[0].fc1.weight, before)
    recipe.before_epoch(model, 1)
    assert torch.linalg.matrix_rank(model.blocks[0].fc1.weight.detach().double(), rtol=1e-5) == 57
    with torch.no_grad():
        torch.testing.assert_close(recipe.export(model)(x), model(x), atol=1e-4, rtol=1e-4)
    assert [recipe.lr(at) for at in (0, 5, 10, 100)] == pytest.approx([0, 0.5e-3, 1e-3, 0], abs=3e-5)


@pytest.fixture
def cifar100(write_archive):
    """17 + 6 images in the published form."""
    rng = np.random.default_rng(0)

    def batch(count):
        labels = np.stack([rng.integers(0, 20, count), rng.integers(0, 100, count)], 1)
        return np.concatenate([labels, rng.integers(0, 256, (count, 3072))], 1).astype(np.uint8).tobytes()

    names = "\n".join(f"kind{index}" for index in range(100)).encode()
    members = {"train.bin": batch(17), "test.bin": batch(6), "fine_label_names.txt": names}
    return write_archive([(f"cifar-100-binary/{name}", content) for name, content in members.items()])


def test_the_recipe_of_the_vision_transformer_runs(cifar100, tmp_path):
    recipe = replace(RECIPES["vit-cifar100"](), batch=6)
    history = run_recipe(recipe, tmp_path / "run", data=cifar100, epochs=2, workers=0)
    assert len(history.loss) == 2 and all(math.isfinite(loss) for loss in history.loss)
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert state["blocks.8.fc2.0.weight"].shape == (57, 384)
    assert parameters_of(state) == vit_counts(100, VIT_CONFIG)["params"]


def parameters_of(state):
    return sum(tensor.numel() for tensor in state.values())


NARROW = (4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)


@pytest.mark.parametrize("name", ["frcnn-voc", "frcnn-full-voc"])
def test_the_recipe_of_detection_runs(name, tmp_path):
    """On two pictures in the published format, with a narrow network: trained, projected, judged and saved as pairs."""
    recipe = RECIPES[name]()
    assert (recipe.epochs, recipe.batch, recipe.test_batch, recipe.score) == (200, 16, 1, "mAP")
    torch.manual_seed(0)
    recipe = replace(recipe, build=lambda: FasterRCNN(20, NARROW, 11, proposals=((50, 10), (50, 10))), batch=2)
    history = run_recipe(recipe, tmp_path / "run", data=write_boxes(tmp_path / "data"), epochs=2, workers=0)
    assert len(history.loss) == 2 and math.isfinite(history.loss[1]) and len(history.scores) == 1
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    shapes = [tuple(state[key].shape) for key in ("features.28.0.weight", "features.28.1.weight") if key in state]
    assert shapes == ([] if "full" in name else [(3, 8, 3, 3), (8, 3, 1, 1)])
    assert ("features.28.weight" in state) == ("full" in name) and "rpn.weight" in state


@pytest.mark.parametrize("name", ["psp-voc", "psp-full-voc"])
def test_the_recipe_of_segmentation_runs(name, tmp_path):
    recipe = RECIPES[name]()
    assert (recipe.epochs, recipe.batch, recipe.weight_decay, recipe.score) == (200, 16, 1e-4, "mIoU")
    narrow = dict(stem=3, widths=(5, 6, 7, 8), first=(3,) * 16, second=(3,) * 16)
    recipe = replace(recipe, build=lambda: PSPNet(21, **narrow), batch=4)
    history = run_recipe(recipe, tmp_path / "run", data=write_masks(tmp_path / "data"), epochs=2, workers=0)
    assert len(history.loss) == 2 and math.isfinite(history.loss[1]) and 0 <= history.scores[0] <= 1
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert ("backbone.blocks.4.conv2.0.weight" in state) == (name == "psp-voc")
    assert "backbone.blocks.15.conv3.weight" in state and "head.0.weight" in state


def test_a_network_is_projected_before_it_is_judged(tmp_path):
    seen = []

    def score(model, batches, fabric):
        seen.append(int(torch.linalg.matrix_rank(model.features[28].weight.detach().flatten(1), rtol=1e-4)))
        return 0.0

    for config in (FRCNN_CONFIG, None):
        seed_everything(0)
        recipes._judged(score, config)(FasterRCNN(20, NARROW, 11), None, None)
    assert seen == [3, 8]


def test_published_weights_land_where_they_belong(tmp_path, monkeypatch):
    """Files with the names of the published ones, made of narrow networks."""
    seed_everything(0)
    narrow = FasterRCNN(20, NARROW, 11)
    state = {name: torch.randn_like(tensor) for name, tensor in narrow.state_dict().items() if name.startswith("features.")}
    for ours, theirs in (("head.0", "classifier.0"), ("head.2", "classifier.3")):
        state |= {f"{theirs}.{what}": torch.randn_like(narrow.state_dict()[f"{ours}.{what}"]) for what in ("weight", "bias")}
    state |= {"classifier.6.weight": torch.randn(1000, 11), "classifier.6.bias": torch.randn(1000)}
    options = dict(stem=3, widths=(5, 6, 7, 8), first=(3,) * 16, second=(3,) * 16)
    small, deep = PSPNet(21, **options), {}
    for name, tensor in small.backbone.state_dict().items():
        part = name.split(".")
        if part[0] == "blocks":
            stage = next(at for at in range(4) if int(part[1]) < sum((3, 4, 6, 3)[:at + 1]))
            name = ".".join([f"layer{stage + 1}", str(int(part[1]) - sum((3, 4, 6, 3)[:stage])), *part[2:]])
        if not name.endswith("num_batches_tracked"):
            deep[name.replace("shortcut", "downsample")] = torch.rand_like(tensor)
    deep |= {"fc.weight": torch.randn(1000, 8), "fc.bias": torch.randn(1000)}
    assert {"conv1.0.weight", "conv1.6.weight", "bn1.running_mean", "layer1.0.downsample.0.weight",
            "layer4.2.conv3.weight"} <= deep.keys() and "layer3.1.downsample.0.weight" not in deep
    torch.save(state, tmp_path / "vgg16")
    torch.save(deep, tmp_path / "resnet50-deep")
    monkeypatch.setattr(recipes, "fetch", lambda name: tmp_path / name)
    monkeypatch.setattr(recipes, "FasterRCNN", lambda: FasterRCNN(20, NARROW, 11))
    monkeypatch.setattr(recipes, "PSPNet", lambda: PSPNet(21, **options))
    found = RECIPES["frcnn-voc"]().build().state_dict()
    assert torch.equal(found["features.28.bias"], state["features.28.bias"])
    assert torch.equal(found["head.2.weight"], state["classifier.3.weight"])
    found = RECIPES["psp-voc"]().build().state_dict()
    assert torch.equal(found["backbone.blocks.15.conv3.weight"], deep["layer4.2.conv3.weight"])
    assert torch.equal(found["backbone.blocks.3.shortcut.1.running_var"], deep["layer2.0.downsample.1.running_var"])
    assert torch.equal(found["backbone.conv1.4.weight"], deep["conv1.4.weight"])


def test_a_recipe_names_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES["resnet50-q62-imagenet"](), tmp_path)
