"""Putting other layers in the place of layers, in a network or in a copy of it."""

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn

_CONVS = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


def replace_(model: nn.Module, made: Mapping[str, nn.Module]) -> None:
    """Put the modules of ``made`` under their names into ``model``, in place, in the mode in which those before them were.

    ``ValueError``, before anything is changed, if the network is itself the layer: it cannot take its own place.
    """
    if "" in made:
        raise ValueError("the network is itself a layer; put it into an nn.Sequential")
    for name, module in made.items():
        model.set_submodule(name, module.train(model.get_submodule(name).training))


def replaced(model: nn.Module, kinds: type | tuple[type, ...], make: Callable[[str, nn.Module], nn.Module], *,
             missing: str = "") -> nn.Module:
    """A copy of ``model`` in which ``make(name, module)`` stands for every module of ``kinds``; it may itself be one.

    What is inside of a module that is replaced is not looked at. ``ValueError``, with ``missing`` as the advice, if there is
    no such module.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        inside = any(name.startswith(f"{outer}.") or not outer for outer in found)
        if isinstance(module, kinds) and not inside:
            found[name] = module
    if not found:
        names = " or ".join(kind.__name__ for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))
        raise ValueError(f"this network has no {names}" + (f"; {missing}" if missing else ""))
    made = {name: make(name, module).train(module.training) for name, module in found.items()}
    if "" in made:
        return made[""]
    other = copy.deepcopy(model)
    replace_(other, made)
    return other


def conv_like(conv: nn.Module, *, inputs: int | None = None, outputs: int | None = None, groups: int = 1,
              bias: bool | None = None) -> nn.Module:
    """A plain convolution with the window, stride, padding, dilation, device and dtype of ``conv``, and weights of its own.

    ``inputs``, ``outputs`` and ``bias`` are those of ``conv`` unless they are given; ``groups`` is 1.
    """
    weight = conv.weight
    return _CONVS[weight.dim()](
        conv.in_channels if inputs is None else inputs, conv.out_channels if outputs is None else outputs, conv.kernel_size,
        conv.stride, conv.padding, conv.dilation, groups, conv.bias is not None if bias is None else bias, conv.padding_mode,
        device=weight.device, dtype=weight.dtype)


def linear_like(linear: nn.Module, *, inputs: int | None = None, outputs: int | None = None,
                bias: bool | None = None) -> nn.Linear:
    """A plain linear layer with the sizes, device and dtype of ``linear`` unless others are given, and weights of its own."""
    weight = linear.weight
    return nn.Linear(linear.in_features if inputs is None else inputs, linear.out_features if outputs is None else outputs,
                     linear.bias is not None if bias is None else bias, weight.device, weight.dtype)


def plain_like(layer: nn.Module, weight: torch.Tensor) -> nn.Module:
    """A plain convolution or linear layer like ``layer``, with the bias of ``layer`` and this ``weight``."""
    like = linear_like if weight.dim() == 2 else conv_like
    options = {} if weight.dim() == 2 else {"groups": layer.groups}
    plain = like(layer, **options)
    bias = {} if layer.bias is None else {"bias": layer.bias.detach()}
    plain.load_state_dict({"weight": weight.detach(), **bias})
    return plain.train(layer.training)
