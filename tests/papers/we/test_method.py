"""Weight Evolution: the functions on tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.we.sample import slow_kernels

from papernets.papers.we import (
    CIFAR,
    IMAGENET,
    MIXES,
    Falling,
    cross_kernels,
    cross_pointwise,
    importance,
    match,
    mixture,
    select,
    threshold,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_pointwise_crossover_by_hand():
    inferior, superior = torch.tensor([[0.1, -0.05]]), torch.tensor([[1.0, 2.0]])
    torch.testing.assert_close(cross_pointwise(inferior, superior), torch.tensor([[0.957143, 1.902381]]), atol=1e-6, rtol=0)
    assert superior.tolist() == [[1.0, 2.0]]


def test_a_kernel_crossover_by_hand():
    """p = 3 and q = -0.05: 2pq/(p + q) in the released code, and close to p where the strong one prevails."""
    inferior, superior = torch.tensor([0.1, 0.2, -0.05]).view(1, 1, 3, 1), torch.tensor([3.0, -1.0, 2.0]).view(1, 1, 3, 1)
    for mix, value in {"official": -0.101695, "dominant": 2.95}.items():
        found = cross_kernels(inferior, superior, mix).flatten()
        torch.testing.assert_close(found, torch.tensor([0.1, 0.2, value]), atol=1e-6, rtol=0)
    assert superior.flatten().tolist() == [3.0, -1.0, 2.0]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 5), st.sampled_from([(3, 3), (1, 3), (5, 1), (2, 3)]), st.sampled_from(MIXES),
       st.booleans(), st.integers(0, 99))
def test_kernels_against_loops(n, Ci, k, mix, ties, seed):
    draw = torch.Generator().manual_seed(seed)
    make = (lambda *shape: torch.randint(-2, 3, shape, generator=draw).double()) if ties else (
        lambda *shape: torch.randn(*shape, generator=draw, dtype=torch.float64))
    inferior, superior = make(n, Ci, *k), make(n, Ci, *k)
    before = superior.clone()
    torch.testing.assert_close(cross_kernels(inferior, superior, mix), slow_kernels(inferior, superior, mix))
    assert torch.equal(superior, before)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_the_dominant_mixture_is_bounded_by_its_parents(q, p):
    q, p = torch.tensor(q, dtype=torch.float64), torch.tensor(p, dtype=torch.float64)
    found = float(mixture(q, p))
    assert math.isfinite(found) and abs(found) <= max(abs(q), abs(p)) * (1 + 1e-12)
    assert min(q, p) - 1e-9 <= found <= max(q, p) + 1e-9


def test_what_the_text_says_about_the_official_mixture():
    """A weak element doubles, a clash of signs has a pole, and at the pole nothing happens."""
    value = mixture(torch.tensor(0.001), torch.tensor(1.0), "official")
    assert float(value) == pytest.approx(0.002, rel=2e-3)
    assert float(mixture(torch.tensor(-0.999), torch.tensor(1.0), "official")) == pytest.approx(-1998, rel=1e-3)
    assert float(mixture(torch.tensor(-1.0), torch.tensor(1.0), "official")) == -1.0
    assert abs(float(mixture(torch.tensor(-0.999), torch.tensor(1.0)))) < 1


@pytest.mark.parametrize("mix", MIXES)
def test_two_parents_of_nothing_stay_nothing(mix):
    assert mixture(torch.tensor(0.0), torch.tensor(0.0), mix) == 0
    assert torch.equal(cross_kernels(torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3), mix), torch.zeros(1, 2, 3, 3))
    assert torch.equal(cross_pointwise(torch.zeros(2, 3), torch.zeros(2, 3)), torch.zeros(2, 3))


def test_a_dead_pointwise_filter_becomes_its_partner():
    superior = torch.randn(2, 5)
    assert torch.equal(cross_pointwise(torch.zeros(2, 5), superior), superior)


def test_importance_counts_inputs_and_not_the_size_of_the_kernel():
    W = torch.full((2, 4, 3, 3), 0.5)
    W[1] = -1
    assert importance(W).tolist() == [4.5, 9.0]
    assert importance(W[:, :1]).tolist() == [4.5, 9.0]  # depthwise: one input
    assert importance(W[:, :, :1, :1]).tolist() == [0.5, 1.0]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=23), st.floats(0, 0.999))
def test_the_threshold_is_an_order_statistic(values, rho):
    theta = threshold(torch.tensor(values).double(), rho)
    assert theta == sorted(values)[int(len(values) * rho)]
    assert sum(value < theta for value in values) <= int(len(values) * rho)


def test_ties_select_nothing():
    assert select(torch.zeros(5), threshold(torch.zeros(5), 0.9)) == (0, 0)
    assert select(torch.full((5,), 0.3), threshold(torch.full((5,), 0.3), 0.5), 0.9) == (0, 0)


def test_both_tests_must_agree():
    a = torch.tensor([10.0, 9.0, 0.5, 0.4, 0.3])  # 3 filters are at most a tenth of 10
    assert [select(a, theta, 0.1)[0] for theta in (0.2, 0.35, 0.45, 9.5, 99)] == [0, 1, 2, 3, 3]
    assert select(torch.tensor([8.0, 0.5, 0.25, 0.75]), 99, 0.0625)[0] == 2  # the filter equal to the limit is weak, too
    assert select(a, 99, 0.95)[0] == 4


def test_the_counter():
    strong = torch.tensor([1.0, 0.9])
    assert select(strong, 0.95, 0.1, counter=0, limit=2) == (0, 1)
    assert select(strong, 0.95, 0.1, counter=1, limit=2) == (1, 0)
    assert select(strong, 0.95, 0.1, counter=1, limit=3) == (0, 2)
    assert select(strong, 0.5, 0.1, counter=1, limit=2) == (0, 1)  # no weak filter in the network's eyes: untouched
    assert select(torch.tensor([1.0, 0.05]), 0.95, 0.1, counter=1, limit=2) == (1, 0)  # a local one resets it


def test_the_best_of_all_meets_the_best_of_the_weak():
    superior, inferior = match(torch.tensor([3.0, 0.1, 7.0, 0.3, 5.0, 0.2]), 3)
    assert superior.tolist() == [2, 4, 0] and inferior.tolist() == [3, 5, 1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=11), st.integers(0, 11))
def test_pairs_against_a_loop(values, q):
    q = min(q, len(values))
    order = sorted(range(len(values)), key=lambda o: -values[o])
    pairs = [(order[j], order[len(values) - q + j]) for j in range(min(q, len(values) - q))]
    superior, inferior = match(torch.tensor(values).double(), q)
    assert list(zip(superior.tolist(), inferior.tolist())) == pairs
    assert not set(superior.tolist()) & set(inferior.tolist())


def test_the_weakest_stay_alone_where_partners_are_few():
    superior, inferior = match(torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0]), 3)
    assert superior.tolist() == [0, 1] and inferior.tolist() == [2, 3]
    assert [len(part) for part in match(torch.ones(1), 1)] == [0, 0]


VALUES = {0: 0.1, 1: 0.10333, 5: 0.11651, 15: 0.14621, 30: 0.17616, 59: 0.19616, 60: 0.04, 75: 0.05848, 119: 0.07846, 120: 0.02,
          150: 0.03523, 199: 0.03979}


@pytest.mark.parametrize(("epoch", "rho"), VALUES.items())
def test_the_schedule_of_200_epochs(epoch, rho):
    assert 0.2 * CIFAR(epoch) == pytest.approx(rho, abs=5e-6)
    assert CIFAR.scaled(0.1)(epoch / 10) == pytest.approx(CIFAR(epoch))


def test_the_schedule_of_90_epochs():
    assert [IMAGENET(epoch) for epoch in (0, 30, 60)] == [0.5, 0.25, 0.125]
    assert IMAGENET(29) == pytest.approx(1 / (1 + math.exp(-29 / 8)))
    assert IMAGENET(38) == pytest.approx(0.5 / (1 + math.exp(-1)))


def test_a_straight_line():
    assert [Falling(10)(epoch) for epoch in (0, 5, 10, 12)] == [1, 0.5, 0, 0] and Falling(10).scaled(0.5)(1) == 0.8
