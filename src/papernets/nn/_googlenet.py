"""GoogLeNet for 32×32 images, with batch norm and two 3×3 convolutions in place of the 5×5.

Szegedy et al., "Going Deeper with Convolutions", arXiv 1409.4842; the CIFAR form with a 3×3 stem of 192 filters.
"""

import torch
from torch import nn

from papernets.nn._check import widths_of

#: Per inception unit: 1×1 branch, 3×3 reduce, 3×3, 5×5 reduce, first and second 3×3 of the double branch, pool projection.
GOOGLENET_WIDTHS = {
    "a3": (64, 96, 128, 16, 32, 32, 32),
    "b3": (128, 128, 192, 32, 96, 96, 64),
    "a4": (192, 96, 208, 16, 48, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128, 128),
}


def _conv(before: int, after: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class _Inception(nn.Module):
    def __init__(self, before: int, widths):
        super().__init__()
        one, reduce3, three, reduce5, five1, five2, pool = widths
        self.branch1 = nn.Sequential(*_conv(before, one, 1))
        self.branch2 = nn.Sequential(*_conv(before, reduce3, 1), *_conv(reduce3, three, 3))
        self.branch3 = nn.Sequential(*_conv(before, reduce5, 1), *_conv(reduce5, five1, 3), *_conv(five1, five2, 3))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), *_conv(before, pool, 1))
        self.width = one + three + five2 + pool

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """GoogLeNet of any ``widths`` (see :data:`GOOGLENET_WIDTHS`); input (B, 3, 32, 32), output (B, classes)."""

    def __init__(self, widths=None, classes: int = 10):
        super().__init__()
        widths = GOOGLENET_WIDTHS if widths is None else widths
        if set(widths) != set(GOOGLENET_WIDTHS):
            raise ValueError(f"GoogLeNet has the units {', '.join(GOOGLENET_WIDTHS)}; got {', '.join(widths)}")
        self.stem = nn.Sequential(*_conv(3, 192, 3))
        before = 192
        for unit in GOOGLENET_WIDTHS:
            inception = _Inception(before, widths_of(widths[unit], 7, f"unit {unit}"))
            self.add_module(unit, inception)
            before = inception.width
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.avgpool = nn.AvgPool2d(8, 1)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.b3(self.a3(self.stem(x)))
        x = self.maxpool(x)
        x = self.e4(self.d4(self.c4(self.b4(self.a4(x)))))
        x = self.maxpool(x)
        x = self.b5(self.a5(x))
        return self.classifier(self.avgpool(x).flatten(1))
