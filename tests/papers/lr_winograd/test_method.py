"""Low-rank Winograd: the functions on tensors."""

import pytest
import torch

from papernets.papers.lr_winograd import columns_gone, cubes, expand, factors, matrices, removed_at, stored_numbers
from papernets.papers.lr_winograd.experiment import truncation

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


def test_factors_are_the_best_of_their_rank():
    W = torch.randn(5, 7, 3, 3, 3, dtype=torch.float64)
    errors, tails = truncation(W)
    torch.testing.assert_close(errors, tails, atol=1e-12, rtol=0)
    assert (errors[:26].diff() < -1e-4).all() and float(errors[26:].max()) < 1e-12
    P, Q = factors(expand(W), 12)
    torch.testing.assert_close(P.norm(dim=0), Q.norm(dim=1))


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


def test_the_share_rises_cubically():
    assert [removed_at(e, 4, 0.8) for e in (0, 2, 4, 9)] == pytest.approx([0, 0.8 * 7 / 8, 0.8, 0.8])
    assert [columns_gone(64, share) for share in (0, 0.25, 0.5, 0.7, 0.999)] == [0, 16, 32, 44, 63]


def test_storage_breaks_even():
    assert stored_numbers(256, 256, 27, 27)[0] == 27 * 65536
    dense, factored = zip(*(stored_numbers(256, 256, 27, columns) for columns in (26, 27, 28)))
    assert [a < b for a, b in zip(dense, factored)] == [True, True, False]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: matrices(3), "m, the side of a tile of outputs, is 3; choose from 2, 4"),
    (lambda: cubes(2, 1), "the number of axes is 1; choose from 2, 3"),
    (lambda: factors(torch.ones(5, 64), 6), "5 kernels and 64 positions is 6; it is a whole number from 1 to 5"),
    (lambda: factors(torch.ones(5, 64), True), "is True; it is a whole number"),
    (lambda: expand(torch.ones(2, 2, 3)), r"is \(Co, Ci, 3"),
    (lambda: columns_gone(64, -0.1), r"removed -0.1 is outside \[0, 1\); the nearest is 0"),
    (lambda: removed_at(1, 4, 1), r"removed 1 is outside \[0, 1\); the nearest is 0.99")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
