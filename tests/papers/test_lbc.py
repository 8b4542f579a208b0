"""LBC: supports, scores and their gradients, the removal, the layers, the packed form, the counts and the recipes."""

import copy
import math
from dataclasses import replace
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn
from torch.nn import functional as F

from papernets.cards import card
from papernets.data import digits
from papernets.measure import count, macs, parameters, report
from papernets.nn import ConvNet, DeiT, ResNetBasic, ResNetCIFAR
from papernets.papers import lbc
from papernets.papers.lbc import (
    ARMS,
    LBC,
    RECIPES,
    PackedConv2d,
    PackedLinear,
    SmallMLP,
    SparseConv2d,
    SparseLinear,
    bits,
    code_bits,
    compact,
    compare,
    counts,
    dense,
    density,
    expected_density,
    facts,
    from_groups,
    largest,
    left,
    masked,
    number,
    refresh_,
    remove,
    rerank_,
    rescale_,
    sparsifiable,
    sparsify_,
    start,
    supports,
    to_groups,
    union,
    violations,
)
from papernets.training import cosine, fit, loader, run_recipe, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")
W24 = torch.tensor([[0.5, -1, 2, 0.25]])
G24 = torch.tensor([[1, 0.5, -0.25, 2]])
HEAD = ("classifier",)


def finished(model, config):
    """Every score at random, and every removal done."""
    sparsify_(model, config)
    for module in model.modules():
        if hasattr(module, "scores"):
            nn.init.normal_(module.scores)
    refresh_(model, config.t_f)
    return model.eval()


# --- supports and the schedule ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("N", "M"), [(2, 4), (1, 4), (2, 8), (4, 8), (1, 8), (1, 16), (3, 3), (3, 5)])
def test_supports(N, M):
    A = supports(N, M)
    assert A.shape == (math.comb(M, N), M) and len({tuple(row) for row in A.tolist()}) == len(A)
    assert (A.sum(1) == N).all() and (A.sum(0) == math.comb(M - 1, N - 1)).all()
    assert [tuple(torch.nonzero(row).flatten().tolist()) for row in A] == list(combinations(range(M), N))


def test_scores_of_the_start_add_up_to_one():
    assert [start(*p) for p in ((2, 4), (1, 4), (2, 8), (4, 8))] == pytest.approx([1 / 3, 1, 1 / 7, 1 / 35])
    for N, M in ((2, 4), (1, 16), (4, 8)):
        torch.testing.assert_close(torch.full((1, number(N, M)), start(N, M)) @ supports(N, M), torch.ones(1, M), atol=1e-6,
                                   rtol=0)


def test_the_published_schedule():
    removed = [6 - left(epoch, 2, 4) for epoch in range(70)]
    assert removed == [0] * 5 + [1] * 5 + [2] * 6 + [3] * 9 + [4] * 35 + [5] * 10


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([(2, 4), (1, 4), (2, 8), (4, 8), (2, 2)]), st.integers(0, 9), st.integers(1, 40))
def test_the_schedule_falls_from_all_to_one(pattern, t_i, length):
    n, t_f = math.comb(pattern[1], pattern[0]), t_i + length
    found = [left(epoch, *pattern, t_i, t_f) for epoch in range(t_f + 5)]
    assert found[: t_i + 1] == [n] * (t_i + 1) and found[t_f:] == [1] * 5
    assert all(a >= b for a, b in pairwise(found)) and (n == 1 or found[t_f - 1] > 1)


def test_the_first_removals_of_long_patterns():
    """At epoch 0 all scores are equal, so nothing may go; after it, much soon does."""
    for pattern, first in (((2, 8), 1), ((1, 16), 2)):
        assert left(first - 1, *pattern) == number(*pattern) > left(first, *pattern)


def test_density_of_random_survivors():
    assert [expected_density(c, 2, 4) for c in range(1, 7)] == pytest.approx([0.5, 0.8, 0.95, 1, 1, 1])
    for N, M, c in ((2, 4, 2), (2, 5, 3), (1, 4, 3)):
        every = [supports(N, M)[list(rows)].sum(0).gt(0).float().mean() for rows in combinations(range(number(N, M)), c)]
        assert expected_density(c, N, M) == pytest.approx(float(torch.stack(every).mean()))


def test_bits_by_hand():
    assert [bits(*p) for p in ((2, 4), (1, 4), (2, 8), (4, 8))] == [36, 18, 38, 76]
    assert [code_bits(*p) for p in ((2, 4), (2, 8), (4, 8), (3, 3))] == [3, 5, 7, 0]
    assert bits(2, 4, 32) == 68


# --- groups ----------------------------------------------------------------------------------------------------------


def test_a_group_is_neighbouring_inputs_of_one_output_and_tap():
    W = torch.randn(3, 10, 2, 3)
    w = to_groups(W, 5)
    assert w.shape == (3 * 2 * 3 * 2, 5)
    for o in range(3):
        for i in range(2):
            for j in range(3):
                for g in range(2):
                    assert torch.equal(w[((o * 2 + i) * 3 + j) * 2 + g], W[o, 5 * g : 5 * g + 5, i, j])
    assert torch.equal(from_groups(w, W.shape), W) and from_groups(w, W.shape).is_contiguous()
    V = torch.randn(3, 10)
    assert torch.equal(to_groups(V, 5)[3], V[1, 5:]) and torch.equal(from_groups(to_groups(V, 5), V.shape), V)


# --- scores and gradients --------------------------------------------------------------------------------------------


def test_the_example_by_hand():
    A, s, w = supports(2, 4), torch.full((1, 6), 1 / 3, requires_grad=True), W24.clone().requires_grad_()
    alive = torch.ones(1, 6, dtype=torch.bool)
    masked(w, s, alive, A).backward(G24)
    assert (W24 * G24).tolist() == [[0.5, -0.5, -0.5, 0.5]]
    assert s.grad.tolist() == [[0, 0, 1, -1, 0, 0]] and torch.equal(w.grad, G24)
    s = s.detach() - 0.1 * s.grad
    torch.testing.assert_close(s, torch.tensor([[1 / 3, 1 / 3, 0.7 / 3, 1.3 / 3, 1 / 3, 1 / 3]]))
    assert union(remove(s, alive, 1), A).tolist() == [[False, True, True, False]]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([(2, 4), (1, 3), (3, 5)]), st.integers(1, 6), st.integers(0, 99))
def test_gradients_against_loops(pattern, G, seed):
    draw = torch.Generator().manual_seed(seed)
    A = supports(*pattern)
    n, M = A.shape
    w, s = (torch.randn(G, width, generator=draw).requires_grad_() for width in (M, n))
    g, alive = torch.randn(G, M, generator=draw), torch.rand(G, n, generator=draw) < 0.4
    found = masked(w, s, alive, A)
    found.backward(g)
    places = [list(c) for c in combinations(range(M), pattern[0])]
    for group in range(G):
        held = {j for c in range(n) if alive[group, c] for j in places[c]}
        for j in range(M):
            assert found[group, j] == (w[group, j] if j in held else 0)
            assert w.grad[group, j] == (g[group, j] if j in held else 0)
        for c in range(n):
            expected = sum(float(w[group, j].detach() * g[group, j]) for j in places[c]) if alive[group, c] else 0.0
            assert float(s.grad[group, c]) == pytest.approx(expected, abs=1e-5)
            assert alive[group, c] or s.grad[group, c] == 0


def test_a_removed_support_learns_nothing():
    A, alive = supports(2, 4), torch.tensor([[True, False, False, False, False, False]])
    w, s = W24.clone().requires_grad_(), torch.zeros(1, 6, requires_grad=True)
    masked(w, s, alive, A).backward(G24)
    assert s.grad.tolist() == [[0.5 - 0.5, 0, 0, 0, 0, 0]] and w.grad.tolist() == [[1, 0.5, 0, 0]]


def test_the_size_of_a_score_scales_nothing():
    layer = SparseLinear(nn.Linear(8, 6), LBC(), torch.Generator())
    nn.init.normal_(layer.scores)
    layer.refresh_(25)
    x = torch.randn(3, 8)
    before = layer(x)
    with torch.no_grad():
        layer.scores[5] *= 7
    assert torch.equal(layer(x), before)


def test_scores_are_sums_of_elements_while_nothing_is_removed():
    """One accumulator for each weight explains all scores: the best support is that of the N largest."""
    model = nn.Sequential(nn.Linear(8, 6))
    sparsify_(model, LBC())
    layer, optimizer = model[0], torch.optim.SGD(model.parameters(), 0.05)
    elements = torch.zeros(12, 4)
    for _ in range(5):
        w, x = layer.weight.detach().clone(), torch.randn(9, 8)
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        elements -= 0.05 * to_groups(w * layer.weight.grad, 4)
        optimizer.step()
    torch.testing.assert_close(layer.scores.detach(), start(2, 4) + elements @ supports(2, 4).T)
    best = union(remove(layer.scores, layer.alive, 1), supports(2, 4))
    assert torch.equal(best, torch.zeros(12, 4, dtype=torch.bool).scatter_(1, elements.topk(2, 1).indices, True))


# --- the removal -----------------------------------------------------------------------------------------------------


def test_removal_by_hand_with_ties():
    s, alive = torch.tensor([[3.0, 1, 2, 1, 1, 5]]), torch.ones(1, 6, dtype=torch.bool)
    assert remove(s, alive, 4).tolist() == [[True, False, True, False, True, True]]
    assert remove(s, remove(s, alive, 4), 1).tolist() == [[False] * 5 + [True]]
    assert torch.equal(remove(s, alive, 6), alive)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 5), st.lists(st.integers(1, 6), min_size=1, max_size=5), st.integers(0, 99))
def test_a_removal_is_for_ever_and_leaves_the_best(G, stays, seed):
    draw, alive = torch.Generator().manual_seed(seed), torch.ones(G, 6, dtype=torch.bool)
    for stay in stays:
        s = torch.randn(G, 6, generator=draw)
        after = remove(s, alive, stay)
        assert not (after & ~alive).any()
        for row in range(G):
            was = [c for c in range(6) if alive[row, c]]
            expected = sorted(was, key=lambda c: -float(s[row, c]))[: min(stay, len(was))]
            assert {c for c in range(6) if after[row, c]} == set(expected)
        alive = after


def test_the_code_s_removal_lets_a_support_return():
    s = torch.tensor([[0.3, 0.1, 0.4, 0.2]])
    assert rerank_(s, 2).tolist() == [[True, False, True, False]]
    torch.testing.assert_close(s, torch.tensor([[0.3, 0.0, 0.4, 0.0]]))
    assert rerank_(s, 2).tolist() == [[True, False, True, False]]  # zeros count among the removed
    mixed = torch.tensor([[-0.3, 0.0, 0.4, 0.0]])  # a score below zero is not below those that are gone
    assert rerank_(mixed, 2).tolist() == [[True, False, True, False]]
    s += torch.tensor([[0, 0.5, 0, -0.5]])  # the momentum of the optimiser
    assert rerank_(s, 2).tolist() == [[False, True, True, False]]


def rehearse(config, epochs=8):
    """Scores that fall and then rise: what was removed first is the best at the end."""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    sparsify_(model, config)
    layer, seen = model[0], []
    for epoch in range(epochs):
        refresh_(model, epoch)
        model(torch.ones(1, 4))
        seen.append(tuple(torch.nonzero(layer.alive[0]).flatten().tolist()))
        with torch.no_grad():
            layer.scores += 0.1 * torch.tensor([[-1.0, 1, 0, 2, 3, 4]]) if epoch < 3 else torch.tensor([[5.0, 0, 0, 0, 0, 0]])
    return layer, seen


def test_permanent_and_re_ranked_removal_differ():
    layer, seen = rehearse(LBC(t_f=6))
    assert 0 not in seen[-1] and len(seen[-1]) == 1 and all(set(b) <= set(a) for a, b in pairwise(seen))
    layer, again = rehearse(LBC(t_f=6, rerank=True))
    assert again[-1] == (0,) and any(not set(b) <= set(a) for a, b in pairwise(again))
    assert [len(s) for s in again] == [len(s) for s in seen] == [left(e, 2, 4, 0, 6) for e in range(8)]
    assert layer.final


@pytest.mark.parametrize("rerank", [False, True])
def test_after_the_last_removal_nothing_moves(rerank):
    model = SmallMLP(8, 12)
    finished(model, LBC(t_f=3, ignore=HEAD, rerank=rerank)).train()
    masks = [model.fc1.mask.clone(), model.fc2.mask.clone()]
    assert violations(model) == 0 and density(model) == 0.5
    rows = {tuple(row) for row in supports(2, 4).bool().tolist()}
    assert {tuple(row) for row in to_groups(masks[0], 4).tolist()} <= rows
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    for epoch in range(4, 9):
        refresh_(model, epoch)
        optimizer.zero_grad()
        model(torch.randn(5, 8)).square().sum().backward()
        assert (model.fc1.scores.grad == 0).all() and (model.fc1.weight.grad[~masks[0]] == 0).all()
        optimizer.step()
        with torch.no_grad():
            model.fc1.scores.normal_()
    assert torch.equal(model.fc1.mask, masks[0]) and torch.equal(model.fc2.mask, masks[1])


def test_an_earlier_epoch_brings_nothing_back():
    model = SmallMLP(8, 12)
    finished(model, LBC(t_f=3, ignore=HEAD))
    refresh_(model, 0)
    assert violations(model) == 0 and int(model.fc1.removed) == 5


def test_a_resumed_run_goes_on_where_it_was():
    first, second = SmallMLP(8, 12), SmallMLP(8, 12)
    for model, epoch in ((first, 4), (second, 0)):
        sparsify_(model, LBC(t_f=6, ignore=HEAD))
        nn.init.normal_(model.fc1.scores)
        refresh_(model, epoch)
    second.load_state_dict(first.state_dict())
    x = torch.randn(3, 8)
    assert torch.equal(second(x), first(x)) and int(second.fc1.removed) == int(first.fc1.removed) == 4
    assert torch.equal(second.fc1.alive, first.fc1.alive) and not second.fc1.alive.all()


def test_n_of_n_is_the_dense_layer():
    model = SmallMLP(8, 12)
    x, expected = torch.randn(3, 8), None
    expected = model(x)
    sparsify_(model, LBC(4, 4, ignore=HEAD))
    refresh_(model, 60)
    assert torch.equal(model(x), expected) and density(model) == 1 and model.fc1.final
    torch.testing.assert_close(compact(model)(x), expected)


# --- the layers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(12, 5, 3, padding=1), nn.Conv2d(12, 5, (1, 2), 2, bias=False)])
def test_at_the_start_it_is_the_dense_layer_bit_for_bit(layer):
    model = nn.Sequential(copy.deepcopy(layer))
    sparsify_(model)
    x = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 12, 7, 6)
    assert torch.equal(model(x), layer(x)) and density(model) == 1
    refresh_(model, 0)
    assert torch.equal(model(x), layer(x))


@pytest.mark.parametrize("layer", [nn.Linear(12, 5), nn.Conv2d(12, 5, 3, padding=1)])
def test_the_gradient_of_the_weight_is_the_masked_dense_one(layer):
    model, plain = nn.Sequential(copy.deepcopy(layer)), layer
    finished(model, LBC(1, 4))
    x = torch.randn(2, 12) if isinstance(layer, nn.Linear) else torch.randn(2, 12, 7, 6)
    with torch.no_grad():
        plain.weight *= model[0].mask
    upstream = torch.randn_like(plain(x))
    (model(x) * upstream).sum().backward()
    (plain(x) * upstream).sum().backward()
    gone = ~model[0].mask
    assert gone.float().mean() == 0.75 and (model[0].weight.grad[gone] == 0).all()
    torch.testing.assert_close(model[0].weight.grad, plain.weight.grad * ~gone)
    assert (plain.weight.grad[gone] != 0).all()


def test_the_rules_to_compare_with():
    x, seen = torch.randn(7, 8), {}
    base = nn.Linear(8, 6)
    for rule in ("random", "magnitude", "ste"):
        model = nn.Sequential(copy.deepcopy(base))
        sparsify_(model, LBC(rule=rule))
        refresh_(model, 3)
        assert violations(model) == 0 and parameters(model) == parameters(base)
        out = model(x)
        torch.testing.assert_close(out, F.linear(x, base.weight * model[0].mask, base.bias))
        out.sum().backward()
        seen[rule] = model[0]
        torch.testing.assert_close(compact(model)(x), out.detach())
    by_size = torch.zeros(12, 4, dtype=torch.bool).scatter_(1, to_groups(base.weight, 4).abs().topk(2, 1).indices, True)
    assert torch.equal(to_groups(seen["ste"].mask, 4), by_size) and torch.equal(seen["magnitude"].mask, seen["ste"].mask)
    assert not torch.equal(seen["random"].mask, seen["ste"].mask)
    for rule in ("random", "magnitude"):
        assert (seen[rule].weight.grad[~seen[rule].mask] == 0).all()
    torch.testing.assert_close(seen["ste"].weight.grad, x.sum(0).expand(6, 8))  # dense: as without a mask
    with torch.no_grad():  # the choice by size is made anew, the random one is not
        for layer in seen.values():
            before = layer.mask.clone()
            layer.weight.copy_(torch.randn(6, 8))
            assert torch.equal(layer.mask, before) is (layer is seen["random"])


def test_ties_of_magnitudes():
    assert largest(torch.tensor([[1.0, -1, 1, 0.5]]), 2).tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("rule", ["scores", "magnitude"])
def test_macs_are_those_of_the_mask(rule):
    model = nn.Sequential(nn.Conv2d(8, 6, 3), nn.Flatten(), nn.Linear(6 * 7 * 5, 4))
    sparsify_(model, LBC(1, 2, rule=rule, t_f=4))
    x = torch.zeros(2, 8, 9, 7)
    full = 2 * (35 * 6 * 72 + 4 * 210)
    assert macs(model, x) == (full if rule == "scores" else full // 2)
    refresh_(model, 4)
    assert macs(model, x) == full // 2 and macs(model, x, "thop") == full // 2 + 2 * 35 * 6
    packed = compact(model)
    assert macs(packed, x) == full // 2 and macs(packed, x, "thop") == full // 2 + 2 * 35 * 6


# --- the packed form -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pattern", [(2, 4), (1, 4), (1, 12), (3, 6)])
@pytest.mark.parametrize("layer", [
    nn.Linear(12, 5), nn.Linear(12, 7, bias=False), nn.Conv2d(12, 5, 1), nn.Conv2d(12, 5, 1, 2, 1),
    nn.Conv2d(12, 5, (3, 2), (2, 1), (1, 2), bias=False), nn.Conv2d(12, 5, 3, dilation=2, padding=1)])
def test_the_packed_layer_computes_the_same(layer, pattern):
    model = nn.Sequential(copy.deepcopy(layer))
    finished(model, LBC(*pattern))
    packed = compact(model)
    assert isinstance(packed[0], PackedLinear if isinstance(layer, nn.Linear) else PackedConv2d)
    for batch in (3, 1, 0):
        x = torch.randn(batch, 12) if isinstance(layer, nn.Linear) else torch.randn(batch, 12, 7, 9)
        torch.testing.assert_close(packed(x), model(x).detach(), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dense(model)(x), model(x))


def test_a_packed_linear_layer_takes_any_leading_sizes():
    model = nn.Sequential(nn.Linear(8, 5))
    finished(model, LBC())
    x = torch.randn(2, 3, 8)
    torch.testing.assert_close(compact(model)(x), model(x).detach())


def test_values_and_places():
    model = nn.Sequential(nn.Linear(8, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7, 8]]))
    sparsify_(model, LBC(t_f=1))
    with torch.no_grad():
        model[0].scores.copy_(torch.tensor([[0.0, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1]]))
    refresh_(model, 1)
    product = compact(model)[0].product
    assert product.V.tolist() == [[[1, 3], [7, 8]]] and product.places.tolist() == [[[0, 2], [2, 3]]]
    assert product.stored == (4, 4 * 32 + 4 * 2)


NETS = {"mlp": (lambda: SmallMLP(16, 24), (16,), HEAD),
        "convnet": (lambda: ConvNet((16, 24, 32)), (3, 16, 16), ("features.0",)),
        "resnet": (lambda: ResNetCIFAR(8, stages=(8, 16, 24)), (3, 16, 16), ("conv1",)),
        "deit": (lambda: DeiT(16, 2, 2, 32, 8, 7), (3, 32, 32), ("patches", "classifier"))}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("pattern", [(2, 4), (1, 8)])
def test_masked_dense_and_packed_networks_agree(name, pattern):
    build, shape, ignore = NETS[name]
    model = finished(build(), LBC(*pattern, ignore=ignore))
    x = torch.randn(2, *shape)
    with torch.no_grad():
        expected = model(x)
        for other in (dense(model), compact(model)):
            torch.testing.assert_close(other(x), expected, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, SparseLinear | SparseConv2d) for m in (*dense(model).modules(), *compact(model).modules()))


def test_a_packed_network_is_saved_and_loaded(tmp_path):
    models = [compact(finished(SmallMLP(8, 12), LBC(ignore=HEAD))) for _ in range(2)]
    x = torch.randn(3, 8)
    models[1](x)
    torch.save(models[0].state_dict(), tmp_path / "packed.pt")
    models[1].load_state_dict(torch.load(tmp_path / "packed.pt", weights_only=True))
    assert torch.equal(models[1](x), models[0](x))


def test_the_original_is_left_alone():
    model = finished(SmallMLP(8, 12), LBC(ignore=HEAD)).train()
    before = copy.deepcopy(model.state_dict())
    compact(model), dense(model)
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_the_report_shows_what_is_saved():
    model = SmallMLP(16, 24)
    packed = compact(finished(copy.deepcopy(model), LBC(ignore=HEAD)))
    found = report(model, packed, torch.zeros(1, 16), timed=False)
    weights = 24 * 16 + 24 * 24
    assert found.before.parameters - found.after.parameters == weights // 2
    assert found.before.macs - found.after.macs == weights // 2
    assert found.before.bytes - found.after.bytes == 4 * weights // 2 - (weights // 2 * 2) // 8


# --- the verbs -------------------------------------------------------------------------------------------------------


def test_what_is_made_sparse_by_default_and_what_is_left_out():
    model = nn.Sequential(nn.Conv2d(8, 16, 3), nn.Conv2d(16, 16, 3, groups=16), nn.Conv2d(16, 12, 1), nn.Linear(12, 8))
    assert list(sparsifiable(model)) == ["0", "2", "3"]
    assert list(sparsifiable(model, LBC(ignore=("3",)))) == ["0", "2"]
    assert list(sparsifiable(model, LBC(filter_fn=lambda name, module: isinstance(module, nn.Linear)))) == ["3"]
    assert list(sparsifiable(model, LBC(1, 8, skip=True))) == ["0", "2"]


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: LBC(0, 4), "N is 0; it is a whole number of at least 1"),
     (lambda: LBC(2.0, 4), "N is 2.0; it is a whole number"),
     (lambda: LBC(5, 4), "N is 5 of M = 4; the largest N is 4"),
     (lambda: LBC(8, 16), r"8:16 has 12870 supports, and the limit is 2000: .* take 804 times the memory .* 4:8 takes 8.75"),
     (lambda: LBC(t_i=5, t_f=5), "the removal ends at epoch 5 and starts at 5; it must end at 6 or later"),
     (lambda: LBC(t_i=-1), "the removal starts at epoch -1; the earliest is 0"),
     (lambda: LBC(rule="best"), "rule is 'best'; choose from scores, random, magnitude, ste"),
     (lambda: to_groups(torch.zeros(4, 6), 4), "M is 4, and 6 inputs are no multiple of it; the nearest M that divides is 3"),
     (lambda: to_groups(torch.zeros(4), 4), r"the weight has shape \(4,\); it is \(Co, Ci\) or"),
     (lambda: remove(torch.zeros(1, 6), torch.ones(1, 6, dtype=torch.bool), 0), "0 supports are to stay; .* from 1 to 6"),
     (lambda: remove(torch.full((1, 6), math.nan), torch.ones(1, 6, dtype=torch.bool), 2), "a score is not finite"),
     (lambda: expected_density(7, 2, 4), "c is 7; 2:4 has from 1 to 6 supports"),
     (lambda: lbc.network("vgg"), "no network 'vgg'; choose from resnet18, resnet50, deitsmall"),
     (lambda: refresh_(SmallMLP(), 0), "this network has no N:M layer; call sparsify_ first"),
     (lambda: compact(SmallMLP()), "this network has no N:M layer; call sparsify_ first"),
     (lambda: sparsify_(nn.Linear(4, 4)), "the network is itself a layer; put it into")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("config", "message"),
    [(LBC(), r"conv1: M is 4, and 3 inputs are .* is 3; leave the layer dense with ignore=\('conv1',\) or skip=True"),
     (LBC(1, 5, ignore=("conv1",)), r"blocks.0.conv1: M is 5, and 16 inputs are no multiple of it; the nearest M .* is 4"),
     (LBC(ignore=("stem",)), "ignore names 'stem', which is no layer"),
     (LBC(filter_fn=lambda name, module: False), "no Conv2d or Linear of this network is left to work on")])
def test_a_refused_network_is_unchanged(config, message):
    model = ResNetCIFAR(8)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        sparsify_(model, config)
    assert not any(isinstance(module, SparseLinear | SparseConv2d) for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_twice_is_refused_and_so_is_packing_too_early():
    model = SmallMLP()
    sparsify_(model, LBC(ignore=HEAD))
    with pytest.raises(ValueError, match="fc1 has scores already; begin with the dense network"):
        sparsify_(model, LBC(ignore=HEAD))
    refresh_(model, 30)
    with pytest.raises(ValueError, match="fc1 has 2 of 6 supports left in each group; it is packed when one is, at epoch 60"):
        compact(model)


def test_other_padding_cannot_be_packed():
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"))
    finished(model, LBC())
    assert dense(model)(torch.zeros(1, 4, 5, 5)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"0 has padding .* of mode 'reflect'; the packed form takes numbers of zeros"):
        compact(model)


def test_scores_that_are_not_finite_name_their_layer():
    model = SmallMLP()
    sparsify_(model, LBC(ignore=HEAD))
    with torch.no_grad():
        model.fc2.scores[3, 1] = math.nan
    with pytest.raises(ValueError, match="fc2: a score is not finite"):
        refresh_(model, 30)


# --- the paper -------------------------------------------------------------------------------------------------------


def test_every_exact_claim():
    found = facts()
    for claim in card("lbc").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id


def test_counts_against_a_network_that_was_made_sparse():
    """ResNet-18, its layers counted by their masks."""
    model = ResNetBasic()
    before = parameters(model)
    sparsify_(model, LBC(1, 4, rule="random", ignore=("conv1", "classifier")))
    layers = [m for m in model.modules() if isinstance(m, SparseConv2d)]
    found = counts("resnet18", 1, 4)
    assert len(layers) == found["layers"] and sum(m.weight.numel() for m in layers) == found["weights"]
    assert before - sum(int((~m.mask).sum()) for m in layers) == found["nonzero"]
    x = torch.zeros(1, 3, 32, 32)
    costs, plain = count(model, x), count(ResNetBasic(), x)
    inside = {name for name, m in model.named_modules() if isinstance(m, SparseConv2d)}
    assert all(costs[name].macs * (4 if name in inside else 1) == plain[name].macs for name in plain)


def test_the_transformer_has_the_published_size():
    with torch.device("meta"):
        model = DeiT()
    assert parameters(model) == 22_050_664
    assert counts("deitsmall")["layers"] == 48 and counts("deitsmall")["weights"] == 12 * 12 * 384**2


def test_recipes():
    claims = {claim.recipe.split("--config ")[1] for claim in card("lbc").claims if claim.kind == "full"}
    assert claims <= set(RECIPES) and {"resnet50-ste-imagenet", "deitsmall-ste-imagenet"} <= set(RECIPES)
    recipe = RECIPES["resnet50-imagenet"]()
    assert (recipe.epochs, recipe.batch, recipe.momentum, recipe.weight_decay) == (120, 256, 0.9, 1e-4)
    assert recipe.lr(0) == 0 and recipe.lr(5) == pytest.approx(0.1) and recipe.lr(120) == pytest.approx(0, abs=1e-12)
    model = RECIPES["resnet18-1of16-imagenet"]().build()
    assert isinstance(model.conv1, nn.Conv2d) and not isinstance(model.conv1, SparseConv2d)
    assert sum(isinstance(m, SparseConv2d) for m in model.modules()) == 19
    first, second = recipe.optimizer(model).param_groups
    assert second["weight_decay"] == 0 and first["weight_decay"] == 1e-4
    assert len(first["params"]) == 1 + 19 * 2 + 1 and all(p.dim() > 1 for p in first["params"])
    RECIPES["resnet18-1of16-imagenet"]().before_epoch(model, 60, 120)
    assert violations(model) == 0
    exported = recipe.export(model)
    assert parameters(exported) == counts("resnet18")["params"]
    outputs, labels = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    assert recipe.loss()(outputs, None, labels) == F.cross_entropy(outputs, labels, label_smoothing=0.1)


def test_the_recipe_of_the_transformer():
    recipe = RECIPES["deitsmall-imagenet"]()
    model = recipe.build()
    layers = [m for m in model.modules() if isinstance(m, SparseLinear)]
    assert recipe.epochs == 300 and len(layers) == 48 and {m.config.t_f for m in layers} == {200}
    assert [block.drop for block in model.blocks] == pytest.approx([0.1 * block / 11 for block in range(12)])
    assert RECIPES["deitsmall-dense-imagenet"]().build().blocks[11].drop == pytest.approx(0.1)
    plain = recipe.optimizer(model).param_groups[1]
    assert plain["weight_decay"] == 0 and any(p is model.token for p in plain["params"])


def test_the_images_of_the_transformer_are_repeated_erased_and_mixed():
    """As the released script does: three times in a row, a quarter of them with a rectangle of noise, and every batch mixed."""
    torch.manual_seed(0)
    recipe, images = RECIPES["deitsmall-imagenet"](), torch.full((1200, 1, 16, 16), 9.0)
    gone = (recipe.augment(images) != 9).flatten(1).float().mean(1)
    assert recipe.repeats == 3 and (gone > 0).float().mean() == pytest.approx(0.25, abs=0.04) and gone.max() < 0.4
    batch, labels, seen = torch.arange(32.0).view(32, 1, 1, 1).expand(32, 1, 8, 8), torch.arange(32), []
    for _ in range(20):
        recipe.step(lambda x: seen.append(x) or torch.zeros(32, 32), batch, labels)
    assert not any(torch.equal(one, batch) for one in seen)


@pytest.mark.parametrize("name", ["deitsmall-imagenet", "deitsmall-ste-1of4-imagenet", "deitsmall-dense-imagenet"])
def test_the_recipe_of_the_transformer_runs_on_pictures(name, tmp_path, monkeypatch):
    """Changed, erased, repeated and mixed images of a folder, and a network that ends N:M."""
    draw = np.random.default_rng(0)
    for part, images in (("train", 3), ("val", 2)):
        for label in ("no", "yes"):
            (tmp_path / "data" / part / label).mkdir(parents=True)
            for index in range(images):
                pixels = draw.integers(0, 100, (19, 23, 3)) + 150 * (label == "yes")
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "data" / part / label / f"{index}.png")
    monkeypatch.setattr(lbc, "DeiT", lambda drop: DeiT(16, 12, 2, 224, 112, 2, drop=drop))
    changed, steps = [], []
    monkeypatch.setattr(lbc, "rand_augment", lambda picture: changed.append(picture.size) or picture)
    own = RECIPES[name]()
    recipe = replace(own, batch=4, step=lambda model, images, labels: steps.append(images) or own.step(model, images, labels))
    history = run_recipe(recipe, tmp_path / "run", data=tmp_path / "data", epochs=1, workers=0)
    assert changed == [(224, 224)] * 6 and [len(images) for images in steps] == [4, 2] and math.isfinite(history.loss[0])
    assert 0 <= history.accuracy[0] <= 1
    saved = torch.load(tmp_path / "run" / "best.pt")
    assert saved["blocks.11.attn.qkv.weight"].shape == (48, 16) and not any("scores" in key for key in saved)


# --- at work ---------------------------------------------------------------------------------------------------------


def select(rerank=False, sign=1.0, epochs=16):
    """Only inputs 1 and 3 of four matter, and their weights begin as the smallest: which two of four are left?"""
    model = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[0.5, 0.1, -0.5, 0.1]]))
    sparsify_(model, LBC(t_f=12, rerank=rerank))
    optimizer, draw = torch.optim.SGD(model.parameters(), 0.05), torch.Generator().manual_seed(1)
    for epoch in range(epochs):
        refresh_(model, epoch)
        for _ in range(10):
            x = torch.randn(32, 4, generator=draw)
            optimizer.zero_grad()
            (model(x)[:, 0] - x @ torch.tensor([0.0, 1, 0, -1])).square().mean().backward()
            model[0].scores.grad *= sign
            optimizer.step()
    return model


@pytest.mark.parametrize("rerank", [False, True])
def test_the_scores_find_the_inputs_that_matter(rerank):
    """By magnitude at the start inputs 0 and 2 would stay. With the sign of the gradient turned, they do."""
    model = select(rerank)
    assert model[0].mask.tolist() == [[False, True, False, True]]
    assert model(torch.eye(4)).flatten().tolist() == pytest.approx([0, 1, 0, -1], abs=0.02)
    assert rerank or select(sign=-1)[0].mask.tolist() == [[True, False, True, False]]


def test_a_network_learns_while_it_loses_its_weights():
    data = digits(1000, 0)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    seed_everything(0)
    model, seen = SmallMLP(), []
    sparsify_(model, LBC(1, 8, t_f=5, ignore=HEAD))
    history = fit(model, *loaders, epochs=12, lr=cosine(0.05, 12), before_epoch=refresh_, weight_decay=1e-4,
                  after_epoch=lambda model, epoch, history: seen.append(density(model)))
    assert history.accuracy[-1] > 0.9 and seen[0] == 1 and seen[5:] == [0.125] * 7 and seen == sorted(seen, reverse=True)


@pytest.mark.parametrize("rule", lbc.RULES)
def test_every_arm_begins_with_signals_of_one_strength(rule):
    model, plain = SmallMLP(16, 24), SmallMLP(16, 24)
    plain.load_state_dict(model.state_dict())
    sparsify_(model, LBC(1, 8, rule=rule, ignore=HEAD))
    rescale_(model)
    for name in ("fc1", "fc2"):
        layer, W = model.get_submodule(name), plain.get_submodule(name).weight
        torch.testing.assert_close((layer.weight * layer.mask).norm(), W.norm())
        assert torch.equal(layer.weight, W) is (rule == "scores")


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, epochs=2, patterns=((1, 4),)) for _ in range(2))
    assert first == second and set(first["arms"][1, 4]) == set(ARMS) and first["packed"] < 1e-4
    assert first["density"][1, 4] == [1.0, 0.25] and all(0.1 < value < 1 for value in first["arms"][1, 4].values())


def test_the_race_compares_results(monkeypatch):
    found = lbc.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real = lbc.kernel.matmul
    monkeypatch.setattr(lbc.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        lbc.race(0, channels=16, side=3, repeats=1)
