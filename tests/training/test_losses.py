"""Losses, groups of parameters and clipping, each against its definition."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from papernets.nn import DeiT
from papernets.training import clipped_sgd, decay_groups, smoothed, taught_by


def test_smoothed_labels_by_hand():
    """Of three classes the right one weighs 1 - 0.3 + 0.1, the others 0.1 each."""
    outputs, labels = torch.tensor([[2.0, 0.0, -1.0]]), torch.tensor([0])
    weights = torch.tensor([0.8, 0.1, 0.1])
    assert float(smoothed(0.3)(outputs, None, labels)) == pytest.approx(-float((weights * outputs.log_softmax(1)).sum()))
    assert float(smoothed(0.0)(outputs, None, labels)) == pytest.approx(float(functional.cross_entropy(outputs, labels)))


def test_a_teacher_is_frozen_and_its_answer_is_the_target():
    teacher = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.9))
    loss, images = taught_by(teacher), torch.randn(5, 3)
    outputs = torch.randn(5, 4, requires_grad=True)
    wanted = teacher[0](images).softmax(1)  # without dropout
    value = loss(outputs, images, None)
    assert float(value.detach()) == pytest.approx(-float((wanted * outputs.log_softmax(1)).sum(1).mean().detach()))
    value.backward()
    assert outputs.grad is not None and all(not p.requires_grad and p.grad is None for p in teacher.parameters())
    same = loss(wanted.log(), images, None)
    assert float(same.detach()) < float(value.detach())  # least where both agree


def test_scales_shifts_and_tokens_have_no_decay():
    model = DeiT(16, 2, 2, 32, 8, 3)
    decayed, plain = decay_groups(model)
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)].rsplit(".", 1)[1] for p in decayed["params"]} == {"weight"} and "weight_decay" not in decayed
    assert plain["weight_decay"] == 0.0 and any("norm" in names[id(p)] for p in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(names)


def test_the_gradient_is_cut_to_its_length_before_the_step():
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.zero_()
    optimizer = clipped_sgd(layer, lr=1.0, momentum=0.0, weight_decay=0.0, norm=2.0)
    layer.weight.grad = torch.tensor([[3.0, 4.0]])
    optimizer.step()
    assert layer.weight.tolist() == [[pytest.approx(-1.2), pytest.approx(-1.6)]]
