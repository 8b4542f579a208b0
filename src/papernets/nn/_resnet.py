"""Residual networks: the CIFAR family (20, 56, 110 … layers), ResNet-18, -34 and -50 for ImageNet, with every width open.

He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
"""

import torch
from torch import nn
from torch.nn import functional as F

from papernets.nn._check import widths_of


class PadShortcut(nn.Module):
    """The shortcut without parameters (option A): take every ``stride``-th pixel, fill the new channels with zeros.

    Half of the zeros stand before the channels and half after; an odd one goes after.
    """

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        if after < before:
            raise ValueError(f"a padding shortcut cannot narrow {before} channels to {after}; it needs at least {before}")
        self.first = (after - before) // 2
        self.last = after - before - self.first
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.first, self.last))


def _he_normal_(model: nn.Module, mode: str) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")


class _BasicBlock(nn.Module):
    def __init__(self, before: int, inner: int, after: int, stride: int, projects: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(before, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        same = stride == 1 and before == after
        self.shortcut = nn.Identity() if same else PadShortcut(before, after, stride) if not projects else nn.Sequential(
            nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNetCIFAR(nn.Module):
    """A CIFAR residual network of ``depth`` = 6n + 2 layers; input (B, 3, 32, 32).

    ``inner`` are the 3n widths of the blocks' first convolutions, ``stages`` the three widths of the blocks' outputs;
    the stem takes the width of the first stage.
    """

    def __init__(self, depth: int = 56, inner=None, stages=(16, 32, 64), classes: int = 10):
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            nearest = max(8, 6 * round((depth - 2) / 6) + 2)
            raise ValueError(f"depth {depth} is not 6n + 2; the nearest is {nearest}")
        blocks = (depth - 2) // 6
        stages = widths_of(stages, 3, "ResNet stages")
        plain = tuple(width for width in stages for _ in range(blocks))
        inner = plain if inner is None else widths_of(inner, 3 * blocks, "ResNet inner")
        self.conv1 = nn.Conv2d(3, stages[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stages[0])
        layers, before = [], stages[0]
        for index, width in enumerate(inner):
            stage = index // blocks
            stride = 2 if stage > 0 and index % blocks == 0 else 1
            layers.append(_BasicBlock(before, width, stages[stage], stride))
            before = stages[stage]
        self.blocks = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(before, classes)
        _he_normal_(self, "fan_in")
        nn.init.kaiming_normal_(self.classifier.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(F.relu(self.bn1(self.conv1(x))))
        return self.classifier(self.avgpool(x).flatten(1))


#: Blocks of the four stages, by depth.
_BASIC = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class ResNetBasic(nn.Module):
    """ResNet-18 or -34 for ImageNet; input (B, 3, 224, 224).

    ``inner`` are the widths of the blocks' first convolutions (8 or 16 of them), ``stages`` the four widths of the blocks'
    outputs; the stem has the width of the first stage.
    """

    def __init__(self, depth: int = 18, inner=None, stages=(64, 128, 256, 512), classes: int = 1000):
        super().__init__()
        if depth not in _BASIC:
            raise ValueError(f"depth is {depth}; choose from {', '.join(map(str, _BASIC))}")
        stages, counts = widths_of(stages, 4, f"ResNet-{depth} stages"), _BASIC[depth]
        plain = tuple(width for width, count in zip(stages, counts) for _ in range(count))
        inner = plain if inner is None else widths_of(inner, sum(counts), f"ResNet-{depth} inner")
        self.conv1 = nn.Conv2d(3, stages[0], 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(stages[0])
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers, before, widths = [], stages[0], iter(inner)
        for stage, count in enumerate(counts):
            for block in range(count):
                stride = 2 if stage and not block else 1
                layers.append(_BasicBlock(before, next(widths), stages[stage], stride, projects=True))
                before = stages[stage]
        self.blocks = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(before, classes)
        _he_normal_(self, "fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        return self.classifier(self.avgpool(self.blocks(x)).flatten(1))


class _Bottleneck(nn.Module):
    def __init__(self, before: int, first: int, second: int, after: int, stride: int, spread: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(before, first, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        # the stride sits on the 3×3, and so does what takes its place where the resolution stays
        self.conv2 = nn.Conv2d(first, second, 3, stride, spread, spread, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.conv3 = nn.Conv2d(second, after, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if before != after or stride != 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + self.shortcut(x))


class ResNetImageNet(nn.Module):
    """ResNet-50; input (B, 3, 224, 224).

    ``first`` and ``second`` are the 16 widths of the blocks' first and second convolutions, ``stages`` the four widths
    of the blocks' outputs (third convolutions and shortcuts), ``stem`` the width of the 7×7 convolution.

    Two changes are usual where every pixel is labelled. With ``deep`` the stem is three 3×3 convolutions, of the given width
    twice and then of twice that. A ``stride`` of 16 or 8 instead of 32 keeps the resolution of the last one or two stages; the
    3×3 convolutions behind the place of a dropped stride read positions twice as far apart. Without ``classes`` there is no
    classifier, and the output is the last features (B, stages[3], h, w).
    """

    BLOCKS = (3, 4, 6, 3)

    def __init__(self, first=None, second=None, stages=(256, 512, 1024, 2048), stem: int = 64, classes: int | None = 1000, *,
                 deep: bool = False, stride: int = 32):
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"stride is {stride}; choose 8, 16 or 32")
        stages = widths_of(stages, 4, "ResNet-50 stages")
        inner = tuple(64 << stage for stage, count in enumerate(self.BLOCKS) for _ in range(count))
        first = inner if first is None else widths_of(first, 16, "ResNet-50 first")
        second = inner if second is None else widths_of(second, 16, "ResNet-50 second")
        before = 2 * stem if deep else stem
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False) if not deep else nn.Sequential(
            nn.Conv2d(3, stem, 3, 2, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True),
            nn.Conv2d(stem, stem, 3, 1, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU(inplace=True),
            nn.Conv2d(stem, before, 3, 1, 1, bias=False))
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        layers, index, reached, spread = [], 0, 4, 1
        for stage, count in enumerate(self.BLOCKS):
            drops = stage > 0 and reached >= stride
            step, reached = (2, 2 * reached) if stage and not drops else (1, reached)
            for block in range(count):
                layers.append(_Bottleneck(before, first[index], second[index], stages[stage], 1 if block else step, spread))
                before, index = stages[stage], index + 1
                if drops and not block:
                    spread *= 2  # the first block of a stage still reads neighbours of the stage before
        self.blocks = nn.Sequential(*layers)
        if classes is not None:
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = None if classes is None else nn.Linear(before, classes)
        _he_normal_(self, "fan_out")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.maxpool(self.relu(self.bn1(self.conv1(x)))))
        return x if self.classifier is None else self.classifier(self.avgpool(x).flatten(1))
