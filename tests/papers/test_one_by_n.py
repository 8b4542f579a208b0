"""1xN sparsity: blocks, order, masks, the encoded form, the verbs, the published counts and the published behaviour."""

import copy
import math
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from model_checks import lively
from torch import nn
from torch.nn import functional as F

from papernets.cards import card
from papernets.data import digits
from papernets.measure import count, macs, parameters, report
from papernets.nn import ConvNet, MobileNetV1, MobileNetV2, MobileNetV3, ResNetCIFAR
from papernets.papers import one_by_n
from papernets.papers.one_by_n import (
    ARMS,
    NETWORKS,
    RECIPES,
    MaskedConv2d,
    OneByN,
    PackedConv2d,
    SmallMobileNet,
    compact,
    compare,
    config_of,
    counts,
    decode,
    dense,
    encode,
    facts,
    groups,
    kept_norm,
    mask,
    norms,
    order,
    prunable,
    prune_,
    smallest,
    stored_bytes,
)
from papernets.training import cosine, fit, loader, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")
HAND = torch.tensor([[1, -4], [3, 0.5], [-2, 1], [0.25, 2]])[:, :, None, None]


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


# --- blocks, orders and masks ----------------------------------------------------------------------------------------


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
    with pytest.warns(RuntimeWarning, match="rate 1 removes every weight"):
        assert not mask(W, 1.0).any()


def test_a_short_last_group():
    W = torch.randn(6, 4, 1, 1)
    assert groups(6, 4, pad=True) == 2
    found = mask(W, 0.5, 4, pad=True)
    assert torch.equal(found, slow_mask(W, 0.5, 4, list(range(6))))
    assert norms(W, 4, pad=True)[1].tolist() == W[4:].abs().sum((0, 2, 3)).tolist()


def test_a_layer_of_one_channel():
    W = torch.randn(4, 1, 1, 1)
    assert mask(W, 0.5, 4).all() and int(mask(W, 0.5, 2).sum()) == 2


@pytest.mark.parametrize(
    ("call", "message"),
    [(lambda: mask(HAND, -0.1), r"rate -0.1 is outside \[0, 1\]; the nearest is 0"),
     (lambda: mask(HAND, 1.5), r"rate 1.5 is outside \[0, 1\]; the nearest is 1"),
     (lambda: mask(HAND, 0.5, 3), "N is 3, and 4 filters are no multiple of it; the nearest N that divides is 2"),
     (lambda: mask(torch.zeros(6, 4, 1, 1), 0.5, 4), "N is 4, and 6 filters are no multiple .* is 3"),
     (lambda: mask(HAND, 0.5, 0), "N is 0; a block is a whole number of kernels, at least 1"),
     (lambda: mask(HAND, 0.5, 2.0), "N is 2.0; a block is a whole number"),
     (lambda: mask(HAND[:, :, 0, 0], 0.5), r"the weight has shape \(4, 2\); it is \(Co, Ci, k, k\)"),
     (lambda: mask(HAND * math.nan, 0.5), "holds a value that is not finite"),
     (lambda: mask(HAND, 0.5, pattern="row"), "pattern is 'row'; choose from block, weight, kernel, filter, random"),
     (lambda: OneByN(rate=2), r"rate 2 is outside \[0, 1\]"),
     (lambda: OneByN(rate={"a": -1.0}), r"rate -1.0 is outside \[0, 1\]; the nearest is 0"),
     (lambda: OneByN(N=0), "N is 0"),
     (lambda: OneByN(pattern="row"), "pattern is 'row'"),
     (lambda: one_by_n.network("vgg"), "no network 'vgg'; choose from mobilenetv1, "),
     (lambda: compact(nn.Sequential(nn.Conv2d(3, 4, 1))), "this network has no pruned convolution; call prune_ first")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the encoded form ------------------------------------------------------------------------------------------------


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


def test_bytes_by_hand():
    assert stored_bytes(32_768, 8192, 64) == 131_072 + 16_384 + 260
    packed = PackedConv2d(torch.ones(8, 3, 1, 1), torch.zeros(8), 4, (1, 1), (0, 0))
    assert packed.stored == (24 + 8, 8 * (4 * 32 + 2 * 6 + 4 * 3))


# --- the layer -------------------------------------------------------------------------------------------------------


def masked(conv, p=0.5, N=4):
    return MaskedConv2d(conv, mask(conv.weight, p, N), torch.arange(conv.out_channels), N)


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


def test_macs_are_those_of_the_kept_weights():
    layer, x = masked(nn.Conv2d(5, 8, 3), 0.4), torch.zeros(2, 5, 9, 7)
    kept = 8 * 45 - 4 * 9 * int(2 * 5 * 0.4)
    assert macs(layer, x) == 2 * 7 * 5 * kept
    assert macs(layer, x, "thop") == 2 * 7 * 5 * (kept + 8)
    packed = compact(nn.Sequential(layer))
    assert macs(packed, x) == 2 * 7 * 5 * kept and macs(packed, x, "thop") == 2 * 7 * 5 * (kept + 8)


def test_a_mask_travels_in_the_state():
    first, second = (nn.Sequential(masked(nn.Conv2d(5, 8, 1), seed)) for seed in (0.3, 0.6))
    second.load_state_dict(first.state_dict())
    x = torch.randn(1, 5, 3, 3)
    assert torch.equal(first(x), second(x)) and torch.equal(first[0].mask, second[0].mask)


@pytest.mark.parametrize(("k", "stride", "padding", "bias"), [(1, 1, 0, False), (1, 2, 0, True), (3, 1, 1, True),
                                                              (3, 2, 0, False)])
@pytest.mark.parametrize("rearrange", [False, True])
def test_the_packed_layer_computes_the_same(k, stride, padding, bias, rearrange):
    model = nn.Sequential(nn.Conv2d(5, 12, k, stride, padding, bias=bias))
    prune_(model, OneByN(rate=0.6, N=4, rearrange=rearrange))
    x = torch.randn(3, 5, 9, 7)
    packed = compact(model)
    assert isinstance(packed[0], PackedConv2d)
    torch.testing.assert_close(packed(x), model(x).detach(), atol=1e-5, rtol=1e-5)


def test_a_packed_network_is_saved_and_loaded(tmp_path):
    models = []
    for rate in (0.5, 0.8):
        model = lively(SmallMobileNet())
        prune_(model, OneByN(rate=rate, kernel=(1,)))
        models.append(compact(model, torch.zeros(1, 1, 8, 8)))
    torch.save(models[0].state_dict(), tmp_path / "packed.pt")
    models[1].load_state_dict(torch.load(tmp_path / "packed.pt", weights_only=True))
    x = torch.randn(3, 1, 8, 8)
    assert torch.equal(models[1](x), models[0](x))


# --- the verbs -------------------------------------------------------------------------------------------------------


def test_what_is_pruned_by_default_and_what_is_left_out():
    model = SmallMobileNet()
    pointwise = ["features.6", "features.12", "features.18"]
    assert list(prunable(model, OneByN(kernel=(1,)))) == pointwise
    assert list(prunable(model)) == ["features.0", *pointwise]
    assert list(prunable(model, OneByN(ignore=("features.6",)))) == ["features.0", *pointwise[1:]]
    assert list(prunable(model, OneByN(filter_fn=lambda name, module: module.in_channels == 64))) == pointwise[1:]


def test_rates_by_layer():
    model = SmallMobileNet()
    prune_(model, OneByN(rate={"features.6": 0.5, "features.18": 0.75}))
    kept = {name: float(m.mask.float().mean()) for name, m in model.named_modules() if isinstance(m, MaskedConv2d)}
    assert kept == {"features.6": 0.5, "features.18": 0.25}


@pytest.mark.parametrize(
    ("config", "message"),
    [(OneByN(rate={"features.3": 0.5}), "'features.3' is no convolution to prune; choose from features.0, features.6"),
     (OneByN(rearrange=("stem",)), "rearrange names 'stem', which is no convolution to prune"),
     (OneByN(ignore=("stem",)), "ignore names 'stem', which is no layer"),
     (OneByN(N=24), "features.0: N is 24, and 32 filters are no multiple of it; the nearest N that divides is 16"),
     (OneByN(kernel=(5,)), "no Conv2d of this network is left to work on")])
def test_a_refused_network_is_unchanged(config, message):
    model = SmallMobileNet()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        prune_(model, config)
    assert not any(isinstance(module, MaskedConv2d) for module in model.modules())
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_twice_is_refused():
    model = SmallMobileNet()
    prune_(model)
    with pytest.raises(ValueError, match=r"features.0 is pruned already; prune the dense network"):
        prune_(model)


def test_a_convolution_alone_is_refused():
    with pytest.raises(ValueError, match="the network is itself a convolution; put it into"):
        prune_(nn.Conv2d(3, 4, 1))


NETS = {"convnet": (lambda: ConvNet((16, 24, 32)), 32, None), "small": (SmallMobileNet, 8, None),
        "mobilenet v1": (lambda: MobileNetV1(0.25, 7), 65, (1,)), "mobilenet v2": (lambda: MobileNetV2(0.25, 7), 65, (1,)),
        "mobilenet v3": (lambda: MobileNetV3("small", 0.5, 7), 65, (1,)),
        "resnet": (lambda: ResNetCIFAR(20, (8,) * 9, (8, 16, 32)), 32, None)}


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("rearrange", [False, True])
def test_masked_dense_and_packed_networks_agree(name, rearrange):
    build, pixels, kernel = NETS[name]
    model = lively(build())
    prune_(model, OneByN(rate=0.6, N=4, kernel=kernel, rearrange=rearrange, pad=True))
    x = torch.randn(2, next(model.parameters()).shape[1], pixels, pixels)
    with torch.no_grad():
        expected = model(x)
        for other in (dense(model), compact(model), compact(model, x[:1])):
            torch.testing.assert_close(other(x), expected, atol=1e-5, rtol=1e-5)


def test_reordered_filters_need_nothing_at_run_time():
    model = lively(SmallMobileNet())
    prune_(model, OneByN(kernel=(1,)))
    x = torch.randn(1, 1, 8, 8)
    without, within = compact(model), compact(model, x)
    assert [m.back is None for m in without.modules() if isinstance(m, PackedConv2d)] == [False] * 3
    assert [m.back is None for m in within.modules() if isinstance(m, PackedConv2d)] == [True] * 3
    assert not torch.equal(within.features[9].weight, model.features[9].weight)  # a depthwise convolution in between


def test_filters_on_a_residual_are_put_back_at_run_time():
    """Two projections that are added cannot both be in the order of their own norms."""
    model = lively(MobileNetV2(0.25, 7))
    prune_(model, OneByN(kernel=(1,), pad=True))
    x = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        packed = compact(model, x)
        torch.testing.assert_close(packed(x), model(x), atol=1e-5, rtol=1e-5)
    backs = {name: m.back is None for name, m in packed.named_modules() if isinstance(m, PackedConv2d)}
    assert all(backs[name] for name in backs if name.endswith(".block.0"))
    assert not all(backs.values())


def test_the_original_is_left_alone():
    model = lively(SmallMobileNet())
    prune_(model, OneByN(kernel=(1,)))
    before = copy.deepcopy(model.state_dict())
    compact(model.train(), torch.zeros(1, 1, 8, 8))
    assert model.training and all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))


def test_dilated_convolutions_cannot_be_packed():
    model = nn.Sequential(nn.Conv2d(3, 4, 3, dilation=2))
    prune_(model)
    assert dense(model)(torch.zeros(1, 3, 9, 9)).shape == (1, 4, 5, 5)
    with pytest.raises(ValueError, match=r"0 has dilation \(2, 2\).*; the kernel takes dilation 1"):
        compact(model)


def test_the_report_shows_what_is_saved():
    model = lively(SmallMobileNet())
    pruned = copy.deepcopy(model)
    prune_(pruned, OneByN(kernel=(1,)))
    found = report(model, compact(pruned), torch.zeros(1, 1, 8, 8), timed=False)
    removed = (32 * 64 + 2 * 64 * 64) // 2
    assert found.before.parameters - found.after.parameters == removed
    indices = 2 * removed // 4 + 4 * 3 * 17
    assert found.before.bytes - found.after.bytes == 4 * removed - indices


# --- the paper -------------------------------------------------------------------------------------------------------


def test_every_exact_claim():
    found = facts()
    for claim in card("1xn").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id


@pytest.mark.parametrize("name", NETWORKS)
def test_counts_against_a_network_that_was_pruned(name):
    """A fifth of the width, so that every layer has other sizes; counted on the layers themselves."""
    chosen = NETWORKS[name]
    with torch.device("meta"):
        model = chosen.build()
        whole = count(model, torch.empty(1, 3, 224, 224))
    layers = [layer for layer, module in model.named_modules() if chosen.masked(layer, module)][:-chosen.spared]
    saved = removed = 0
    for layer in layers:
        W = model.get_submodule(layer).weight
        assert W.shape[0] % 4 == 0
        keep = int(W.shape[0] // 4 * W.shape[1] * 0.5)
        positions = whole[layer].macs // W.numel()
        saved += positions * keep * 4 * W.shape[2] * W.shape[3]
        removed += keep * 4 * W.shape[2] * W.shape[3]
    found = counts(name)
    assert found["dense.macs"] - found["macs"] == saved and found["removed"] == removed


def test_a_recipe_prunes_what_the_counts_say():
    model = MobileNetV2()
    before = parameters(model)
    prune_(model, config_of("mobilenetv2", "1x4"))
    layers = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert len(layers) == counts("mobilenetv2")["layers"] - 1
    assert sum(int((~m.mask).sum()) for m in layers) == counts("mobilenetv2")["removed"] and parameters(model) == before
    straight = [torch.equal(m.order, torch.arange(len(m.order))) for m in layers]
    assert sum(straight) == 17  # the projections


@pytest.mark.parametrize("pattern", ["weight", "filter", "kernel-l1", "kernel-random", "1x32"])
def test_every_pattern_of_a_recipe(pattern):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = MobileNetV1(0.25, 7)
        config = config_of("mobilenetv1", pattern, 0.4)
        prune_(model, config)
    layers = [m for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert len(layers) == 13
    for layer in layers:
        pieces = {"weight": layer.weight.numel(), "filter": layer.out_channels}.get(pattern)
        if pieces:
            assert int((~layer.mask).sum()) == int(pieces * 0.4) * layer.weight.numel() // pieces


def test_recipes_name_what_they_need(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    claims = {claim.recipe.split("--config ")[1] for claim in card("1xn").claims if claim.kind == "full"}
    assert claims <= set(RECIPES)
    assert RECIPES["mobilenetv1-dense-imagenet"]().build().classifier[0].out_features == 1000
    with pytest.raises(ValueError, match="papernets train 1xn --config mobilenetv2-dense-imagenet"):
        RECIPES["mobilenetv2-1x4-imagenet"]().build()


def test_a_recipe_starts_from_the_dense_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = MobileNetV1()
    folder = one_by_n.RUNS / "mobilenetv1-dense-imagenet"
    folder.mkdir(parents=True)
    torch.save(model.state_dict(), folder / "best.pt")
    recipe = RECIPES["mobilenetv1-1x4-imagenet"]()
    pruned = recipe.build()
    layer = pruned.features[6]
    assert isinstance(layer, MaskedConv2d) and torch.equal(layer.weight, model.features[6].weight * layer.mask)
    assert recipe.lr(0) == 0 and recipe.lr(5) == pytest.approx(0.01) and recipe.lr(180) == pytest.approx(0, abs=1e-12)


# --- at work ---------------------------------------------------------------------------------------------------------


def test_a_pruned_network_learns_what_it_lost():
    """A wrong mask, a mask that moves or a blocked gradient leaves the accuracy where pruning has put it."""
    data = digits(1000, 0)
    loaders = loader(data[0], 64, True), loader(data[1], 1000, False)
    seed_everything(0)
    model = SmallMobileNet((16, 32, 32, 32))
    fit(model, *loaders, epochs=5, lr=cosine(0.05, 5), seed=0)
    prune_(model, OneByN(rate=0.8, kernel=(1,)))
    before = one_by_n._accuracy(model, data[1])
    after = fit(model, *loaders, epochs=3, lr=cosine(0.02, 3), seed=1).accuracy[-1]
    assert before < 0.5 and after > 0.8
    kept = [float(m.mask.float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert kept == pytest.approx([0.2] * 3, abs=0.01)
    zero = [float((m.weight == 0).float().mean()) for m in model.modules() if isinstance(m, MaskedConv2d)]
    assert zero == pytest.approx([0.8] * 3, abs=0.01)


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, test=150, epochs=1, tuning=1, rates=(0.5,)) for _ in range(2))
    right = 150 * first["dense"]
    assert right == pytest.approx(round(right), abs=1e-4)  # a share of as many images as were asked for
    assert first == second and set(first["arms"][0.5]) == set(ARMS) and first["packed"] < 1e-4
    kept = {name: arm["norm"] for name, arm in first["arms"][0.5].items()}
    assert kept["weight"] > kept["1x2"] > kept["1x4"] > kept["1x16"]
    assert kept["1x4 rearranged"] > kept["1x4"] and kept["1x16 rearranged"] > kept["1x16"]


def test_the_race_compares_results(monkeypatch):
    found = one_by_n.race(0, channels=16, side=3, repeats=1)
    assert set(found) == {"ours", "dense", "csr"} and min(found.values()) > 0
    real, seen = one_by_n.kernel.matmul, []
    monkeypatch.setattr(one_by_n.kernel, "matmul", lambda packed, x: seen.append(len(packed.columns)) or real(packed, x))
    one_by_n.race(0, channels=16, side=3, repeats=1, N=8, rate=0.5)
    assert set(seen) == {16, 32}  # half of 2·16 blocks, and all of them
    monkeypatch.setattr(one_by_n.kernel, "matmul", lambda packed, x: real(packed, x) + np.float32(1))
    with pytest.raises(ValueError, match="ours differs by"):
        one_by_n.race(0, channels=16, side=3, repeats=1)


def test_the_linear_form_is_a_pointwise_convolution():
    linear, x = nn.Linear(6, 8, bias=False), torch.randn(5, 6)
    conv = nn.Conv2d(6, 8, 1, bias=False)
    conv.weight.data.copy_(linear.weight[:, :, None, None])
    layer = masked(conv)
    torch.testing.assert_close(layer(x[:, :, None, None])[:, :, 0, 0], F.linear(x, linear.weight * layer.mask[:, :, 0, 0]))
