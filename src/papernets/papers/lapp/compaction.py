"""The permanent form of a network under LAPP."""

import copy
from collections.abc import Mapping

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from papernets.measure import evaluating
from papernets.nn import conv_like, replace_, replaced, surgery
from papernets.papers.lapp.layers import LAPP, CompactConv2d, ThresholdConv2d, attach_, readers_of, units_of
from papernets.papers.lapp.method import runs


def with_filters(conv: nn.Conv2d, index: torch.Tensor) -> nn.Conv2d:
    """The convolution with only the filters of ``index`` (C',)."""
    narrow = conv_like(conv, outputs=len(index))
    narrow.load_state_dict({name: value[index] for name, value in conv.state_dict().items()})
    return narrow.train(conv.training)


def _narrow_norm(bn: nn.BatchNorm2d, index: torch.Tensor) -> nn.BatchNorm2d:
    """The batch norm with only the channels of ``index``."""
    narrow = copy.deepcopy(bn)
    narrow.num_features = len(index)
    for tensors in (narrow._parameters, narrow._buffers):
        for name, value in tensors.items():
            if value is not None and value.dim():
                value = value.detach()[index].clone()
                tensors[name] = nn.Parameter(value) if tensors is narrow._parameters else value
    return narrow


def _plain(model: nn.Module) -> nn.Module:
    """A copy without thresholds and bypasses, in which masked filters give 0."""
    plain = copy.deepcopy(model)
    for name, unit in units_of(plain).items():
        with torch.no_grad():
            if unit.bn.weight is None:
                raise ValueError(f"{unit.bn_name} has no scale, so that {name} cannot give 0; use affine=True")
            gone = unit.gate() == 0
            unit.bn.weight[gone] = 0
            unit.bn.bias[gone] = 0
        replace_(plain, {name: unit.conv, unit.bn_name: unit.bn})
    return plain


def _narrow_unit(name: str, unit: ThresholdConv2d) -> CompactConv2d:
    index = unit.kept()
    bypass, bn_bypass = copy.deepcopy((unit.bypass, unit.bn_bypass))
    return CompactConv2d(with_filters(unit.conv, index), _narrow_norm(unit.bn, index), bypass, bn_bypass, index,
                         unit.conv.out_channels, unit.bn_name)


def _compact(model: nn.Module, example: torch.Tensor | None) -> nn.Module:
    units = units_of(model)
    if all(unit.bypass is not None for unit in units.values()):
        return replaced(model, ThresholdConv2d, _narrow_unit)
    if example is None:
        raise ValueError("example is missing; without bypasses the channels are followed on one input of the network")
    index = {name: unit.kept() for name, unit in units.items()}
    small = _plain(model)
    alone = {name: rows for name, rows in index.items() if not units[name].joined}
    if alone:
        small = surgery.keep_filters(small, alone, example[:1])
    for name, rows in index.items():  # their outputs are added to others' and stay at full width
        bn, width = units[name].bn_name, len(units[name].mask)
        if name not in alone and len(rows) < width:
            conv, norm = with_filters(small.get_submodule(name), rows), _narrow_norm(small.get_submodule(bn), rows)
            replace_(small, {name: CompactConv2d(conv, norm, None, None, rows, width, bn), bn: nn.Identity()})
    return small


def compact(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """A new network with the same outputs, without the masked filters. ``example`` is an input; bypasses need none.

    With bypasses every pruned layer is a narrow convolution added into the bypass. Without them filters are removed with all
    that depends on them; those whose outputs are added to others' are put back into full width at run time. ``ValueError`` if
    no layer has a threshold, if an example is needed, or if the outputs for it are not the same.
    """
    if not units_of(model):
        raise ValueError("this network has no thresholds; call attach_ first")
    small = _compact(model, example)
    if example is not None and not _agree(model, small, example):
        raise ValueError("without its masked filters this network gives other outputs: what follows a filter that gives 0 "
                         "must give 0, as ReLU does; use a bypass")
    return small


def _agree(model: nn.Module, other: nn.Module, example: torch.Tensor) -> bool:
    """Whether both give the same outputs, up to rounding, for one random input like ``example``."""
    x = torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
    with evaluating(model), evaluating(other):
        y, z = model(x), other(x)
    return torch.allclose(y, z, rtol=1e-3, atol=1e-4 * float(y.abs().max()) + 1e-6)


def momenta_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The momentum of every parameter, by its name; 0 where there is none yet."""
    held = {name: optimizer.state.get(p, {}).get("momentum_buffer") for name, p in model.named_parameters()}
    return {name: torch.zeros_like(model.get_parameter(name)) if value is None else value for name, value in held.items()}


def slim(model: nn.Module, optimizer: torch.optim.Optimizer,
         example: torch.Tensor) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """``compact`` in the middle of a training: also the momentum of what is left, by the name of the new parameter.

    The momenta go the way of the weights: a copy of the network holds them in the place of its weights and is made compact.
    ``ValueError`` if a mask is not final.
    """
    moving, momenta = copy.deepcopy(model), momenta_of(model, optimizer)
    with torch.no_grad():
        for name, p in moving.named_parameters():
            p.copy_(momenta[name])
    for (name, unit), other in zip(units_of(model).items(), units_of(moving).values(), strict=True):
        if not unit.settled:
            raise ValueError(f"{name}: its mask is not final; call settle_ first")
        other.settle(unit.mask)
    return compact(model, example), {name: p.detach() for name, p in _compact(moving, example).named_parameters()}


def restore(model: nn.Module, state: Mapping[str, torch.Tensor], config: LAPP, example: torch.Tensor) -> nn.Module:
    """The compact network whose ``state`` was saved; ``model`` is the plain one that it was made from, and stays as it is."""
    gated = copy.deepcopy(model)
    attach_(gated, config, example)
    for name, unit in units_of(gated).items():
        rows = state.get(f"{name}.index")
        rows = torch.arange(len(state[f"{name}.weight"])) if rows is None else rows.cpu()
        unit.settle(torch.isin(torch.arange(len(unit.mask)), rows).to(unit.mask))
    small = compact(gated, example)
    small.load_state_dict(state)
    return small


def export(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The compact network as it is put to use: batch norms folded, and slices in the place of the index.

    Within each group of a bypass the kept filters come first, and the inputs of the layers that read them follow. So a layer
    needs at most as many slices as its bypass has groups. The order stays where outputs are added to others' or the bypass is
    depthwise; slices are then the runs of neighbours that there are. ``ValueError`` if no layer is compact, or if the outputs
    for the ``example`` are not the same.
    """
    made = copy.deepcopy(model).eval()
    units = {name: module for name, module in made.named_modules() if isinstance(module, CompactConv2d)}
    if not units:
        raise ValueError("this network has no compact layer; call compact first")
    twin = copy.deepcopy(model).eval()  # at full width, to see who reads what
    replace_(twin, {name: conv_like(unit.conv, outputs=unit.width) for name, unit in units.items()})
    for unit in units.values():
        unit.conv, unit.bn = fuse_conv_bn_eval(unit.conv, unit.bn), nn.Identity()
        if unit.bypass is not None:
            unit.bypass, unit.bn_bypass = fuse_conv_bn_eval(unit.bypass, unit.bn_bypass), nn.Identity()
    with torch.no_grad():
        for name, unit in units.items():
            order = _order(unit)
            readers = None if torch.equal(order, torch.arange(unit.width)) else readers_of(twin, name, example[:1])
            if readers and all(_can_follow(made.get_submodule(other), each, order) for other, each in readers.items()):
                _put_in_order(unit, order)
                for other in readers:
                    _read_in_order(made.get_submodule(other), order)
            unit.slices = runs(unit.index)
    if not _agree(model, made, example):
        raise ValueError("the reordered network gives other outputs; its channels cannot be followed")
    return made


def _order(unit: CompactConv2d) -> torch.Tensor:
    """(C,) the outputs with the kept ones first in each group of the bypass."""
    width = unit.width // (unit.bypass.groups if unit.bypass is not None else 1)
    here = torch.zeros(unit.width, dtype=torch.bool)
    here[unit.index.cpu()] = True
    return torch.cat([torch.cat([part[here[part]], part[~here[part]]]) for part in torch.arange(unit.width).split(width)])


def _can_follow(reader: nn.Module, each: int, order: torch.Tensor) -> bool:
    """Whether a layer can read its inputs in this order: each group of its bypass must keep its inputs."""
    if not each:
        return False  # depthwise: its own outputs would move, and what reads them
    if isinstance(reader, nn.Linear):
        return len(order) * each == reader.in_features
    conv = reader.conv if isinstance(reader, CompactConv2d) else reader
    if conv.in_channels != len(order) or conv.groups != 1:
        return False
    if isinstance(reader, CompactConv2d) and reader.bypass is not None:
        width = reader.bypass.in_channels // reader.bypass.groups
        return torch.equal(order // width, torch.arange(len(order)) // width)
    return True


def _put_in_order(unit: CompactConv2d, order: torch.Tensor) -> None:
    place = torch.argsort(order)  # where an output is now
    index = place[unit.index.cpu()]
    rows = torch.argsort(index)
    unit.index.copy_(index[rows])
    for tensor in (unit.conv.weight, unit.conv.bias):
        tensor.copy_(tensor[rows])
    if unit.bypass is not None:
        for tensor in (unit.bypass.weight, unit.bypass.bias):
            tensor.copy_(tensor[order])


def _read_in_order(reader: nn.Module, order: torch.Tensor) -> None:
    if isinstance(reader, nn.Linear):
        each = reader.in_features // len(order)
        reader.weight.copy_(reader.weight.view(len(reader.weight), len(order), each)[:, order].flatten(1))
        return
    conv = reader.conv if isinstance(reader, CompactConv2d) else reader
    conv.weight.copy_(conv.weight[:, order])
    if isinstance(reader, CompactConv2d) and reader.bypass is not None:
        bypass = reader.bypass
        width, rows = bypass.in_channels // bypass.groups, bypass.out_channels // bypass.groups
        for group, inside in enumerate(order.split(width)):
            part = bypass.weight[group * rows : (group + 1) * rows]
            part.copy_(part[:, inside - group * width])
