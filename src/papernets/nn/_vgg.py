"""VGG-16 for 32×32 images, 13 convolutions with bias and batch norm and one linear layer; and its first form's features.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", arXiv 1409.1556; the
form with one linear layer is the one the compression literature uses on CIFAR.
"""

import torch
from torch import nn

from papernets.nn._check import widths_of

VGG16_WIDTHS = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
_POOL_AFTER = (1, 3, 6, 9, 12)


class VGG(nn.Module):
    """VGG-16 of any 13 ``widths``; input (B, 3, 32, 32), output (B, classes)."""

    def __init__(self, widths=VGG16_WIDTHS, classes: int = 10):
        super().__init__()
        widths = widths_of(widths, 13, "VGG-16")
        layers, before = [], 3
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            if index in _POOL_AFTER:
                layers.append(nn.MaxPool2d(2, 2))
            before = width
        self.features = nn.Sequential(*layers, nn.AvgPool2d(1))  # of one pixel: changes nothing, and profilers count it
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).flatten(1))


def plain_features(widths=VGG16_WIDTHS) -> nn.Sequential:
    """The 13 convolutions of the first form, without batch norms and without the last pooling: a stride of 16.

    The names of the layers are those of torchvision's file of trained weights.
    """
    layers, before = [], 3
    for index, width in enumerate(widths_of(widths, 13, "VGG-16")):
        layers += [nn.Conv2d(before, width, 3, padding=1), nn.ReLU(inplace=True)]
        if index in _POOL_AFTER[:-1]:
            layers.append(nn.MaxPool2d(2, 2))
        before = width
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return nn.Sequential(*layers)
