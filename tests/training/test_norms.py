"""Batch norms measured anew."""

import torch
from torch import nn

from papernets.training import reestimate_


def test_the_statistics_are_those_of_all_batches_and_nothing_else_moves():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4, momentum=0.3), nn.Dropout(0.5)).train()
    model[0].eval()
    batches = [(torch.randn(8, 3), None), (torch.randn(8, 3) + 1, None)]
    weights = {name: tensor.clone() for name, tensor in model.named_parameters()}
    reestimate_(model, batches)
    outputs = [model[0](images) for images, _ in batches]
    mean = torch.stack([out.mean(0) for out in outputs]).mean(0)
    variance = torch.stack([out.var(0) for out in outputs]).mean(0)
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, variance)
    assert model[1].momentum == 0.3 and model.training and not model[0].training and model[2].training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in model.named_parameters())


def test_an_error_leaves_modes_and_momenta():
    model = nn.Sequential(nn.BatchNorm1d(4, momentum=0.3)).eval()
    try:
        reestimate_(model, [(torch.randn(8, 5), None)])
    except RuntimeError:
        pass
    else:
        raise AssertionError("five channels do not fit into four")
    assert model[0].momentum == 0.3 and not model[0].training
