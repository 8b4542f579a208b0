"""CC: the layers and the verbs."""

import copy
import json
import math
from dataclasses import asdict

import pytest
import torch
from model_checks import lively
from papers.cc.sample import normal, some_batches
from torch import nn

from papernets.measure import count, macs, parameters, report
from papernets.nn import ConvNet, DenseNetCIFAR, GoogLeNet, MobileNetV2, ResNetBasic, ResNetCIFAR
from papernets.papers import cc
from papernets.papers.cc import (
    CC,
    Layer,
    Select,
    caps,
    compress,
    compressible,
    gradients,
    narrowed,
    plan,
    reachable,
    restored,
    search_all,
    share_out,
    weight_of,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def conv(**options):
    return nn.Conv2d(5, 7, 3, **options)


LAYERS = {"plain": conv(), "stride": conv(stride=2, padding=1), "dilated": conv(dilation=2, padding="same"),
          "reflect": conv(padding=1, padding_mode="reflect", bias=False), "wide": nn.Conv2d(5, 7, (1, 3), padding=(0, 1)),
          "pointwise": nn.Conv2d(5, 7, 1), "linear": nn.Linear(5, 7)}


@pytest.mark.parametrize("layer", [Layer((0, 2, 4)), Layer((1, 3), 2), Layer(range(5), 4), Layer((0, 1, 2, 3), 99)])
@pytest.mark.parametrize("name", LAYERS)
def test_a_rebuilt_layer_computes_what_the_changed_weight_does(name, layer):
    module = copy.deepcopy(LAYERS[name]).double()
    model = nn.Sequential(module)
    x = normal(2, 6, 5) if name == "linear" else normal(2, 5, 9, 8)
    small = narrowed(model, {"0": layer})
    with torch.no_grad():
        module.weight.copy_(restored(weight_of(module), layer).view_as(module.weight))
        torch.testing.assert_close(small(x), model(x), rtol=1e-8, atol=1e-10)
    kinds = [type(part) for part in small[0].children()] if isinstance(small[0], nn.Sequential) else [type(small[0])]
    assert (Select in kinds) == (len(layer.kept) < 5) and len(kinds) - (Select in kinds) == 1 + (layer.rank is not None)


NETS = {"convnet": (lambda: ConvNet((6, 8, 10)), 8), "resnet": (lambda: ResNetCIFAR(8, stages=(4, 6, 8)), 16),
        "resnet18": (lambda: ResNetBasic(18, (4,) * 8, (4, 6, 8, 10), 7), 33), "densenet": (lambda: DenseNetCIFAR(10, 5), 8),
        "mobilenet": (lambda: MobileNetV2(0.25, 7), 33), "googlenet": (GoogLeNet, 32)}


@pytest.mark.parametrize("name", NETS)
def test_a_compact_network_equals_the_changed_one(name):
    build, side = NETS[name]
    model, x = lively(build()), torch.randn(2, 3, side, side)
    before = copy.deepcopy(model.state_dict())
    layers = compressible(model, x[:1])
    chosen = {}
    for at, (layer, module) in enumerate(layers.items()):
        Ci = module.in_channels
        kept = range(at % 2, Ci, 1 + (Ci > 4)) if Ci > 2 else range(Ci)
        chosen[layer] = Layer(kept, None if at % 3 == 0 else 1 + module.out_channels // 2)
    small = narrowed(model, chosen)
    changed = copy.deepcopy(model)
    for layer, left in chosen.items():
        changed.get_submodule(layer).weight.data.copy_(restored(layers[layer].weight.detach(), left))
    with torch.no_grad():
        expected, found = changed(x), small(x)
    assert float((found - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert macs(small, x[:1]) != macs(model, x[:1])


def test_what_is_saved_is_loaded_into_the_structure_of_the_plan():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    made = plan(model, batches, CC(removed=0.4))
    small = narrowed(model, made)
    text = json.dumps({name: asdict(layer) for name, layer in made.items()})
    fresh = narrowed(ConvNet((6, 8, 10)), json.loads(text)).eval()
    fresh.load_state_dict(copy.deepcopy(small.state_dict()))
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(fresh(x), small(x))
    assert report(model, small, x[:1], timed=False).after.parameters == parameters(small)


def test_gradients_are_the_mean_over_the_batches_in_evaluation_mode():
    model, name = lively(ConvNet((5, 6))).train(), "features.4"
    model.features[4].weight.requires_grad_(False)
    batches = some_batches(number=3)
    state = copy.deepcopy(model.state_dict())
    G = gradients(model, batches, [name])
    twin = copy.deepcopy(model).eval().requires_grad_(True)
    total = sum(nn.functional.cross_entropy(twin(x), y) for x, y in batches) / 3
    total.backward()
    torch.testing.assert_close(G[name], twin.get_submodule(name).weight.grad)
    assert model.training and all(torch.equal(state[key], value) for key, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters()) and not model.features[4].weight.requires_grad
    with torch.no_grad():  # also inside a block without gradients
        torch.testing.assert_close(gradients(model, batches, [name])[name], G[name])


@pytest.mark.parametrize("units", cc.UNITS)
@pytest.mark.parametrize("rule", cc.RULES)
def test_the_target_is_that_of_the_whole_network(units, rule):
    model, batches = lively(ResNetCIFAR(8, stages=(6, 8, 10))), some_batches(side=16)
    small = compress(model, batches, CC(removed=0.3, units=units, rule=rule))
    cut = 1 - macs(small, batches[0][0][:1]) / macs(model, batches[0][0][:1])
    assert 0.3 <= cut < 0.3 + 0.17
    assert small.conv1.weight.shape == model.conv1.weight.shape  # the stem and the classifier are not touched
    assert small.classifier.weight.shape == model.classifier.weight.shape


def test_a_budget_of_parameters():
    model, batches = lively(ConvNet((8, 10, 12))), some_batches()
    small = compress(model, batches, CC(removed=0.4, budget="params"))
    assert 0.4 <= 1 - parameters(small) / parameters(model) < 0.55
    norms = sum(p.numel() for m in model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    G = gradients(model, batches, ["features.4", "features.8"])
    shares = share_out(model, G, batches[0][0][:1], CC(removed=0.4, budget="params"))
    assert shares.work == {"features.4": 720, "features.8": 1080} and norms == 60
    assert sum(shares.share[name] * work for name, work in shares.work.items()) == pytest.approx(0.4 * parameters(model))


def test_layers_are_left_out():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    assert set(plan(model, batches, CC(removed=0.1, ignore=("features.4",)))) == {"features.8"}
    assert set(plan(model, batches, CC(removed=0.1, filter_fn=lambda name, module: module.in_channels == 6))) == {"features.4"}
    assert set(plan(model, batches, CC(removed=0.3, stem=True, linear=True))) <= {
        "features.0", "features.4", "features.8", "classifier"}
    found = plan(model, batches, CC(removed={"features.8": 0.5}))
    assert set(found) == {"features.8"}
    assert all(module.groups == 1 for module in compressible(NETS["mobilenet"][0](), torch.zeros(1, 3, 33, 33)).values())


def test_a_linear_layer_takes_part():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 10)).eval()
    batches = some_batches(side=2)
    small = compress(model, batches, CC(removed=0.5, linear=True))
    assert 0.5 <= 1 - macs(small, batches[0][0][:1]) / 440 < 0.6 and small(batches[0][0]).shape == (6, 10)


def test_a_target_of_nothing():
    model, batches = lively(ConvNet((6, 8))), some_batches()
    assert plan(model, batches, CC(removed=0.0)) == {}
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(compress(model, batches, CC(removed=0.0))(x), model(x))


def test_the_largest_target():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    example = batches[0][0][:1]
    layers = compressible(model, example)
    most = sum(caps(layers, CC())[name] * count(model, example)[name].macs for name in layers) / macs(model, example)
    small = compress(model, batches, CC(removed=most))
    assert 1 - macs(small, example) / macs(model, example) >= most - 1e-9
    with pytest.raises(ValueError, match=rf"removed {round(most + 0.01, 3)} is unreachable: the layers .* can give {most:.3g}"):
        compress(model, batches, CC(removed=round(most + 0.01, 3)))


def test_a_network_without_gradient_gets_uniform_shares():
    model, batches = lively(ConvNet((6, 8, 10))), some_batches()
    nn.init.zeros_(model.classifier.weight)
    G = gradients(model, batches, ["features.4", "features.8"])
    shares = share_out(model, G, batches[0][0][:1], CC(removed=0.3))
    assert shares.fits == {"features.4": None, "features.8": None}
    assert len({round(share, 9) for share in shares.share.values()}) == 1
    assert search_all(model, G, shares.share)


def test_a_layer_of_one_channel():
    model, batches = lively(ConvNet((1, 4, 4))), some_batches()
    small = compress(model, batches, CC(removed=0.2))
    assert small(batches[0][0]).shape == (6, 10)
    assert reachable(1, 1, 1) == 0 and reachable(4, 1, 9, "channels") == 0


def test_a_refused_call_leaves_the_network_as_it_was():
    model, batches = lively(ConvNet((4, 4, 4))), some_batches()
    model.train()
    state = copy.deepcopy(model.state_dict())
    for config in (CC(removed=0.99), CC(removed={"features.4": 0.94}), CC(ignore=("nothing",))):
        with pytest.raises(ValueError, match=r"unreachable|no layer of this network"):
            compress(model, batches, config)
    with torch.no_grad():
        model.features[4].weight[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="not finite"):
        compress(model, batches, CC(removed=0.2))
    model.features[4].weight.data.copy_(state["features.4.weight"])
    assert model.training and all(torch.equal(state[key], value) for key, value in model.state_dict().items())
