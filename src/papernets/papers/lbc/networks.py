"""The networks of LBC, and what they cost."""

import functools
from dataclasses import replace

from papernets.measure import count_of, size_of
from papernets.nn import DeiT, Network, Networks, ResNetBasic, ResNetImageNet
from papernets.papers.lbc.layers import LBC, sparsifiable
from papernets.papers.lbc.method import number, to_groups

_IMAGE = (3, 224, 224)
#: The stem and the classifier stay dense. DeiT trains for 300 epochs, and its removal ends at the 200th.
NETWORKS = Networks({
    "resnet18": Network(ResNetBasic, _IMAGE, LBC(ignore=("conv1", "classifier"))),
    "resnet50": Network(ResNetImageNet, _IMAGE, LBC(ignore=("conv1", "classifier"))),
    "deitsmall": Network(DeiT, _IMAGE, LBC(t_f=200, ignore=("patches", "classifier"))),
})


@functools.cache
def counts(name: str, N: int = 2, M: int = 4) -> dict[str, int]:
    """A network of the paper at N:M: ``params``, ``layers`` and ``weights`` under N:M, their ``scores``, ``nonzero`` parameters
    at the end, ``dense.macs``, those ``nm.macs`` of them that are of N:M layers, and ``macs`` at the end.
    """
    network, n = NETWORKS[name], number(N, M)
    costs, size = count_of(network.build, network.shape), size_of(network.build, network.shape)
    layers = sparsifiable(network.outline, replace(network.config, N=N, M=M))
    groups = {layer: len(to_groups(module.weight, M)) for layer, module in layers.items()}
    weights, inside = M * sum(groups.values()), sum(costs[layer].macs for layer in layers)
    kept = sum(costs[layer].macs // (M * groups[layer]) * N * groups[layer] for layer in layers)
    return {"params": size["params"], "layers": len(layers), "weights": weights, "scores": n * sum(groups.values()),
            "nonzero": size["params"] - weights + N * sum(groups.values()), "dense.macs": size["macs"], "nm.macs": inside,
            "macs": size["macs"] - inside + kept}
