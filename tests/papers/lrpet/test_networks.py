"""LRPET: the networks and their counts."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from papernets.measure import macs, parameters
from papernets.nn import FasterRCNN, PSPNet
from papernets.papers.lrpet import LRPET, compact, project_, ranks
from papernets.papers.lrpet.networks import (
    CONFIGS,
    FRCNN_CONFIG,
    NETWORKS,
    PSP_CONFIG,
    RANKS_50,
    RANKS_56,
    VIT_CONFIG,
    PlainNet,
    backbone_cut,
    counts,
    vit,
    vit_counts,
)
from papernets.training import seed_everything

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(("name", "which"), [("resnet56", "q80"), ("resnet56", "s"), ("googlenet", "q65")])
def test_counts_against_a_network_that_was_factorised(name, which):
    made, config = NETWORKS[name], CONFIGS[name][which]
    model = made.build().eval()
    project_(model, config, made.example)
    pairs, expected = compact(model), counts(name, config)
    assert macs(pairs, made.example) == expected["macs"]
    normal = sum(p.numel() for module in model.modules() if isinstance(module, nn.BatchNorm2d) for p in module.parameters())
    assert parameters(pairs) - normal == expected["params"]


def test_no_share_gives_what_is_printed_for_resnet56():
    """The ranks of stage three fall at 35/64; 51.0 % lies between what is before and after."""
    cuts = {q: counts("resnet56", LRPET(removed=q))["flops"] for q in (0.532, 0.54, 35 / 64, 0.5470, 0.5525)}
    assert cuts[0.532] == cuts[0.54] == cuts[35 / 64] == pytest.approx(50.65, abs=0.005)
    assert cuts[0.5470] == pytest.approx(51.22, abs=0.005)


def test_searched_ranks_have_one_for_each_convolution():
    assert len(RANKS_56) == 55 and len(RANKS_50) == 53


def test_the_printed_counts_of_the_vision_transformer():
    """All four to the printed digits: the full network with 10 classes, the compact one with 100."""
    printed = [f"{value / 1e6:.2f}" for value in (vit_counts(10)["macs"], vit_counts(100, VIT_CONFIG)["macs"],
                                                  vit_counts(10)["params"], vit_counts(100, VIT_CONFIG)["params"])]
    assert printed == ["174.25", "126.42", "2.69", "1.97"]
    # and by no other share, nor with the classes the other way round
    assert [q for q in range(66, 76) if f"{vit_counts(100, replace(VIT_CONFIG, removed=q / 100))['macs'] / 1e6:.2f}"
            == "126.42"] == [70]
    assert f"{vit_counts(100)['params'] / 1e6:.2f}" == "2.71" and f"{vit_counts(10, VIT_CONFIG)['params'] / 1e6:.2f}" == "1.96"


def test_counts_of_the_vision_transformer_against_the_network():
    """Layer by layer: the rules of the profiler on what really runs."""
    seed_everything(0)
    model, x, found = vit(10).eval(), torch.randn(1, 3, 32, 32), 0
    project_(model, VIT_CONFIG)
    pairs = compact(model)

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


def test_its_first_weights_are_as_large_as_those_of_the_code():
    """Xavier, normal: variance 2 / (inputs + outputs), for the patches as well; places and token of variance 1."""
    seed_everything(0)
    model = vit(100)
    for layer, sides in ((model.patches, 48 + 192), (model.blocks[3].fc1, 192 + 384), (model.blocks[3].attn.qkv, 192 + 576)):
        assert float(layer.weight.detach().var()) == pytest.approx(2 / sides, rel=0.05)
    assert float(model.places.detach().std()) == pytest.approx(1, rel=0.05)


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


@pytest.mark.parametrize(("call", "message"), [
    (lambda: PlainNet(3), "depth is 3; it is an even number"),
    (lambda: NETWORKS["vgg"], "network is 'vgg'; choose from resnet56, resnet110, googlenet, resnet34, resnet50"),
    (lambda: counts("vgg", LRPET()), "network is 'vgg'")])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()
