"""Sub-bit networks: the layers and the verbs."""

import itertools
import math
import re

import pytest
import torch
from papers.snn.sample import conv, layer, names
from torch import nn
from torch.nn import functional

from papernets.papers.snn import SNN, SubBitConv2d, adam, codes, patterns, scales, settle_, subbit_
from papernets.papers.snn.networks import SmallNet
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_gradient_of_a_layer_goes_through_the_scale_as_a_constant():
    made = layer(SNN(tau=2, every=1, p_init_scale=0.5))
    with torch.no_grad():
        made.weight.mul_(9)  # some beyond 1
    x, g = torch.randn(2, 3, 5, 4), torch.randn(2, 5, 5, 4)
    (made(x) * g).sum().backward()
    s, ids, P = scales(made.weight), made.ids, made.P
    w = (s.view(-1, 1, 1, 1) * P[ids].view_as(made.weight)).requires_grad_(True)
    (functional.conv2d(x, w, padding=1) * g).sum().backward()
    to_binary = s.view(-1, 1, 1, 1) * w.grad
    mask = made.weight.detach().abs() <= 1
    assert 0 < mask.float().mean() < 1
    torch.testing.assert_close(made.weight.grad, to_binary * mask)
    to_p = torch.zeros(4, 9)
    for o, c in itertools.product(range(5), range(3)):
        to_p[ids[o, c]] += to_binary[o, c].flatten()
    torch.testing.assert_close(made.p.grad, to_p, atol=1e-4, rtol=1e-4)


def test_every_25th_pass_in_training_reaches_p():
    made = layer(SNN(tau=2))
    x = torch.randn(1, 3, 4, 4)
    reached = []
    for call in range(1, 78):
        if call % 3 == 0:
            made.eval()(x)  # passes of evaluation do not count
        made.train()
        made.p.grad = None
        made(x).square().sum().backward()
        if made.p.grad is not None:
            reached.append(call)
        assert made.refining == (call % 25 == 0)
    assert reached == [25, 50, 75] and made.calls == 77
    fixed = layer(SNN(tau=2, refine=False))
    assert fixed.p is None and len(list(fixed.parameters())) == 1


def test_the_memory_follows_p_in_training_and_evaluation_only_looks():
    made = layer(SNN(tau=1, p_init_scale=0.5))
    before = made.memory.clone()
    with torch.no_grad():
        made.p[0, 0], made.p[0, 1], made.p[1, 2] = -before[0, 0], 5e-4 * -before[0, 1], 2e-3 * -before[1, 2]
    expected = before.clone()
    expected[0, 0], expected[1, 2] = -before[0, 0], -before[1, 2]
    made.eval()(torch.randn(1, 3, 4, 4))
    assert torch.equal(made.P, expected) and torch.equal(made.memory, before)
    made.train()(torch.randn(1, 3, 4, 4))
    assert torch.equal(made.memory, expected)
    with torch.no_grad():  # inside the dead zone the sign of last time stays, whatever it was
        made.p[0, 0] = 5e-4 * before[0, 0]
    assert made.P[0, 0] == -before[0, 0]


def test_settling_comes_after_the_step_and_only_then():
    made = layer(SNN(tau=2, every=2, p_init_scale=0.5))
    model = nn.Sequential(made)
    optimizer = adam(model)
    x = torch.randn(2, 3, 4, 4)

    def step():
        optimizer.zero_grad()
        made(x).square().mean().backward()
        optimizer.step()

    step()
    step()  # a refinement step: now p has moments
    moments = [value for value in optimizer.state[made.p].values() if value.shape == made.p.shape]
    assert len(moments) == 2 and all(value.abs().sum() > 0 for value in moments)
    with torch.no_grad():
        made.p[3] = made.p[1]
        made.p[0, 0] = 7
    assert made.settle(optimizer) == 1  # still of the second pass
    assert len(set(codes(made.p).tolist())) == 4 and made.p[0, 0] == 3
    for value in moments:
        assert not value[3].any() and value[:3].any()
    with torch.no_grad():
        made.p[3] = made.p[1]
    made.train()(x)
    assert settle_(model, optimizer) == 0  # the third pass is none of refinement
    made(x)
    assert settle_(model, optimizer) == 1


def test_adam_calls_settle_and_keeps_p_where_it_has_no_gradient():
    made = layer(SNN(tau=2, every=3, p_lr=4.0))
    model = nn.Sequential(made, nn.Conv2d(5, 2, 1))
    optimizer = adam(model, weight_decay=0.1)
    assert {group["scale"]: len(group["params"]) for group in optimizer.param_groups} == {1.0: 3, 4.0: 1}
    assert all(group["weight_decay"] == 0.1 for group in optimizer.param_groups)
    values = []
    for _ in range(9):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 4)).square().mean().backward()
        optimizer.step()
        values.append(made.p.detach().clone())
    moved = [not torch.equal(a, b) for a, b in itertools.pairwise(values)]
    assert moved == [False, True, False, False, True, False, False, True]
    with torch.no_grad():
        made.p[1] = made.p[0]
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 4, 4)).square().mean().backward()
        optimizer.step()
    assert len(set(codes(made.p).tolist())) == 4  # the hook has settled


def test_a_checkpoint_goes_on_where_it_was():
    """Counter, memory and the draw of fresh patterns are in the state: a copy loaded half-way ends with the same numbers."""
    def run(model, first, last):
        optimizer = torch.optim.SGD(model.parameters(), 0.5)
        for index in range(first, last):
            torch.manual_seed(index)
            optimizer.zero_grad()
            model(torch.randn(4, 3, 5, 5)).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                model[0].p[3] = model[0].p[0]  # something to replace at each refinement step
            settle_(model)

    config = SNN(tau=2, every=3, p_init_scale=0.01)
    whole = nn.Sequential(layer(config))
    start = {key: value.clone() for key, value in whole.state_dict().items()}
    assert set(start) == {"0.weight", "0.p", "0.memory", "0.calls", "0.seed"}
    run(whole, 0, 10)
    torch.manual_seed(77)
    half, other = nn.Sequential(layer(config)), nn.Sequential(layer(config))
    half.load_state_dict(start)
    run(half, 0, 5)
    other.load_state_dict(half.state_dict())
    run(other, 5, 10)
    for key, value in whole.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    assert whole[0].calls == 10


def test_a_trained_binary_network_is_cut_to_its_most_frequent_patterns():
    model = SmallNet(6)
    subbit_(model, SNN(tau=9, ignore=("stem",)))
    with torch.no_grad():
        model.conv1.weight.copy_(patterns(torch.tensor([33] * 20 + [7] * 12 + [500] * 4)).view(6, 6, 3, 3) * 0.1)
    weight = model.conv1.weight.clone()
    subbit_(model, SNN(tau=1, subset="frequent", ignore=("stem",)))
    assert codes(model.conv1.P).tolist() == [33, 7] and torch.equal(model.conv1.weight, weight)


class Odd(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.good, self.bad = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, **options)


@pytest.mark.parametrize(("options", "message"), [
    ({"groups": 2}, "bad: there are 2 groups; results are shared among the outputs of 1 group; leave the layer as it is with "
                    "ignore=('bad',)"),
    ({"padding": "same"}, "bad: padding is 'same'"),
    ({"padding": 1, "padding_mode": "reflect"}, "mode 'reflect'; give numbers, and mode 'zeros'"),
    ({"dilation": 2}, "bad: dilation is (2, 2)"),
])
def test_convolutions_that_are_refused_leave_the_network_as_it_was(options, message):
    model = Odd(**options)
    with pytest.raises(ValueError, match=re.escape(message)):
        subbit_(model)
    assert type(model.good) is type(model.bad) is nn.Conv2d
    subbit_(model, SNN(ignore=("bad",)))
    assert names(model, SubBitConv2d) == ["good"]


def test_other_networks_that_are_refused():
    with pytest.raises(ValueError, match="ignore names 'stam', which is no layer of this network; choose from stem, conv1"):
        subbit_(SmallNet(4), SNN(ignore=("stam",)))
    with pytest.raises(ValueError, match="no Conv2d or SubBitConv2d of this network is left to work on; it has 0, 1"):
        subbit_(nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 5)))
    with pytest.raises(ValueError, match=r"the network is itself a layer; put it into an nn\.Sequential"):
        subbit_(conv())
    with pytest.raises(ValueError, match="the kernel is 5×5; patterns are of 3×3"):
        SubBitConv2d(nn.Conv2d(3, 3, 5))
    broken = SmallNet(4)
    with torch.no_grad():
        broken.conv2.weight[1, 2, 0, 1] = math.nan
    with pytest.raises(ValueError, match="conv2: the weight holds a value that is not finite; a pattern is chosen by finite"):
        subbit_(broken, SNN(ignore=("stem",)))
    assert not names(broken, SubBitConv2d)


def test_a_rule_and_names_leave_layers_out():
    for options in (dict(ignore=("stem", "conv1")), dict(filter_fn=lambda name, module: name == "conv2")):
        model = SmallNet(4)
        subbit_(model, SNN(**options))
        assert names(model, SubBitConv2d) == ["conv2"]


@pytest.mark.parametrize("options", [
    {"subset": "best"}, {"every": 0}, {"every": 2.5}, {"theta": -1}, {"theta": math.nan}, {"theta": math.inf},
    {"p_init_scale": 5e-4}, {"p_init_scale": 0}, {"p_init_scale": 3.5}, {"p_init_scale": math.nan}, {"p_lr": 0},
    {"p_lr": math.inf}])
def test_configuration_refuses(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SNN(**options)


def imitate(config, steps=400, lr=0.005, seed=0):
    """Learn a convolution whose kernels are two patterns (tau = 1); the loss in the end, and the student."""
    seed_everything(seed)
    wanted = patterns(torch.tensor([0b101101010, 0b110010011]))
    ids = torch.randint(0, 2, (6, 4))
    teacher = 0.1 * wanted[ids].view(6, 4, 3, 3)
    student = nn.Sequential(layer(config, inputs=4, outputs=6))
    with torch.no_grad():
        student[0].weight.uniform_(-0.2, 0.2)
    optimizer = adam(student)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = lr * (1 - step / steps)
        x = torch.randn(16, 4, 6, 6)
        optimizer.zero_grad()
        loss = (student(x) - functional.conv2d(x, teacher, padding=1)).square().mean()
        loss.backward()
        optimizer.step()
    student.eval()
    x = torch.randn(64, 4, 6, 6)
    made = functional.conv2d(x, student[0].P[student[0].ids].view(6, 4, 3, 3), padding=1)
    goal = functional.conv2d(x, teacher, padding=1)
    return float(functional.cosine_similarity(made.flatten(), goal.flatten(), dim=0)), student[0], set(codes(wanted).tolist())


def test_the_subset_is_learnt():
    """A refined subset comes near the two patterns that made the data, and mostly finds both; a kept one, or one whose gradient
    is wrong, cannot. From some starts the search ends in a neighbour."""
    exact = 0
    for seed in range(6):
        alike, student, wanted = imitate(SNN(tau=1, every=1, p_init_scale=0.05), seed=seed)
        kept, fixed, _ = imitate(SNN(tau=1, refine=False), seed=seed)
        assert alike > 0.6 and kept < 0.4, seed
        exact += set(codes(student.P).tolist()) == wanted and alike > 0.999
        assert set(codes(fixed.P).tolist()) != wanted
    assert exact >= 3
