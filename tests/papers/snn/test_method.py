"""Sub-bit networks: the functions on tensors."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papernets_kernels.hdl import subbit
from torch.nn import functional

from papernets.measure import macs, parameters
from papernets.papers.snn import (
    SNN,
    binarise,
    codes,
    most_frequent,
    patterns,
    project,
    reading,
    remember,
    sample,
    scales,
    settle,
    shared_conv2d,
    straight_through,
    subbit_,
    subset_size,
)
from papernets.papers.snn.networks import NETWORKS

pytestmark = pytest.mark.usefixtures("one_thread")
SEARCH = settings(max_examples=40, deadline=None, database=None, derandomize=True)


def test_codes_of_the_512_patterns():
    rows = patterns(torch.arange(512))
    assert rows.shape == (512, 9)
    assert len({tuple(row) for row in rows.tolist()}) == 512
    assert set(rows.flatten().tolist()) == {-1.0, 1.0}
    assert torch.equal(codes(rows), torch.arange(512))
    for code in (0, 1, 2, 16, 256, 341, 511):  # bit j is position j, row by row
        assert rows[code].tolist() == [1.0 if code >> j & 1 else -1.0 for j in range(9)]
    assert codes(torch.tensor([0.0, -0.0, 1e-9, -1, 1, 0, 0, 0, 2.0])).item() == 4 + 16 + 256  # 0 is not above 0


@pytest.mark.parametrize("tau", [0, 10, -1, 2.0, True, "5", math.nan, None])
def test_tau_is_a_whole_number_from_1_to_9(tau):
    w = torch.ones(3, 3)
    for call in (lambda: subset_size(tau), lambda: sample(tau), lambda: SNN(tau=tau), lambda: most_frequent(w, tau)):
        with pytest.raises(ValueError, match=r"tau is .*; it is a whole number from 1 to 9"):
            call()


def test_reading_reverses_the_nine_bits():
    found = reading(torch.arange(512))
    assert found.tolist() == [int(f"{code:09b}"[::-1], 2) for code in range(512)]
    # the authors' list: the window row by row as a binary number, position 0 the highest digit
    for code in (1, 6, 300):
        digits_ = "".join("1" if value > 0 else "0" for value in patterns(torch.tensor([code]))[0].tolist())
        assert int(digits_, 2) == found[code]


@pytest.mark.parametrize("tau", range(1, 10))
def test_samples_are_distinct_and_uniform(tau):
    found = sample(tau)
    assert found.shape == (2**tau,) and found.tolist() == sorted(set(found.tolist()))
    assert 0 <= found.min() and found.max() < 512
    again = sample(tau, torch.Generator().manual_seed(3)), sample(tau, torch.Generator().manual_seed(3))
    assert torch.equal(*again)
    drawn = torch.cat([sample(tau) for _ in range(2048 // 2**tau)])
    times = torch.bincount(drawn, minlength=512).float()
    if tau < 9:  # 2048 draws, 4 expected for each pattern
        assert 1.2 < times.std() < 2.3 and times.max() < 14
    else:
        assert times.min() == times.max() == 4


def test_most_frequent_patterns_and_their_ties():
    w = patterns(torch.tensor([7, 7, 7, 100, 100, 1, 2, 256])).view(4, 2, 3, 3) * torch.rand(4, 2, 1, 1)
    # once each: 1, 2 and 256; the authors' list has them at 256, 128 and 1, and the larger index comes first
    assert most_frequent(w, 1).tolist() == [7, 100]
    assert most_frequent(w, 2).tolist() == [7, 100, 1, 2]
    found = most_frequent(w, 3).tolist()
    assert found[:5] == [7, 100, 1, 2, 256]
    never = [code for code in range(512) if code not in (7, 100, 1, 2, 256)]
    assert found[5:] == sorted(never, key=lambda code: -int(f"{code:09b}"[::-1], 2))[:3] == [511, 255, 383]


@SEARCH
@given(seed=st.integers(0, 999), tau=st.integers(1, 9))
def test_most_frequent_against_a_counter(seed, tau):
    w = torch.randn(7, 11, 3, 3, generator=torch.Generator().manual_seed(seed))
    times = Counter(tuple(row) for row in (w.view(-1, 9) > 0).tolist())

    def key(code):
        row = tuple(bool(code >> j & 1) for j in range(9))
        return times[row], int("".join("01"[bit] for bit in row), 2)

    assert most_frequent(w, tau).tolist() == sorted(range(512), key=key, reverse=True)[:2**tau]


def test_the_hand_example():
    P = torch.stack([torch.ones(9), -torch.ones(9), -torch.ones(9)])
    P[2, 4] = 1  # centre +, others -
    w = torch.full((1, 1, 3, 3), 0.1)
    w[0, 0, 1, 1] = -0.5
    assert (w.view(1, 9) @ P.T).flatten().tolist() == pytest.approx([0.3, -0.3, -1.3])
    assert project(w, P).tolist() == [[0]]
    assert (P[project(w, P)].view_as(w) == 1).all()  # the sign alone would flip the centre


@SEARCH
@given(seed=st.integers(0, 999), n=st.sampled_from([1, 2, 3, 5, 32, 100]), scale=st.sampled_from([1e-4, 1.0, 50.0]))
def test_projection_is_the_nearest_pattern(seed, n, scale):
    draw = torch.Generator().manual_seed(seed)
    w = scale * torch.randn(3, 7, 3, 3, generator=draw)
    P = patterns(torch.randperm(512, generator=draw)[:n])
    found = project(w, P)
    assert found.shape == (3, 7)
    for o, c in itertools.product(range(3), range(7)):
        distances = [sum((k - v) ** 2 for k, v in zip(row, w[o, c].double().flatten().tolist())) for row in P.tolist()]
        assert distances[found[o, c]] == pytest.approx(min(distances), rel=1e-9)
    assert torch.equal(project(7 * w, P), found)  # the scale has no say
    assert torch.equal(project(P[found].view(3, 7, 3, 3), P), found)  # a pattern of the subset is its own nearest


def test_ties_go_to_the_lowest_index():
    P = patterns(torch.tensor([3, 5, 6, 5]))
    w = torch.zeros(2, 1, 3, 3)
    w[1] = patterns(torch.tensor([5])).view(1, 3, 3)
    assert project(w, P).tolist() == [[0], [1]]
    even = torch.tensor([1.0, 1, 1, 0, 0, 0, 0, 0, 0]).view(1, 1, 3, 3)  # codes 3, 5 and 6 agree with it equally
    assert project(even, P).item() == 0
    assert project(even, P[[2, 1, 0, 3]]).item() == 0


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_all_512_patterns_give_the_sign(scale):
    w = scale * torch.randn(17, 13, 3, 3)
    w[:, :, 0, 0] *= 1e-8  # beside its neighbours lost in a sum of float32
    P = patterns(torch.arange(512))
    assert torch.equal(P[project(w, P)].view_as(w), w.sign())
    shuffled = P[torch.randperm(512)]
    assert torch.equal(shuffled[project(w, shuffled)].view_as(w), w.sign())


def test_parts_make_no_difference():
    w, P = torch.randn(5, 7, 3, 3), patterns(sample(4))
    assert torch.equal(project(w, P, at_once=4), project(w, P))


def test_scales_are_constants():
    w = torch.randn(5, 3, 3, 3, requires_grad=True)
    found = scales(w)
    assert found.tolist() == pytest.approx([sum(abs(v) for v in row) / 27 for row in w.flatten(1).tolist()], rel=1e-5)
    assert not found.requires_grad


def test_two_kernels_of_one_pattern_and_one_of_another():
    """Upstream ones: dL/dp is 2 and 1; entries of |w| > 1 get no dL/dw but still feed dL/dp."""
    P = patterns(torch.tensor([511, 0]))
    w = torch.tensor([0.5, 0.2, -0.7]).view(3, 1, 1, 1).repeat(1, 1, 3, 3)
    w[1, 0, 0, 0], w[1, 0, 0, 1], w[1, 0, 0, 2] = 1.5, 1.0, -1.0
    w.requires_grad_(True)
    p = P.clone().requires_grad_(True)
    ids = project(w, P)
    assert ids.flatten().tolist() == [0, 0, 1]
    straight_through(w, P, ids, p).sum().backward()
    assert p.grad.tolist() == [[2.0] * 9, [1.0] * 9]
    expected = torch.ones(3, 1, 3, 3)
    expected[1, 0, 0, 0] = 0  # 1.5 is clipped; 1 and -1 are not
    assert torch.equal(w.grad, expected)
    p.grad = w.grad = None
    straight_through(w, P, ids).sum().backward()
    assert p.grad is None and torch.equal(w.grad, expected)


@SEARCH
@given(seed=st.integers(0, 999), n=st.sampled_from([2, 4, 8]))
def test_gradients_against_loops(seed, n):
    draw = torch.Generator().manual_seed(seed)
    w = (1.2 * torch.randn(5, 3, 3, 3, generator=draw)).requires_grad_(True)
    g = torch.randn(5, 3, 3, 3, generator=draw)
    P = patterns(torch.randperm(512, generator=draw)[:n])
    p = torch.randn(n, 9, generator=draw).requires_grad_(True)
    ids = project(w, P)
    out = straight_through(w, P, ids, p)
    assert torch.equal(out, P[ids].view_as(w))  # the value is the memory's, not p's
    (out * g).sum().backward()
    to_p = [[0.0] * 9 for _ in range(n)]
    for o, c, j in itertools.product(range(5), range(3), range(9)):
        upstream, value = g[o, c].flatten()[j].item(), w[o, c].flatten()[j].item()
        assert w.grad[o, c].flatten()[j].item() == (upstream if abs(value) <= 1 else 0)
        to_p[ids[o, c]][j] += upstream
    np.testing.assert_allclose(p.grad, to_p, atol=1e-5)


def test_binarise_and_its_slope():
    x = torch.tensor([-2.0, -1.0, -0.75, -0.25, -0.0, 0.0, 0.25, 0.75, 1.0, 3.0], requires_grad=True)
    y = binarise(x)
    assert y.tolist() == [-1, -1, -1, -1, 1, 1, 1, 1, 1, 1]
    y.sum().backward()
    assert x.grad.tolist() == [0, 0, 0.5, 1.5, 2, 2, 1.5, 0.5, 0, 0]


def test_memory_and_its_dead_zone():
    p = torch.tensor([[5e-4, -2e-3, 1e-3, -1e-3, 0.0, 2.0, -5e-4, 9e-4, -3.0]])
    old = torch.tensor([[-1.0, 1, -1, 1, 1, -1, 1, -1, 1]])
    assert remember(p, old).tolist() == [[-1, -1, 1, -1, 1, 1, 1, -1, -1]]
    assert remember(p, old, theta=0.0)[0, [0, 1, 6]].tolist() == [1, -1, -1]


def test_settle_replaces_what_repeats():
    rows = patterns(torch.tensor([5, 9, 5, 20, 9, 5]))
    p = 0.3 * rows
    p[0, 0] = 4.0
    m = -rows  # to see which rows of the memory are touched
    found, memory, fresh = settle(p, m, torch.Generator().manual_seed(1), scale=0.25)
    assert fresh.tolist() == [False, False, True, False, True, True]
    assert torch.equal(found[~fresh], p[~fresh].clamp(-3, 3)) and found[0, 0] == 3
    assert torch.equal(memory[~fresh], m[~fresh])
    new = codes(found[fresh]).tolist()
    assert len(set(new)) == 3 and not {5, 9, 20} & set(new)
    assert torch.equal(memory[fresh], patterns(new)) and torch.equal(found[fresh], 0.25 * patterns(new))
    assert p[0, 0] == 4 and torch.equal(m, -rows)  # nothing is changed in place
    same, _, none = settle(found, memory)
    assert torch.equal(same, found) and not none.any()


def test_settle_fills_even_when_nearly_all_patterns_are_taken():
    """511 rows of which 255 repeat: what is missing is drawn without misses, and every pattern occurs once."""
    taken = torch.cat([torch.arange(256), torch.arange(255)])
    found, _, fresh = settle(patterns(taken), patterns(taken))
    assert len(set(codes(found).tolist())) == 511 and int(fresh.sum()) == 255


def test_fresh_patterns_are_drawn_from_all_missing_ones():
    seen = set()
    for seed in range(200):
        found, _, fresh = settle(patterns(torch.tensor([3] * 8)), torch.ones(8, 9), torch.Generator().manual_seed(seed))
        seen |= set(codes(found[fresh]).tolist())
    assert 3 not in seen and len(seen) > 400


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 1), (1, 0), ((2, 1), (0, 2))])
@pytest.mark.parametrize(("tau", "outputs"), [(2, 7), (5, 11), (1, 1), (9, 3)])
def test_shared_results_are_those_of_the_kernels_spelt_out(tau, outputs, stride, padding):
    P = patterns(sample(tau))
    ids = torch.randint(0, len(P), (outputs, 5))
    x = torch.randint(-128, 128, (2, 5, 7, 9)).float()
    expected = functional.conv2d(x.double(), P[ids].view(outputs, 5, 3, 3).double(), stride=stride, padding=padding)
    assert torch.equal(shared_conv2d(x, ids, P, stride, padding).double(), expected)  # whole numbers: exactly


def test_the_parameters_of_resnet18():
    model = NETWORKS["resnet18"].outline
    subbit_(model)
    with torch.device("meta"):
        assert parameters(model) == 11_709_032
        assert sum(p.numel() for name, p in model.named_parameters() if name.endswith(".p")) == 4_608
        assert sum(p.numel() for name, p in model.named_parameters() if ".bn." in name or "stem.1" in name
                   or ("shortcut" in name and p.ndim == 1)) == 9_600
        small = [p.numel() for name, p in model.named_parameters() if "shift" in name or "prelu" in name]
        assert sum(small) == 14_912
        # the 3×3 layers as convolutions, the stem, the 1×1 shortcuts and the classifier
        assert macs(model, torch.empty(1, 3, 224, 224)) == 1_676_279_808 + 118_013_952 + 3 * 64 * 128 * 28**2 + 512_000


def two_processes(items, fill, drain):
    """A producer and a consumer with two halves between them, event by event: when the last item is drained."""
    filled, drained = [], []
    for i in range(items):
        start = filled[-1] if filled else 0
        if i >= 2:
            start = max(start, drained[i - 2])  # its half must be free
        filled.append(start + fill)
        drained.append(max(filled[-1], drained[-1] if drained else 0) + drain)
    return drained[-1]


@pytest.mark.parametrize("tau", [1, 3, 5, 7])
@pytest.mark.parametrize("outputs", [3, 64, 128, 512])
def test_the_law_is_that_of_two_processes_with_two_halves(tau, outputs):
    """And the core's law is theirs and two cycles of pipeline; for a real layer it is the plain product to a thousandth."""
    fill, drain = 2**tau, math.ceil(outputs / 4)
    core = subbit.SubBit(tau, 4, windows=64, kernels=64, outputs=512)
    for positions, channels in ((1, 1), (2, 3), (49, 13)):
        n = positions * channels
        assert two_processes(n, fill, drain) == fill + (n - 1) * max(fill, drain) + drain
        assert core.law(positions, channels, outputs) == two_processes(n, fill, drain) + 2
