"""Low-rank Winograd: the functions on tensors."""

import copy
import math

import pytest
import torch
from papers.lr_winograd.samples import layer

from papernets.papers.lr_winograd import MODES, cubes, expand, factors, rate_at, removed, stored_numbers

pytestmark = pytest.mark.usefixtures("one_thread")


def test_axes_are_in_the_order_of_the_volume():
    delta = torch.zeros(1, 1, 3, 3, 3, dtype=torch.float64)
    delta[..., 0, 1, 2] = 1
    found = expand(delta).view(4, 4, 4)
    assert float(found[0, 1, 3]) == 0.5 and float(found[3, 1, 0]) == 0


@pytest.mark.parametrize(("m", "condition"), [(2, 8.0), (4, 64.42)])
def test_condition_of_the_transform(m, condition):
    S = torch.linalg.svdvals(cubes(m)[1])
    assert float(S[0] / S[-1]) == pytest.approx(condition, abs=0.005)


def test_beyond_rank_27_the_product_stays_and_learns():
    M = expand(torch.randn(8, 8, 3, 3, 3, dtype=torch.float64))
    P, Q = factors(M, 40, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(P @ Q, M, atol=1e-12, rtol=0)
    assert not Q[27:].any() and 0 < float(P[:, 27:].abs().max()) < 0.1 * float(P.abs().max())
    gradient = P.T @ torch.randn_like(M)
    assert float(gradient[27:].abs().min(1).values.max()) > 0


def test_spatial_factors_are_exact():
    W = torch.randn(4, 9, 3, 3, 3, dtype=torch.float64)
    assert torch.equal(W.reshape(-1, 27) @ cubes()[1].T, expand(W))
    assert int(torch.linalg.matrix_rank(expand(W))) == 27


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


def test_the_rate_rises_cubically():
    assert [rate_at(e, 4, 0.8) for e in (0, 2, 4, 9)] == pytest.approx([0, 0.8 * 7 / 8, 0.8, 0.8])
    assert [removed(64, rho) for rho in (0, 0.25, 0.5, 0.7, 0.999)] == [0, 16, 32, 44, 63]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_large_tiles_refuse_half_precision(dtype):
    with pytest.raises(ValueError, match="in half precision, use m=2 or float32"):
        layer(m=4, dtype=torch.float32).to(dtype)(torch.zeros(1, 6, 4, 4, 4, dtype=dtype))


def test_storage_breaks_even():
    assert stored_numbers(256, 256, 27, 27)[0] == 27 * 65536
    dense, factored = zip(*(stored_numbers(256, 256, 27, columns) for columns in (26, 27, 28)))
    assert [a < b for a, b in zip(dense, factored)] == [True, True, False]
