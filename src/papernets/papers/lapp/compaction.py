"""The permanent form of a network under LAPP, and its training."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import nn
from torch.nn.utils import fuse_conv_bn_eval

from papernets.nn import surgery
from papernets.papers.lapp.layers import (
    LAPP,
    CompactConv2d,
    _readers,
    _units,
    attach_,
    kept,
    objective,
    optimiser,
    remaining,
    settle_,
    settled,
    uniform_,
)
from papernets.papers.lapp.method import Flops, runs
from papernets.training import Schedule, accuracy, cosine, fit, seed_everything


def _narrow(conv: nn.Conv2d, index: torch.Tensor) -> nn.Conv2d:
    """The convolution with only the filters of ``index``."""
    found = nn.Conv2d(conv.in_channels, len(index), conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                      bias=conv.bias is not None, padding_mode=conv.padding_mode, device=conv.weight.device,
                      dtype=conv.weight.dtype)
    found.load_state_dict({name: value[index] for name, value in conv.state_dict().items()})
    return found.train(conv.training)


def _narrow_norm(bn: nn.BatchNorm2d, index: torch.Tensor) -> nn.BatchNorm2d:
    found = copy.deepcopy(bn)
    found.num_features = len(index)
    for tensors in (found._parameters, found._buffers):
        for name, value in tensors.items():
            if value is not None and value.dim():
                value = value.detach()[index].clone()
                tensors[name] = nn.Parameter(value) if tensors is found._parameters else value
    return found


def _plain(model: nn.Module) -> nn.Module:
    """A copy without thresholds and bypasses, in which masked filters give 0."""
    plain = copy.deepcopy(model)
    for name, unit in _units(plain).items():
        with torch.no_grad():
            if unit.bn.weight is None:
                raise ValueError(f"{unit.bn_name} has no scale, so that {name} cannot give 0; use affine=True")
            gone = unit.gate() == 0
            unit.bn.weight[gone] = 0
            unit.bn.bias[gone] = 0
        plain.set_submodule(name, unit.conv)
        plain.set_submodule(unit.bn_name, unit.bn)
    return plain


def _compact(model: nn.Module, example: torch.Tensor | None) -> nn.Module:
    units = _units(model)
    index = {name: unit.kept() for name, unit in units.items()}
    if all(unit.bypass is not None for unit in units.values()):
        found = copy.deepcopy(model)
        for name, unit in _units(found).items():
            conv, bn = _narrow(unit.conv, index[name]), _narrow_norm(unit.bn, index[name])
            width = unit.conv.out_channels
            found.set_submodule(name, CompactConv2d(conv, bn, unit.bypass, unit.bn_bypass, index[name], width, unit.bn_name)
                                .train(unit.training))
        return found
    if example is None:
        raise ValueError("example is missing; without bypasses the channels are followed on one input of the network")
    found = _plain(model)
    removed = {name: rows for name, rows in index.items() if not units[name].joined}
    if removed:
        found = surgery.keep_filters(found, removed, example[:1])
    for name, rows in index.items():  # their outputs are added to others' and stay at full width
        bn = units[name].bn_name
        if name not in removed and len(rows) < len(units[name].mask):
            conv, norm = found.get_submodule(name), found.get_submodule(bn)
            found.set_submodule(name, CompactConv2d(_narrow(conv, rows), _narrow_norm(norm, rows), None, None, rows,
                                                    len(units[name].mask), bn).train(units[name].training))
            found.set_submodule(bn, nn.Identity())
    return found


def compact(model: nn.Module, example: torch.Tensor | None = None) -> nn.Module:
    """A new network with the same outputs, without the masked filters. ``example`` is an input; bypasses need none.

    With bypasses every pruned layer is a narrow convolution added into the bypass. Without them filters are removed with all
    that depends on them; those whose outputs are added to others' are put back into full width at run time.
    """
    if not _units(model):
        raise ValueError("this network has no thresholds; call attach_ first")
    found = _compact(model, example)
    if example is not None:
        modes = [(module, module.training) for each in (model, found) for module in each.modules()]
        with torch.no_grad():
            x = torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
            one, other = model.eval()(x), found.eval()(x)
        for module, mode in modes:
            module.training = mode
        if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6):
            raise ValueError("without its masked filters this network gives other outputs: what follows a filter that gives 0 "
                             "must give 0, as ReLU does; use a bypass")
    return found


def _momenta(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    found = {name: optimizer.state.get(p, {}).get("momentum_buffer") for name, p in model.named_parameters()}
    return {name: torch.zeros_like(model.get_parameter(name)) if value is None else value for name, value in found.items()}


def slim(model: nn.Module, optimizer: torch.optim.Optimizer,
         example: torch.Tensor) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """``compact`` in the middle of a training: also the momentum of what is left, by the name of the new parameter.

    The momenta go the way of the weights: a copy of the network holds them in the place of its weights and is made compact.
    """
    moving, momenta = copy.deepcopy(model), _momenta(model, optimizer)
    with torch.no_grad():
        for name, p in moving.named_parameters():
            p.copy_(momenta[name])
    for (name, unit), other in zip(_units(model).items(), _units(moving).values(), strict=True):
        if not unit.settled:
            raise ValueError(f"{name}: its mask is not final; call settle_ first")
        other.settle(unit.mask)
    return compact(model, example), {name: p.detach() for name, p in _compact(moving, example).named_parameters()}


def restore(model: nn.Module, state: Mapping[str, torch.Tensor], config: LAPP, example: torch.Tensor) -> nn.Module:
    """The compact network whose ``state`` was saved; ``model`` is the plain one that it was made from, and stays as it is."""
    found = copy.deepcopy(model)
    attach_(found, config, example)
    for name, unit in _units(found).items():
        rows = state.get(f"{name}.index")
        rows = torch.arange(len(state[f"{name}.weight"])) if rows is None else rows.cpu()
        unit.settle(torch.isin(torch.arange(len(unit.mask)), rows).to(unit.mask))
    found = compact(found, example)
    found.load_state_dict(state)
    return found


def export(model: nn.Module, example: torch.Tensor) -> nn.Module:
    """The compact network as it is put to use: batch norms folded, and slices in the place of the index.

    Within each group of a bypass the kept filters come first, and the inputs of the layers that read them follow. So a layer
    needs at most as many slices as its bypass has groups. The order stays where outputs are added to others' or the bypass is
    depthwise; slices are then the runs of neighbours that there are.
    """
    found = copy.deepcopy(model).eval()
    units = {name: module for name, module in found.named_modules() if isinstance(module, CompactConv2d)}
    if not units:
        raise ValueError("this network has no compact layer; call compact first")
    twin = copy.deepcopy(model).eval()
    for name, unit in units.items():
        conv, C = unit.conv, unit.width
        twin.set_submodule(name, nn.Conv2d(conv.in_channels, C, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
                                           padding_mode=conv.padding_mode))
        unit.conv, unit.bn = fuse_conv_bn_eval(conv, unit.bn), nn.Identity()
        if unit.bypass is not None:
            unit.bypass, unit.bn_bypass = fuse_conv_bn_eval(unit.bypass, unit.bn_bypass), nn.Identity()
    with torch.no_grad():
        for name, unit in units.items():
            order = _order(unit)
            readers = None if torch.equal(order, torch.arange(unit.width)) else _readers(twin, name, example[:1])
            if readers and all(_can_follow(found.get_submodule(other), each, order) for other, each in readers.items()):
                _put_in_order(unit, order)
                for other in readers:
                    _read_in_order(found.get_submodule(other), order)
            unit.slices = runs(unit.index)
        x = torch.randn(example[:1].shape, generator=torch.Generator().manual_seed(0)).to(example)
        one, other = copy.deepcopy(model).eval()(x), found(x)
    if not torch.allclose(one, other, rtol=1e-3, atol=1e-4 * float(one.abs().max()) + 1e-6):
        raise ValueError("the reordered network gives other outputs; its channels cannot be followed")
    return found


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


#: How filters are chosen: by learned thresholds, or, for comparison, the same share of every layer, step by step or at once.
RULES = ("learned", "uniform", "one-shot")


@dataclass
class Progress:
    """What a training left. ``loss`` and ``accuracy`` (a share) after every epoch; ``remaining`` (r) and ``kept``, the
    filters of each pruned layer, before the first epoch and after every one; ``thresholds``, ``z`` (the standardised scores)
    and ``masks`` likewise, of the progressive phase.
    """

    loss: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)
    kept: list[dict[str, int]] = field(default_factory=list)
    thresholds: list[dict[str, float]] = field(default_factory=list)
    z: list[dict[str, list[float]]] = field(default_factory=list)
    masks: list[dict[str, list[float]]] = field(default_factory=list)

    @property
    def steepest(self) -> float:
        """The largest fall of r within one epoch."""
        return max((before - after for before, after in pairwise(self.remaining)), default=0.0)


def train(model: nn.Module, loaders: tuple, config: LAPP = LAPP(), *, epochs: int, lr: Schedule | None = None,
          momentum: float = 0.9, weight_decay: float = 5e-4, seed: int = 0, example: torch.Tensor | None = None,
          rule: str = "learned", **options) -> tuple[nn.Module, Progress]:
    """Train a plain, fresh ``model`` and make it compact on the way. Returns the compact network and what happened.

    ``loaders`` are those of the training and the test images; the second may be None. After ``config.progressive`` of the
    ``epochs`` the masks are final and the masked filters are removed; training goes on with the rest, momentum included.
    ``model`` stays as it is. ``lr`` is a schedule over all epochs, a cosine from 0.05 if left out. ``options`` are those of
    ``fit``, such as ``augment`` and ``fabric``. The ``rule`` is one of ``RULES``; all but the first are baselines.

    ``config.rate`` belongs to the number of steps and of layers. For other networks than small ones ask ``pace``:
    ``pace(attach_(copy.deepcopy(model), config, example), config, steps)``, with half the steps of the progressive phase.

    >>> small, progress = train(ResNetCIFAR(20), loaders, LAPP(target=0.4), epochs=200)
    """
    if rule not in RULES:
        raise ValueError(f"rule is {rule!r}; choose from {', '.join(RULES)}")
    P = config.progressive
    if epochs < P:
        raise ValueError(f"{epochs} epochs are fewer than the {P} of the progressive phase; the nearest is {P}")
    lr = lr or cosine(0.05, epochs)
    seed_everything(seed)
    example = next(iter(loaders[0]))[0][:1] if example is None else example
    model, progress = copy.deepcopy(model), Progress()
    flops = attach_(model, config, example)
    units = _units(model)

    def note() -> None:
        progress.remaining.append(remaining(model, flops))
        progress.kept.append(kept(model))
        progress.thresholds.append({name: float(unit.threshold.detach()) for name, unit in units.items()})
        progress.z.append({name: unit.z().tolist() for name, unit in units.items()})
        progress.masks.append({name: unit.gate().tolist() for name, unit in units.items()})

    def before(model: nn.Module, epoch: int) -> None:
        if rule == "uniform":  # the same fall in every epoch
            uniform_(model, flops, flops.start + (config.target - flops.start) * (epoch + 1) / P)

    def after(model: nn.Module, epoch: int, history) -> None:
        if epoch == P - 1:
            finish_(model, flops, config, rule)
            if history.accuracy:  # of what is left
                history.accuracy[-1] = accuracy(model, loaders[1])
        note()

    if rule != "learned":
        for unit in units.values():
            unit.settle(torch.ones_like(unit.mask))
    note()
    made = {}

    def first(model: nn.Module) -> torch.optim.Optimizer:
        made["optimizer"] = optimiser(model, flops, config, lr(0.0) or 1e-12, momentum, weight_decay)
        return made["optimizer"]

    history = fit(model, *loaders, epochs=P, lr=lr, seed=seed, optimizer=first, loss=objective(model, flops, config),
                  before_epoch=before, after_epoch=after, **options)
    small, momenta = model, _momenta(model, made["optimizer"])
    if units:
        small, momenta = slim(model, made["optimizer"], example.to(next(model.parameters()).device))

    def second(model: nn.Module) -> torch.optim.Optimizer:
        optimizer = torch.optim.SGD(model.parameters(), lr(P) or 1e-12, momentum=momentum, weight_decay=weight_decay)
        for name, p in model.named_parameters():
            if name in momenta:
                optimizer.state[p]["momentum_buffer"] = momenta[name].clone()
        return optimizer

    def continued(model: nn.Module, epoch: int) -> None:  # the order of the data that a single run would have had
        seed_everything((seed * 100_003 + epoch + P) % 2**32)

    rest = fit(small, *loaders, epochs=epochs - P, lr=lambda epoch: lr(epoch + P), seed=seed, optimizer=second,
               before_epoch=continued, **options)
    progress.loss, progress.accuracy = history.loss + rest.loss, history.accuracy + rest.accuracy
    progress.remaining += [progress.remaining[-1]] * (epochs - P)
    progress.kept += [progress.kept[-1]] * (epochs - P)
    return small, progress


def finish_(model: nn.Module, flops: Flops, config: LAPP, rule: str = "learned") -> None:
    """The end of the progressive phase: final masks whose r is at most the target."""
    if not _units(model):
        return
    if rule != "learned":
        uniform_(model, flops, config.target)
    elif not settled(model):
        settle_(model, flops, config.target)
