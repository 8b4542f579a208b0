"""Weight Evolution: the recipes."""

import pytest
import torch
from papers.we.sample import same

from papernets.cards import card
from papernets.nn import ResNetCIFAR
from papernets.papers.we import KINDS, WE_IMAGENET
from papernets.papers.we.networks import NETWORKS
from papernets.papers.we.recipes import RECIPES
from papernets.training import run_recipe

pytestmark = pytest.mark.usefixtures("one_thread")


def test_every_full_claim_names_a_recipe_and_each_recipe_builds():
    named = [claim.recipe.split("--config ")[1] for claim in card("we").claims if claim.kind == "full"]
    assert set(named) <= RECIPES.keys() and len(named) == 4
    for claim in card("we").claims:
        for arm in ("mobilenetv2-cifar100-plain", "resnet56-cifar100-plain"):
            assert arm in RECIPES
        assert claim.kind != "full" or claim.recipe.startswith("papernets train we --config ")
    for name in named:
        recipe = RECIPES[name]()
        assert (recipe.data, recipe.epochs, recipe.batch, recipe.weight_decay) == ("cifar100", 200, 128, 5e-4)
        assert [recipe.lr(epoch) for epoch in (0, 60, 120, 180)] == pytest.approx([0.1, 0.01, 0.001, 0.0001])
        assert recipe.build()(torch.zeros(2, 3, 32, 32)).shape == (2, 100)


def test_arms_of_the_recipes():
    found = {name: RECIPES[name]() for name in RECIPES if name.startswith("mobilenetv2-cifar10")}
    mixes = {name: made.plugin().config.mix if made.plugin else None for name, made in found.items()}
    assert {name.removeprefix("mobilenetv2-cifar100"): mix for name, mix in mixes.items() if "cifar100" in name} == {
        "": "dominant", "-official": "official", "-plain": None, "-grafting": "copy", "-renewal": "renew", "-smoothing": None}
    assert [name for name, made in found.items() if made.make_loss] == ["mobilenetv2-cifar10-smoothing",
                                                                   "mobilenetv2-cifar100-smoothing"]
    whole = RECIPES["resnet34-imagenet"]()
    assert whole.plugin().config == WE_IMAGENET and (whole.epochs, whole.batch, whole.weight_decay) == (90, 256, 1e-4)
    assert len(RECIPES) == 6 * len(NETWORKS) == 6 * (2 * 7 + 2)


def test_smoothed_labels_by_hand():
    outputs, labels = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([0])
    logp = outputs.log_softmax(1)[0]
    expected = -(0.9 * logp[0] + 0.1 * logp.mean())
    loss = RECIPES["mobilenetv2-cifar10-smoothing"]().make_loss()
    torch.testing.assert_close(loss(outputs, torch.zeros(1), labels), expected)


@pytest.mark.parametrize("name", ["resnet34-imagenet", "mobilenetv2-0.25-imagenet-plain"])
def test_imagenet_recipes_ask_for_their_data(name, tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data \(it holds train and val\)"):
        run_recipe(RECIPES[name](), tmp_path / "run")
    with pytest.raises(ValueError, match="train is not a folder"):
        run_recipe(RECIPES[name](), tmp_path / "run", data=tmp_path)
    assert not (tmp_path / "run").exists()


def test_a_recipe_runs_on_an_archive_in_the_published_format(write_archive, tmp_path):
    """Two epochs with evolution end elsewhere than without, in a network that loads anywhere, and the counters are saved."""
    def batch(count):
        pixels = torch.randint(0, 256, (count, 3073), dtype=torch.uint8)
        pixels[:, 0] %= 10
        return pixels.numpy().tobytes()

    members = {f"data_batch_{index}.bin": batch(4) for index in range(1, 6)}
    members |= {"test_batch.bin": batch(6), "batches.meta.txt": "\n".join("abcdefghij").encode()}
    archive = write_archive((f"cifar-10-batches-bin/{name}", content) for name, content in members.items())
    weights = []
    for name in ("resnet20-cifar10", "resnet20-cifar10-plain"):
        run_recipe(RECIPES[name](), tmp_path / name, data=archive, epochs=1, workers=0)
        ResNetCIFAR(20).load_state_dict(torch.load(tmp_path / name / "best.pt", weights_only=True))
        weights.append(torch.load(tmp_path / name / "last.ckpt", weights_only=True))
    assert set(weights[0]["carried.plugin"]["counters"]) == set(KINDS) and "carried.plugin" not in weights[1]
    before, after = (one["model"] for one in weights)
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    best = (torch.load(tmp_path / name / "best.pt", weights_only=True) for name in
            ("resnet20-cifar10", "resnet20-cifar10-plain"))
    assert same(*best)  # of the epoch before the first evolution
