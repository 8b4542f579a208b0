"""LRPET: the projection, the pairs of layers, the verbs, the published counts and the published behaviour."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from model_checks import lively
from torch import nn
from voc_files import write_boxes, write_masks

from papernets.cards import card
from papernets.data import digits
from papernets.measure import macs, parameters, report
from papernets.nn import ConvNet, FasterRCNN, GoogLeNet, PSPNet, ResNetBasic, ResNetCIFAR
from papernets.papers import lrpet
from papernets.papers.lrpet import (
    ARMS,
    FRCNN_CONFIG,
    LRPET,
    NETWORKS,
    PSP_CONFIG,
    RANKS_50,
    RANKS_56,
    RECIPES,
    VIT_CONFIG,
    PlainNet,
    Silent,
    backbone_cut,
    break_even,
    compact,
    compare,
    counts,
    counts_after,
    factorise,
    facts,
    gradient_logs,
    norms,
    project,
    project_,
    projecting,
    rank,
    ranks,
    scale,
    transfer,
    vit,
    vit_counts,
    warm_cosine,
)
from papernets.training import accuracy, fit, loader, run_recipe, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


def matrix(*rows):
    return torch.tensor(rows, dtype=torch.float64)


# --- the projection --------------------------------------------------------------------------------------------------


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
    [(lambda: rank(4, 1.5), r"share 1.5 is outside \[0, 1\]; the nearest is 1"),
     (lambda: project(torch.ones(3), 1), r"shape \(3,\); it is a matrix"),
     (lambda: project(torch.ones(3, 3), 0), "rank 0 is not a whole number of at least 1"),
     (lambda: project(torch.ones(3, 3), 1.5), "rank 1.5 is not a whole number"),
     (lambda: project(torch.ones(3, 3), 1, rho=-1), r"rho -1 is outside \[0, 1\]; the nearest is 0"),
     (lambda: project(torch.ones(3, 3), 1, torch.ones(2)), r"a has shape \(2,\); it is one scale for each of 3 outputs"),
     (lambda: project(torch.ones(3, 3), 1, torch.full((3,), torch.nan)), "scale holds a value that is not finite"),
     (lambda: project(torch.full((3, 3), torch.nan), 1), "the weight holds a value that is not finite"),
     (lambda: LRPET(share=2), r"share 2 is outside"), (lambda: LRPET(least=0), "least is 0; the smallest rank is 1"),
     (lambda: LRPET(rho=1.5), r"rho 1.5 is outside \[0, 1\]; the nearest is 1"),
     (lambda: PlainNet(3), "depth is 3; it is an even number"), (lambda: lrpet.network("vgg"), "no network 'vgg'"),
     (lambda: projecting(nn.Linear(2, 2), LRPET(), torch.ones(1, 2), 0), "every is 0")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- the verbs -------------------------------------------------------------------------------------------------------


def test_which_layers_and_which_ranks():
    model = ConvNet((16, 24, 32))
    names = ["features.0", "features.4", "features.8"]
    assert ranks(model) == dict(zip(names, (3, 4, 6)))
    assert list(ranks(model, LRPET(ignore=("features.4",)))) == [names[0], names[2]]
    assert list(ranks(model, LRPET(filter_fn=lambda name, module: module.in_channels > 3))) == names[1:]
    assert list(ranks(model, LRPET(linear=True))) == [*names, "classifier"]
    assert ranks(model, LRPET(share={"features.8": 0.5})) == {"features.8": 16}
    assert ranks(model, LRPET(ranks=(5, 6, 7))) == dict(zip(names, (5, 6, 7)))
    assert ranks(model, LRPET(ranks={"features.8": 9})) == {"features.8": 9}
    assert ranks(model, LRPET(share=0.99, least=4)) == dict.fromkeys(names, 4)
    grouped = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 8, 1))
    assert list(ranks(grouped)) == ["1"]


@pytest.mark.parametrize(
    ("config", "message"),
    [(LRPET(share={"stem": 0.5}), "'stem' is no layer to project; choose from features.0, features.3"),
     (LRPET(ranks=(1, 2)), "2 ranks are given, and 3 layers are projected"),
     (LRPET(ranks=(1, 2, 99)), "features.6: rank 99 is outside 1 to 8"), (LRPET(ignore=("stem",)), "ignore names 'stem'"),
     (LRPET(), "bn_rectify needs an example input")])
def test_a_refused_network_is_unchanged(config, message):
    model = ConvNet((8, 8, 8), pool=())
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        project_(model, config)
    model.features[6].weight.data[0, 0, 0, 0] = torch.nan  # the last layer fails; the first ones stay
    with pytest.raises(ValueError, match=r"features.6: the weight holds a value that is not finite"):
        project_(model, LRPET(bn_rectify=False))
    assert torch.equal(before["features.0.weight"], model.features[0].weight)


class PreActivation(nn.Module):
    """Two convolutions without, and one with a batch norm that reads its output."""

    def __init__(self):
        super().__init__()
        self.bn0, self.conv0 = nn.BatchNorm2d(3), nn.Conv2d(3, 5, 3)
        self.conv1, self.bn1 = nn.Conv2d(5, 7, 3), nn.BatchNorm2d(7)

    def forward(self, x):
        return self.bn1(self.conv1(self.conv0(self.bn0(x))))


@pytest.mark.parametrize("affine", [True, False])
def test_the_scale_is_what_the_batch_norm_multiplies_by(affine):
    norm = lively(nn.Sequential(nn.BatchNorm2d(5, eps=0.3))) if affine else nn.BatchNorm2d(5, eps=0.3, affine=False).eval()
    norm = norm[0] if affine else norm
    norm.running_var.copy_(torch.tensor([0.1, 4, 1, 0.5, 9]))
    with torch.no_grad():
        step = norm(torch.ones(1, 5, 1, 1)) - norm(torch.zeros(1, 5, 1, 1))
    torch.testing.assert_close(scale(norm), step.flatten())
    with pytest.raises(ValueError, match="without running statistics has no fixed scale; set bn_rectify to False"):
        scale(nn.BatchNorm2d(5, track_running_stats=False))


def test_a_batch_norm_belongs_to_what_it_reads():
    """In the order of the network, the first batch norm would go with the first convolution."""
    model = lively(PreActivation())
    x = torch.randn(2, 3, 9, 9)
    assert norms(model, x) == {"conv1": "bn1"}
    before = copy.deepcopy(model)
    project_(model, LRPET(share=0.5), x)
    torch.testing.assert_close(model.conv0.weight, project(before.conv0.weight, 2))
    torch.testing.assert_close(model.conv1.weight, project(before.conv1.weight, 3, scale(before.bn1)))
    assert not torch.allclose(model.conv1.weight, project(before.conv1.weight, 3))


def test_every_convolution_of_a_residual_network_has_its_batch_norm():
    found = norms(ResNetCIFAR(8), torch.zeros(1, 3, 32, 32))
    assert found["conv1"] == "bn1" and len(found) == 7
    assert all(one.replace("conv", "bn") == other for one, other in found.items())
    basic = norms(ResNetBasic(18), torch.zeros(1, 3, 64, 64))
    assert len(basic) == 20 and all(basic[name] == f"{name[:-1]}1" for name in basic if ".shortcut." in name)


def test_projection_leaves_batch_norms_and_the_mode_alone():
    model = lively(ConvNet((8, 12))).train()
    before = copy.deepcopy(model.state_dict())
    project_(model, LRPET(), torch.randn(2, 3, 8, 8))
    assert model.training
    changed = [key for key, value in model.state_dict().items() if not torch.equal(value, before[key])]
    assert changed == ["features.0.weight", "features.4.weight"]


def test_what_is_projected_is_what_inference_uses():
    """The merged matrix of every layer keeps its energy and has the rank; that of the plain weight need not keep it."""
    model = lively(ResNetCIFAR(8))
    merged = {name: scale(model.get_submodule(bn))[:, None] * model.get_submodule(name).weight.flatten(1)
              for name, bn in norms(model, torch.zeros(1, 3, 32, 32)).items()}
    project_(model, LRPET(share=0.7), torch.zeros(1, 3, 32, 32))
    for name, bn in norms(model, torch.zeros(1, 3, 32, 32)).items():
        after = scale(model.get_submodule(bn))[:, None] * model.get_submodule(name).weight.flatten(1)
        torch.testing.assert_close(after.norm(), merged[name].norm(), rtol=2e-3, atol=0)
        s = torch.linalg.svdvals(after.detach().double())
        r = ranks(model, LRPET(share=0.7))[name]
        assert s[r - 1] > 1e-3 and (len(s) == r or s[r] < 1e-4 * s[0])


def strided():
    return nn.Sequential(nn.Conv2d(3, 11, (5, 3), (2, 1), (2, 0)), nn.ReLU(), nn.Conv2d(11, 13, 3, dilation=2, padding="same"),
                         nn.BatchNorm2d(13), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(13, 7))


NETS = {"convnet": lambda: ConvNet((16, 24, 32)), "resnet": lambda: ResNetCIFAR(8), "googlenet": GoogLeNet,
        "basic": lambda: ResNetBasic(18, stages=(8, 16, 24, 32)), "strided": strided}


@pytest.mark.parametrize("name", NETS)
def test_the_compact_network_gives_the_same_outputs(name):
    model = lively(NETS[name]())
    x, config = torch.randn(2, 3, 32, 32), LRPET(share=0.7, linear=name == "strided")
    project_(model, config, x)
    found = compact(model, config)
    with torch.no_grad():
        expected = model(x)
        assert float((found(x) - expected).abs().max() / expected.abs().max()) < 1e-5
    assert parameters(found) < 0.7 * parameters(model)
    types = {type(module) for module in found.modules()}
    assert types <= {type(module) for module in model.modules()} | {nn.Sequential}


def test_a_network_that_was_not_projected_is_refused():
    model = lively(ConvNet((8, 12)))
    with pytest.raises(ValueError, match=r"features.0 keeps .* of its norm beyond rank 1; call project_ with rho 0 first"):
        compact(model)
    project_(model, LRPET(rho=0.5), torch.zeros(1, 3, 8, 8))
    with pytest.raises(ValueError, match="call project_ with rho 0"):
        compact(model)
    with pytest.raises(ValueError, match=r"put it into an nn.Sequential"):
        compact(nn.Conv2d(3, 4, 3))


def test_a_layer_that_costs_more_may_stay_whole():
    model = lively(ConvNet((8, 8, 8)))
    config = LRPET(ranks={"features.4": 7, "features.8": 8})
    project_(model, config, torch.zeros(1, 3, 8, 8))
    assert isinstance(compact(model, config).features[8], nn.Sequential)
    cheaper = compact(model, config, only_cheaper=True)
    assert isinstance(cheaper.features[8], nn.Conv2d) and isinstance(cheaper.features[4], nn.Sequential)


def test_a_dead_layer_gives_its_bias():
    model = lively(strided())
    model[0].weight.data.zero_()
    model[7].weight.data.mul_(1e-9)
    config = LRPET(share=0.5, linear=True)
    project_(model, config, torch.randn(2, 3, 17, 19))
    found = compact(model, config)
    assert isinstance(found[0], Silent) and isinstance(found[7], Silent)
    x = torch.randn(2, 3, 17, 19)
    with torch.no_grad():
        torch.testing.assert_close(found[0](x), model[0](x))
        torch.testing.assert_close(found(x), model(x), atol=1e-6, rtol=1e-5)
    assert macs(found[0], x) == 0 and "0.bias" in found.state_dict()


def test_the_original_is_left_alone_and_the_report_is_right():
    model = lively(ResNetCIFAR(8))
    example = torch.zeros(1, 3, 32, 32)
    project_(model, LRPET(), example)
    before = copy.deepcopy(model.state_dict())
    found = report(model, compact(model), example, timed=False)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), model.state_dict().values(), strict=True))
    saved = removed = 0
    for name, r in ranks(model).items():
        conv = model.get_submodule(name)
        positions = (32 if "blocks" not in name else 32 >> int(name[7])) ** 2
        m, d = conv.out_channels, conv.in_channels * 9
        removed += m * d - r * (m + d)
        saved += positions * (m * d - r * (m + d))
    assert found.before.macs - found.after.macs == saved
    assert found.before.parameters - found.after.parameters == removed


# --- the paper -------------------------------------------------------------------------------------------------------


def test_every_exact_claim():
    found, compared = facts(), 0
    for claim in card("lrpet").claims:
        if claim.kind == "exact":
            expected = claim.paper if claim.ours is None else claim.ours
            assert found[claim.id] == pytest.approx(expected, abs=max(claim.accept.absolute, 1e-9)), claim.id
            compared += 1
    assert compared > 30


@pytest.mark.parametrize(("name", "which"), [("resnet56", "q80"), ("resnet56", "s"), ("googlenet", "q65")])
def test_counts_against_a_network_that_was_factorised(name, which):
    made = NETWORKS[name]
    model, config = made.build().eval(), made.configs[which]
    project_(model, config, made.example)
    found, expected = compact(model, config), counts(name, config)
    assert macs(found, made.example) == expected["macs"]
    normal = sum(p.numel() for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters())
    assert parameters(found) - normal == expected["params"]
    # a layer that has died costs nothing
    dead = next(iter(ranks(model, config)))
    state = {key: value for key, value in found.state_dict().items() if not key.startswith(dead + ".")}
    layer = model.get_submodule(dead)
    r, pair = ranks(model, config)[dead], len(layer.weight) + layer.weight[0].numel()
    assert expected["macs"] - counts_after(name, config, state)["macs"] == 32 * 32 * r * pair
    assert counts_after(name, config, found.state_dict()) == expected


def test_no_share_gives_what_is_printed_for_resnet56():
    """The ranks of stage three fall at 35/64; 51.0 % lies between what is before and after."""
    cuts = {q: counts("resnet56", LRPET(share=q))["flops"] for q in (0.532, 0.54, 35 / 64, 0.5470, 0.5525)}
    assert cuts[0.532] == cuts[0.54] == cuts[35 / 64] == pytest.approx(50.65, abs=0.005)
    assert cuts[0.5470] == pytest.approx(51.22, abs=0.005)


def test_searched_ranks_have_one_for_each_convolution():
    assert len(RANKS_56) == 55 and len(RANKS_50) == 53


def test_a_cifar_recipe_projects_after_every_epoch():
    recipe = RECIPES["resnet56-q80-cifar10"]()
    assert (recipe.epochs, recipe.batch, recipe.weight_decay, recipe.momentum) == (400, 128, 1e-4, 0.9)
    assert [recipe.lr(at) for at in (0, 199.9, 200, 300)] == pytest.approx([0.1, 0.1, 0.01, 0.001])
    model = recipe.build()
    before = copy.deepcopy(model.state_dict())
    recipe.before_epoch(model, 0, 400)
    assert torch.equal(before["conv1.weight"], model.conv1.weight)
    recipe.before_epoch(model, 1, 400)
    assert int(torch.linalg.matrix_rank(model.conv1.weight.detach().flatten(1), rtol=1e-4)) == 3
    assert macs(recipe.export(recipe.build().eval()), torch.zeros(1, 3, 32, 32)) == 26_232_448


def test_an_imagenet_recipe_projects_between_steps():
    recipe = RECIPES["resnet50-q62-imagenet"]()
    assert (recipe.epochs, recipe.batch) == (120, 256) and recipe.lr(60) == pytest.approx(1e-3)
    model = ConvNet((8, 12))
    optimizer = projecting(model, LRPET(share=0.5), torch.zeros(1, 3, 8, 8), every=3)
    found = []
    for _ in range(6):
        optimizer.zero_grad()
        (model(torch.randn(4, 3, 8, 8)).square().mean() / 10).backward()
        optimizer.step()
        found.append(int(torch.linalg.matrix_rank(model.features[4].weight.detach().flatten(1), rtol=1e-4)))
    assert found == [12, 12, 6, 12, 12, 6]


# --- the search for ranks --------------------------------------------------------------------------------------------


def test_expected_improvement():
    ei = lrpet.expected_improvement
    assert ei(np.array([2.0]), np.array([3.0]), 2.0) == pytest.approx(3 / math.sqrt(2 * math.pi))
    assert ei(np.array([1.0, 5.0]), np.array([0.0, 0.0]), 2.0) == pytest.approx([1, 0])
    drawn = np.maximum(0, 1.5 - np.random.default_rng(0).normal(2, 0.7, 400_000)).mean()
    assert ei(np.array([2.0]), np.array([0.7]), 1.5) == pytest.approx(drawn, rel=0.02)


def bowl(config):
    """Smallest where the three layers have the shares 0.9, 0.4 and 0.6; the second matters most."""
    shares = list(config.share.values())
    return sum(w * math.log(share / best) ** 2 for w, share, best in zip((1, 4, 2), shares, (0.9, 0.4, 0.6)))


def test_the_search_finds_what_chance_does_not():
    model, better = ConvNet((8, 12, 16)), 0
    for seed in range(4):
        best, tried = lrpet.search(model, bowl, calls=24, first=8, seed=seed)
        _, drawn = lrpet.search(model, bowl, calls=24, first=24, seed=seed)
        assert [a.share for a, _ in tried[:8]] == [a.share for a, _ in drawn[:8]]  # both begin with the same draws
        assert bowl(best) == min(value for _, value in tried) and len(tried) == 24
        better += min(value for _, value in tried) < min(value for _, value in drawn) / 3
        assert all(0.3 <= share <= 0.999 for config, _ in tried for share in config.share.values())
    assert better >= 3
    again, _ = lrpet.search(model, bowl, calls=12, first=8, seed=1)
    assert again == lrpet.search(model, bowl, calls=12, first=8, seed=1)[0]


def test_the_search_keeps_the_rest_of_the_configuration():
    base = LRPET(energy=False, ignore=("features.0",), ranks=None)
    best, _ = lrpet.search(ConvNet((8, 12, 16)), bowl_of_two, base, calls=3, first=2)
    assert not best.energy and best.ignore == ("features.0",) and len(best.share) == 2
    assert set(ranks(ConvNet((8, 12, 16)), best)) == set(best.share)


def bowl_of_two(config):
    return sum(config.share.values())


@pytest.mark.parametrize(("options", "message"), [
    (dict(start=0), "between 0 and 1"), (dict(start=0.5, end=0.4), "must rise"), (dict(end=1), "between 0 and 1"),
    (dict(first=0), "at least 1 must be"), (dict(calls=3, first=4), "at most all")])
def test_a_search_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lrpet.search(ConvNet((4, 4)), bowl, **options)


def test_an_objective_that_is_no_number_is_named():
    with pytest.raises(ValueError, match=r"the objective is nan for the shares .*features\.0"):
        lrpet.search(ConvNet((4, 4)), lambda config: math.nan, calls=1, first=1)


def test_the_objective_is_error_before_and_after_and_work():
    train, test = digits(100, 0)
    batches, example = (loader(train, 50, True), loader(test, 500, False)), train.images[:1]

    def build():
        return ConvNet((6, 8), channels=1, pool=(0,))

    config = LRPET(share=0.6)
    free, paid, other = (lrpet.short_training(build, batches, example, epochs=1, weight=weight)(config) for weight in (0, 1, 1))
    seed_everything(0)
    model = build()
    fit(model, batches[0], None, epochs=1, lr=steps(0.1, (0.5, 0.75)), weight_decay=1e-4, seed=0)
    errors = 1 - accuracy(model, batches[1])
    project_(model, config, example)
    pairs = compact(model.eval(), config)
    errors += 1 - accuracy(pairs, batches[1])
    assert free == pytest.approx(errors) and paid == other
    assert paid - free == pytest.approx(macs(pairs, example) / macs(build(), example))


def test_the_printed_counts_of_the_vision_transformer():
    """All four to the printed digits: the full network with 10 classes, the compact one with 100."""
    printed = [f"{value / 1e6:.2f}" for value in (vit_counts(10)["macs"], vit_counts(100, VIT_CONFIG)["macs"],
                                                  vit_counts(10)["params"], vit_counts(100, VIT_CONFIG)["params"])]
    assert printed == ["174.25", "126.42", "2.69", "1.97"]
    # and by no other share, nor with the classes the other way round
    assert [share for share in range(66, 76) if f"{vit_counts(100, replace(VIT_CONFIG, share=share / 100))['macs'] / 1e6:.2f}"
            == "126.42"] == [70]
    assert f"{vit_counts(100)['params'] / 1e6:.2f}" == "2.71" and f"{vit_counts(10, VIT_CONFIG)['params'] / 1e6:.2f}" == "1.96"


def test_counts_of_the_vision_transformer_against_the_network():
    """Layer by layer: the rules of the profiler on what really runs."""
    seed_everything(0)
    model, x, found = vit(10).eval(), torch.randn(1, 3, 32, 32), 0
    project_(model, VIT_CONFIG)
    pairs = compact(model, VIT_CONFIG)

    def linear(module, inputs, output):
        nonlocal found
        found += inputs[0].numel() * module.out_features + (len(module.bias) if module.bias is not None else 0)

    def norm(module, inputs, output):
        nonlocal found
        found += 2 * output.numel()

    for module in pairs.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_hook(linear)
        elif isinstance(module, nn.LayerNorm):
            module.register_forward_hook(norm)
    with torch.no_grad():
        pairs(x)
    found -= 64 * 2 * 192  # the code norms the class token alone at the end, and we all 65
    patches = 64 * 48 * 192 + 192
    assert vit_counts(10, VIT_CONFIG)["macs"] == found + patches + 9 * (65 * 384 + 12 * 65 * 65)
    assert vit_counts(10, VIT_CONFIG)["params"] == parameters(pairs)


def test_the_vision_transformer_is_projected_after_every_epoch():
    recipe, full = RECIPES["vit-cifar100"](), RECIPES["vit-full-cifar10"]()
    assert full.export is None and full.before_epoch is None
    assert (recipe.epochs, recipe.batch, recipe.repeats, recipe.data) == (100, 128, 3, "cifar100")
    seed_everything(0)
    model, x = recipe.build().eval(), torch.randn(2, 3, 32, 32)
    assert model.classifier.out_features == 100
    assert ranks(model, VIT_CONFIG) == {f"blocks.{at}.{layer}": 57 for at in range(9) for layer in ("fc1", "fc2")}
    before = model.blocks[0].fc1.weight.clone()
    recipe.before_epoch(model, 0, 100)
    assert torch.equal(model.blocks[0].fc1.weight, before)
    recipe.before_epoch(model, 1, 100)
    assert torch.linalg.matrix_rank(model.blocks[0].fc1.weight.detach().double(), rtol=1e-5) == 57
    with torch.no_grad():
        torch.testing.assert_close(recipe.export(model)(x), model(x), atol=1e-4, rtol=1e-4)
    assert [recipe.lr(at) for at in (0, 5, 10, 100)] == pytest.approx([0, 0.5e-3, 1e-3, 0], abs=3e-5)


def test_its_first_weights_are_as_large_as_those_of_the_code():
    """Xavier, normal: variance 2 / (inputs + outputs), for the patches as well; places and token of variance 1."""
    seed_everything(0)
    model = vit(100)
    for layer, sides in ((model.patches, 48 + 192), (model.blocks[3].fc1, 192 + 384), (model.blocks[3].attn.qkv, 192 + 576)):
        assert float(layer.weight.detach().var()) == pytest.approx(2 / sides, rel=0.05)
    assert float(model.places.detach().std()) == pytest.approx(1, rel=0.05)


@pytest.fixture
def cifar100(write_archive):
    """17 + 6 images in the published form."""
    rng = np.random.default_rng(0)

    def batch(count):
        labels = np.stack([rng.integers(0, 20, count), rng.integers(0, 100, count)], 1)
        return np.concatenate([labels, rng.integers(0, 256, (count, 3072))], 1).astype(np.uint8).tobytes()

    names = "\n".join(f"kind{index}" for index in range(100)).encode()
    members = {"train.bin": batch(17), "test.bin": batch(6), "fine_label_names.txt": names}
    return write_archive([(f"cifar-100-binary/{name}", content) for name, content in members.items()])


def test_the_recipe_of_the_vision_transformer_runs(cifar100, tmp_path):
    recipe = replace(RECIPES["vit-cifar100"](), batch=6)
    history = run_recipe(recipe, tmp_path / "run", data=cifar100, epochs=2, workers=0)
    assert len(history.loss) == 2 and all(math.isfinite(loss) for loss in history.loss)
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert state["blocks.8.fc2.0.weight"].shape == (57, 384)
    assert parameters_of(state) == vit_counts(100, VIT_CONFIG)["params"]


def parameters_of(state):
    return sum(tensor.numel() for tensor in state.values())


# --- detection and segmentation --------------------------------------------------------------------------------------


def test_the_learning_rate_of_detection():
    """Of a run of 200 epochs: from a tenth in three epochs, down to a hundredth for the last ten, one rate an epoch."""
    lr = warm_cosine(1e-2, 200)
    assert [lr(at) for at in (0, 1, 2, 3, 3.9)] == pytest.approx([1e-3, 2e-3, 5e-3, 1e-2, 1e-2])
    assert lr(96.5) == pytest.approx(0.01 * 1e-2 + 0.5 * 0.99e-2 * (1 + math.cos(math.pi * 93 / 187)))
    assert [lr(at) for at in (190, 195.5, 199)] == [1e-4] * 3
    assert all(lr(at) > lr(at + 1) for at in range(3, 189))


def test_the_cuts_of_the_backbones():
    """Against the counts of a network of pairs; the share of the whole detector depends on its proposals."""
    with torch.device("meta"):
        whole = FasterRCNN()
        dense = macs(whole.features, torch.zeros(1, 3, 600, 600))
    r = ranks(whole, FRCNN_CONFIG)
    assert list(r.values()) == [12, 28, 57, 57, 115, 115, 115, *[230] * 6]
    for name, rank_ in r.items():
        layer = whole.get_submodule(name)
        with torch.device("meta"):
            whole.set_submodule(name, nn.Sequential(nn.Conv2d(layer.in_channels, rank_, 3, padding=1, bias=False),
                                                    nn.Conv2d(rank_, layer.out_channels, 1)))
    left = macs(whole.features, torch.zeros(1, 3, 600, 600, device="meta"))
    assert backbone_cut("frcnn") == pytest.approx(100 * (1 - left / dense))
    head = 37 * 37 * 512 * (9 * 512 + 18 + 36) + 300 * (512 * 49 * 4096 + 4096 * (4096 + 21 + 84))
    assert round(100 * (1 - (left + head) / (dense + head))) == 36  # as the card says
    with torch.device("meta"):
        names = ranks(PSPNet(), PSP_CONFIG)
    assert len(names) == 54 and "backbone.blocks.15.conv3" not in names and names["backbone.conv1.0"] == 15
    assert names["backbone.blocks.15.conv2"] == int(512 - 512 * 0.43)


NARROW = (4, 4, 5, 5, 6, 6, 6, 7, 7, 7, 8, 8, 8)


@pytest.mark.parametrize("name", ["frcnn-voc", "frcnn-full-voc"])
def test_the_recipe_of_detection_runs(name, tmp_path):
    """On two pictures in the published format, with a narrow network: trained, projected, judged and saved as pairs."""
    recipe = RECIPES[name]()
    assert (recipe.epochs, recipe.batch, recipe.test_batch, recipe.score) == (200, 16, 1, "mAP")
    torch.manual_seed(0)
    recipe = replace(recipe, build=lambda: FasterRCNN(20, NARROW, 11, proposals=((50, 10), (50, 10))), batch=2)
    history = run_recipe(recipe, tmp_path / "run", data=write_boxes(tmp_path / "data"), epochs=2, workers=0)
    assert len(history.loss) == 2 and math.isfinite(history.loss[1]) and len(history.accuracy) == 1
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    shapes = [tuple(state[key].shape) for key in ("features.28.0.weight", "features.28.1.weight") if key in state]
    assert shapes == ([] if "full" in name else [(3, 8, 3, 3), (8, 3, 1, 1)])
    assert ("features.28.weight" in state) == ("full" in name) and "rpn.weight" in state


@pytest.mark.parametrize("name", ["psp-voc", "psp-full-voc"])
def test_the_recipe_of_segmentation_runs(name, tmp_path):
    recipe = RECIPES[name]()
    assert (recipe.epochs, recipe.batch, recipe.weight_decay, recipe.score) == (200, 16, 1e-4, "mIoU")
    narrow = dict(stem=3, widths=(5, 6, 7, 8), first=(3,) * 16, second=(3,) * 16)
    recipe = replace(recipe, build=lambda: PSPNet(21, **narrow), batch=4)
    history = run_recipe(recipe, tmp_path / "run", data=write_masks(tmp_path / "data"), epochs=2, workers=0)
    assert len(history.loss) == 2 and math.isfinite(history.loss[1]) and 0 <= history.accuracy[0] <= 1
    state = torch.load(tmp_path / "run" / "best.pt", weights_only=True)
    assert ("backbone.blocks.4.conv2.0.weight" in state) == (name == "psp-voc")
    assert "backbone.blocks.15.conv3.weight" in state and "head.0.weight" in state


def test_a_network_is_projected_before_it_is_judged(tmp_path):
    seen = []

    def score(model, batches, fabric):
        seen.append(int(torch.linalg.matrix_rank(model.features[28].weight.detach().flatten(1), rtol=1e-4)))
        return 0.0

    for config in (FRCNN_CONFIG, None):
        seed_everything(0)
        lrpet._judged(score, config)(FasterRCNN(20, NARROW, 11), None, None)
    assert seen == [3, 8]


def test_published_weights_land_where_they_belong(tmp_path, monkeypatch):
    """Files with the names of the published ones, made of narrow networks."""
    seed_everything(0)
    narrow = FasterRCNN(20, NARROW, 11)
    state = {name: torch.randn_like(tensor) for name, tensor in narrow.state_dict().items() if name.startswith("features.")}
    for ours, theirs in (("head.0", "classifier.0"), ("head.2", "classifier.3")):
        state |= {f"{theirs}.{what}": torch.randn_like(narrow.state_dict()[f"{ours}.{what}"]) for what in ("weight", "bias")}
    state |= {"classifier.6.weight": torch.randn(1000, 11), "classifier.6.bias": torch.randn(1000)}
    options = dict(stem=3, widths=(5, 6, 7, 8), first=(3,) * 16, second=(3,) * 16)
    small, deep = PSPNet(21, **options), {}
    for name, tensor in small.backbone.state_dict().items():
        part = name.split(".")
        if part[0] == "blocks":
            stage = next(at for at in range(4) if int(part[1]) < sum((3, 4, 6, 3)[:at + 1]))
            name = ".".join([f"layer{stage + 1}", str(int(part[1]) - sum((3, 4, 6, 3)[:stage])), *part[2:]])
        if not name.endswith("num_batches_tracked"):
            deep[name.replace("shortcut", "downsample")] = torch.rand_like(tensor)
    deep |= {"fc.weight": torch.randn(1000, 8), "fc.bias": torch.randn(1000)}
    assert {"conv1.0.weight", "conv1.6.weight", "bn1.running_mean", "layer1.0.downsample.0.weight",
            "layer4.2.conv3.weight"} <= deep.keys() and "layer3.1.downsample.0.weight" not in deep
    torch.save(state, tmp_path / "vgg16")
    torch.save(deep, tmp_path / "resnet50-deep")
    monkeypatch.setattr(lrpet, "fetch", lambda name: tmp_path / name)
    monkeypatch.setattr(lrpet, "FasterRCNN", lambda: FasterRCNN(20, NARROW, 11))
    monkeypatch.setattr(lrpet, "PSPNet", lambda: PSPNet(21, **options))
    found = RECIPES["frcnn-voc"]().build().state_dict()
    assert torch.equal(found["features.28.bias"], state["features.28.bias"])
    assert torch.equal(found["head.2.weight"], state["classifier.3.weight"])
    found = RECIPES["psp-voc"]().build().state_dict()
    assert torch.equal(found["backbone.blocks.15.conv3.weight"], deep["layer4.2.conv3.weight"])
    assert torch.equal(found["backbone.blocks.3.shortcut.1.running_var"], deep["layer2.0.downsample.1.running_var"])
    assert torch.equal(found["backbone.conv1.4.weight"], deep["conv1.4.weight"])


def test_a_recipe_names_what_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data"):
        run_recipe(RECIPES["resnet50-q62-imagenet"](), tmp_path)


def test_every_claim_that_was_not_judged_has_a_recipe():
    wanted = {claim.recipe.removeprefix("papernets train lrpet --config ") for claim in card("lrpet").claims
              if claim.kind == "full"}
    assert len(wanted) == 12 and wanted <= set(RECIPES)


# --- at work ---------------------------------------------------------------------------------------------------------


def test_training_with_the_projection_learns_at_a_low_rank():
    """A wrong sign, a lost energy or a batch norm folded the wrong way leaves the network at the level of guessing."""
    train, test = digits(1000, 0)
    seed_everything(0)
    model, config, example = PlainNet(4), LRPET(share=0.7), torch.zeros(1, 1, 8, 8)
    fit(model, loader(train, 64, True), None, epochs=8, lr=steps(0.1, (4, 6)), weight_decay=1e-4, seed=0,
        after_epoch=lambda model, epoch, history: project_(model, config, example))
    pairs = compact(model, config)
    assert [len(pairs.features[at][0].weight) for at in (0, 3, 6, 9)] == [2, 4, 9, 9]
    assert lrpet._accuracy(pairs, test) > 0.8
    untrained = PlainNet(4)
    project_(untrained, config, example)
    assert lrpet._accuracy(compact(untrained, config), test) < 0.4


def test_the_comparison_is_fair_and_repeatable():
    first, second = (compare(3, train=200, epochs=2, shares=(0.8,), depth=2) for _ in range(2))
    assert first == second and set(first["arms"][0.8]) == set(ARMS) and first["gap"] < 1e-3
    assert len(first["curves"][0.8]["before"]) == len(first["curves"][0.8]["after"]) == 2
    assert first["curves"][0.8]["after"][-1] == pytest.approx(first["arms"][0.8]["lrpet"], abs=0.005)


def test_gradients_vanish_without_the_transfer():
    runs = [gradient_logs(seed) for seed in range(10)]
    without, given = (np.array([run[name] for run in runs]) for name in ("without", "with"))
    assert (without[:, -1] < -4).all() and np.abs(given[:, -1]).mean() < 2
    slope = np.diff(without.mean(0)).mean()
    kept = float(torch.linalg.svdvals(torch.randn(5, 64, 64, dtype=torch.float64))[:, :12].square().sum(1).mean())
    assert slope == pytest.approx(0.5 * np.log(kept / 64**2), abs=0.1)  # the share of the energy that is kept, a layer


def test_times_and_multiplications_of_a_layer():
    found = lrpet.layer_times(8, 16, 5, (1, 3), at_least=0.001)
    assert found["dense.macs"] == [16 * 72 * 25] and found["pair.macs"] == [88 * 25, 3 * 88 * 25]
    assert len(found["pair"]) == 2 and min(found["pair"] + found["dense"]) > 0
