"""What the tests of the training loop share: a small network, a small set, a short run, and a kill."""

import torch

from papernets.data import Split
from papernets.nn import ConvNet
from papernets.training import cosine, fit, loader, seed_everything


class Killed(BaseException):
    """What nothing in the loop may catch."""


def small(seed=5):
    seed_everything(seed)
    return ConvNet((3, 5), classes=3, channels=1, pool=(0,))


def tiny(count=53, seed=7):
    """Noise of three classes, the brighter the higher."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (count,), generator=draw)
    images = torch.randn(count, 1, 7, 5, generator=draw) + labels.view(-1, 1, 1, 1).float()
    return Split(images, labels, ("a", "b", "c"))


def run(model=None, epochs=3, **options):
    """A short run on ``tiny``: five batches an epoch, the last of 9."""
    model = small() if model is None else model
    options = {"lr": cosine(0.1, 3), "seed": 3, **options}
    history = fit(model, loader(tiny(), 11, True), loader(tiny(29, 8), 13, False), epochs=epochs, **options)
    return model, history


def same(first, second):
    return all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())


class Files(torch.utils.data.Dataset):
    """A set that is read one by one."""

    def __len__(self):
        return 53

    def __getitem__(self, index):
        return torch.full((1, 2, 3), float(index)), index
