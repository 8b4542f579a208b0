"""The networks of a paper by name: how each is built, what it reads, and how the paper sets its method for it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from papernets import check
from papernets.measure import outline


@dataclass(frozen=True)
class Network:
    """``build()`` makes the dense network, ``shape`` is that of one input, ``config`` the method's setting for it, if any."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = (3, 32, 32)
    config: Any = None

    @property
    def example(self) -> torch.Tensor:
        """One input of zeros, (1, …)."""
        return torch.zeros(1, *self.shape)

    @property
    def outline(self) -> nn.Module:
        """``outline(build)``."""
        return outline(self.build)


class Networks(dict[str, Network]):
    """Networks by name. An unknown name is a ``ValueError`` that lists the names."""

    def __missing__(self, name: str) -> Network:
        check.one_of("network", name, self)
        raise AssertionError  # a name that is there is not missing
