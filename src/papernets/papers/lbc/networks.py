"""The networks of LBC, and what they cost."""

import functools
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from papernets.measure import count, parameters
from papernets.nn import DeiT, ResNetBasic, ResNetImageNet
from papernets.papers.lbc.layers import LBC, sparsifiable
from papernets.papers.lbc.method import number, to_groups

NETWORKS: dict[str, Callable[[], nn.Module]] = {"resnet18": ResNetBasic, "resnet50": ResNetImageNet, "deitsmall": DeiT}


def network(name: str) -> Callable[[], nn.Module]:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


def _body(name: str, module: nn.Module) -> bool:
    """Everything between the stem and the classifier."""
    return name not in ("conv1", "patches", "classifier")


@functools.cache
def counts(name: str, N: int = 2, M: int = 4) -> dict[str, int]:
    """A network of the paper at N:M: ``params``, ``layers`` and ``weights`` under N:M, their ``scores``, ``nonzero`` parameters
    at the end, ``dense.macs``, those ``nm.macs`` of them that are of N:M layers, and ``macs`` at the end.
    """
    n = number(N, M)
    with torch.device("meta"):
        model = network(name)()
        costs = count(model, torch.empty(1, 3, 224, 224))
    layers = sparsifiable(model, LBC(N, M, filter_fn=_body))
    groups = {layer: len(to_groups(module.weight, M)) for layer, module in layers.items()}
    weights, whole = M * sum(groups.values()), sum(cost.macs for cost in costs.values())
    inside = sum(costs[layer].macs for layer in layers)
    kept = sum(costs[layer].macs // (M * groups[layer]) * N * groups[layer] for layer in layers)
    return {"params": parameters(model), "layers": len(layers), "weights": weights, "scores": n * sum(groups.values()),
            "nonzero": parameters(model) - weights + N * sum(groups.values()), "dense.macs": whole, "nm.macs": inside,
            "macs": whole - inside + kept}


class SmallMLP(nn.Module):
    """Two hidden layers for 8×8 digits."""

    def __init__(self, inputs: int = 64, hidden: int = 64, classes: int = 10):
        super().__init__()
        self.fc1, self.fc2, self.classifier = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))
