"""Dynamic-coded filter fusion: networks are fused and refreshed."""

import warnings

import pytest
import torch
from papers.dcff.sample import same, snapshot
from torch import nn
from torch.nn import functional

from papernets.measure import count
from papernets.nn import GOOGLENET_WIDTHS, VGG, ConvNet, GoogLeNet, ResNetCIFAR
from papernets.papers.dcff import (
    DCFF,
    FusedConv2d,
    compact,
    distances,
    fuse_,
    fuse_narrow_,
    importance,
    kept_width,
    proxy,
    refresh_,
    temperature,
)

pytestmark = pytest.mark.usefixtures("one_thread")


class Residual(nn.Module):
    """A stem and one block; ``b`` and ``short`` are added."""

    def __init__(self):
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 11, 3, padding=1), nn.BatchNorm2d(11)
        self.a, self.bn_a = nn.Conv2d(11, 14, 3, 2, 1, bias=False), nn.BatchNorm2d(14)
        self.b, self.bn_b = nn.Conv2d(14, 10, 3, 1, 1), nn.BatchNorm2d(10)
        self.short = nn.Conv2d(11, 10, 1, 2)
        self.fc = nn.Linear(10, 5)

    def forward(self, x):
        x = self.bn(self.stem(x)).relu()
        y = self.bn_b(self.b(self.bn_a(self.a(x)).relu())) + self.short(x)
        return self.fc(y.relu().mean((2, 3)))


def mobile():
    return nn.Sequential(nn.Conv2d(3, 10, 1, bias=False), nn.BatchNorm2d(10), nn.ReLU6(),
                         nn.Conv2d(10, 10, 3, padding=1, groups=10), nn.BatchNorm2d(10), nn.ReLU6(),
                         nn.Conv2d(10, 6, 1), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


class Concatenated(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.three = nn.Conv2d(3, 6, 1), nn.Conv2d(3, 9, 3, padding=1)
        self.bn, self.last, self.fc = nn.BatchNorm2d(15), nn.Conv2d(15, 7, 3), nn.Linear(7, 5)

    def forward(self, x):
        x = self.bn(torch.cat([self.one(x), self.three(x)], 1)).relu()
        return self.fc(self.last(x).relu().mean((2, 3)))


def small_googlenet():
    return GoogLeNet(dict.fromkeys(GOOGLENET_WIDTHS, (4, 5, 6, 3, 4, 5, 3)), classes=5)


A3 = [f"a3.branch{branch}" for branch in ("1.0", "2.0", "2.3", "3.0", "3.3", "3.6", "4.1")]
CASES = {
    "plain": (lambda: ConvNet((7, 11, 13), 5), 0.5, (9, 7),
              {"features.0": (3, 7), "features.4": (5, 11), "features.8": (6, 13)}),
    "residual": (Residual, 0.5, (9, 7), {"stem": (5, 11), "a": (7, 14), "b": (5, 10), "short": (5, 10)}),
    "two rates": (Residual, {"stem": 0.0, "a": 0.7, "b": 0.4, "short": 0.4}, (9, 7),
                  {"stem": (11, 11), "a": (4, 14), "b": (6, 10), "short": (6, 10)}),
    "cifar": (lambda: ResNetCIFAR(8, classes=5), {f"blocks.{i}.conv1": removed for i, removed in enumerate((0.5, 0.7, 0.2))},
              (16, 16), {"blocks.0.conv1": (8, 16), "blocks.1.conv1": (9, 32), "blocks.2.conv1": (51, 64)}),
    "depthwise": (mobile, 0.5, (9, 7), {"0": (5, 10), "6": (3, 6)}),
    "concatenated": (Concatenated, {"one": 0.5, "three": 0.7, "last": 0.3}, (9, 7),
                     {"one": (3, 6), "three": (2, 9), "last": (4, 7)}),
    "googlenet": (small_googlenet, dict.fromkeys(A3, 0.5), (32, 32),
                  dict(zip(A3, [(2, 4), (2, 5), (3, 6), (1, 3), (2, 4), (2, 5), (1, 3)]))),
}


@pytest.mark.parametrize("case", CASES)
def test_fuse(case):
    build, removed, size, expected = CASES[case]
    model = build().eval()
    x = torch.randn(3, 3, *size)
    fuse_(model, DCFF(removed=removed), x[:1])
    found = {name: (len(m.phi), len(m.weight)) for name, m in model.named_modules() if isinstance(m, FusedConv2d)}
    assert found == expected
    assert model(x).shape == (3, 5)
    # one step of training, so that nothing is at its first value
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    functional.cross_entropy(model(x), torch.tensor([0, 3, 1])).backward()
    assert all(m.weight.grad.abs().sum() > 0 for m in model.modules() if isinstance(m, FusedConv2d))
    optimizer.step()
    model.eval()
    exported = compact(model)
    assert (exported(x) - model(x)).abs().max() < 1e-5
    ordinary = ("torch.nn", "papernets.nn", __name__)
    assert all(type(m).__module__.startswith(ordinary) for m in exported.modules())
    assert any(isinstance(m, FusedConv2d) for m in model.modules())  # the fused network itself is left as it is
    for name, (m, _) in expected.items():
        conv = exported.get_submodule(name)
        assert type(conv) is nn.Conv2d
        assert conv.out_channels == len(conv.weight) == m
    for convention in ("mac", "thop"):
        ours, theirs = count(model, x[:1], convention), count(exported, x[:1], convention)
        assert {name: cost.macs for name, cost in ours.items()} == {name: cost.macs for name, cost in theirs.items()}


def test_fuse_narrows_every_googlenet_branch():
    model = small_googlenet().eval()
    fuse_(model, DCFF(removed=0.4), torch.zeros(1, 3, 32, 32))
    layers = [m for m in model.modules() if isinstance(m, FusedConv2d)]
    assert len(layers) == 64
    assert not any(type(m) is nn.Conv2d for m in model.modules())
    assert [len(m.phi) for m in layers] == [kept_width(len(m.weight), 0.4) for m in layers]
    x = torch.randn(2, 3, 32, 32)
    assert (compact(model)(x) - model(x)).abs().max() < 1e-5


def test_depthwise_follows_its_input():
    model = mobile()
    fuse_(model, DCFF(removed=0.7), torch.zeros(1, 3, 9, 7))
    assert type(model[3]) is nn.Conv2d
    assert model[3].groups == model[3].in_channels == model[3].out_channels == 3
    assert model[4].num_features == 3


def test_widths_are_rounded_and_layers_are_filtered():
    model, x = ConvNet((12, 20, 30), channels=1), torch.zeros(1, 1, 9, 9)
    fuse_(model, DCFF(removed=0.4, round_to=8, filter_fn=lambda name, module: name != "features.4"), x)
    assert [len(model.get_submodule(name).phi) for name in ("features.0", "features.8")] == [8, 16]  # 7.2 and 18
    assert type(model.features[4]) is nn.Conv2d and model.features[4].weight.shape[:2] == (20, 8)
    small = ConvNet((5, 7), channels=1)
    fuse_(small, DCFF(removed=0.5, round_to=8), x)
    assert [len(small.features[at].phi) for at in (0, 4)] == [5, 7]  # fewer than 8: all stay
    with pytest.raises(ValueError, match="round_to is 0"):
        DCFF(round_to=0)
    with pytest.raises(ValueError, match="no Conv2d of this network is left"):
        fuse_(ConvNet((5, 7), channels=1), DCFF(filter_fn=lambda name, module: False), x)


def test_ignored_layers_keep_their_weights():
    model = ConvNet((7, 11, 13), 5)
    first = model.features[0].weight.clone()
    fuse_(model, DCFF(removed=0.5, ignore=("features.0",)), torch.zeros(1, 3, 9, 9))
    assert torch.equal(model.features[0].weight, first)
    assert type(model.features[0]) is nn.Conv2d
    assert len(model.features[4].phi) == 5


def test_guarded_reaches_the_layers():
    model = ConvNet((10, 160), 5)
    fuse_(model, DCFF(removed=0.9, guarded=True), torch.zeros(1, 3, 9, 9))
    assert [len(m.phi) for m in model.modules() if isinstance(m, FusedConv2d)] == [1, 16]


def test_fuse_keeps_the_type_of_the_weights_and_the_class_of_the_model():
    model = ConvNet((7, 11), 5).double()
    fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9, dtype=torch.float64))
    assert type(model) is ConvNet
    assert model.features[0].phi.dtype == torch.float64
    assert model(torch.zeros(2, 3, 9, 9, dtype=torch.float64)).shape == (2, 5)
    assert (compact(model.eval())(x := torch.randn(2, 3, 9, 9).double()) - model(x)).abs().max() < 1e-12


def grouped():
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, groups=2), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))


def bare():
    """Its output is that of its last convolution."""
    return nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.Conv2d(8, 6, 3))


@pytest.mark.parametrize(("build", "config", "says"), [
    (Residual, DCFF(removed={"stem": 0.5, "a": 0.5, "b": 0.5, "short": 0.2}), r"b and short are added together.*5 and 8"),
    (Residual, DCFF(removed={"stem": 0.5, "b": 0.5}), r"b and short are added together.*5 and 10"),
    (Residual, DCFF(removed=0.5, ignore=("short",)), r"b and short are added together"),
    (lambda: ResNetCIFAR(8), DCFF(removed=0.5), "added together"),
    (Residual, DCFF(removed={"stem": 0.5, "steam": 0.5}), r"'steam' is no convolution.*choose from stem, a, b, short"),
    (Residual, DCFF(removed={"fc": 0.5}), "'fc' is no convolution"),
    (Residual, DCFF(ignore=("nothing",)), "ignore names 'nothing'"),
    (mobile, DCFF(removed={"0": 0.5, "3": 0.5}), "3 has 10 groups"),
    (grouped, DCFF(removed={"2": 0.5}), "2 has 2 groups"),
    (bare, DCFF(removed=0.5), "outputs would lose channels"),
    (lambda: ConvNet((10, 7)), DCFF(removed=0.9), "removed leaves no filter: 10 filters"),
    (lambda: ConvNet((7, 10)), DCFF(removed={"features.0": 0.1, "features.4": 0.9}), "removed leaves no filter: 10 filters"),
])
def test_fuse_refuses_and_leaves_the_model_as_it_was(build, config, says):
    model = build()
    model.train()
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    with pytest.raises(ValueError, match=says):
        fuse_(model, config, torch.zeros(1, 3, 16, 16))
    same(model, before)


def test_fuse_needs_an_example():
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(ValueError, match=r"example is missing; .*torch.zeros"):
        fuse_(model, DCFF())
    same(model, before)


def test_an_example_that_does_not_fit_leaves_the_model_as_it_was():
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(RuntimeError):
        fuse_(model, DCFF(), torch.zeros(1, 5, 9, 9))
    same(model, before)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_other_padding_is_refused_before_anything_is_built(mode):
    model = nn.Sequential(nn.Conv2d(3, 7, 3, padding=1, padding_mode=mode), nn.ReLU(), nn.Conv2d(7, 5, 1),
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3))
    before = snapshot(model)
    with pytest.raises(ValueError, match="padding"):
        fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9))
    same(model, before)


@pytest.mark.parametrize(("full", "says"), [({"features.0": 11, "nothing": 5}, "'nothing' is no convolution"),
                                            ({"features.0": 11, "classifier": 5}, "'classifier' is no convolution"),
                                            ({"features.0": 11, "features.4": 10}, "full must be at least 11")])
def test_fuse_narrow_refuses_and_leaves_the_model_as_it_was(full, says):
    model = ConvNet((7, 11))
    before = snapshot(model)
    with pytest.raises(ValueError, match=says):
        fuse_narrow_(model, full)
    same(model, before)


def test_a_network_that_is_itself_a_convolution_is_refused():
    conv = nn.Conv2d(3, 5, 3)
    with pytest.raises(ValueError, match=r"put it into an nn.Sequential"):
        fuse_narrow_(conv, {"": 7})
    assert type(conv) is nn.Conv2d


def test_refresh_without_a_fused_layer_is_refused():
    with pytest.raises(ValueError, match="call fuse_ first"):
        refresh_(ConvNet((7, 11)), 0, 10)


def test_refresh_refuses_epochs_outside():
    model = ConvNet((7, 11))
    fuse_(model, DCFF(), torch.zeros(1, 3, 9, 9))
    before = snapshot(model)
    with pytest.raises(ValueError, match="epoch 11 is outside 0 to 10"):
        refresh_(model, 11, 10)
    same(model, before)


def test_refresh_reaches_every_layer():
    model = ConvNet((7, 11, 13))
    fuse_(model, DCFF(growth="slow"), torch.zeros(1, 3, 9, 9))
    T = refresh_(model, 3, 10)
    assert T == DCFF(growth="slow").temperature(3, 10) == temperature(3, 10, growth=1.0)
    for layer in (m for m in model.modules() if isinstance(m, FusedConv2d)):
        D = distances(layer.weight)
        torch.testing.assert_close(layer.phi, proxy(D, T)[layer.kept].float())
        torch.testing.assert_close(layer.score, importance(D, T))


def test_the_code_keeps_the_score_of_epoch_zero():
    torch.manual_seed(1)
    model = VGG([32, 32, 76, 76, *[5] * 9])
    names = ["features.0", "features.3", "features.7", "features.10"]
    fuse_narrow_(model, dict(zip(names, (64, 64, 128, 128))), DCFF(stable=False))
    layers = [model.get_submodule(name) for name in names]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refresh_(model, 0, 300) == pytest.approx(1)
    scores, kept = [layer.score.clone() for layer in layers], [layer.kept.clone() for layer in layers]
    assert all(score.abs().sum() > 0 for score in scores)
    for layer in layers:  # training moves the weights
        with torch.no_grad():
            layer.weight.add_(0.01 * torch.randn_like(layer.weight))
    for epoch in (1, 2, 299):
        with pytest.warns(RuntimeWarning, match="importance is not finite") as caught:
            T = refresh_(model, epoch, 300)
        assert len(caught) == 1
        assert "4 of 4 layers" in str(caught[0].message)
        assert T == temperature(epoch, 300)
        for layer, score, S in zip(layers, scores, kept):
            assert torch.equal(layer.score, score)
            assert torch.equal(layer.kept, S)
            assert torch.equal(layer.phi, torch.eye(layer.phi.shape[1])[S])  # the blend itself is not stale
