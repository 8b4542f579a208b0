"""What the tests over all papers are told of a method: its configuration, its verb, and its compact form."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from papernets.nn import ConvNet

#: One input and two batches (images, labels) for ``network()``.
EXAMPLE = torch.zeros(1, 4, 8, 8)
BATCHES = [(torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(at)), torch.tensor([0, 1, 2, 3])) for at in (0, 1)]


def network() -> nn.Module:
    """Three 3×3 convolutions of 8, 16 and 24 filters, with batch norm, for four channels of 8×8 pixels; in evaluation mode."""
    return ConvNet((8, 16, 24), classes=4, channels=4, pool=(1,)).eval()


@dataclass(frozen=True)
class Sample:
    """How a method is applied to ``network()``.

    ``config`` is its frozen configuration (a class), and ``options`` are settings for which a compact form is smaller.
    ``treat(model, config)`` applies the verb as a user does at first, and gives the treated network: ``model`` itself where the
    verb works in place. ``finish(model, config)`` then brings a treated network to where training would end, so that it can be
    made compact. ``compact(model)`` gives the compact form, and is None where the method has none. ``alone(config)`` changes a
    configuration so that one of three layers is enough to work on. ``saves`` is the line of the report that is less at the end:
    ``macs``, or ``bytes`` where as much is multiplied as before.
    """

    config: type
    treat: Callable[[nn.Module, Any], nn.Module]
    compact: Callable[[nn.Module], nn.Module] | None = None
    finish: Callable[[nn.Module, Any], None] = lambda model, config: None
    options: Mapping[str, Any] = field(default_factory=dict)
    alone: Mapping[str, Any] = field(default_factory=dict)
    saves: str = "macs"
