"""Loaders, and the outputs and accuracy of a network over one: every image once, in evaluation mode."""

import pytest
import torch
from loop_checks import Files, small, tiny
from torch import nn

from papernets.data import Split
from papernets.training import accuracy, loader, logits, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("batch", [0, -3])
def test_a_batch_without_images_is_refused(batch):
    with pytest.raises(ValueError, match=f"batch is {batch}; the smallest is 1"):
        loader(tiny(), batch, True)


@pytest.mark.parametrize("data", [
    Split(torch.arange(53.).view(-1, 1, 1, 1).expand(53, 1, 2, 3), torch.arange(53), ("a",)), Files(),
], ids=["memory", "files"])
@pytest.mark.parametrize("shuffle", [True, False])
def test_every_image_comes_once_an_epoch_with_its_label(data, shuffle):
    seed_everything(0)
    batches, again = list(loader(data, 11, shuffle)), list(loader(data, 11, shuffle))
    assert [len(labels) for _, labels in batches] == [11, 11, 11, 11, 9]
    labels = torch.cat([labels for _, labels in batches])
    assert all(torch.equal(images[:, 0, 0, 0], labels.float()) for images, labels in batches)
    assert sorted(labels.tolist()) == list(range(53))
    assert torch.equal(labels, torch.arange(53)) != shuffle
    assert torch.equal(labels, torch.cat([labels for _, labels in again])) != shuffle


class Rows(torch.utils.data.Dataset):
    """Not in memory; with a way of its own to make a batch."""

    def __len__(self):
        return 5

    def __getitem__(self, index):
        return torch.zeros(index + 1), index

    @staticmethod
    def collate(batch):
        return [len(values) for values, _ in batch], [index for _, index in batch]


def test_a_set_may_make_its_own_batches():
    assert list(loader(Rows(), 2, False)) == [([1, 2], [0, 1]), ([3, 4], [2, 3]), ([5], [4])]


@pytest.mark.parametrize("data", [tiny(53), Files()], ids=["memory", "files"])
def test_images_that_are_repeated(data):
    torch.manual_seed(0)
    batches = list(loader(data, 12, True, repeats=3))
    assert [len(labels) for _, labels in batches] == [12, 12, 12, 12, 5]
    rows = torch.cat([images for images, _ in batches]).flatten(1)
    assert all(torch.equal(rows[at], rows[at + 1]) and torch.equal(rows[at], rows[at + 2]) for at in range(0, 51, 3))
    assert len(rows.unique(dim=0)) == 18


@pytest.mark.parametrize("training", [True, False])
def test_logits_and_accuracy_are_of_evaluation_mode_and_put_it_back(training):
    model, data = small(), tiny()
    model.features[1].running_mean += 1
    model.eval()
    with torch.no_grad():
        expected = model(data.images)
    model.train(training)
    found = logits(model, data.images, batch=7)
    torch.testing.assert_close(found, expected)
    assert not found.requires_grad
    right = (expected.argmax(1) == data.labels).float().mean()
    assert accuracy(model, loader(data, 7, False)) == pytest.approx(float(right))
    assert model.training is training


def test_accuracy_counts_images_not_batches():
    """Two batches, 3 of 3 right and 0 of 1: three quarters, not a half."""
    class Zero(nn.Module):
        def forward(self, x):
            return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    batches = [(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(1, 1), torch.ones(1))]
    assert accuracy(Zero(), batches) == 0.75
