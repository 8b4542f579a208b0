"""What several tests of Dynamic-coded filter fusion look at."""

import torch
from torch import nn

from papernets.measure import count, parameters
from papernets.papers.dcff import FusedConv2d
from papernets.papers.dcff.networks import network


def wide(C=7, c=3, k=3, seed=0, bias=True, m=3, dtype=torch.float32):
    """A fused layer of odd sizes."""
    torch.manual_seed(seed)
    return FusedConv2d(nn.Conv2d(c, m, k, padding=k // 2, bias=bias, dtype=dtype), C)


def snapshot(model):
    return ([(name, type(module), module.training, repr(module)) for name, module in model.named_modules()],
            {key: value.clone() for key, value in model.state_dict().items()},
            {name: p.requires_grad for name, p in model.named_parameters()}, list(map(id, model.parameters())))


def same(model, before):
    after = snapshot(model)
    assert after[0] == before[0]
    assert list(after[1]) == list(before[1])
    for key, value in after[1].items():
        torch.testing.assert_close(value, before[1][key], rtol=0, atol=0, equal_nan=True)
    assert after[2:] == before[2:]


#: MACs without pooling and with it (thop's convention), parameters: of the narrow network, then of the dense one.
COUNTS = {
    "vgg16": (72_771_880, 72_772_032, 1_071_248, 314_031_104, 314_032_128, 14_728_266),
    "resnet56": (55_831_680, 55_835_840, 384_316, 126_550_656, 126_554_816, 853_018),
    "resnet110": (85_295_488, 85_297_568, 555_368, 254_984_832, 254_988_992, 1_727_962),
    "googlenet": (457_214_400, 457_223_616, 2_079_250, 1_529_420_800, 1_529_430_016, 6_166_250),
    "resnet50-b": (1_490_503_882, 1_490_585_782, 10_581_581, 4_111_412_224, 4_111_514_624, 25_557_032),
}


def cost(model, example):
    """MACs without and with the pooling layers, and parameters."""
    layers, modules = count(model, example, "thop"), dict(model.named_modules())
    pooled = sum(layer.macs for name, layer in layers.items() if "Pool" in type(modules[name]).__name__)
    total = sum(layer.macs for layer in layers.values())
    return total - pooled, total, parameters(model)


def costs(name):
    with torch.device("meta"):
        chosen = network(name)
        example = torch.zeros(chosen.example)
        return cost(chosen.narrow(), example) + cost(chosen.dense(), example)
