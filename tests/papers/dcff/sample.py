"""How the tests over all papers apply this method, and what several tests of it look at."""

import math

import torch
from paper_checks import EXAMPLE, Sample
from torch import nn

from papernets.measure import count, parameters
from papernets.papers.dcff import DCFF, FusedConv2d, compact, fuse_
from papernets.papers.dcff.networks import NARROW, NETWORKS


def treat(model: nn.Module, config: DCFF) -> nn.Module:
    fuse_(model, config, EXAMPLE)
    return model.eval()


SAMPLE = Sample(config=DCFF, treat=treat, compact=lambda model: compact(model, EXAMPLE), options=dict(removed=0.5))


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
        made = NETWORKS[name]
        example = torch.zeros(1, *made.shape)
        return cost(NARROW[name](), example) + cost(made.build(), example)


def slow_distances(filters):
    return [[math.sqrt(sum((a - b) ** 2 for a, b in zip(one, other))) for other in filters] for one in filters]


def slow_log_proxy(D, T):
    rows = []
    for row in D:
        total = sum(math.exp(-T * d) for d in row)  # at least 1: the distance to itself is 0
        rows.append([-T * d - math.log(total) for d in row])
    return rows


def slow_importance(D, T):
    log_p, C = slow_log_proxy(D, T), len(D)
    scores = []
    for j in range(C):
        score = 0.0
        for k in range(C):
            for g in range(C):
                score += math.exp(log_p[j][g]) * (log_p[j][g] - log_p[k][g]) / C
        scores.append(score)
    return scores


def slow_fuse(filters, phi):
    width = len(filters[0])
    return [[sum(row[j] * filters[j][i] for j in range(len(filters))) for i in range(width)] for row in phi]
