"""Removing filters from a network, and with them every channel that depends on them.

The dependencies (residual additions, concatenation, depthwise convolution, flattening before a linear layer) are followed
by torch-pruning; which filters go is the papers' business.
"""

import copy
import warnings
from collections.abc import Mapping

import torch
from torch import nn

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch_pruning as tp


def keep_filters(model: nn.Module, kept: Mapping[str, torch.Tensor], example: torch.Tensor) -> nn.Module:
    """A copy of ``model`` in which each convolution named in ``kept`` has only the filters listed there (m indices).

    Convolutions whose outputs are added together lose the same filters, so their lists must agree. ``ValueError`` if they
    do not, if a list is empty or out of range, or if the network's own outputs would lose channels.
    """
    modules = dict(model.named_modules())
    for name, indices in kept.items():
        module = modules.get(name)
        if not isinstance(module, nn.Conv2d):
            raise ValueError(f"{name!r} is no convolution of this network")
        width = module.out_channels
        listed = torch.as_tensor(indices).tolist()
        if not listed or min(listed) < 0 or max(listed) >= width or len(set(listed)) < len(listed):
            raise ValueError(f"{name}: the kept filters must be distinct and from 0 to {width - 1}, and at least one")
    model = copy.deepcopy(model)
    modes = {name: module.training for name, module in model.named_modules()}
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    model.eval()
    for p in model.parameters():
        p.requires_grad_(True)  # dependencies are traced through the gradient graph
    shape = _shapes(model(example))
    names = {module: name for name, module in model.named_modules()}
    done: set[str] = set()
    for name, indices in kept.items():
        if name in done:
            continue
        module = model.get_submodule(name)
        graph = tp.DependencyGraph().build_dependency(model, example_inputs=example)
        coupled = _coupled(graph, module, names)
        for other in coupled:
            if other not in kept or not torch.equal(torch.as_tensor(kept[other]), torch.as_tensor(indices)):
                have = len(kept[other]) if other in kept else model.get_submodule(other).out_channels
                raise ValueError(f"{name} and {other} are added together and must keep the same filters; "
                                 f"they keep {len(indices)} and {have}")
        done.update(coupled)
        gone = sorted(set(range(module.out_channels)) - set(torch.as_tensor(indices).tolist()))
        if gone:
            group = graph.get_pruning_group(module, tp.prune_conv_out_channels, gone)
            if not graph.check_pruning_group(group):
                raise ValueError(f"{name}: removing {len(gone)} filters would leave a layer without channels")
            group.prune()
    with torch.no_grad():
        if _shapes(model(example)) != shape:
            raise ValueError("the network's own outputs would lose channels; leave its last convolution out")
    for name, module in model.named_modules():
        module.training = modes[name]
    for name, p in model.named_parameters():
        p.requires_grad_(name not in frozen)
    return model


def _coupled(graph, module: nn.Conv2d, names: Mapping[nn.Module, str]) -> list[str]:
    """Names of the ungrouped convolutions that lose their own filters when ``module`` does, itself included."""
    group = graph.get_pruning_group(module, tp.prune_conv_out_channels, [0])
    found = []
    for dependency, _ in group:
        target = dependency.target.module
        if isinstance(target, nn.Conv2d) and target in names and graph.is_out_channel_pruning_fn(dependency.handler):
            if target.groups not in (1, target.out_channels):
                raise ValueError(f"{names[target]} has {target.groups} groups and follows {names[module]}; "
                                 "grouped convolutions other than depthwise are not supported: leave both out")
            if target.groups == 1 and names[target] not in found:
                found.append(names[target])
    return found


def _shapes(outputs) -> list[tuple[int, ...]]:
    if isinstance(outputs, torch.Tensor):
        return [tuple(outputs.shape)]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [shape for value in values for shape in _shapes(value)]
