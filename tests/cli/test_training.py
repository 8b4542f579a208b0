"""The commands train and data."""

import json

import pytest
from cli_checks import wrong_input
from torch import nn

from papernets.data import SOURCES
from papernets.papers.dcff import recipes
from papernets.training import Recipe, cosine


@wrong_input(
    (("train", "dcff"), "give a recipe with --config: vgg16-cifar10"),
    (("train", "dcff", "--config", "vgg17"), "dcff has no recipe 'vgg17': vgg16-cifar10"),
    (("train", "syntalker", "--config", "x"), "syntalker is planned and has no recipe yet"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--data", "/no/such/file.tar.gz"), "/no/such/file.tar.gz: no such file"),
    (("train", "dcff", "--config", "resnet50-b-imagenet"), "imagenet cannot be fetched; give its folder with --data"),
    (("train", "dcff", "--config", "resnet50-b-imagenet", "--data", "/no/such"), "/no/such/train is not a folder"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--accelerator", "abacus"), "cannot train on accelerator abacus"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--devices", "two"), "devices"),
    (("train", "dcff", "--config", "vgg16-cifar10", "--strategy", "divide"), "cannot train on accelerator auto"),
    (("data", "fetch", "cifar11"), "no data set 'cifar11' to fetch; choose one of cifar10, cifar100"),
)
def test_wrong_input_is_one_line_and_status_2(refused, words, says):
    refused(*words, says=says)


def test_data_list(run):
    status, out, _ = run("data", "list", "--json")
    assert status == 0 and [row["name"] for row in json.loads(out)] == list(SOURCES)


@pytest.fixture
def train(run, cifar, tmp_path, monkeypatch):
    """``train(*words)``: a recipe of a few small images, by the command."""
    small = Recipe("cifar10", lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), epochs=4, batch=8, lr=cosine(0.01, 4),
                   weight_decay=0)
    monkeypatch.setitem(recipes.RECIPES, "small", lambda: small)
    monkeypatch.chdir(tmp_path)
    return lambda *words: run("train", "dcff", "--config", "small", "--accelerator", "cpu", "--devices", "1",
                              "--data", str(cifar), *words)


def test_a_recipe_is_run_and_told_epoch_by_epoch_and_goes_on(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    status, out, err = train("--epochs", "2", "--folder=~/here")
    assert status == 0 and err == ""
    log = [json.loads(line) for line in (tmp_path / "here" / "log.jsonl").read_text().splitlines()]
    best = max(line["accuracy"] for line in log)
    told = [f"epoch {line['epoch'] + 1}/2  loss {line['loss']:.4f}  accuracy {100 * line['accuracy']:.2f} %" for line in log]
    assert len(told) == 2 and [line.split("  best")[0] for line in out.splitlines()[:2]] == told
    assert out.splitlines()[2:] == [f"best accuracy {100 * best:.2f} %; the network is {tmp_path / 'here' / 'best.pt'}"]
    status, out, err = train("--epochs", "3", "--folder=~/here", "--seed", "1")
    assert status == 2 and "here holds a training with seed = 0, and seed is 1 now" in err
    status, out, err = train("--epochs", "3", "--folder=~/here")
    assert status == 0 and out.startswith("epoch 3/3  loss ") and len(out.splitlines()) == 2


def test_every_seed_has_a_folder_of_its_own(train, tmp_path):
    for seed in ("0", "1"):
        status, out, _ = train("--epochs", "1", "--seed", seed)
        assert status == 0 and out.startswith("epoch 1/1")
    assert sorted(path.name for path in (tmp_path / "runs" / "dcff").iterdir()) == ["small", "small-seed1"]
