"""Counting parameters, multiply-accumulates (MACs) and stored bits of a network, under a named convention.

Papers say "FLOPs" and mean different things. A count is only comparable with another of the same convention:

``mac``
    One per multiply-accumulate of a convolution or a linear layer. Bias, batch norm, activations and pooling are free.
``thop``
    The rules of the ``thop`` profiler, which many papers cite: as ``mac``, plus one per output element of a convolution
    with bias, two per output element of a batch norm, and k + 1 per output element of an average pooling, where k is
    the kernel as it was given (an integer counts as itself, not as its square) or the whole window if adaptive.
"""

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

CONVENTIONS = ("mac", "thop")


@dataclass(frozen=True)
class Count:
    """What one layer or a whole network costs for the given input."""

    macs: int
    parameters: int


def parameters(model: nn.Module) -> int:
    """Number of parameters, every shared tensor counted once."""
    return sum(p.numel() for p in model.parameters())


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """In evaluation mode and without gradients; afterwards every module is again in the mode in which it was."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def macs(model: nn.Module, example: torch.Tensor | tuple, convention: str = "mac") -> int:
    """Multiply-accumulates of one forward pass on ``example``; divide by its batch size for the cost of one input.

    The pass runs in evaluation mode without gradients. A model and an example on the ``meta`` device cost no time.
    """
    return sum(layer.macs for layer in count(model, example, convention).values())


def count(model: nn.Module, example: torch.Tensor | tuple, convention: str = "mac") -> dict[str, Count]:
    """MACs and parameters by layer name, in the order the layers run. See the head of this module for conventions."""
    if convention not in CONVENTIONS:
        raise ValueError(f"convention {convention!r} is not known; choose one of {', '.join(CONVENTIONS)}")
    found: dict[str, Count] = {}

    def watch(name):
        def hook(module, inputs, output):
            own = sum(p.numel() for p in module.parameters(recurse=False))
            seen = found.get(name)
            cost = _cost(module, inputs[0], output, convention)
            # a layer that runs twice costs twice; its parameters are stored once
            found[name] = Count(cost + (seen.macs if seen else 0), own)
        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()
               if _counted(module)]
    try:
        with evaluating(model):
            model(*example) if isinstance(example, tuple) else model(example)
    finally:
        for handle in handles:
            handle.remove()
    return found


def outline(build: Callable[[], nn.Module]) -> nn.Module:
    """The network that ``build()`` makes, on the meta device: its layers and their shapes, in no time, and no weights."""
    with torch.device("meta"), _NoNumbers():
        return build()


class _NoNumbers(TorchFunctionMode):
    """On the meta device nothing is drawn or normalised: torch takes a millisecond for each tensor."""

    def __torch_function__(self, function, kinds, arguments=(), named=None):
        if function in _SAME_SHAPE and arguments[0].is_meta:
            return arguments[0]
        return function(*arguments, **(named or {}))


_SAME_SHAPE = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.fill_, torch.Tensor.zero_, torch.Tensor.mul_,
               torch.Tensor.add_, torch.Tensor.clamp_, torch.Tensor.erfinv_,
               F.batch_norm, F.layer_norm, F.relu, F.relu6, F.hardswish, F.hardsigmoid, F.gelu, F.dropout}


@functools.cache
def count_of(build: Callable[[], nn.Module], shape: tuple[int, ...], convention: str = "mac") -> dict[str, Count]:
    """``count`` of the network that ``build()`` makes, on one input of ``shape``; nothing is computed and no weight is made."""
    with torch.device("meta"), _NoNumbers():
        return count(_outline(build), torch.empty(1, *shape), convention)


@functools.cache
def size_of(build: Callable[[], nn.Module], shape: tuple[int, ...], convention: str = "mac") -> dict[str, int]:
    """``macs`` and ``params`` of the network that ``build()`` makes, on one input of ``shape``; nothing is computed."""
    macs = sum(layer.macs for layer in count_of(build, shape, convention).values())
    return {"macs": macs, "params": parameters(_outline(build))}


_outline = functools.cache(outline)


_CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
_POOL = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
_ADAPTIVE = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
_LAYERS = (*_CONV, *_TRANSPOSED, nn.Linear, *_NORM, *_POOL, *_ADAPTIVE)


def _counted(module: nn.Module) -> bool:
    return isinstance(module, _LAYERS) or hasattr(module, "macs_of")


def _cost(module: nn.Module, x: torch.Tensor, y: torch.Tensor, convention: str) -> int:
    thop = convention == "thop"
    if hasattr(module, "macs_of"):  # a layer of ours that knows what it costs at inference
        return module.macs_of(x, y, convention)
    if isinstance(module, _CONV):
        window = math.prod(module.kernel_size) * module.in_channels // module.groups
        return y.numel() * (window + (thop and module.bias is not None))
    if isinstance(module, _TRANSPOSED):
        window = math.prod(module.kernel_size) * module.out_channels // module.groups
        return x.numel() * window + (thop and module.bias is not None) * y.numel()
    if isinstance(module, nn.Linear):
        return y.numel() * module.in_features
    if not thop:
        return 0
    if isinstance(module, _NORM):
        return 2 * y.numel()
    if isinstance(module, _POOL):
        kernel = module.kernel_size
        return y.numel() * (1 + (kernel if isinstance(kernel, int) else math.prod(kernel)))
    window = [before // after for before, after in zip(x.shape[2:], y.shape[2:])]
    return y.numel() * (1 + math.prod(window))


def stored_bits(model: nn.Module, bits: Mapping[str, float] | None = None) -> int:
    """Bits needed to store all parameters; ``bits`` gives the width of those not stored in their own type, by name.

    A name of a module covers all its parameters. Buffers (running statistics) are not counted.
    """
    bits = dict(bits or {})
    for name, width in bits.items():
        if not width > 0:
            raise ValueError(f"{name}: a width of {width} bits stores nothing; it must be above 0")
    used, total = set(), 0.0
    for name, p in model.named_parameters():
        match = next((key for key in _prefixes(name) if key in bits), None)
        used.add(match)
        total += p.numel() * (bits[match] if match else 8 * p.element_size())
    unknown = sorted(set(bits) - used)
    if unknown:
        raise ValueError(f"no parameter is called {unknown[0]!r} and no module of that name has one")
    return math.ceil(total)


def _prefixes(name: str):
    parts = name.split(".")
    return (".".join(parts[:length]) for length in range(len(parts), 0, -1))
