"""LAPP: the layers and the verbs."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from model_checks import lively
from papers.lapp.samples import DIGIT
from torch import nn
from torch.nn import functional as F

from papernets.data import digits
from papernets.measure import macs, parameters, report
from papernets.nn import VGG, ConvNet, GoogLeNet, MobileNetV2, ResNetBasic, ResNetCIFAR, ResNetImageNet
from papernets.papers import lapp
from papernets.papers.lapp import (
    LAPP,
    CompactConv2d,
    ThresholdConv2d,
    attach_,
    bypass_of,
    compact,
    export,
    gate,
    kept,
    objective,
    optimiser,
    prunable,
    push,
    remaining,
    restore,
    runs,
    scores,
    settle_,
    settled,
    slim,
    standardise,
    step_thresholds_,
    train,
    uniform_,
)
from papernets.papers.lapp.networks import small_net
from papernets.training import accuracy, cosine, fit, loader, seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


def units(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, ThresholdConv2d)}


def settle_randomly(model, seed=0):
    """Final masks with random filters, at least one a layer, and never all."""
    draw = torch.Generator().manual_seed(seed)
    for unit in units(model).values():
        C = len(unit.mask)
        number = int(torch.randint(1, max(2, C), (), generator=draw))
        unit.settle(torch.randperm(C, generator=draw) < number)


def same_state(before, model):
    after = model.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_the_scale_of_a_layer_does_not_matter():
    W = torch.randn(13, 5, 3, 3)
    torch.testing.assert_close(standardise(scores(10 * W)), standardise(scores(W)))
    model = small_net((4, 6, 8))
    attach_(model, LAPP(), DIGIT)
    unit = next(iter(units(model).values()))
    with torch.no_grad():
        unit.threshold.zero_()
        before = unit.gate()
        unit.conv.weight *= 10
    assert 0 < before.sum() < len(before) and torch.equal(unit.gate(), before)


NETS = {"small": (lambda: small_net((5, 8, 12, 16)), (1, 1, 8, 8), {}),
        "resnet": (lambda: ResNetCIFAR(8, (8, 16, 8), (8, 16, 24)), (1, 3, 12, 12), {}),
        "vgg": (lambda: VGG((8, 8, 16, 8, 16, 8, 8, 16, 8, 8, 16, 8, 8)), (1, 3, 32, 32), {}),
        "resnet18": (lambda: ResNetBasic(18, stages=(8, 16, 24, 32), classes=7), (1, 3, 40, 40), {}),
        "bottlenecks": (lambda: ResNetImageNet((8,) * 16, (8,) * 16, (16, 24, 32, 40), 8, 7), (1, 3, 40, 40),
                        {"filter_fn": lambda name, module: "blocks.1" in name}),
        "mobilenet": (lambda: MobileNetV2(0.25, 7), (1, 3, 65, 65),
                      {"pointwise": True, "filter_fn": lambda name, module: name.startswith(("features.4.", "features.5."))}),
        "googlenet": (lambda: GoogLeNet(classes=7), (1, 3, 32, 32),
                      {"filter_fn": lambda name, module: name.startswith("a3.branch3")})}


@pytest.mark.parametrize(("name", "bypass"), [(name, bypass) for name in NETS for bypass in lapp.BYPASSES
                                              if name != "googlenet" or bypass is None])
def test_compact_networks_agree_and_cost_what_the_formula_says(name, bypass):
    build, shape, options = NETS[name]
    model = build()
    example = torch.randn(shape)
    flops = attach_(model, LAPP(target=0.999, bypass=bypass, **options), example)
    lively(model)
    settle_randomly(model)
    small = compact(model, example)
    x = torch.randn(2, *shape[1:])
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), atol=1e-5, rtol=1e-5)
        assert flops.count(kept(model)) == macs(small, example)
        sliced = export(small, example) if any(isinstance(m, CompactConv2d) for m in small.modules()) else small
        torch.testing.assert_close(sliced(x), model(x), atol=1e-5, rtol=1e-5)
        assert macs(sliced, example) == macs(small, example)
    shares = flops.share({name: unit.gate() for name, unit in units(model).items()})
    assert float(shares) == pytest.approx(flops.count(kept(model)) / flops.whole, rel=1e-5)
    assert flops.whole == macs(build(), example) and not any(isinstance(m, ThresholdConv2d) for m in small.modules())


@pytest.mark.parametrize("bypass", lapp.BYPASSES)
@pytest.mark.parametrize("name", ["small", "resnet", "vgg", "mobilenet"])
def test_a_budget_of_parameters_counts_weights(name, bypass):
    build, shape, options = NETS[name]
    model, example = build(), torch.randn(shape)

    def weights(net):
        return sum(m.weight.numel() for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear))

    whole = weights(model)
    flops = attach_(model, LAPP(target=0.999, bypass=bypass, budget="params", **options), example)
    lively(model)
    settle_randomly(model)
    assert flops.whole == whole and flops.count(kept(model)) == weights(compact(model, example))


def test_a_target_of_parameters_is_hit():
    data = digits(64, 0)
    loaders = loader(data[0], 32, True), None
    small, progress = train(small_net((8, 16, 16, 16)), loaders, LAPP(target=0.5, budget="params", progressive=1), epochs=2)
    weights = sum(m.weight.numel() for m in small.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    whole = sum(m.weight.numel() for m in small_net((8, 16, 16, 16)).modules() if isinstance(m, nn.Conv2d | nn.Linear))
    assert 0.42 < weights / whole <= 0.5 and progress.remaining[-1] == pytest.approx(weights / whole)
    with pytest.raises(ValueError, match="budget is 'bytes'; choose from macs, params"):
        LAPP(budget="bytes")


def test_the_formula_by_hand():
    """16 to 16 channels, 32×32: a plain layer, and what is left of it."""
    model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16))
    flops = attach_(model, LAPP(target=0.9), torch.zeros(1, 3, 32, 32))
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

    masked, config = small_net((4, 8, 8)), LAPP(strength=0.0, target=0.5)
    flops = attach_(masked, config, DIGIT)
    with torch.no_grad():
        for unit in units(masked).values():
            unit.threshold.fill_(-1e9)
    plain = copy.deepcopy(masked)
    for name, unit in units(plain).items():
        plain.set_submodule(name, Plain(unit))
    first, second = optimiser(masked, flops, config), torch.optim.SGD(plain.parameters(), 0.1, 0.9, weight_decay=5e-4)
    loss = objective(masked, flops, config)
    for _ in range(4):
        x, y = torch.randn(16, 1, 8, 8), torch.randint(0, 10, (16,))
        for optimizer, value in ((first, loss(masked(x), x, y)), (second, F.cross_entropy(plain(x), y))):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
    other = plain.state_dict()
    for name, value in masked.state_dict().items():
        if name in other:
            torch.testing.assert_close(value, other[name], rtol=0, atol=0)
    assert all(float(unit.threshold.detach()) == -1e9 for unit in units(masked).values())


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
    [(lambda: small_net((4, 8, 8)), LAPP(target=0.01), (1, 1, 8, 8),
      r"target 0.01 cannot be reached: with one filter a layer 0\.\d+ is left; the nearest is 0\.\d+"),
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
    assert same_state(before, model) and not units(model) and model.training


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


def test_without_a_bypass_an_example_is_needed():
    model = small_net((4, 8, 8))
    attach_(model, LAPP(bypass=None), DIGIT)
    with pytest.raises(ValueError, match="example is missing; without bypasses"):
        compact(model)


def test_an_activation_that_makes_something_of_nothing_is_noticed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid(),
                          nn.Conv2d(8, 5, 1))
    attach_(model, LAPP(bypass=None, target=0.9), torch.zeros(1, 3, 6, 6))
    settle_randomly(lively(model))
    with pytest.raises(ValueError, match="what follows a filter that gives 0 must give 0"):
        compact(model, torch.zeros(1, 3, 6, 6))


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_target_of_one_changes_nothing_and_one_just_below_prunes_little(bypass):
    model = small_net((8, 16, 16))
    before = copy.deepcopy(model.state_dict())
    assert attach_(model, LAPP(target=1, bypass=bypass), DIGIT).start == 1 and same_state(before, model)
    flops = attach_(model, LAPP(target=0.999, bypass=bypass), DIGIT)
    r = settle_(model, flops, 0.999)
    assert 0.999 - flops.dearest < r <= 0.999
    assert sum(kept(model).values()) >= 29


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_target_at_the_floor_leaves_one_filter_a_layer(bypass):
    model = small_net((8, 16, 16))
    floor = attach_(copy.deepcopy(model), LAPP(bypass=bypass), DIGIT).floor
    flops = attach_(model, LAPP(bypass=bypass, target=floor), DIGIT)
    assert settle_(model, flops, floor) == flops.floor and set(kept(model).values()) == {1}
    x = torch.randn(3, 1, 8, 8)
    lively(model)
    torch.testing.assert_close(compact(model, DIGIT)(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_layer_of_one_channel(bypass):
    model = ConvNet((4, 1, 16, 16), channels=1, pool=())
    flops = attach_(model, LAPP(bypass=bypass, target=0.7), DIGIT)
    with torch.no_grad():
        units(model)["features.3"].threshold.fill_(5)
    settle_(model, flops, 0.7)
    assert kept(model)["features.3"] == 1
    lively(model)
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(compact(model, DIGIT)(x), model(x), atol=1e-5, rtol=1e-5)
    assert macs(compact(model, DIGIT), DIGIT) == flops.count(kept(model))


def test_the_original_is_left_alone():
    model = lively(small_net((4, 8, 8)))
    attach_(model, LAPP(), DIGIT)
    settle_randomly(model.train())
    before = copy.deepcopy(model.state_dict())
    export(compact(model, DIGIT), DIGIT)
    assert same_state(before, model) and model.training


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_compact_network_is_saved_and_loaded(bypass, tmp_path):
    config = LAPP(bypass=bypass)
    model = ResNetCIFAR(8, stages=(8, 16, 24))
    example = torch.randn(1, 3, 12, 12)
    attach_(model, config, example)
    settle_randomly(lively(model))
    small = compact(model, example)
    torch.save(small.state_dict(), tmp_path / "small.pt")
    state = torch.load(tmp_path / "small.pt", weights_only=True)
    again = restore(ResNetCIFAR(8, stages=(8, 16, 24)), state, config, example).eval()
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(again(x), small(x))


def test_the_report_shows_what_is_saved():
    plain, model = small_net(), small_net()
    flops = attach_(model, LAPP(target=0.3), DIGIT)
    settle_(model, flops, 0.3)
    found = report(plain, compact(model), DIGIT, timed=False)
    assert found.before.macs == flops.whole and found.after.macs <= 0.3 * flops.whole


def test_kept_filters_come_first_within_every_group():
    """The outputs are reordered, what reads them follows, and one slice a group is enough."""
    model = small_net((16, 32, 32, 32))
    attach_(model, LAPP(groups=4), DIGIT)
    settle_randomly(lively(model))
    small = compact(model, DIGIT)
    found = export(small, DIGIT)
    for name, module in found.named_modules():
        if isinstance(module, CompactConv2d):
            assert len(module.slices) <= 4 and sum(length for *_, length in module.slices) == len(module.index)
            before = runs(small.get_submodule(name).index)
            assert len(module.slices) <= len(before)
            firsts = [place % 8 for _, place, length in module.slices]
            assert set(firsts) <= {0}, "a run begins where its group does"
    assert any(len(runs(m.index)) > 4 for m in small.modules() if isinstance(m, CompactConv2d))
    assert not any(isinstance(m.bn, nn.BatchNorm2d) for m in found.modules() if isinstance(m, CompactConv2d))


def test_one_group_needs_one_slice():
    model = small_net((16, 32, 32, 32))
    attach_(model, LAPP(groups=1), DIGIT)
    settle_randomly(lively(model))
    found = export(compact(model, DIGIT), DIGIT)
    assert [len(m.slices) for m in found.modules() if isinstance(m, CompactConv2d)] == [1, 1, 1]


@pytest.mark.parametrize("bypass", ["grouped", None])
@pytest.mark.parametrize("start", [-9.0, 0.0, 9.0])
@pytest.mark.parametrize("target", [0.9, 0.5, 0.25])
def test_the_common_shift_ends_just_below_the_target(bypass, start, target):
    model = ResNetCIFAR(8, stages=(8, 16, 24))
    flops = attach_(model, LAPP(bypass=bypass, target=target), torch.zeros(1, 3, 12, 12))
    with torch.no_grad():
        for index, unit in enumerate(units(model).values()):
            unit.threshold.fill_(start + 0.3 * index)
    distances = {name: (unit.z() - unit.threshold).detach() for name, unit in units(model).items()}
    r = settle_(model, flops, target)
    assert r == remaining(model, flops) and target - flops.dearest < r <= target
    lowest = min(float(distances[name][unit.mask > 0].min()) for name, unit in units(model).items() if unit.mask.sum() > 1)
    for name, unit in units(model).items():  # one common shift: whoever lies above the lowest survivor is kept
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
    flops = attach_(model, LAPP(target=0.5), DIGIT)
    with pytest.raises(ValueError, match=r"filters of equal score stay together, and 1\.\d+ is left"):
        settle_(model, flops, 0.5)


def test_a_threshold_that_diverged_is_named():
    model = small_net((4, 8, 8))
    flops = attach_(model, LAPP(target=0.5), DIGIT)
    with torch.no_grad():
        units(model)["features.7"].threshold.fill_(math.nan)
    with pytest.raises(ValueError, match=r"features.7: a score or the threshold is not finite"):
        settle_(model, flops, 0.5)


def test_uniform_keeps_the_same_share_everywhere():
    model = small_net((8, 16, 32, 16))
    flops = attach_(model, LAPP(), DIGIT)
    r = uniform_(model, flops, 0.4)
    shares = [kept(model)[name] / C for name, C in flops.widths.items()]
    assert r <= 0.4 and max(shares) - min(shares) <= 1 / 16
    for unit in units(model).values():
        assert unit.z()[unit.mask > 0].min() >= unit.z()[unit.mask == 0].max()


def test_thresholds_take_plain_steps_without_decay_or_momentum():
    model, config = small_net((4, 8, 8)), LAPP(rate=0.1, target=0.3, strength=4)
    flops = attach_(model, config, DIGIT)
    optimizer, loss = optimiser(model, flops, config, lr=0.05, weight_decay=0.5), objective(model, flops, config)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert not any(id(unit.threshold) in held for unit in units(model).values())
    for _ in range(3):
        before = {name: float(unit.threshold.detach()) for name, unit in units(model).items()}
        x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
        optimizer.zero_grad()
        loss(model(x), x, y).backward()
        grads = {name: float(unit.threshold.grad) for name, unit in units(model).items()}
        optimizer.step()
        for name, unit in units(model).items():
            assert float(unit.threshold.detach()) == pytest.approx(before[name] - 0.1 * grads[name], abs=1e-6)
            assert unit.threshold.grad is None


def test_the_constraint_raises_every_threshold():
    model, config = small_net((4, 8, 8)), LAPP(target=0.3)
    flops = attach_(model, config, DIGIT)
    share = flops.share({name: unit.gate() for name, unit in units(model).items()})
    push(share, 0.3).backward()
    assert all(unit.threshold.grad < 0 for unit in units(model).values())
    step_thresholds_(model, flops, config)
    assert all(unit.threshold > torch.clamp(unit.z().min() - 0.1, max=-3) for unit in units(model).values())


def test_the_pace_against_steps_of_the_constraint_alone():
    """A layer of many filters with normal scores: how many steps does its threshold take from −3 to 0?"""
    model, config = ConvNet((2, 512), channels=1, pool=()), LAPP(target=0.2, bypass=None)
    flops = attach_(model, config, DIGIT)
    unit = next(iter(units(model).values()))
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
    assert lapp.pace(attach_(digits_net, LAPP(), DIGIT), LAPP(), 60) == pytest.approx(LAPP().rate, rel=0.4)
    with pytest.raises(ValueError, match=r"steps 0, strength 10\.0, 1 pruned layers: all must be above 0"):
        lapp.pace(flops, config, 0)


def test_momentum_of_survivors_is_carried_over():
    for bypass in ("grouped", None):
        model, config = small_net((4, 8, 12)), LAPP(bypass=bypass, target=0.6)
        flops = attach_(model, config, DIGIT)
        optimizer, loss = optimiser(model, flops, config), objective(model, flops, config)
        for _ in range(3):
            x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
            optimizer.zero_grad()
            loss(model(x), x, y).backward()
            optimizer.step()
        settle_(model, flops, 0.6)
        small, momenta = slim(model, optimizer, DIGIT)
        assert {name: p.shape for name, p in small.named_parameters()} == {name: p.shape for name, p in momenta.items()}
        for name, unit in units(model).items():
            rows = unit.kept()
            assert 0 < len(rows) < len(unit.mask)
            old = optimizer.state[unit.conv.weight]["momentum_buffer"][rows]
            new = momenta[f"{name}.conv.weight" if bypass else f"{name}.weight"]
            if bypass is None and name == "features.7":
                old = old[:, units(model)["features.4"].kept()]
            assert torch.equal(new, old) and old.abs().sum() > 0
            scale = f"{name}.bn.weight" if bypass else f"{unit.bn_name}.weight"
            assert torch.equal(momenta[scale], optimizer.state[unit.bn.weight]["momentum_buffer"][rows])
        classifier = optimizer.state[model.classifier.weight]["momentum_buffer"]
        columns = slice(None) if bypass else units(model)["features.7"].kept()
        assert torch.equal(momenta["classifier.weight"], classifier[:, columns])


def test_slimming_needs_final_masks():
    model, config = small_net((4, 8, 8)), LAPP()
    flops = attach_(model, config, DIGIT)
    with pytest.raises(ValueError, match=r"features.4: its mask is not final; call settle_ first"):
        slim(model, optimiser(model, flops, config), DIGIT)


def loaders(images=300, seed=0):
    data = digits(images, seed)
    return loader(data[0], 32, True), loader(data[1], 2000, False)


def test_slimming_in_the_middle_changes_nothing_in_what_is_learned():
    """Trained on with masks or without the masked filters: the same network in the end."""
    model, config = small_net((4, 8, 12)), LAPP(target=0.5, progressive=1, rate=5.0)
    data = loaders()
    seed_everything(0)
    small, progress = train(model, (data[0], None), config, epochs=2, lr=lambda epoch: 0.05, example=DIGIT)
    masked, flops = copy.deepcopy(model), None
    seed_everything(0)
    flops = attach_(masked, config, DIGIT)

    def after(model, epoch, history):
        if epoch == 0:
            lapp.finish_(model, flops, config)

    fit(masked, data[0], None, epochs=2, lr=lambda epoch: 0.05, after_epoch=after, loss=objective(masked, flops, config),
        optimizer=lambda model: optimiser(model, flops, config))
    x = torch.randn(5, 1, 8, 8)
    assert progress.kept[-1] == kept(masked) and progress.remaining[-1] < 0.5
    torch.testing.assert_close(small.eval()(x), masked.eval()(x), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("bypass", ["grouped", "depthwise", None])
def test_learning_reaches_the_target_step_by_step_and_still_reads_digits(bypass):
    """A wrong sign leaves r at 1; a wrong gradient of the share stops it; a wrong mask or export loses the accuracy."""
    model, data = small_net((16, 24, 24, 24)), loaders(600)
    before = copy.deepcopy(model.state_dict())
    config = LAPP(target=0.3, bypass=bypass, progressive=8, rate=0.15 if bypass else 0.08)
    small, progress = train(model, data, config, epochs=12, lr=cosine(0.05, 12))
    assert same_state(before, model)
    r = progress.remaining
    assert len(r) == 13 and r[0] >= 1 and r[-1] <= 0.3 and len(progress.accuracy) == len(progress.loss) == 12
    assert macs(small, DIGIT) / macs(model, DIGIT) == pytest.approx(r[-1])
    assert sum(1 > value > 0.35 for value in r) >= 2, "falls over several epochs"
    assert all(later <= earlier + 0.02 for earlier, later in pairwise(r)), "never rises but for single filters"
    shares = [left / 24 for left in progress.kept[-1].values()]
    assert max(shares) - min(shares) > 0.15, "each layer has its own rate"
    assert progress.accuracy[-1] == pytest.approx(accuracy(small, data[1])) and progress.accuracy[-1] > 0.9


def test_the_constraint_acts_before_the_last_shift():
    """Without it, or with the wrong sign, nothing is pruned until the masks are made final."""
    data = loaders(300)
    options = dict(epochs=6, lr=cosine(0.05, 6), example=DIGIT)
    configs = (LAPP(target=0.4, progressive=6, rate=0.3, strength=strength) for strength in (10.0, 0.0))
    with_it, without = (train(small_net((8, 16, 16)), (data[0], None), config, **options)[1] for config in configs)
    assert with_it.remaining[5] < 0.7 < 0.95 < without.remaining[5]
    assert with_it.steepest < without.steepest


@pytest.mark.parametrize("rule", ["uniform", "one-shot"])
def test_the_baselines(rule):
    _, progress = train(small_net((8, 16, 16)), loaders(), LAPP(target=0.4, progressive=4, bypass=None), epochs=5, rule=rule,
                        example=DIGIT)
    r = progress.remaining
    assert r[0] == 1 and r[-1] <= 0.4 and len(set(progress.kept[-1].values())) == 1
    falls = [before - after for before, after in pairwise(r)]
    assert (falls[:3] == [0, 0, 0]) == (rule == "one-shot") and (max(falls) < 0.3) == (rule == "uniform")


def test_a_target_of_one_is_ordinary_training():
    model, data = small_net((4, 8, 8)), loaders()
    small, progress = train(model, (data[0], None), LAPP(target=1, progressive=1), epochs=3, lr=cosine(0.05, 3), example=DIGIT)
    plain = copy.deepcopy(model)
    fit(plain, data[0], None, epochs=3, lr=cosine(0.05, 3))
    assert progress.remaining == [1.0] * 4
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), plain.state_dict().values(), strict=True))


def test_the_same_seed_gives_the_same_network():
    model, config = small_net((4, 8, 8)), LAPP(progressive=2, rate=0.5)
    one, other = (train(model, (loaders()[0], None), config, epochs=3, example=DIGIT, seed=3)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))
