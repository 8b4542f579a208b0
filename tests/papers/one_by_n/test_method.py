"""1xN sparsity: the functions on tensors."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papers.one_by_n.sample import HAND, masked
from torch import nn
from torch.nn import functional

from papernets.papers.one_by_n import decode, encode, groups, kept_norm, mask, norms, order, smallest

pytestmark = pytest.mark.usefixtures("one_thread")


def slow_mask(W, p, N, pi):
    """The rule in plain Python, with the index i G + g of the code to break ties."""
    Co, Ci = W.shape[:2]
    G = math.ceil(Co / N)
    rows = [[pi[g * N + n] for n in range(N) if g * N + n < Co] for g in range(G)]
    scored = sorted((float(W[rows[g], i].abs().sum()), i * G + g) for g in range(G) for i in range(Ci))
    kept = torch.ones(W.shape, dtype=torch.bool)
    for _, index in scored[:int(G * Ci * p)]:
        kept[rows[index % G], index // G] = False
    return kept


def test_the_example_by_hand():
    assert norms(HAND, 2).tolist() == [[4, 4.5], [2.25, 3]]
    assert mask(HAND, 0.5, 2)[:, :, 0, 0].tolist() == [[True, True], [True, True], [False, False], [False, False]]
    assert order(HAND).tolist() == [3, 2, 1, 0]
    assert norms(HAND[order(HAND)], 2).tolist() == [[2.25, 3], [4, 4.5]]
    assert torch.equal(mask(HAND, 0.5, 2, rearrange=True), mask(HAND, 0.5, 2))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 3, 4, 5]), st.integers(1, 4), st.integers(1, 5), st.sampled_from([1, 3]), st.floats(0, 0.99),
       st.booleans(), st.integers(0, 99))
def test_masks_against_the_rule_in_plain_python(N, G, Ci, k, p, rearrange, seed):
    W = torch.randint(-9, 10, (N * G, Ci, k, k), generator=torch.Generator().manual_seed(seed)).float()  # with ties
    pi = sorted(range(N * G), key=lambda o: (float(W[o].abs().sum()), o)) if rearrange else list(range(N * G))
    found = mask(W, p, N, rearrange=rearrange)
    assert torch.equal(found, slow_mask(W, p, N, pi))
    assert int((~found).sum()) == N * k * k * int(G * Ci * p)


@pytest.mark.parametrize("rearrange", [False, True])
def test_every_block_is_whole(rearrange):
    W = torch.randn(12, 5, 3, 3)
    found = mask(W, 0.4, 4, rearrange=rearrange)
    pi = order(W) if rearrange else torch.arange(12)
    blocks = found[pi].view(3, 4, 5, 9).permute(0, 2, 1, 3).reshape(15, 36)
    assert (blocks.all(1) | ~blocks.any(1)).all() and int((~blocks.any(1)).sum()) == 6


def test_one_kernel_of_one_weight_is_weight_pruning():
    W = torch.randn(7, 5, 1, 1)
    assert torch.equal(mask(W, 0.3, 1), mask(W, 0.3, pattern="weight"))
    assert torch.equal(mask(W, 0.3, 1), mask(W, 0.3, pattern="kernel"))


def test_kernels_are_blocks_of_one():
    W = torch.randn(7, 5, 3, 3)
    assert torch.equal(mask(W, 0.3, 1), mask(W, 0.3, 7, pattern="kernel"))
    assert not torch.equal(mask(W, 0.3, 1), mask(W, 0.3, pattern="weight"))


def test_ties_go_to_the_lower_index_of_the_code():
    """Four blocks alike, of which two go: those of input 0, not those of group 0."""
    assert mask(torch.ones(4, 2, 1, 1), 0.5, 2)[:, :, 0, 0].tolist() == [[False, True]] * 4
    assert smallest(torch.tensor([[1., 2.], [2., 1.]]), 3).tolist() == [[True, False], [True, True]]


def test_filters_and_weights():
    assert mask(HAND, 0.5, pattern="filter")[:, 0, 0, 0].tolist() == [True, True, False, False]
    assert mask(HAND, 0.4, pattern="weight")[:, :, 0, 0].tolist() == [[False, True], [True, False], [True, True], [False, True]]


def test_random_blocks_are_as_many_as_asked():
    W, draw = torch.randn(8, 10, 1, 1), torch.Generator().manual_seed(3)
    first, second = (mask(W, 0.5, 4, pattern="random", generator=draw) for _ in range(2))
    assert int(first.sum()) == int(second.sum()) == 40 and not torch.equal(first, second)


def test_the_norm_falls_as_blocks_grow():
    W = torch.randn(32, 8, 1, 1) * torch.rand(32, 1, 1, 1)
    kept = [kept_norm(W, mask(W, 0.5, N)) for N in (1, 2, 4, 8, 16, 32)]
    assert kept == sorted(kept, reverse=True) and kept[0] == pytest.approx(kept_norm(W, mask(W, 0.5, pattern="weight")))
    assert all(kept_norm(W, mask(W, 0.5, N, rearrange=True)) > kept_norm(W, mask(W, 0.5, N)) for N in (2, 4, 8, 16))


def test_scale_and_permutations():
    W = torch.randn(8, 6, 3, 3)
    channels, filters = torch.randperm(6), torch.randperm(8)
    for rearrange in (False, True):
        found = mask(W, 0.5, 4, rearrange=rearrange)
        assert torch.equal(mask(7 * W, 0.5, 4, rearrange=rearrange), found)
        assert torch.equal(mask(W[:, channels], 0.5, 4, rearrange=rearrange), found[:, channels])
    assert torch.equal(mask(W[filters], 0.5, 4, rearrange=True), mask(W, 0.5, 4, rearrange=True)[filters])


def test_rates_at_the_ends():
    W = torch.randn(4, 3, 1, 1)
    assert mask(W, 0.0).all() and mask(W, 0.08).all()  # int(3 · 0.08) = 0
    assert int(mask(W, 0.99).sum()) == 4  # of three blocks one is left


def test_a_short_last_group():
    W = torch.randn(6, 4, 1, 1)
    assert groups(6, 4, pad=True) == 2
    found = mask(W, 0.5, 4, pad=True)
    assert torch.equal(found, slow_mask(W, 0.5, 4, list(range(6))))
    assert norms(W, 4, pad=True)[1].tolist() == W[4:].abs().sum((0, 2, 3)).tolist()


def test_a_layer_of_one_channel():
    W = torch.randn(4, 1, 1, 1)
    assert mask(W, 0.5, 4).all() and int(mask(W, 0.5, 2).sum()) == 2


def test_the_picture_of_the_encoding():
    """Two groups of four outputs, six inputs: pointers (1, 5, 7) and indices (1, 3, 4, 6, 2, 5), counted from 1."""
    W = torch.zeros(8, 6, 1, 1)
    for g, inputs in enumerate(((0, 2, 3, 5), (1, 4))):
        for i in inputs:
            W[4 * g : 4 * g + 4, i, 0, 0] = torch.arange(1.0, 5) + 10 * i
    P, I, D = encode(W, 4)
    assert (P + 1).tolist() == [1, 5, 7] and (I + 1).tolist() == [1, 3, 4, 6, 2, 5]
    assert D[:, 0, 0].tolist() == [[10 * i + n for n in range(1, 5)] for i in (0, 2, 3, 5, 1, 4)]


@pytest.mark.parametrize(("k", "N"), [(1, 1), (1, 4), (3, 2), (3, 8)])
def test_encoding_and_back(k, N):
    W = torch.randn(8, 5, k, k)
    W = W * mask(W, 0.6, N)
    P, I, D = encode(W, N)
    assert P[-1] == len(I) == len(D) and len(P) == 8 // N + 1
    assert torch.equal(decode(P, I, D, W.shape), W)


def test_the_gradient_is_masked_and_else_the_dense_one():
    conv = nn.Conv2d(5, 8, 3, padding=1)
    layer, x = masked(conv), torch.randn(2, 5, 7, 6)
    plain = nn.Conv2d(5, 8, 3, padding=1)
    plain.load_state_dict({"weight": conv.weight * layer.mask, "bias": conv.bias})
    upstream = torch.randn(2, 8, 7, 6)
    (layer(x) * upstream).sum().backward()
    (plain(x) * upstream).sum().backward()
    assert (layer.weight.grad[~layer.mask] == 0).all() and (layer.weight.grad[layer.mask] != 0).all()
    torch.testing.assert_close(layer.weight.grad[layer.mask], plain.weight.grad[layer.mask])
    torch.testing.assert_close(layer.bias.grad, plain.bias.grad)


def test_training_never_changes_a_mask():
    layer = masked(nn.Conv2d(5, 8, 1))
    before = layer.mask.clone()
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        layer(torch.randn(4, 5, 3, 3)).square().sum().backward()
        optimizer.step()
    assert torch.equal(layer.mask, before) and (layer.weight[~before] == 0).all()


def test_a_mask_travels_in_the_state():
    first, second = (nn.Sequential(masked(nn.Conv2d(5, 8, 1), seed)) for seed in (0.3, 0.6))
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 5, 3, 3)
    assert torch.equal(first(x), second(x)) and torch.equal(first[0].mask, second[0].mask)


def test_the_linear_form_is_a_pointwise_convolution():
    linear, x = nn.Linear(6, 8, bias=False), torch.randn(5, 6)
    conv = nn.Conv2d(6, 8, 1, bias=False)
    conv.weight.data.copy_(linear.weight[:, :, None, None])
    layer = masked(conv)
    expected = functional.linear(x, linear.weight * layer.mask[:, :, 0, 0])
    torch.testing.assert_close(layer(x[:, :, None, None])[:, :, 0, 0], expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: mask(HAND, -0.1), r"p -0.1 is outside \[0, 1\); the nearest is 0"),
     (lambda: mask(HAND, 1.0), r"p 1.0 is outside \[0, 1\); the nearest is 0.99"),
     (lambda: mask(HAND, 0.5, 3), "N is 3, and 4 filters are no multiple of it; the nearest N that divides is 2"),
     (lambda: mask(torch.zeros(6, 4, 1, 1), 0.5, 4), "N is 4, and 6 filters are no multiple .* is 3"),
     (lambda: mask(HAND, 0.5, 0), "N is 0; it is a whole number of at least 1"),
     (lambda: mask(HAND, 0.5, 2.0), "N is 2.0; it is a whole number"),
     (lambda: mask(HAND[:, :, 0, 0], 0.5), r"the weight has shape \(4, 2\); it is \(Co, Ci, k, k\)"),
     (lambda: mask(HAND * math.nan, 0.5), "W holds a value that is not finite; pieces are ranked by finite norms"),
     (lambda: mask(HAND, 0.5, pattern="row"), "pattern is 'row'; choose from block, weight, kernel, filter, random")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
