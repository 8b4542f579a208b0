"""Losses, groups of parameters and steps of the optimiser that the recipes of several papers have."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

#: loss(outputs, images, labels), as ``fit`` calls it.
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def smoothed(amount: float = 0.1) -> Loss:
    """The cross-entropy with labels smoothed by ``amount``.

    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna, "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, section 7.
    """
    def loss(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return functional.cross_entropy(outputs, labels, label_smoothing=amount)

    return loss


def taught_by(teacher: nn.Module) -> Loss:
    """Cross-entropy of the student's log-softmax against the softmax of ``teacher``; the labels are not used.

    The teacher is frozen and put into evaluation mode, and follows the images to their device.
    """
    teacher.eval().requires_grad_(False)

    def loss(outputs: torch.Tensor, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = teacher.to(images.device)(images).softmax(1)
        return -(wanted * outputs.log_softmax(1)).sum(1).mean()

    return loss


def decay_groups(model: nn.Module) -> list[dict]:
    """Parameters in two groups, those with weight decay first: of convolutions and linear layers.

    Scales, shifts, biases, tokens and tables of places have none.
    """
    decayed, plain = ([p for p in model.parameters() if (p.dim() in (2, 4)) is wanted] for wanted in (True, False))
    return [{"params": decayed}, {"params": plain, "weight_decay": 0.0}]


def clipped_sgd(model: nn.Module, lr: float = 0.1, momentum: float = 0.9, weight_decay: float = 1e-4,
                norm: float = 1.0) -> torch.optim.SGD:
    """SGD before whose every step the gradient of all parameters together is cut to length ``norm``."""
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=momentum, weight_decay=weight_decay)

    def clip(optimizer, args, kwargs) -> None:
        nn.utils.clip_grad_norm_(model.parameters(), norm)

    optimizer.register_step_pre_hook(clip)
    return optimizer
