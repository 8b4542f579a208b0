"""Recipes on an archive made small: the files they leave, and resuming."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from papernets.nn import ConvNet
from papernets.training import Recipe, cosine, run_recipe, seed_everything, steps, trained

pytestmark = pytest.mark.usefixtures("one_thread")


class Killed(BaseException):
    """What nothing in a run may catch."""


# recipes
@pytest.fixture
def archive(cifar):
    return cifar


def build():
    return nn.Sequential(nn.AvgPool2d(4), ConvNet((5, 7), classes=3, pool=()))


RECIPE = Recipe("cifar10", build, epochs=5, batch=8, lr=cosine(0.1, 5), weight_decay=1e-4)


def lines(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def load(path):
    return torch.load(path, weights_only=True)


def test_two_epochs_leave_three_files(archive, tmp_path):
    folder = tmp_path / "runs" / "deep"
    history = run_recipe(RECIPE, folder, data=archive, epochs=2, workers=0)
    assert sorted(file.name for file in folder.iterdir()) == ["best.pt", "last.ckpt", "log.jsonl", "run.lock"]
    assert [line["epoch"] for line in lines(folder)] == [0, 1]
    assert [line["accuracy"] for line in lines(folder)] == history.scores
    model = build()
    model.load_state_dict(load(folder / "best.pt"))


def test_a_shortened_run_keeps_the_schedule_of_the_paper(archive, tmp_path):
    history = run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=2, workers=0)
    assert history.lr == [cosine(0.1, 5)(0), cosine(0.1, 5)(1)]


def test_all_epochs_by_default(archive, tmp_path):
    assert len(run_recipe(RECIPE, tmp_path / "run", data=archive, workers=0).loss) == 5


@pytest.mark.parametrize(("recipe", "seed", "says"), [
    (RECIPE, 1, "seed = 0, and seed is 1 now"),
    (replace(RECIPE, batch=4), 0, "batch = 8, and batch is 4 now"),
    (replace(RECIPE, build=lambda: nn.Linear(3, 3)), 0, "parameters = 498, and parameters is 12"),
])
def test_a_folder_is_of_one_seed_and_one_recipe(archive, tmp_path, recipe, seed, says):
    run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=1, workers=0)
    kept = {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()}
    with pytest.raises(ValueError, match=f"run holds a training with {says}.*; name another folder"):
        run_recipe(recipe, tmp_path / "run", data=archive, epochs=2, workers=0, seed=seed)
    assert {file.name: file.read_bytes() for file in (tmp_path / "run").iterdir()} == kept


def test_more_epochs_than_the_recipe_has_are_refused_at_the_start(archive, tmp_path):
    with pytest.raises(ValueError, match="epochs is 6; the recipe has 5"):
        run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=6, workers=0)
    assert not (tmp_path / "run").exists()


def test_two_trainings_do_not_share_a_folder(archive, tmp_path):
    def another(epoch, total, history):
        with pytest.raises(ValueError, match=r"another training is going on in .*run; wait for its end"):
            run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=3, workers=0)

    run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=2, workers=0, report=another)
    assert [line["epoch"] for line in lines(tmp_path / "run")] == [0, 1]
    assert len(run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=3, workers=0).loss) == 3  # the lock is let go of


def test_two_runs_are_identical(archive, tmp_path):
    first, second = (run_recipe(RECIPE, tmp_path / name, data=archive, epochs=2, workers=0) for name in ("a", "b"))
    assert first == second
    assert same(load(tmp_path / "a" / "best.pt"), load(tmp_path / "b" / "best.pt"))
    other = run_recipe(RECIPE, tmp_path / "c", data=archive, epochs=2, workers=0, seed=1)
    assert other.loss != first.loss


def test_the_start_follows_the_seed_not_what_came_before(archive, tmp_path):
    first = run_recipe(RECIPE, tmp_path / "a", data=archive, epochs=1, workers=0)
    seed_everything(12345)
    assert run_recipe(RECIPE, tmp_path / "b", data=archive, epochs=1, workers=0) == first


class Answer(nn.Module):
    """Gives the same class for every image, and remembers in its weight the epoch in which it was told to."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("answer", torch.zeros((), dtype=torch.int64))

    def forward(self, x):
        return F.one_hot(self.answer, 3).float().expand(len(x), 3) + self.weight


def test_best_is_the_network_of_the_best_epoch(archive, tmp_path):
    """The later one if two are equal."""
    answers = (0, 1, 2, 0, 1, 2, 0)

    def tell(model, epoch):
        with torch.no_grad():
            model.answer.fill_(answers[epoch])
            model.weight.fill_(epoch)

    for length in range(1, 8):
        recipe = Recipe("cifar10", Answer, epochs=length, batch=8, lr=lambda _: 0.0, weight_decay=0, before_epoch=tell)
        accuracies = run_recipe(recipe, tmp_path / str(length), data=archive, workers=0).scores
        best = max(range(length), key=lambda epoch: (accuracies[epoch], epoch))
        assert float(load(tmp_path / str(length) / "best.pt")["weight"]) == best
    assert len(set(accuracies)) == 3


def test_best_is_the_exported_network(archive, tmp_path):
    recipe = Recipe("cifar10", build, epochs=2, batch=8, lr=steps(0.1, ()), weight_decay=0,
                    export=lambda model: nn.Sequential(model[1].features, nn.AdaptiveAvgPool2d(1)))
    run_recipe(recipe, tmp_path / "run", data=archive, workers=0)
    exported = recipe.export(build())
    exported.load_state_dict(load(tmp_path / "run" / "best.pt"))
    with pytest.raises(RuntimeError, match="Missing key"):
        build().load_state_dict(load(tmp_path / "run" / "best.pt"))


def test_the_method_is_told_the_epoch(archive, tmp_path):
    calls = []
    recipe = Recipe("cifar10", build, epochs=7, batch=8, lr=steps(0.1, ()), weight_decay=0,
                    before_epoch=lambda model, epoch: calls.append((type(model), epoch)))
    run_recipe(recipe, tmp_path / "run", data=archive, epochs=2, workers=0)
    assert calls == [(nn.Sequential, 0), (nn.Sequential, 1)]


def test_report_is_told_every_epoch(archive, tmp_path):
    calls = []
    run_recipe(RECIPE, tmp_path / "run", data=archive, epochs=3, workers=0,
               report=lambda epoch, total, history: calls.append((epoch, total, len(history.scores))))
    assert calls == [(0, 3, 1), (1, 3, 2), (2, 3, 3)]


@pytest.mark.parametrize("last", [0, 1, 2])
def test_a_killed_run_resumes_to_the_same_end(last, archive, tmp_path):
    expected = run_recipe(RECIPE, tmp_path / "whole", data=archive, epochs=4, workers=0)

    def kill(epoch, total, history):
        if epoch == last:
            raise Killed

    with pytest.raises(Killed):
        run_recipe(RECIPE, tmp_path / "killed", data=archive, epochs=4, workers=0, report=kill)
    assert run_recipe(RECIPE, tmp_path / "killed", data=archive, epochs=4, workers=0) == expected
    assert lines(tmp_path / "killed") == lines(tmp_path / "whole")
    assert same(load(tmp_path / "killed" / "best.pt"), load(tmp_path / "whole" / "best.pt"))


def test_training_is_augmented_and_testing_is_not(archive, tmp_path):
    """The network sees shifted training images, with zeros at their border, and the test images as they are."""
    seen = {True: [], False: []}

    class Watch(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 3)

        def forward(self, x):
            seen[self.training].append((x == 0).flatten(1).sum(1))
            return self.head(x.mean((2, 3)))

    recipe = Recipe("cifar10", Watch, epochs=1, batch=8, lr=steps(0.1, ()), weight_decay=0)
    run_recipe(recipe, tmp_path / "run", data=archive, workers=0)
    zeros, untouched = torch.cat(seen[True]), torch.cat(seen[False])
    assert len(zeros) == 35
    assert len(untouched) == 14
    assert (zeros > 0).float().mean() > 0.8  # 1 in 81 is not shifted
    assert untouched.sum() == 0


def test_a_recipe_learns(archive, tmp_path):
    history = run_recipe(RECIPE, tmp_path / "run", data=archive, workers=0)
    assert max(history.scores) > 0.9
    assert history.loss[-1] < history.loss[0]


def test_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 5), ("val", 3)):
        for label, name in enumerate(("dark", "light")):
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 100, (17, 19, 3)) + 150 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / part / name / f"{index}.png")

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            assert x.shape[1:] == (3, 224, 224)
            return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))

    recipe = Recipe("imagenet", Mean, epochs=2, batch=3, lr=steps(0.5, ()), weight_decay=0)
    history = run_recipe(recipe, tmp_path / "run", data=tmp_path / "data", workers=0)
    assert history.scores[-1] == 1
    assert (tmp_path / "run" / "best.pt").exists()


def test_a_folder_of_images_cannot_be_fetched(tmp_path):
    recipe = Recipe("imagenet", build, epochs=2, batch=3, lr=steps(0.5, ()), weight_decay=0)
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data \(it holds train"):
        run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_archive_starts_nothing(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(ValueError, match="damaged or cut short"):
        run_recipe(RECIPE, tmp_path / "run", data=archive, workers=0)
    assert not (tmp_path / "run").exists()


def test_a_recipe_with_an_optimiser_a_loss_and_an_augmentation_of_its_own(archive, tmp_path):
    seen = []

    def optimizer(model):
        seen.append("optimizer")
        return torch.optim.Adam(model.parameters(), 99.0)

    def loss():
        seen.append("loss")
        return lambda outputs, images, labels: (outputs**2).mean() + 0 * images.sum() if images.eq(5).all() else math.nan

    recipe = Recipe("cifar10", build, epochs=1, batch=8, lr=steps(0.01, ()), weight_decay=0, optimizer=optimizer,
                    make_loss=loss, augment=lambda images: torch.full_like(images, 5.0))
    history = run_recipe(recipe, tmp_path / "run", data=archive, workers=0)
    assert sorted(seen) == ["loss", "optimizer"]
    assert math.isfinite(history.loss[0])  # so the batches were those of augment


class Shift:
    """Adds what it has counted to the weights: a run that forgets the count ends elsewhere."""

    def __init__(self):
        self.done = 0

    def step(self, model, epoch):
        self.done += epoch + 1
        with torch.no_grad():
            model[1].classifier.bias[0] += 0.01 * self.done

    def state_dict(self):
        return {"done": self.done}

    def load_state_dict(self, state):
        self.done = state["done"]


def test_a_plugin_acts_after_the_evaluation_and_its_state_resumes(archive, tmp_path):
    recipe = replace(RECIPE, plugin=Shift)
    expected = run_recipe(recipe, tmp_path / "whole", data=archive, epochs=4, workers=0)
    assert expected != run_recipe(RECIPE, tmp_path / "plain", data=archive, epochs=4, workers=0)
    first = [run_recipe(one, tmp_path / name, data=archive, epochs=1, workers=0)
             for name, one in (("with", recipe), ("without", RECIPE))]
    assert first[0] == first[1]  # the first evaluation and the best network come before the first step
    assert same(load(tmp_path / "with" / "best.pt"), load(tmp_path / "without" / "best.pt"))
    moved = [load(tmp_path / name / "last.ckpt")["model"]["1.classifier.bias"] for name in ("with", "without")]
    torch.testing.assert_close(moved[0] - moved[1], torch.tensor([0.01, 0, 0]))

    def kill(epoch, total, history):
        if epoch == 2:
            raise Killed

    with pytest.raises(Killed):
        run_recipe(recipe, tmp_path / "killed", data=archive, epochs=4, workers=0, report=kill)
    assert run_recipe(recipe, tmp_path / "killed", data=archive, epochs=4, workers=0) == expected
    assert same(*(load(tmp_path / name / "last.ckpt")["model"] for name in ("whole", "killed")))


def test_a_loss_of_old_is_told_its_new_name():
    with pytest.raises(TypeError, match="Recipe takes make_loss in place of loss"):
        Recipe("cifar10", build, epochs=1, batch=8, lr=steps(0.01, ()), weight_decay=0, loss=lambda: None)


def test_a_network_of_an_earlier_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = r"It is made by: papernets train deep --config net-dense-cifar10$"
    said = r"^runs/deep/net-dense-cifar10/best\.pt is not there; pruning starts there\. "
    with pytest.raises(ValueError, match=said + command):
        trained(build(), "deep", "net-dense-cifar10", "pruning starts there")
    path = tmp_path / "runs" / "deep" / "net-dense-cifar10" / "best.pt"
    path.parent.mkdir(parents=True)
    earlier = build()
    torch.save(earlier.state_dict(), path)
    model = build()
    assert trained(model, "deep", "net-dense-cifar10", "") is model and same(model.state_dict(), earlier.state_dict())
    for broken in (path.read_bytes()[:100], b""):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=rf"best\.pt is damaged or of another network \(.*\)\. {command}"):
            trained(build(), "deep", "net-dense-cifar10", "")
    torch.save(nn.Linear(3, 2).state_dict(), path)
    with pytest.raises(ValueError, match="damaged or of another network"):
        trained(build(), "deep", "net-dense-cifar10", "")
