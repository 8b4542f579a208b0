"""The experiments of the chapter on DCFF."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn
from torch.utils.data import DataLoader

from papernets import check
from papernets.data import photograph_patches
from papernets.nn import ConvNet, surgery
from papernets.papers.dcff.method import DCFF, FusedConv2d, compact, fuse_narrow_, kept_width, refresh_, select
from papernets.training import Task, cosine, loader, logits, row, single_thread

ARMS = ("fused", "narrow", "l1", "random")
WIDTHS = (32, 64, 64)


def keep_largest(model: nn.Module, removed: float, example: torch.Tensor) -> nn.Module:
    """A narrower copy of a trained network: in every convolution the filters of largest L1 norm. The usual baseline."""
    kept = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            norm = module.weight.detach().abs().sum((1, 2, 3))
            kept[name] = select(norm, kept_width(len(norm), removed))
    return surgery.keep_filters(model, kept, example)


def learn(task: Task, arm: str, *, widths: Sequence[int] = WIDTHS, removed: float = 0.5,
          config: DCFF | None = None) -> tuple[nn.Module, list[float], list[int]]:
    """Train one arm of the comparison; every arm has all epochs of the task, the same seed and the same order of the data.

    ``fused``: fused training. ``random``: the same, with random filters kept. ``narrow``: the narrow network directly.
    ``l1``: the wide network for half the epochs, its filters of largest L1 norm kept, fine-tuned for the other half; each
    half has a cosine of its own, the second from a fifth of the rate.

    Returns the network, its test accuracy (a share) after every epoch, and how many of its kept filters were exchanged at the
    start of every epoch but the first. ``ValueError`` lists the arms.
    """
    check.one_of("arm", arm, ARMS)
    test, data = loader(task.test, 500, False), (len(task.train.classes), task.train.images.shape[1])
    if arm == "l1":
        return *_cut(task, task.start(ConvNet, widths, *data), removed, test), []
    model = task.start(ConvNet, [kept_width(C, removed) for C in widths], *data)
    if arm == "narrow":
        return model, task.learn(model, test=test).scores, []
    return _blend(task, model, widths, replace(config or DCFF(), random=arm == "random"), test)


def _cut(task: Task, model: nn.Module, removed: float, test: DataLoader) -> tuple[nn.Module, list[float]]:
    half = task.epochs // 2
    rest = task.epochs - half
    first = task.learn(model, half, test=test).scores if half else []
    model = keep_largest(model, removed, task.train.images[:1])
    return model, first + task.learn(model, rest, again=1, test=test, lr=cosine(task.lr / 5, rest)).scores


def _blend(task: Task, model: nn.Module, widths: Sequence[int], config: DCFF,
           test: DataLoader) -> tuple[nn.Module, list[float], list[int]]:
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)]
    fuse_narrow_(model, dict(zip(names, widths)), config)
    layers, exchanged = [module for module in model.modules() if isinstance(module, FusedConv2d)], []

    def refresh(model: nn.Module, epoch: int) -> None:
        before = [set(layer.kept.tolist()) for layer in layers]
        refresh_(model, epoch, task.epochs)
        if epoch > 0:
            exchanged.append(sum(len(set(layer.kept.tolist()) - old) for layer, old in zip(layers, before)))

    return model, task.learn(model, test=test, before_epoch=refresh).scores, exchanged


def compare(seed: int, *, train: int = 2000, test: int = 1000, epochs: int = 20, widths: Sequence[int] = WIDTHS,
            removed: float = 0.5, arms: Sequence[str] = ARMS, config: DCFF | None = None) -> list[dict]:
    """A row for each of ``arms``, for one seed on the photograph patches: test accuracy (a share) after the last epoch.

    ``accuracies`` are those after every epoch, ``exchanged`` counts the kept filters that changed at the start of every epoch
    but the first, and ``difference`` is the largest between the logits of the fused network and of its export. ``config`` is
    the form of the method.
    """
    task, rows = Task(*photograph_patches(train, test, seed), epochs=epochs, seed=seed), []
    with single_thread():
        for arm in arms:
            model, accuracies, exchanged = learn(task, arm, widths=widths, removed=removed, config=config)
            made = row(seed, arm, accuracies[-1], accuracies=accuracies, exchanged=exchanged)
            if arm == "fused":
                gap = logits(model, task.test.images) - logits(compact(model), task.test.images)
                made["difference"] = float(gap.abs().max())
            rows.append(made)
    return rows
