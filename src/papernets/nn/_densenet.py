"""The densely connected network for 32×32 images without bottlenecks: every layer reads what all layers before it wrote.

Huang, Liu, van der Maaten, Weinberger, "Densely Connected Convolutional Networks", arXiv 1608.06993.
"""

import torch
from torch import nn
from torch.nn import functional as F


class _DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(before)
        self.conv = nn.Conv2d(before, growth, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.conv(F.relu(self.bn(x)))], 1)  # (B, before + growth, h, w)


class _Transition(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.bn = nn.BatchNorm2d(width)
        self.conv = nn.Conv2d(width, width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.bn(x))), 2)


class DenseNetCIFAR(nn.Module):
    """DenseNet of ``depth`` = 3n + 4 layers and ``growth`` new channels a layer; input (B, 3, 32, 32)."""

    def __init__(self, depth: int = 40, growth: int = 12, classes: int = 10):
        super().__init__()
        if depth < 7 or (depth - 4) % 3:
            raise ValueError(f"depth {depth} is not 3n + 4; the nearest is {max(7, 3 * round((depth - 4) / 3) + 4)}")
        if growth < 1:
            raise ValueError(f"growth is {growth}; the smallest is 1")
        width = 2 * growth
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        layers = []
        for stage in range(3):
            for _ in range((depth - 4) // 3):
                layers.append(_DenseLayer(width, growth))
                width += growth
            if stage < 2:
                layers.append(_Transition(width))
        self.blocks = nn.Sequential(*layers)
        self.bn = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.bn(self.blocks(self.conv1(x))))
        return self.classifier(x.mean((2, 3)))  # (B, classes)
