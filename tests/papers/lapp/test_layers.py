"""LAPP: the layers and the verbs."""

import copy
import math

import pytest
import torch
from model_checks import lively
from papers.lapp.sample import same_state, settle_randomly
from torch import nn
from torch.nn import functional

from papernets.measure import parameters
from papernets.nn import ConvNet, ResNetCIFAR
from papernets.papers import lapp
from papernets.papers.lapp import (
    LAPP,
    attach_,
    bypass_of,
    compact,
    gate,
    kept,
    objective,
    optimiser,
    prunable,
    push,
    remaining,
    rho_of,
    scores,
    settle_,
    settled,
    standardise,
    step_thresholds_,
    uniform_,
)
from papernets.papers.lapp.layers import units_of
from papernets.papers.lapp.networks import DIGIT, small_net

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_scale_of_a_layer_does_not_matter():
    W = torch.randn(13, 5, 3, 3)
    torch.testing.assert_close(standardise(scores(10 * W)), standardise(scores(W)))
    model = small_net((4, 6, 8))
    attach_(model, LAPP(), DIGIT)
    unit = next(iter(units_of(model).values()))
    with torch.no_grad():
        unit.threshold.zero_()
        before = unit.gate()
        unit.conv.weight *= 10
    assert 0 < before.sum() < len(before) and torch.equal(unit.gate(), before)


def test_the_formula_by_hand():
    """16 to 16 channels, 32×32: a plain layer, and what is left of it."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
    flops = attach_(model, LAPP(removed=0.1), torch.zeros(1, 3, 32, 32))
    stem = 1024 * 27 * 16
    assert flops.whole == stem + 2_359_296 and flops.count({"2": 5}) == stem + 737_280 + 32_768
    assert flops.start == (stem + 2_359_296 + 32_768) / flops.whole > 1
    assert flops.floor == (stem + 2_359_296 // 16 + 32_768) / flops.whole
    assert flops.dearest == 2_359_296 / 16 / flops.whole


def test_without_a_bypass_a_filter_also_costs_what_reads_it():
    model = small_net((4, 6, 8))
    flops = attach_(model, LAPP(bypass=None), DIGIT)
    stem, first, second, head = 64 * 9 * 4, 16 * 9 * 4 * 6, 16 * 9 * 6 * 8, 80
    assert flops.whole == stem + first + second + head and flops.start == 1
    assert flops.count({"features.4": 2, "features.7": 3}) == stem + 16 * 9 * 4 * 2 + 16 * 9 * 2 * 3 + 30
    assert flops.dearest == 16 * 9 * (4 + 8) / flops.whole


def test_the_gradient_of_the_share():
    model = small_net((4, 6, 8))
    flops = attach_(model, LAPP(bypass=None), DIGIT)
    masks = {name: torch.ones(C, requires_grad=True) for name, C in flops.widths.items()}
    flops.share(masks).backward()
    for name, C in flops.widths.items():
        cost = (flops.whole - flops.count(dict(flops.widths) | {name: C - 1})) / flops.whole
        assert masks[name].grad.tolist() == pytest.approx([cost] * C, rel=1e-5)


@pytest.mark.parametrize(("c", "C", "bypass", "groups", "weights"), [
    (16, 32, "grouped", 8, 16 * 32 // 8), (12, 18, "grouped", 2, 12 * 18 // 2), (5, 7, "grouped", 1, 35),
    (16, 16, "depthwise", 16, 9 * 16), (16, 32, "depthwise", 8, 16 * 32 // 8)])
def test_bypasses(c, C, bypass, groups, weights):
    found = bypass_of(nn.Conv2d(c, C, 3, 2, 1), LAPP(bypass=bypass))
    assert found.groups == groups and found.weight.numel() == weights and found.bias is None
    assert found(torch.zeros(1, c, 9, 7)).shape == (1, C, 5, 4)


def test_one_number_a_layer_and_the_bypass():
    plain, model = ResNetCIFAR(20), ResNetCIFAR(20)
    attach_(model, LAPP(), torch.zeros(1, 3, 32, 32))
    extra = {name: p for name, p in model.named_parameters() if name.endswith("threshold") or "bypass" in name}
    assert sum(name.endswith("threshold") for name in extra) == 18 and all(
        p.numel() == 1 for name, p in extra.items() if name.endswith("threshold"))
    assert parameters(model) - parameters(plain) == sum(p.numel() for p in extra.values())


def test_a_threshold_below_all_scores_trains_like_no_threshold():
    """λ = 0 and τ = −10⁹: the same weights as a network with the same bypass and no mask."""
    class Plain(nn.Module):
        def __init__(self, unit):
            super().__init__()
            self.conv, self.bn, self.bypass, self.bn_bypass = unit.conv, unit.bn, unit.bypass, unit.bn_bypass

        def forward(self, x):
            return self.bn(self.conv(x)) + self.bn_bypass(self.bypass(x))

    masked, config = small_net((4, 8, 8)), LAPP(strength=0.0, removed=0.5)
    flops = attach_(masked, config, DIGIT)
    with torch.no_grad():
        for unit in units_of(masked).values():
            unit.threshold.fill_(-1e9)
    plain = copy.deepcopy(masked)
    for name, unit in units_of(plain).items():
        plain.set_submodule(name, Plain(unit))
    first, second = optimiser(masked, flops, config), torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=5e-4)
    loss = objective(masked, flops, config)
    for _ in range(4):
        x, y = torch.randn(16, 1, 8, 8), torch.randint(0, 10, (16,))
        for optimizer, value in ((first, loss(masked(x), x, y)), (second, functional.cross_entropy(plain(x), y))):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    other = plain.state_dict()
    for name, value in masked.state_dict().items():
        if name in other:
            torch.testing.assert_close(value, other[name], rtol=0, atol=0)
    assert all(float(unit.threshold.detach()) == -1e9 for unit in units_of(masked).values())


def test_the_state_travels():
    one, other = small_net((4, 8, 8)), small_net((4, 8, 8))
    for model in (one, other):
        attach_(model, LAPP(), DIGIT)
    settle_randomly(one)
    other.load_state_dict(one.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(one.eval()(x), other.eval()(x)) and kept(one) == kept(other) and settled(other)


def test_layers_without_a_batch_norm_or_used_twice_keep_their_filters():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.conv, self.bn = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
            self.bare, self.other, self.norm = (nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))

        def forward(self, x):
            x = self.bn(self.conv(self.bn(self.conv(self.stem(x)))))
            return self.norm(self.other(self.bare(x)))

    assert prunable(Twice(), LAPP(), torch.zeros(1, 3, 5, 5)) == {"other": "norm"}


@pytest.mark.parametrize(
    ("build", "config", "shape", "message"),
    [(lambda: small_net((4, 8, 8)), LAPP(removed=0.99), (1, 1, 8, 8),
      r"removed 0.99 cannot be reached: with one filter a layer 0\.\d+ is left; the nearest is 0\.\d+"),
     (lambda: small_net((4, 8, 8)), LAPP(ignore=("stem",)), (1, 1, 8, 8), "ignore names 'stem', which is no layer"),
     (lambda: small_net((4, 8, 8)), LAPP(filter_fn=lambda name, module: False), (1, 1, 8, 8), "no Conv2d of this network is"),
     (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), LAPP(), (1, 3, 8, 8), "no Conv2d of this network is left"),
     (lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8)), LAPP(), (1, 3, 8, 8),
      r"1 has padding \(0, 0\) for windows of \(3, 3\), so a bypass has another size; pad by half the window")])
def test_a_refused_network_is_unchanged(build, config, shape, message):
    model = build()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ValueError, match=message):
        attach_(model, config, torch.zeros(shape))
    assert same_state(before, model) and not units_of(model) and model.training


def test_weights_that_are_not_finite_are_refused():
    model = small_net((4, 8, 8))
    with torch.no_grad():
        model.features[4].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match=r"features.4 holds a value that is not finite"):
        attach_(model, LAPP(), DIGIT)


def test_twice_is_refused():
    model = small_net((4, 8, 8))
    attach_(model, LAPP(), DIGIT)
    with pytest.raises(ValueError, match="this network has thresholds already"):
        attach_(model, LAPP(), DIGIT)


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_nothing_removed_changes_nothing_and_a_little_removed_prunes_little(bypass):
    model = small_net((8, 16, 16))
    before = copy.deepcopy(model.state_dict())
    assert attach_(model, LAPP(removed=0, bypass=bypass), DIGIT).start == 1 and same_state(before, model)
    flops = attach_(model, LAPP(removed=0.001, bypass=bypass), DIGIT)
    r = settle_(model, flops, 0.001)
    assert 0.999 - flops.dearest < r <= 0.999
    assert sum(kept(model).values()) >= 29


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_target_at_the_floor_leaves_one_filter_a_layer(bypass):
    model = small_net((8, 16, 16))
    floor = attach_(copy.deepcopy(model), LAPP(bypass=bypass), DIGIT).floor
    removed = math.floor(1e9 * (1 - floor)) / 1e9
    flops = attach_(model, LAPP(bypass=bypass, removed=removed), DIGIT)
    assert settle_(model, flops, removed) == flops.floor and set(kept(model).values()) == {1}
    x = torch.randn(3, 1, 8, 8)
    lively(model)
    torch.testing.assert_close(compact(model, DIGIT)(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bypass", ["grouped", None])
@pytest.mark.parametrize("start", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.25])
def test_the_common_shift_ends_just_below_the_target(bypass, start, target):
    model = ResNetCIFAR(8, stages=(8, 16, 24))
    flops = attach_(model, LAPP(bypass=bypass, removed=rho_of(target)), torch.zeros(1, 3, 12, 12))
    with torch.no_grad():
        for index, unit in enumerate(units_of(model).values()):
            unit.threshold.fill_(start + 0.3 * index)
    distances = {name: (unit.z() - unit.threshold).detach() for name, unit in units_of(model).items()}
    r = settle_(model, flops, rho_of(target))
    assert r == remaining(model, flops) and target - flops.dearest < r <= target
    lowest = min(float(distances[name][unit.mask > 0].min()) for name, unit in units_of(model).items() if unit.mask.sum() > 1)
    for name, unit in units_of(model).items():  # one common shift: whoever lies above the lowest survivor is kept
        assert all(unit.mask[distances[name] >= lowest] == 1)
    # slow oracle: try every shift
    best = 0.0
    for cut in sorted({float(v) for values in distances.values() for v in values}):
        left = {name: max(1, int((values > cut).sum())) for name, values in distances.items()}
        share = flops.count(left) / flops.whole
        best = max(best, share if share <= target else 0)
    assert r == best


def test_equal_filters_cannot_be_told_apart():
    model = small_net((4, 8, 8))
    with torch.no_grad():
        for index in (4, 7):
            model.features[index].weight.fill_(0.1)
    flops = attach_(model, LAPP(removed=0.5), DIGIT)
    with pytest.raises(ValueError, match=r"filters of equal score stay together, and 1\.\d+ is left"):
        settle_(model, flops, 0.5)


def test_a_threshold_that_diverged_is_named():
    model = small_net((4, 8, 8))
    flops = attach_(model, LAPP(removed=0.5), DIGIT)
    with torch.no_grad():
        units_of(model)["features.7"].threshold.fill_(math.nan)
    with pytest.raises(ValueError, match=r"features.7: a score or the threshold is not finite"):
        settle_(model, flops, 0.5)


def test_uniform_keeps_the_same_share_everywhere():
    model = small_net((8, 16, 32, 16))
    flops = attach_(model, LAPP(), DIGIT)
    r = uniform_(model, flops, 0.6)
    shares = [kept(model)[name] / C for name, C in flops.widths.items()]
    assert r <= 0.4 and max(shares) - min(shares) <= 1 / 16
    for unit in units_of(model).values():
        assert unit.z()[unit.mask > 0].min() >= unit.z()[unit.mask == 0].max()


def test_thresholds_take_plain_steps_without_decay_or_momentum():
    model, config = small_net((4, 8, 8)), LAPP(lr=0.1, removed=0.7, strength=4)
    flops = attach_(model, config, DIGIT)
    optimizer, loss = optimiser(model, flops, config, lr=0.05, weight_decay=0.5), objective(model, flops, config)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not any(id(unit.threshold) in held for unit in units_of(model).values())
    for _ in range(3):
        before = {name: float(unit.threshold.detach()) for name, unit in units_of(model).items()}
        x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
        optimizer.zero_grad()
        loss(model(x), x, y).backward()
        grads = {name: float(unit.threshold.grad) for name, unit in units_of(model).items()}
        optimizer.step()
        for name, unit in units_of(model).items():
            assert float(unit.threshold.detach()) == pytest.approx(before[name] - 0.1 * grads[name], abs=1e-6)
            assert unit.threshold.grad is None


def test_the_constraint_raises_every_threshold():
    model, config = small_net((4, 8, 8)), LAPP(removed=0.7)
    flops = attach_(model, config, DIGIT)
    share = flops.share({name: unit.gate() for name, unit in units_of(model).items()})
    push(share, 0.3).backward()
    assert all(unit.threshold.grad < 0 for unit in units_of(model).values())
    step_thresholds_(model, flops, config)
    assert all(unit.threshold > torch.clamp(unit.z().min() - 0.1, max=-3) for unit in units_of(model).values())


def test_the_pace_against_steps_of_the_constraint_alone():
    """A layer of many filters with normal scores: how many steps does its threshold take from −3 to 0?"""
    model, config = ConvNet((2, 512), channels=1, pool=()), LAPP(removed=0.8, bypass=None)
    flops = attach_(model, config, DIGIT)
    unit = next(iter(units_of(model).values()))
    rate, steps, z = lapp.pace(flops, config, 50), 0, torch.randn(512)
    tau = torch.tensor(-3.0, requires_grad=True)
    while float(tau.detach()) < 0 and steps < 500:
        (config.strength * flops.share({"features.3": gate(z, tau)})).backward()
        with torch.no_grad():
            tau -= rate * tau.grad
            tau.grad = None
        steps += 1
    assert steps == pytest.approx(50, abs=5) and len(unit.mask) == 512
    assert lapp.pace(flops, config, 100) == pytest.approx(rate / 2)
    digits_net = small_net()
    assert lapp.pace(attach_(digits_net, LAPP(), DIGIT), LAPP(), 60) == pytest.approx(LAPP().lr, rel=0.4)
    with pytest.raises(ValueError, match=r"steps 0, strength 10\.0, 1 pruned layers: all must be above 0"):
        lapp.pace(flops, config, 0)
