"""The networks of WE, and what they cost."""

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import nn

from papernets.nn import VGG, MobileNetV1, MobileNetV2, ResNetBasic, ResNetCIFAR


class TinyMobileNet(nn.Module):
    """A 3×3 stem and two pairs of a depthwise 3×3 and a 1×1 convolution: 160 filters in all at the default widths."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 10, channels: int = 1, stride: int = 1):
        super().__init__()
        layers = [nn.Conv2d(channels, widths[0], 3, stride, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, before, 3, 2 if index else stride, 1, groups=before, bias=False),
                       nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after),
                       nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))


def _with_norms(*rows: Sequence[float]) -> nn.Sequential:
    """1×1 convolutions whose filters have these importances."""
    model, before = nn.Sequential(), 2
    for row in rows:
        conv = nn.Conv2d(before, len(row), 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor(row).view(-1, 1, 1, 1).expand_as(conv.weight))
        model.append(conv)
        before = len(row)
    return model


def for_small_images(model: nn.Module) -> nn.Module:
    """A network for 224×224 images whose first two halvings are taken out, in place: 32×32 images then end as 4×4."""
    for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)][:2]:
        conv.stride = (1, 1)
    return model


#: Networks of the released CIFAR script that this library has, by name; each takes the number of classes.
CIFAR_NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "mobilenet": lambda classes: for_small_images(MobileNetV1(classes=classes)),
    "mobilenetv2": lambda classes: for_small_images(MobileNetV2(classes=classes)),
    **{f"resnet{depth}": functools.partial(ResNetCIFAR, depth, None, (16, 32, 64)) for depth in (20, 32, 56, 110)},
    "vgg16": lambda classes: VGG(classes=classes)}
#: Those of the released ImageNet script, with the side of their images.
IMAGENET_NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "resnet34": (lambda: ResNetBasic(34), 224), "mobilenetv2-0.25": (lambda: MobileNetV2(0.25), 128)}
