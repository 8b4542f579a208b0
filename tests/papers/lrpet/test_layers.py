"""LRPET: the layers and the verbs."""

import copy
import math

import numpy as np
import pytest
import torch
from model_checks import lively
from torch import nn

from papernets.data import digits
from papernets.measure import macs, parameters, report
from papernets.nn import ConvNet, GoogLeNet, ResNetBasic, ResNetCIFAR
from papernets.papers import lrpet
from papernets.papers.lrpet import LRPET, Silent, compact, norms, project, project_, ranks, scale
from papernets.training import accuracy, fit, loader, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


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
