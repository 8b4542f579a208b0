"""Trained weights of other projects, under the names of ours."""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn


def load_published(model: nn.Module, path: Path, rename: Callable[[str], str | None], parts: Sequence[str]) -> nn.Module:
    """Give ``model`` the tensors of the file at ``path``, and return it.

    ``rename`` turns a name of the file into one of ours, or None if the tensor is not wanted. ``parts`` are the beginnings of
    the names that must come from the file, all of them. ``ValueError`` before anything is changed if a tensor is missing, is
    not one of ours, or has another shape.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        what = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} is not a readable file of weights ({what}); fetch it again") from None
    found = {ours: tensor for name, tensor in state.items() if (ours := rename(name)) is not None}
    every = model.state_dict()
    wanted = {name for name in every if name.startswith(tuple(parts))}
    missing = {name for name in wanted - set(found) if not name.endswith("num_batches_tracked")}  # old files lack these
    if missing:
        raise ValueError(f"{path} has no tensor for {min(missing)}; it is a file of another network")
    for name, tensor in found.items():
        if name not in wanted:
            raise ValueError(f"{path} holds {name}, which this network does not have; it is a file of another network")
        if tensor.shape != every[name].shape:
            raise ValueError(f"{path}: {name} has shape {tuple(tensor.shape)}, in this network {tuple(every[name].shape)}")
    model.load_state_dict(found, strict=False)
    return model
