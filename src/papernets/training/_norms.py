"""The statistics of batch norms, measured anew after the weights before them were changed."""

from collections.abc import Iterable

import torch
from torch import nn


@torch.no_grad()
def reestimate_(model: nn.Module, batches: Iterable) -> None:
    """Measure the statistics of all batch norms anew, in one pass over ``batches`` (images, labels); no weight moves.

    They become the plain means over all batches. Modes and momenta are left as they were.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)
             and module.track_running_stats]
    modes, momenta = {module: module.training for module in model.modules()}, [module.momentum for module in norms]
    device = next(model.parameters()).device
    try:
        model.eval()
        for module in norms:
            module.reset_running_stats()
            module.momentum = None  # the plain mean over all batches
            module.train()
        for images, _ in batches:
            model(images.to(device))
    finally:
        for module, momentum in zip(norms, momenta):
            module.momentum = momentum
        for module, mode in modes.items():
            module.training = mode
