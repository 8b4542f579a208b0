"""What running a network on an example shows of it."""

import functools
from collections import Counter
from dataclasses import dataclass

import torch
from torch import nn

from papernets.measure import evaluating

_LAYERS, _NORMS = (nn.Conv2d, nn.Linear), (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class Flow:
    """By name: the batch norms that read the output of a layer, the layers that read the input, and how often each ran."""

    norms: dict[str, list[str]]
    first: set[str]
    calls: Counter


def flow(model: nn.Module, example: torch.Tensor) -> Flow:
    """Run ``example`` through ``model`` in evaluation mode, without gradients, and note what reads what.

    Layers are convolutions and linear ones. The modes of the modules are left as they were.
    """
    made: dict[int, str] = {}
    found, alive = Flow({}, set(), Counter()), []

    def hook(name: str, module: nn.Module, inputs, output) -> None:
        found.calls[name] += 1
        if isinstance(module, _LAYERS):
            made[id(output)] = name
            alive.append(output)  # held, so that its id is its own
            if inputs[0] is example:
                found.first.add(name)
        elif id(inputs[0]) in made:
            found.norms.setdefault(made[id(inputs[0])], []).append(name)

    handles = [module.register_forward_hook(functools.partial(hook, name)) for name, module in model.named_modules()
               if isinstance(module, _LAYERS + _NORMS)]
    try:
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found
