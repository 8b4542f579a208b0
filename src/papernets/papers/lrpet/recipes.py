"""The full-size runs of LRPET on the real data."""

import copy
import functools
import re
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.data import CIFAR10, CIFAR100, VOID, Split, VOCDetection, VOCSegmentation, fetch, fetch_unpacked, read_cifar
from papernets.nn import FasterRCNN, Network, PSPNet, ResNetImageNet, load_published
from papernets.papers.lrpet.method import LRPET, compact, project_
from papernets.papers.lrpet.networks import CONFIGS, FRCNN_CONFIG, NETWORKS, PSP_CONFIG, VIT_CONFIG, vit
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
    warm_cosine,
    with_warmup,
)


def _hooks(config: LRPET | None, example: torch.Tensor | None = None) -> dict[str, Callable]:
    """Of a recipe: a projection after every epoch, and as its result the pairs of a copy that is projected once more.

    The projection comes before the next epoch, so that an epoch is judged as it was trained. Without ``config`` there is none.
    """
    def before(model: nn.Module, epoch: int) -> None:
        if epoch:
            project_(model, config, example)

    def export(model: nn.Module) -> nn.Module:
        model = copy.deepcopy(model).cpu()
        project_(model, config, example)
        return compact(model)

    return {} if config is None else {"before_epoch": before, "export": export}


def _recipe(config: LRPET, made: Network) -> Recipe:
    """CIFAR: a projection after every epoch; ImageNet: one after every 250 steps."""
    hooks = _hooks(config, made.example)
    if made.shape[1] == 32:
        return Recipe(data="cifar10", build=made.build, epochs=400, batch=128, lr=steps(0.1, (200, 300)), weight_decay=1e-4,
                      test_batch=100, **hooks)
    return Recipe(data="imagenet", build=made.build, epochs=120, batch=256, lr=steps(0.1, (30, 60, 90)), weight_decay=1e-4,
                  optimizer=functools.partial(projecting, config=config, example=made.example, every=250),
                  export=hooks["export"])


def _vit_recipe(data: str, classes: int, config: LRPET | None) -> Recipe:
    """The vision transformer on CIFAR, with a projection after every epoch; with no configuration the full one.

    Every image is cropped, mirrored, changed by AutoAugment and erased in part, comes three times in a row, and is, with
    probability one half, mixed with another.
    """
    def read(path) -> tuple[Pictures, Split]:
        train, test = read_cifar(data, path)
        statistics = CIFAR10 if classes == 10 else CIFAR100
        return Pictures(train, statistics.mean, statistics.std), test

    return Recipe(data=data, build=functools.partial(vit, classes), epochs=100, batch=128, weight_decay=0.05, repeats=3,
                  read=read, augment=lambda images: erase(crop_and_flip(images)), test_batch=100,
                  step=mixing(functools.partial(functional.cross_entropy, label_smoothing=0.1)),
                  lr=with_warmup(cosine(1e-3, 100), 10), **_hooks(config),
                  optimizer=lambda model: torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05))


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
        return functional.cross_entropy(model(images), masks, ignore_index=VOID)

    return Recipe(data="voc12+sbd", build=build, epochs=200, batch=16, weight_decay=1e-4, lr=warm_cosine(1e-2, 200), read=read,
                  optimizer=_nesterov(1e-4), step=step, test_batch=8, every=5, score="mIoU",
                  evaluate=_judged(functools.partial(segmentation_score, classes=21), config), **_hooks(config))


def projecting(model: nn.Module, config: LRPET, example: torch.Tensor, every: int, lr: float = 0.1,
               weight_decay: float = 1e-4) -> torch.optim.SGD:
    """SGD with momentum 0.9 after whose every ``every``-th step the network is projected."""
    check.whole("every", every)
    optimizer, done = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=weight_decay), 0

    def hook(optimizer, args, kwargs) -> None:
        nonlocal done
        done += 1
        if done % every == 0:
            project_(model, config, example)

    optimizer.register_step_post_hook(hook)
    return optimizer


def _recipes() -> dict[str, Callable[[], Recipe]]:
    recipes = {}
    for name, made in NETWORKS.items():
        for which, config in CONFIGS[name].items():
            data = "cifar10" if made.shape[1] == 32 else "imagenet"
            recipes[f"{name}-{which}-{data}"] = functools.partial(_recipe, config, made)
    for data, classes in (("cifar10", 10), ("cifar100", 100)):
        recipes[f"vit-{data}"] = functools.partial(_vit_recipe, data, classes, VIT_CONFIG)
        recipes[f"vit-full-{data}"] = functools.partial(_vit_recipe, data, classes, None)
    for name, make, config in (("frcnn", _detection_recipe, FRCNN_CONFIG), ("psp", _segmentation_recipe, PSP_CONFIG)):
        recipes[f"{name}-voc"], recipes[f"{name}-full-voc"] = functools.partial(make, config), functools.partial(make, None)
    return recipes


RECIPES: dict[str, Callable[[], Recipe]] = _recipes()
