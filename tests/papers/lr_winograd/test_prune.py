"""Low-rank Winograd: which columns go, and that they stay away."""

import copy
import math

import pytest
import torch
from papers.lr_winograd.sample import conv, layer
from torch import nn

from papernets.papers.lr_winograd import MODES, LowRankWinograd, prune_, transform_, winograd
from papernets.papers.lr_winograd.experiment import ARMS
from papernets.papers.lr_winograd.networks import ClipNet

pytestmark = pytest.mark.usefixtures("one_thread")


def test_importance_does_not_depend_on_the_scales():
    one = layer(rank=10)
    for score in ("column", "factor"):
        before = one.importance(score)
        other = copy.deepcopy(one)
        scale = torch.rand(10, dtype=torch.float64) + 0.5
        other.P.data.mul_(scale)
        other.Q.data.div_(scale[:, None])
        torch.testing.assert_close(other.importance(score), before)
    torch.testing.assert_close(one.importance(), (one.P @ one.Q).detach().norm(dim=0))
    P, Q = one.P.detach(), one.Q.detach()
    slow = [math.sqrt(sum((float(P[:, j].norm()) * float(Q[j, p])) ** 2 for j in range(10))) for p in range(64)]
    assert one.importance("factor").tolist() == pytest.approx(slow)


def test_first_order_scores_are_summed():
    one, x = layer(rank=5), torch.randn(2, 6, 4, 4, 4, dtype=torch.float64)
    expected = torch.zeros(64, dtype=torch.float64)
    for _ in range(2):
        one.zero_grad()
        one(x).pow(2).mean().backward()
        one.accumulate()
        expected += (one.Q * one.Q.grad).sum(0).abs().detach()
        one.Q.data.sub_(0.1 * one.Q.grad)
    torch.testing.assert_close(one.importance("taylor"), expected)
    with pytest.raises(ValueError, match="call backward first"):
        layer("spatial").accumulate()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("m", [2, 4])
def test_the_columns_with_the_largest_norms_stay(mode, m):
    one, x = layer(mode, m=m), torch.randn(1, 6, 5, 6, 4, dtype=torch.float64)
    norms, M, whole, t3 = one.importance(), one.weights().detach(), one(x), (m + 2) ** 3
    one.prune(0)
    assert torch.equal(one(x), whole)
    one.prune(0.75)
    kept = one.columns()
    assert len(kept) == t3 - int(0.75 * t3) and float(norms[kept].min()) >= float(norms[~one.kept].max())
    masked = winograd(x, M * one.kept, 8, m, (1, 1, 1)) + one.bias.view(-1, 1, 1, 1)
    torch.testing.assert_close(one(x), masked, atol=1e-10, rtol=0)
    columns, U = one.export()
    assert torch.equal(columns, kept)
    torch.testing.assert_close(U[3], M[:, kept[3]].view(8, 6))


def test_columns_that_are_kept_by_hand_cannot_be_those_removed():
    one = layer()
    one.keep(torch.tensor([0, 1, 9]))
    one.keep(torch.tensor([1, 2, 9]))
    assert one.columns().tolist() == [1, 9]
    with pytest.raises(ValueError, match="no column would be left"):
        one.keep(torch.tensor([0, 2]))
    assert one.columns().tolist() == [1, 9]


def test_equal_scores_leave_the_lower_positions():
    one = layer("vanilla")
    one.M.data.fill_(1)
    one.prune(0.5)
    assert one.columns().tolist() == list(range(32))


@pytest.mark.parametrize("mode", MODES)
def test_nothing_brings_a_column_back(mode):
    one, x = layer(mode), torch.randn(4, 6, 4, 4, 4, dtype=torch.float64)
    optimizer = torch.optim.SGD(one.parameters(), 0.01, momentum=0.9, weight_decay=0.1)
    for step in range(4):
        if step == 2:
            one.prune(0.5)
            gone = ~one.kept
        optimizer.zero_grad()
        one(x).pow(2).mean().backward()
        if step >= 2 and mode != "spatial":
            W = one.M if mode == "vanilla" else one.Q
            assert not W.grad[:, gone].any() and (W.grad[:, one.kept].abs().sum(0) > 0).any()
        optimizer.step()
    assert not one.importance()[gone].any() and int(one.kept.sum()) == 32 == len(one.export()[1])
    one.prune(0.25)
    assert torch.equal(~one.kept, gone)
    one.prune(0.75)
    assert int(one.kept.sum()) == 16 and not (one.kept & gone).any()


def test_a_network_ranks_all_columns_together():
    model = ClipNet()
    transform_(model, ARMS["vanilla"])
    weak, strong = model.body[0], model.body[3]
    weak.M.data.mul_(1e-3)
    prune_(model, 0.5, LowRankWinograd(scope="network"))
    assert int(weak.kept.sum()) == 1 and int(strong.kept.sum()) == 63
    assert weak.columns()[0] == weak.importance().argmax()


@pytest.mark.parametrize(("call", "message"), [
    (lambda: prune_(nn.Sequential(conv())), "call transform_ first"),
    (lambda: prune_(nn.Sequential(layer()), 1), r"removed 1 is outside \[0, 1\)"),
    (lambda: layer().keep(torch.tensor([], dtype=torch.int64)), "at least 1"), (lambda: layer().importance("x"), "choose from"),
    (lambda: layer("delta").importance("factor"), "choose column or taylor")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("call", [lambda: LowRankWinograd(rate=0.5), lambda: prune_(nn.Sequential(layer()), rate=0.5),
                                  lambda: layer().prune(rho=0.5)])
def test_keywords_of_old_name_the_new_one(call):
    with pytest.raises(TypeError, match=r"takes removed in place of (rate|rho)"):
        call()
