"""PSPNet: a class for every pixel, from features pooled at four scales.

Zhao, Shi, Qi, Wang, Jia, "Pyramid Scene Parsing Network", arXiv 1612.01105.
"""

import torch
from torch import nn
from torch.nn import functional as F

from papernets.nn._resnet import ResNetImageNet


class _Level(nn.Sequential):
    """The mean of ``side``² regions, fewer channels, and back to the size of the input."""

    def __init__(self, before: int, after: int, side: int):
        super().__init__(nn.AdaptiveAvgPool2d(side), nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after),
                         nn.ReLU(inplace=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.interpolate(super().forward(x), x.shape[2:], mode="bilinear", align_corners=True)


class PSPNet(nn.Module):
    """PSPNet on ResNet-50; images (B, 3, h, w), output (B, classes, h, w).

    ``sides`` are the numbers of regions, per side, over which the features are averaged; each scale gets an equal share of the
    channels. ``stride`` is that of the backbone, ``stem`` and ``deep`` its first convolutions; its ``widths`` are those of the
    four stages' outputs. In training at least two images are needed: at the coarsest scale each gives one position only.
    """

    def __init__(self, classes: int = 21, *, sides=(1, 2, 3, 6), stride: int = 16, deep: bool = True, stem: int = 64,
                 widths=(256, 512, 1024, 2048), first=None, second=None, dropout: float = 0.1):
        super().__init__()
        self.backbone = ResNetImageNet(first, second, widths, stem, None, deep=deep, stride=stride)
        wide = widths[-1]
        share = wide // len(sides)
        self.levels = nn.ModuleList(_Level(wide, share, side) for side in sides)
        self.head = nn.Sequential(nn.Conv2d(wide + share * len(sides), share, 3, padding=1, bias=False), nn.BatchNorm2d(share),
                                  nn.ReLU(inplace=True), nn.Dropout2d(dropout))
        self.classifier = nn.Conv2d(share, classes, 1)
        for part in (self.levels, self.head, self.classifier):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                elif isinstance(module, nn.BatchNorm2d):
                    nn.init.constant_(module.bias, 1e-4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.backbone(images)
        x = torch.cat([x, *(level(x) for level in self.levels)], 1)
        return F.interpolate(self.classifier(self.head(x)), images.shape[2:], mode="bilinear", align_corners=True)
