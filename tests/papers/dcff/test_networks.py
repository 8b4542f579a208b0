"""Dynamic-coded filter fusion: the networks and their counts."""

import math

import pytest
import torch
from papers.dcff.sample import COUNTS, costs
from torch import nn

from papernets.measure import parameters
from papernets.nn import GOOGLENET_WIDTHS, VGG, VGG16_WIDTHS
from papernets.papers.dcff import (
    FusedConv2d,
    compact,
    distances,
    kept_width,
    proxy,
)
from papernets.papers.dcff.networks import FANS, NARROW, NETWORKS, counts, fused

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_module(name):
    """The module's own function counts the pooling layers in, as the profiler does."""
    _, macs, stored, _, dense, dense_stored = COUNTS[name]
    found = counts(name)
    assert (found["macs"], found["params"]) == (macs, stored)
    assert found["macs_cut"] == pytest.approx(100 * (dense - macs) / dense, rel=1e-12)
    assert found["params_cut"] == pytest.approx(100 * (dense_stored - stored) / dense_stored, rel=1e-12)


def test_parameters_of_the_vgg_export_by_formula():
    m = [32, 32, 76, 76, 166, 166, 166, *[76] * 6]
    assert [kept_width(C, r) for C, r in zip(VGG16_WIDTHS, [0.5] * 2 + [0.4] * 2 + [0.35] * 3 + [0.85] * 6)] == m
    assert sum(9 * a * b + 3 * b for a, b in zip([3, *m], m)) + 76 * 10 + 10 == 1071248
    with torch.device("meta"):
        assert parameters(VGG(m)) == 1071248


#: Per cent of MACs (pooling left out) and of parameters removed.
CUTS = {"vgg16": (76.83, 92.73), "resnet56": (55.88, 54.95), "resnet110": (66.55, 67.86), "googlenet": (70.105, 66.28),
        "resnet50-a": (76.697, 71.032), "resnet50-b": (63.75, 58.596), "resnet50-c": (45.304, 40.668),
        "resnet50-d": (62.958, 56.774), "resnet50-e": (66.413, 53.774), "resnet50-f": (75.112, 74.329)}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_to_the_last_digit(name):
    assert costs(name) == COUNTS[name]


@pytest.mark.parametrize("name", CUTS)
def test_cuts(name):
    plain, _, stored, dense, _, dense_stored = costs(name)
    found = 100 * (1 - plain / dense), 100 * (1 - stored / dense_stored)
    for value, stated in zip(found, CUTS[name]):
        digits_given = len(str(stated).partition(".")[2])
        assert round(value, digits_given) == stated


def test_printed_counts_of_the_resnets():
    printed = {"a": (0.96e9, 7.40e6), "b": (1.49e9, 10.58e6), "c": (2.25e9, 15.16e6), "d": (1.52e9, 11.05e6),
               "e": (1.38e9, 11.81e6), "f": (1.02e9, 6.56e6)}
    for key, (macs, stored) in printed.items():
        found = costs(f"resnet50-{key}")
        assert found[0] == pytest.approx(macs, abs=5e6)
        assert found[2] == pytest.approx(stored, abs=5e3)


def test_widths_of_the_googlenet():
    widths = {"a3": (19, 3, 6), "b3": (12, 3, 9), "a4": (9, 1, 4), "b4": (11, 2, 6), "c4": (25, 4, 12),
              "d4": (28, 6, 12), "e4": (31, 6, 25), "a5": (15, 3, 12), "b5": (19, 4, 12)}
    with torch.device("meta"):
        model = NARROW["googlenet"]()
    for unit, found in widths.items():
        dense = GOOGLENET_WIDTHS[unit]
        convs = [m.out_channels for m in model.get_submodule(unit).modules() if isinstance(m, nn.Conv2d)]
        assert convs == [dense[0], found[0], dense[2], found[1], found[2], dense[5], dense[6]]


def test_unknown_network_is_refused():
    for call in (counts, fused):
        with pytest.raises(ValueError, match=r"network is 'vgg19'; choose from vgg16, resnet56"):
            call("vgg19")


@pytest.mark.parametrize("name", ["resnet56", "vgg16", "resnet50-f"])
def test_network_is_ready_to_train(name):
    torch.manual_seed(2)
    model = fused(name)
    for key, layer in model.named_modules():
        if isinstance(layer, FusedConv2d) and len(layer.weight) <= 128:
            D = distances(layer.weight)  # the blend belongs to the weights as they were initialised in the end
            torch.testing.assert_close(layer.phi, proxy(D, 1.0)[layer.kept].float())
        if isinstance(layer, FusedConv2d) and layer.weight.numel() > 3000:
            fan_out = len(layer.weight) * layer.weight[0, 0].numel()
            std = {"fan_in": math.sqrt(2 / layer.weight[0].numel()), "fan_out": math.sqrt(2 / fan_out),
                   "default": 1 / math.sqrt(3 * layer.weight[0].numel())}[FANS.get(name, "default")]
            assert layer.weight.std().item() == pytest.approx(std, rel=0.08), key
    exported = compact(model)
    with torch.device("meta"):
        assert parameters(exported) == parameters(NARROW[name]())
    if name != "resnet50-f":
        x = torch.randn(2, *NETWORKS[name].shape)
        model.eval()
        assert model(x).shape == (2, 10)
        assert (exported.eval()(x) - model(x)).abs().max() < 1e-5
