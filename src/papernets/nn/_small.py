"""A plain convolutional network for the small experiments of the chapters."""

import torch
from torch import nn

from papernets.nn._check import widths_of


class ConvNet(nn.Module):
    """3×3 convolutions, each with batch norm and ReLU, then a global average and a linear classifier.

    The layers named in ``pool`` (by index) are followed by 2×2 max pooling.
    """

    def __init__(self, widths=(32, 64, 64), classes: int = 10, channels: int = 3, pool=(0, 1)):
        super().__init__()
        widths = widths_of(widths, len(tuple(widths)), "ConvNet")
        layers, before = [], channels
        for index, width in enumerate(widths):
            layers += [nn.Conv2d(before, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            if index in pool:
                layers.append(nn.MaxPool2d(2))
            before = width
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.features(x)  # (B, C, h, w)
        return self.classifier(x.mean((2, 3)))  # (B, classes)
