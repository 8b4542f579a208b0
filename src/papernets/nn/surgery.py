"""Removing or reordering filters of a network, and with them every channel that depends on them.

The dependencies (residual additions, concatenation, depthwise convolution, flattening before a linear layer) are followed
by torch-pruning; which filters go is the papers' business. Nothing is taken on trust: after every step the narrow network
is compared with the one before it in which the same filters were silenced.
"""

import copy
import functools
import itertools
import warnings
from collections.abc import Mapping

import torch
from torch import nn
from torch.func import functional_call

#: Layers that mix channels in a way that silencing does not undo; behind them only shapes can be compared.
_MIXING = (nn.LayerNorm, nn.GroupNorm, nn.LocalResponseNorm, nn.Softmax, nn.LogSoftmax, nn.MultiheadAttention)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@functools.cache
def _torch_pruning():
    """The library, imported when it is first used: that takes seconds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch_pruning
    return torch_pruning


def keep_filters(model: nn.Module, kept: Mapping[str, torch.Tensor], example: torch.Tensor) -> nn.Module:
    """A copy of ``model`` in which each convolution named in ``kept`` has only the filters listed there (m indices).

    Convolutions whose outputs are added together lose the same filters, so their lists must agree. ``ValueError`` if they
    do not, if a list is empty or out of range, if the network's own outputs would lose channels, or if the channels
    cannot be followed.
    """
    kept = {name: torch.as_tensor(indices) for name, indices in kept.items()}
    modules = dict(model.named_modules())
    for name, indices in kept.items():
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ValueError(f"{name!r} is no convolution of this network")
        listed, width = indices.tolist(), modules[name].out_channels
        if not listed or min(listed) < 0 or max(listed) >= width or len(set(listed)) < len(listed):
            raise ValueError(f"{name}: the kept filters must be distinct and from 0 to {width - 1}, and at least one")
    watched = _Watched(copy.deepcopy(model), example)
    for p in watched.parameters():
        p.requires_grad_(True)  # dependencies are traced through the gradient graph
    watched.eval()
    with torch.enable_grad():
        shape = _shapes(watched(example))
        done: set[str] = set()
        for name, indices in kept.items():
            if name not in done:
                done.update(_keep(watched, name, indices, kept, example))
        if _shapes(watched(example)) != shape:
            raise ValueError("the network's own outputs would lose channels; leave its last convolution out")
    narrow = watched.model
    for name, module in model.named_modules():
        narrow.get_submodule(name).training = module.training
    for name, p in model.named_parameters():
        narrow.get_parameter(name).requires_grad_(p.requires_grad).grad = None
    return narrow


def permute_filters(model: nn.Module, orders: Mapping[str, torch.Tensor], example: torch.Tensor,
                    strict: bool = True) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A copy of ``model`` in which each convolution named in ``orders`` has its filters in the order given (C indices).

    All that depends on them follows: bias, batch norm, depthwise convolutions, the inputs of the next layers, and convolutions
    whose outputs are added to or multiplied with theirs. The network computes the same. Also returned are the orders of all
    convolutions that were changed. ``ValueError`` if a list does not hold every filter once, if two that must be ordered alike
    are not, or if the channels cannot be followed; without ``strict``, the first of the two counts, and what cannot be
    followed stays as it is.
    """
    orders = {name: torch.as_tensor(order) for name, order in orders.items()}
    modules = dict(model.named_modules())
    for name, order in orders.items():
        if not isinstance(modules.get(name), nn.Conv2d):
            raise ValueError(f"{name!r} is no convolution of this network")
        if sorted(order.tolist()) != list(range(modules[name].out_channels)):
            raise ValueError(f"{name}: an order holds each filter from 0 to {modules[name].out_channels - 1} once")
    watched = _Watched(copy.deepcopy(model), example)
    for p in watched.parameters():
        p.requires_grad_(True)
    watched.eval()
    with torch.enable_grad():
        graph = _torch_pruning().DependencyGraph().build_dependency(watched, example_inputs=example)
    expected, done = _outputs(watched, example), {}
    for name, order in orders.items():
        if name not in done:
            state = copy.deepcopy(watched.state_dict())
            try:
                joined = _reorder(watched, graph, name, order, orders if strict else done)
                if not _equal(expected, _outputs(watched, example)):
                    raise ValueError(f"{name}: its channels cannot be followed through this network; leave it out")
                done |= dict.fromkeys(joined, order)
            except ValueError:
                if strict:
                    raise
                watched.load_state_dict(state)
    found = watched.model
    for name, module in model.named_modules():
        found.get_submodule(name).training = module.training
    for name, p in model.named_parameters():
        found.get_parameter(name).requires_grad_(p.requires_grad).grad = None
    return found, done


def _permute(target: nn.Module, places: torch.Tensor, order: torch.Tensor, own: bool) -> None:
    """Put the channels of ``target`` at ``places`` into ``order``; a channel may be several places (a flattened image)."""
    if not list(target.parameters(recurse=False)) and not list(target.buffers(recurse=False)):
        return
    each = places.view(len(order), -1)  # (C, places of a channel)
    source, sink = each[order].flatten(), each.flatten()
    with torch.no_grad():
        if own or isinstance(target, _NORMS):
            tensors = [*target.parameters(recurse=False), *target.buffers(recurse=False)]
            for tensor in tensors:
                if tensor.dim() and len(tensor) > int(sink.max()):
                    tensor[sink] = tensor[source].clone()
        elif isinstance(target, nn.Conv2d) and target.groups > 1:
            pass  # depthwise: its own channels are in the group, too
        else:
            target.weight[:, sink] = target.weight[:, source].clone()


class _Watched(nn.Module):
    """The network behind a convolution that changes nothing, so that the channels of the input are followed, too."""

    def __init__(self, model: nn.Module, example: torch.Tensor):
        super().__init__()
        self.model = model
        self.input = nn.Identity()
        if isinstance(example, torch.Tensor) and example.dim() == 4 and example.is_floating_point():
            channels = example.shape[1]
            self.input = nn.Conv2d(channels, channels, 1, bias=False, device=example.device, dtype=example.dtype)
            with torch.no_grad():
                self.input.weight.copy_(torch.eye(channels)[:, :, None, None])

    def forward(self, x):
        return self.model(self.input(x))


def _reorder(watched: _Watched, graph, name: str, order: torch.Tensor, orders: Mapping[str, torch.Tensor]) -> list[str]:
    """Reorder the filters of one convolution and all that goes with them; returns the convolutions that were reordered."""
    names = {module: name for name, module in watched.model.named_modules()}
    module, joined = watched.model.get_submodule(name), []
    group = graph.get_pruning_group(module, _torch_pruning().prune_conv_out_channels, list(range(module.out_channels)))
    for dependency, _ in group:
        target = dependency.target.module
        if target is watched.input:
            raise ValueError(f"{name} is added to the network's input and cannot be reordered; leave it out")
        if isinstance(target, nn.Conv2d) and graph.is_out_channel_pruning_fn(dependency.handler):
            if not torch.equal(orders.get(names[target], order), order):
                raise ValueError(f"{name} and {names[target]} are joined and must be in the same order")
            if 1 < target.groups < target.in_channels:
                raise ValueError(f"{names[target]} has {target.groups} groups and belongs to {name}; leave it out")
            joined.append(names[target])
    try:
        for dependency, places in group:
            own = graph.is_out_channel_pruning_fn(dependency.handler)
            _permute(dependency.target.module, torch.as_tensor(places), order, own)
    except (RuntimeError, IndexError):
        raise ValueError(f"{name}: its channels cannot be followed through this network; leave it out") from None
    return joined


def _keep(watched: _Watched, name: str, indices: torch.Tensor, kept: Mapping[str, torch.Tensor], example) -> list[str]:
    """Remove the filters of one convolution and all that goes with them; returns the convolutions that were narrowed."""
    names = {module: name for name, module in watched.model.named_modules()}
    module = watched.model.get_submodule(name)
    graph = _torch_pruning().DependencyGraph().build_dependency(watched, example_inputs=example)
    gone = sorted(set(range(module.out_channels)) - set(indices.tolist()))
    group = graph.get_pruning_group(module, _torch_pruning().prune_conv_out_channels, gone or [0])
    # a layer of one channel that is spread over all of them (a mask) has nothing to lose
    group._group = [item for item in group._group
                    if module.out_channels == 1 or _channels(graph, item[0]) != 1]
    narrowed = []
    for dependency, _ in group:
        target = dependency.target.module
        if not isinstance(target, nn.Conv2d):
            continue
        own = graph.is_out_channel_pruning_fn(dependency.handler)
        if target.groups > 1 and not target.groups == target.in_channels == target.out_channels:
            raise ValueError(f"{names[target]} has {target.groups} groups and belongs to {name}; grouped convolutions other "
                             "than plain depthwise are not supported: leave both out")
        if not own or target in [watched.model.get_submodule(n) for n in narrowed]:
            continue
        if target is watched.input:
            raise ValueError(f"{name} is added to the network's input and cannot lose filters; leave it out")
        other = names[target]
        if target.groups > 1 and other not in kept:  # a depthwise convolution follows its input
            continue
        if other not in kept or not torch.equal(kept[other], indices):
            have = len(kept[other]) if other in kept else target.out_channels
            raise ValueError(f"{name} and {other} are added together and must keep the same filters; "
                             f"they keep {len(indices)} and {have}")
        narrowed.append(other)
    if not gone:
        return narrowed
    if not graph.check_pruning_group(group):
        raise ValueError(f"{name}: removing {len(gone)} filters would leave a layer without channels")
    silenced = copy.deepcopy(watched)
    _silence(silenced, watched, graph, group)
    try:
        group.prune()
        followed = all(watched.model.get_submodule(other).out_channels == len(indices) for other in narrowed)
        followed = followed and _equal(_outputs(silenced, example), _outputs(watched, example))
    except (RuntimeError, IndexError) as error:
        raise ValueError(f"{name}: its channels cannot be followed through this network "
                         f"({str(error).splitlines()[0]}); leave it out") from None
    if not followed:
        raise ValueError(f"{name}: its channels cannot be followed through this network; leave it out")
    return narrowed


def _channels(graph, dependency) -> int | None:
    """How many channels the layer behind a dependency has on the side that would be narrowed."""
    target = dependency.target.module
    if graph.is_out_channel_pruning_fn(dependency.handler):
        return getattr(target, "out_channels", None) or getattr(target, "num_features", None)
    return None


def _silence(silenced: nn.Module, original: nn.Module, graph, group) -> None:
    """Set to zero in ``silenced`` whatever ``group`` would remove from ``original``."""
    names = {module: name for name, module in original.named_modules()}
    for dependency, indices in group:
        target = dependency.target.module
        if target not in names or not indices:
            continue
        twin = silenced.get_submodule(names[target])
        with torch.no_grad():
            if isinstance(twin, nn.Conv2d | nn.Linear) and not graph.is_out_channel_pruning_fn(dependency.handler):
                twin.weight[:, indices] = 0
            elif isinstance(twin, nn.Conv2d | nn.Linear) or isinstance(twin, _NORMS):
                for p in (twin.weight, twin.bias):
                    if p is not None:
                        p[indices] = 0
                if isinstance(twin, _NORMS) and twin.weight is None:
                    twin.running_mean[indices] = 0


def _outputs(model: nn.Module, example) -> list[torch.Tensor] | None:
    """What ``model`` gives in double precision for random inputs like ``example``; ``None`` if a layer mixes the channels."""
    if any(isinstance(module, _MIXING) for module in model.modules()):
        return None
    tensors = dict(itertools.chain(model.named_parameters(), model.named_buffers()))
    doubled = {name: value.double() if value.is_floating_point() else value.clone() for name, value in tensors.items()}
    with torch.no_grad():
        x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0)).to(example)
        return _tensors(functional_call(model, doubled, x.double()))


def _equal(one: list[torch.Tensor] | None, other: list[torch.Tensor] | None) -> bool:
    """Whether two networks gave the same ``_outputs``, up to rounding; those that cannot be compared count as the same."""
    return one is None or other is None or all(
        a.shape != b.shape or torch.allclose(a, b, rtol=1e-6, atol=1e-9 + 1e-6 * float(a.abs().max()))
        for a, b in zip(one, other))


def _tensors(outputs) -> list[torch.Tensor]:
    if isinstance(outputs, torch.Tensor):
        return [outputs]
    values = outputs.values() if isinstance(outputs, Mapping) else outputs
    return [tensor for value in values for tensor in _tensors(value)]


def _shapes(outputs) -> list[tuple[int, ...]]:
    return [tuple(tensor.shape) for tensor in _tensors(outputs)]
