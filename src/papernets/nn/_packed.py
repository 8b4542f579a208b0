"""Layers that run on a compiled kernel."""

import abc

import torch
from torch import nn


class Packed(nn.Module, abc.ABC):
    """A layer whose buffers are the weights as they are stored, and whose ``form`` is what the kernel takes.

    ``_pack`` makes the form of the buffers; it is made once, and again after other weights were loaded. ``sized`` names the
    buffers whose size says how much was kept: a state may bring another size than that of the layer it is loaded into.
    """

    sized: tuple[str, ...] = ()

    def __init__(self):
        super().__init__()
        self._form = None

    @abc.abstractmethod
    def _pack(self):
        """What the kernel takes, made of the buffers."""

    @property
    def form(self):
        if self._form is None:
            self._form = self._pack()
        return self._form

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in self.sized:
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device="cpu"))
        self._form = None
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
