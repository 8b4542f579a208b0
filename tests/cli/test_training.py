"""The commands train and data."""

import json
from types import SimpleNamespace

from cli_checks import wrong_input

from papernets.data import SOURCES


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


def test_a_recipe_is_run_and_told_epoch_by_epoch(run, tmp_path, monkeypatch):
    def runs(recipe, folder, *, data, epochs, report, **options):
        assert (folder, data, epochs) == (tmp_path / "runs", tmp_path / "cifar.tar.gz", 2)
        history = SimpleNamespace(loss=[2.0], accuracy=[0.25])
        report(0, 2, history)
        return history

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("papernets.training.run_recipe", runs)
    status, out, err = run("train", "dcff", "--config", "vgg16-cifar10", "--accelerator", "cpu", "--devices", "1",
                           "--epochs", "2", "--folder=~/runs", "--data=~/cifar.tar.gz")
    assert status == 0 and err == "" and out.splitlines() == [
        "epoch 1/2  loss 2.0000  accuracy 25.00 %  best 25.00 %",
        f"best accuracy 25.00 %; the network is {tmp_path / 'runs' / 'best.pt'}"]
