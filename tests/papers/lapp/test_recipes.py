"""LAPP: the recipes."""

import numpy as np
import pytest
import torch

from papernets.cards import card
from papernets.measure import count, parameters
from papernets.nn import ResNetCIFAR
from papernets.papers.lapp import LAPP, CompactConv2d, networks, restore, settled
from papernets.papers.lapp.networks import NETWORKS
from papernets.papers.lapp.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_whole(name):
    recipe = RECIPES[name]()
    made = NETWORKS[name.rsplit("-", 1)[0].removesuffix("-dense")]
    torch.manual_seed(0)
    model = recipe.build()
    assert (recipe.export is None) == ("-dense" in name) and recipe.lr(0) > 0
    if "-dense" in name:
        assert parameters(model) == networks.counts(name.rsplit("-dense", 1)[0])["params"]
        return
    recipe.optimizer(model)
    outputs = torch.randn(2, model.classifier.out_features, requires_grad=True)
    assert recipe.make_loss()(outputs, None, torch.zeros(2, dtype=torch.long)) > 0
    recipe.before_epoch(model, 0)
    assert not settled(model)
    recipe.before_epoch(model, 30)
    assert settled(model)
    with torch.no_grad():
        small = recipe.export(model)
        whole = networks.counts(name.rsplit("-", 1)[0])["macs"]
        found = sum(cost.macs for cost in count(small, made.example).values()) / whole
    assert made.config.rho - 0.004 < found <= made.config.rho


def test_the_full_claims_have_recipes_that_say_what_they_need(tmp_path):
    claims = {claim.recipe.split("--config ")[1] for claim in card("lapp").claims if claim.kind == "full"}
    assert claims == {"resnet20-cifar10", "resnet18-imagenet"} and claims <= set(RECIPES)
    assert {"resnet20-dense-cifar10", "resnet18-dense-imagenet"} <= set(RECIPES)
    with pytest.raises(ValueError, match="imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES["resnet18-imagenet"](), tmp_path)


def test_a_recipe_runs_goes_on_and_leaves_a_network_that_can_be_restored(tmp_path, write_archive):
    """The published format of CIFAR-10, made small; the second epoch is run by a recipe that is built anew."""
    rng = np.random.default_rng(0)
    names = [*(f"data_batch_{index}.bin" for index in range(1, 6)), "test_batch.bin"]
    members = {f"cifar-10-batches-bin/{name}": b"".join(
        bytes([index, *rng.integers(0, 256, 3072, dtype=np.uint8)]) for index in range(4)) for name in names}
    members["cifar-10-batches-bin/batches.meta.txt"] = b"\n".join(b"name%d" % index for index in range(10)) + b"\n\n"
    archive = write_archive(members.items())
    for epochs in (1, 2):
        history = run_recipe(RECIPES["resnet20-cifar10"](), tmp_path / "run", data=archive, epochs=epochs, workers=0)
        assert len(history.loss) == epochs
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    small = restore(ResNetCIFAR(20), state, LAPP(removed=0.597), torch.zeros(1, 3, 32, 32))
    assert sum(isinstance(module, CompactConv2d) for module in small.modules()) == 18
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())
