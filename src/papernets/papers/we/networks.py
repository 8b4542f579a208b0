"""The networks of WE."""

from functools import partial

from torch import nn

from papernets.nn import VGG, MobileNetV1, MobileNetV2, Network, Networks, ResNetBasic, ResNetCIFAR
from papernets.papers.we.method import WE, WE_IMAGENET


def for_small_images(model: nn.Module) -> nn.Module:
    """A network for 224×224 images whose first two halvings are taken out, in place: 32×32 images then end as 4×4."""
    for conv in [module for module in model.modules() if isinstance(module, nn.Conv2d) and module.stride == (2, 2)][:2]:
        conv.stride = (1, 1)
    return model


def _mobilenet(kind: type[nn.Module], classes: int) -> nn.Module:
    return for_small_images(kind(classes=classes))


def _for_cifar(classes: int) -> dict[str, Network]:
    """Networks of the released CIFAR script that this library has."""
    builds = {"mobilenet": partial(_mobilenet, MobileNetV1, classes), "mobilenetv2": partial(_mobilenet, MobileNetV2, classes),
              **{f"resnet{depth}": partial(ResNetCIFAR, depth, None, (16, 32, 64), classes) for depth in (20, 32, 56, 110)},
              "vgg16": partial(VGG, classes=classes)}
    return {f"{name}-cifar{classes}": Network(build, config=WE()) for name, build in builds.items()}


#: Those networks for both data sets, and those of the released ImageNet script.
NETWORKS = Networks({
    **_for_cifar(10), **_for_cifar(100),
    "resnet34-imagenet": Network(partial(ResNetBasic, 34), (3, 224, 224), WE_IMAGENET),
    "mobilenetv2-0.25-imagenet": Network(partial(MobileNetV2, 0.25), (3, 128, 128), WE_IMAGENET)})
