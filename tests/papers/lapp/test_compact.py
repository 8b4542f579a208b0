"""LAPP: the permanent form, and how it is saved."""

import copy

import pytest
import torch
from model_checks import lively
from papers.lapp.sample import same_state, settle_randomly
from torch import nn

from papernets.measure import macs, report
from papernets.nn import VGG, ConvNet, GoogLeNet, MobileNetV2, ResNetBasic, ResNetCIFAR, ResNetImageNet
from papernets.papers import lapp
from papernets.papers.lapp import (
    LAPP,
    CompactConv2d,
    ThresholdConv2d,
    attach_,
    compact,
    export,
    kept,
    objective,
    optimiser,
    restore,
    runs,
    settle_,
    slim,
)
from papernets.papers.lapp.layers import units_of
from papernets.papers.lapp.networks import DIGIT, small_net

pytestmark = pytest.mark.usefixtures("one_thread")


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
    flops = attach_(model, LAPP(removed=0.001, bypass=bypass, **options), example)
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
    shares = flops.share({name: unit.gate() for name, unit in units_of(model).items()})
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
    flops = attach_(model, LAPP(removed=0.001, bypass=bypass, budget="params", **options), example)
    lively(model)
    settle_randomly(model)
    assert flops.whole == whole and flops.count(kept(model)) == weights(compact(model, example))


def test_without_a_bypass_an_example_is_needed():
    model = small_net((4, 8, 8))
    attach_(model, LAPP(bypass=None), DIGIT)
    with pytest.raises(ValueError, match="example is missing; without bypasses"):
        compact(model)


def test_an_activation_that_makes_something_of_nothing_is_noticed():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Sigmoid(),
                          nn.Conv2d(8, 5, 1))
    attach_(model, LAPP(bypass=None, removed=0.1), torch.zeros(1, 3, 6, 6))
    settle_randomly(lively(model))
    with pytest.raises(ValueError, match="what follows a filter that gives 0 must give 0"):
        compact(model, torch.zeros(1, 3, 6, 6))


@pytest.mark.parametrize("bypass", ["grouped", None])
def test_a_layer_of_one_channel(bypass):
    model = ConvNet((4, 1, 16, 16), channels=1, pool=())
    flops = attach_(model, LAPP(bypass=bypass, removed=0.3), DIGIT)
    with torch.no_grad():
        units_of(model)["features.3"].threshold.fill_(5)
    settle_(model, flops, 0.3)
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
    flops = attach_(model, LAPP(removed=0.7), DIGIT)
    settle_(model, flops, 0.7)
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


def test_momentum_of_survivors_is_carried_over():
    for bypass in ("grouped", None):
        model, config = small_net((4, 8, 12)), LAPP(bypass=bypass, removed=0.4)
        flops = attach_(model, config, DIGIT)
        optimizer, loss = optimiser(model, flops, config), objective(model, flops, config)
        for _ in range(3):
            x, y = torch.randn(8, 1, 8, 8), torch.randint(0, 10, (8,))
            optimizer.zero_grad()
            loss(model(x), x, y).backward()
            optimizer.step()
        settle_(model, flops, 0.4)
        small, momenta = slim(model, optimizer, DIGIT)
        assert {name: p.shape for name, p in small.named_parameters()} == {name: p.shape for name, p in momenta.items()}
        for name, unit in units_of(model).items():
            rows = unit.kept()
            assert 0 < len(rows) < len(unit.mask)
            old = optimizer.state[unit.conv.weight]["momentum_buffer"][rows]
            new = momenta[f"{name}.conv.weight" if bypass else f"{name}.weight"]
            if bypass is None and name == "features.7":
                old = old[:, units_of(model)["features.4"].kept()]
            assert torch.equal(new, old) and old.abs().sum() > 0
            scale = f"{name}.bn.weight" if bypass else f"{unit.bn_name}.weight"
            assert torch.equal(momenta[scale], optimizer.state[unit.bn.weight]["momentum_buffer"][rows])
        classifier = optimizer.state[model.classifier.weight]["momentum_buffer"]
        columns = slice(None) if bypass else units_of(model)["features.7"].kept()
        assert torch.equal(momenta["classifier.weight"], classifier[:, columns])


def test_slimming_needs_final_masks():
    model, config = small_net((4, 8, 8)), LAPP()
    flops = attach_(model, config, DIGIT)
    with pytest.raises(ValueError, match=r"features.4: its mask is not final; call settle_ first"):
        slim(model, optimiser(model, flops, config), DIGIT)
