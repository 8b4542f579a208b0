"""What reads what, by running an example."""

import pytest
import torch
from torch import nn

from papernets.nn import flow


class Net(nn.Module):
    """Two convolutions read the input; the output of one has two batch norms; a layer runs twice; one has none behind."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)
        self.one, self.two, self.three = (nn.BatchNorm2d(2) for _ in range(3))
        self.last, self.flat, self.unused = nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Conv2d(2, 2, 1)

    def forward(self, x):
        y = self.a(x)
        z = self.c(self.c(torch.relu(self.three(self.b(x)))))
        return self.flat(self.last((self.one(y) + self.two(y) + z).mean((2, 3))))


def test_norms_readers_and_calls():
    model = Net()
    model.two.eval()
    found = flow(model, torch.zeros(1, 2, 3, 3))
    assert found.norms == {"a": ["one", "two"], "b": ["three"], "last": ["flat"]}
    assert found.first == {"a", "b"}
    assert found.calls["c"] == 2 and found.calls["a"] == found.calls["flat"] == 1 and "unused" not in found.calls
    assert model.training and model.one.training and not model.two.training  # modes as before
    assert torch.equal(model.one.running_mean, torch.zeros(2)) and model.one.num_batches_tracked == 0


def test_a_failing_network_is_left_as_it_was():
    model = Net()
    with pytest.raises(RuntimeError):
        flow(model, torch.zeros(1, 5, 3, 3))
    assert model.training and not any(module._forward_hooks for module in model.modules())


def test_what_happens_between_layer_and_norm_breaks_the_pair():
    model = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.BatchNorm2d(1))
    assert flow(model, torch.zeros(1, 1, 2, 2)).norms == {}
