"""Small networks for the experiments of the chapters."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

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


class SmallMobileNet(nn.Module):
    """A 3×3 stem and pairs of a depthwise 3×3 and a 1×1 convolution, for small images; 160 filters at the default widths."""

    def __init__(self, widths: Sequence[int] = (16, 32, 64), classes: int = 10, channels: int = 1, stride: int = 1):
        super().__init__()
        widths = widths_of(widths, len(tuple(widths)), "SmallMobileNet")
        layers = [nn.Conv2d(channels, widths[0], 3, stride, 1, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for index, (before, after) in enumerate(pairwise(widths)):
            layers += [nn.Conv2d(before, before, 3, 2 if index else stride, 1, groups=before, bias=False),
                       nn.BatchNorm2d(before), nn.ReLU(), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after),
                       nn.ReLU()]
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))  # (B, classes)


class SmallMLP(nn.Module):
    """Two hidden layers, for 8×8 digits; an image is flattened."""

    def __init__(self, inputs: int = 64, hidden: int = 64, classes: int = 10):
        super().__init__()
        self.fc1, self.fc2, self.classifier = nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, classes)
        for layer in (self.fc1, self.fc2):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(functional.relu(self.fc2(functional.relu(self.fc1(x.flatten(1))))))  # (B, classes)
