"""LRPET: the functions on tensors."""

import numpy as np
import pytest
import torch

from papernets.papers.lrpet import break_even, factorise, project, rank, transfer

pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def test_energy_of_a_diagonal_matrix():
    W = matrix([3, 0], [0, 1])
    torch.testing.assert_close(project(W, 1), matrix([3.16227766, 0], [0, 0]), atol=1e-8, rtol=0)
    torch.testing.assert_close(project(W, 1, rho=0.5), matrix([3.12249900, 0], [0, 0.5]), atol=1e-8, rtol=0)
    torch.testing.assert_close(project(W, 1, energy=False), matrix([3, 0], [0, 0]), atol=1e-12, rtol=0)
    torch.testing.assert_close(project(W, 1, energy=False, rho=0.5), matrix([3, 0], [0, 0.5]), atol=1e-12, rtol=0)


def test_a_full_matrix():
    W = matrix([1, 2], [3, 4])
    found = project(W, 1)
    torch.testing.assert_close(found, matrix([1.27642612, 1.81125494], [2.88542725, 4.09443543]), atol=1e-8, rtol=0)
    assert float(found.square().sum()) == pytest.approx(30, abs=1e-12)
    torch.testing.assert_close(torch.linalg.svdvals(W), matrix([5.4649857, 0.36596619])[0], atol=1e-7, rtol=0)


def test_the_batch_norm_decides_which_direction_survives():
    W = matrix([3, 0], [0, 1])
    torch.testing.assert_close(project(W, 1, matrix([0.1, 1])[0]), matrix([0, 0], [0, 1.04402021]), atol=1e-8, rtol=0)
    torch.testing.assert_close(project(W, 1, matrix([2, 0.5])[0]), matrix([3.01039112, 0], [0, 0]), atol=1e-8, rtol=0)


def test_a_scale_of_zero_and_one_below_zero():
    W = torch.randn(7, 11, dtype=torch.float64)
    a = torch.tensor([1, -0.5, 0, 2, -1, 0.3, 0.7], dtype=torch.float64)
    found = project(W, 3, a)
    assert torch.isfinite(found).all() and (found[2] == 0).all()
    torch.testing.assert_close(project(W, 3, a.abs()), found)  # a sign goes in and comes out again


@pytest.mark.parametrize("shape", [(7, 13), (13, 7), (7, 5, 3, 3)])
@pytest.mark.parametrize("r", [1, 4])
def test_norm_rank_ratios_and_idempotence(shape, r):
    W = torch.randn(shape, dtype=torch.float64)
    found = project(W, r)
    assert found.shape == W.shape
    torch.testing.assert_close(found.norm(), W.norm())
    before, after = (torch.linalg.svdvals(M.reshape(len(M), -1)) for M in (W, found))
    assert int((after > 1e-9).sum()) == r
    torch.testing.assert_close(after[:r] / after[0], before[:r] / before[0])
    torch.testing.assert_close(project(found, r), found)
    plain = project(W, r, energy=False)
    torch.testing.assert_close(plain.square().sum(), before[:r].square().sum())
    assert plain.norm() < 0.99 * W.norm()


def test_against_numpy():
    W, a = np.random.default_rng(0).normal(size=(5, 11)), np.array([0.5, 2, -1, 1.5, 0.25])
    U, s, Vt = np.linalg.svd(a[:, None] * W, full_matrices=False)
    kept = sum(x**2 for x in s[:2])
    expected = sum(s[i] * np.sqrt(sum(s**2) / kept) * np.outer(U[:, i], Vt[i]) for i in range(2))
    expected = expected * (a / (a * a + 1e-5))[:, None]
    np.testing.assert_allclose(project(torch.from_numpy(W), 2, torch.from_numpy(a)).numpy(), expected, atol=1e-12)


def test_the_merged_energy_is_kept_up_to_the_damping():
    W, a = torch.randn(6, 9, dtype=torch.float64), torch.ones(6, dtype=torch.float64)
    lost = 1 - float(project(W, 2, a).square().sum() / W.square().sum())
    assert lost == pytest.approx(2e-5, rel=1e-3)


def test_full_rank_and_dead_matrices_stay():
    W = torch.randn(4, 6)
    for r in (4, 9):
        assert torch.equal(project(W, r), W) and torch.equal(project(W, r, torch.full((4,), 0.01)), W)
    dead = 1e-6 * W
    assert torch.equal(project(dead, 1), dead) and torch.equal(project(torch.zeros(4, 6), 1), torch.zeros(4, 6))
    assert torch.equal(project(W, 1, torch.full((4,), 1e-6)), W)  # it is the merged matrix that has died


def test_transfer_is_one_factor():
    s = torch.tensor([4.0, 2, 1, 0.5])
    found = transfer(s, 2)
    torch.testing.assert_close(found, torch.tensor([4, 2, 0, 0]) * (21.25 / 20) ** 0.5)
    assert float(transfer(s, 2, rho=0.3).square().sum()) == pytest.approx(21.25)


def test_rank_is_cut_down_and_at_least_one():
    assert [rank(p, 0.8) for p in (16, 27, 32, 64)] == [3, 5, 6, 12]
    assert rank(64, 0.81) == 12 and rank(3, 0.9) == 1 and rank(3, 1.0) == 1 and rank(64, 0) == 64
    assert rank(64, 0.9, least=18) == 18 and rank(10, 0.9, least=18) == 10


def test_break_even():
    assert break_even(64, 576) == pytest.approx(57.6)
    assert 57 * (64 + 576) < 64 * 576 < 58 * (64 + 576)


@pytest.mark.parametrize("shape", [(7, 13), (7, 5, 3, 3)])
def test_factors(shape):
    W = torch.randn(shape)
    C, N = factorise(project(W, 3), 3)
    assert C.shape == (3, W[0].numel()) and N.shape == (7, 3)
    torch.testing.assert_close((N @ C).view(shape), project(W, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(C.norm(dim=1), N.norm(dim=0))


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: rank(4, 1.5), r"the pruned share 1.5 is outside \[0, 1\]; the nearest is 1"),
     (lambda: project(torch.ones(3), 1), r"shape \(3,\); it is a matrix"),
     (lambda: project(torch.ones(3, 3), 0), "the rank is 0; it is a whole number of at least 1"),
     (lambda: project(torch.ones(3, 3), 1.5), "the rank is 1.5; it is a whole number"),
     (lambda: project(torch.ones(3, 3), 1, rho=-1), r"rho -1 is outside \[0, 1\]; the nearest is 0"),
     (lambda: project(torch.ones(3, 3), 1, torch.ones(2)), r"a has shape \(2,\); it is one scale for each of 3 outputs"),
     (lambda: project(torch.ones(3, 3), 1, torch.full((3,), torch.nan)), "scale holds a value that is not finite"),
     (lambda: project(torch.full((3, 3), torch.nan), 1), "the weight holds a value that is not finite")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
