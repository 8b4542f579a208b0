"""The full-size runs of LRPET on the real data."""

import functools
import math
import re
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional as F

from papernets.data import CIFAR10, CIFAR100, VOID, Split, VOCDetection, VOCSegmentation, fetch, fetch_unpacked, read_cifar
from papernets.nn import FasterRCNN, PSPNet, ResNetImageNet, load_published
from papernets.papers.lrpet.method import LRPET, project_
from papernets.papers.lrpet.networks import FRCNN_CONFIG, NETWORKS, PSP_CONFIG, VIT_CONFIG, _hooks, vit
from papernets.training import (
    Pictures,
    Recipe,
    cosine,
    crop_and_flip,
    detection_score,
    erase,
    mixing,
    segmentation_score,
    steps,
    with_warmup,
)


def _recipe(config: LRPET, build: Callable[[], nn.Module], side: int) -> Recipe:
    """CIFAR: a projection after every epoch; ImageNet: one after every 250 steps."""
    example = torch.zeros(1, 3, side, side)
    hooks = _hooks(config, example)
    if side == 32:
        return Recipe(data="cifar10", build=build, epochs=400, batch=128, lr=steps(0.1, (200, 300)), weight_decay=1e-4,
                      test_batch=100, **hooks)
    return Recipe(data="imagenet", build=build, epochs=120, batch=256, lr=steps(0.1, (30, 60, 90)), weight_decay=1e-4,
                  optimizer=lambda model: projecting(model, config, example, every=250), export=hooks["export"])


def _vit_recipe(data: str, classes: int, config: LRPET | None) -> Recipe:
    """The vision transformer on CIFAR, with a projection after every epoch; with no configuration the full one.

    Every image is cropped, mirrored, changed by AutoAugment and erased in part, comes three times in a row, and is, with
    probability one half, mixed with another.
    """
    def read(path) -> tuple[Pictures, Split]:
        train, test = read_cifar(data, path)
        statistics = CIFAR10 if classes == 10 else CIFAR100
        return Pictures(train, statistics.mean, statistics.std), test

    return Recipe(data=data, build=lambda: vit(classes), epochs=100, batch=128, weight_decay=0.05, repeats=3, read=read,
                  augment=lambda images: erase(crop_and_flip(images)), test_batch=100,
                  step=mixing(functools.partial(F.cross_entropy, label_smoothing=0.1)),
                  lr=with_warmup(cosine(1e-3, 100), 10), **_hooks(config),
                  optimizer=lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05))


def warm_cosine(lr: float, epochs: int) -> Callable[[float], float]:
    """The learning rate of detection and segmentation, one for each epoch: up in 3 epochs, down, and the last 10 at the least.

    It rises from a tenth of ``lr`` like a square, and falls like half a cosine to a hundredth.
    """
    rise, rest, least = min(max(0.05 * epochs, 1), 3), min(max(0.05 * epochs, 1), 15), 0.01 * lr

    def at(epoch: float) -> float:
        epoch = math.floor(epoch)
        if epoch <= rise:
            return 0.9 * lr * (epoch / rise) ** 2 + 0.1 * lr
        if epoch >= epochs - rest:
            return least
        return least + 0.5 * (lr - least) * (1 + math.cos(math.pi * (epoch - rise) / (epochs - rise - rest)))

    return at


def _nesterov(weight_decay: float) -> Callable[[nn.Module], torch.optim.Optimizer]:
    return lambda model: torch.optim.SGD(model.parameters(), 1e-2, momentum=0.9, weight_decay=weight_decay, nesterov=True)


def _judged(score: Callable, config: LRPET | None) -> Callable:
    """``score``, of a network that is projected first."""
    def evaluate(model: nn.Module, batches, fabric) -> float:
        if config is not None:
            project_(model, config)
        return score(model, batches, fabric)

    return evaluate


def _detection_recipe(config: LRPET | None) -> Recipe:
    """Faster R-CNN on VOC 2007 and 2012, from features and wide layers that know ImageNet; judged on the test set of 2007."""
    def read(data) -> tuple[VOCDetection, VOCDetection]:
        root = data or fetch_unpacked("voc2007-trainval", "voc2007-test", "voc2012-trainval")
        return (VOCDetection(root, (("2007", "trainval"), ("2012", "trainval")), True),
                VOCDetection(root, (("2007", "test"),), False))

    def build() -> FasterRCNN:
        def ours(name: str) -> str | None:
            wide, layer, what = name.split(".")
            return name if wide == "features" else {"0": f"head.0.{what}", "3": f"head.2.{what}"}.get(layer)

        return load_published(FasterRCNN(), fetch("vgg16"), ours, ("features.", "head."))

    return Recipe(data="voc07+12", build=build, epochs=200, batch=16, weight_decay=0.0, lr=warm_cosine(1e-2, 200), read=read,
                  optimizer=_nesterov(0.0), step=lambda model, images, truth: model(images, truth), test_batch=1, every=10,
                  evaluate=_judged(functools.partial(detection_score, classes=20), config), score="mAP", **_hooks(config))


def _segmentation_recipe(config: LRPET | None) -> Recipe:
    """PSPNet on VOC 2012 and SBD, from a backbone that knows ImageNet; judged on the validation set of VOC 2012."""
    def read(data) -> tuple[VOCSegmentation, VOCSegmentation]:
        root = data or fetch_unpacked("voc2012-trainval", "sbd")
        return VOCSegmentation(root, True), VOCSegmentation(root, False)

    def build() -> PSPNet:
        def ours(name: str) -> str | None:
            stage = re.match(r"layer(\d)\.(\d)\.", name)
            if stage:
                block = sum(ResNetImageNet.BLOCKS[:int(stage[1]) - 1]) + int(stage[2])
                name = f"blocks.{block}.{name[stage.end():].replace('downsample', 'shortcut')}"
            return None if name.startswith("fc.") else f"backbone.{name}"

        return load_published(PSPNet(), fetch("resnet50-deep"), ours, ("backbone.",))

    def step(model: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(model(images), masks, ignore_index=VOID)

    return Recipe(data="voc12+sbd", build=build, epochs=200, batch=16, weight_decay=1e-4, lr=warm_cosine(1e-2, 200), read=read,
                  optimizer=_nesterov(1e-4), step=step, test_batch=8, every=5, score="mIoU",
                  evaluate=_judged(functools.partial(segmentation_score, classes=21), config), **_hooks(config))


def projecting(model: nn.Module, config: LRPET, example: torch.Tensor, every: int, lr: float = 0.1,
               weight_decay: float = 1e-4) -> torch.optim.SGD:
    """SGD with momentum 0.9 after whose every ``every``-th step the network is projected."""
    if every < 1:
        raise ValueError(f"every is {every}; the smallest number of steps is 1")
    optimizer, done = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=weight_decay), [0]

    def hook(optimizer, args, kwargs) -> None:
        done[0] += 1
        if done[0] % every == 0:
            project_(model, config, example)

    optimizer.register_step_post_hook(hook)
    return optimizer


def _recipes() -> dict[str, Callable[[], Recipe]]:
    found = {}
    for name, made in NETWORKS.items():
        for which, config in made.configs.items():
            data = "cifar10" if made.side == 32 else "imagenet"
            found[f"{name}-{which}-{data}"] = functools.partial(_recipe, config, made.build, made.side)
    for data, classes in (("cifar10", 10), ("cifar100", 100)):
        found[f"vit-{data}"] = functools.partial(_vit_recipe, data, classes, VIT_CONFIG)
        found[f"vit-full-{data}"] = functools.partial(_vit_recipe, data, classes, None)
    for name, make, config in (("frcnn", _detection_recipe, FRCNN_CONFIG), ("psp", _segmentation_recipe, PSP_CONFIG)):
        found[f"{name}-voc"], found[f"{name}-full-voc"] = functools.partial(make, config), functools.partial(make, None)
    return found


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
