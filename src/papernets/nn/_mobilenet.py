"""The MobileNets for ImageNet, with a width multiplier.

Howard and others, "MobileNets", arXiv 1704.04861 (V1). Sandler and others, "MobileNetV2: Inverted Residuals and Linear
Bottlenecks", arXiv 1801.04381. Howard and others, "Searching for MobileNetV3", arXiv 1905.02244.
"""

import torch
from torch import nn
from torch.nn import functional as F


def divisible(width: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``width``, at least one, and never less than 90 % of ``width``."""
    if not width > 0:
        raise ValueError(f"a width of {width} leaves no channel; the multiplier must be above 0")
    found = max(divisor, int(width + divisor / 2) // divisor * divisor)
    return found + divisor if found < 0.9 * width else found


def _unit(before: int, after: int, kernel: int = 1, stride: int = 1, groups: int = 1, act=nn.ReLU,
          **norm) -> list[nn.Module]:
    """A convolution without bias, batch norm, and an activation if there is one."""
    found = [nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(after, **norm)]
    return found + ([act(inplace=True)] if act else [])


class _Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.features: nn.Sequential
        self.classifier: nn.Sequential

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3)))  # (B, C, h, w) → (B, classes)

    def _start(self, spread: float = 0.01) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0, spread)
                nn.init.zeros_(module.bias)


class MobileNetV1(_Network):
    """13 pairs of a depthwise 3×3 and a pointwise convolution; input (B, 3, 224, 224)."""

    #: Width and stride of each pair.
    PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1))

    def __init__(self, multiplier: float = 1.0, classes: int = 1000):
        super().__init__()
        before = divisible(32 * multiplier)
        layers = _unit(3, before, 3, 2)
        for width, stride in self.PAIRS:
            after = divisible(width * multiplier)
            layers += [*_unit(before, before, 3, stride, before), *_unit(before, after)]
            before = after
        self.features, self.classifier = nn.Sequential(*layers), nn.Sequential(nn.Linear(before, classes))
        self._start()


class _SqueezeExcite(nn.Module):
    """Channels times a factor in [0, 1] that two 1×1 convolutions make from their means."""

    def __init__(self, channels: int):
        super().__init__()
        inner = divisible(channels / 4)
        self.fc1, self.fc2 = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.hardsigmoid(self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)))))  # (B, C, 1, 1)


class _Inverted(nn.Module):
    """Expand by 1×1, filter by a depthwise convolution, project by 1×1; added to the input where the shapes are the same."""

    def __init__(self, before: int, inner: int, after: int, kernel: int, stride: int, act, excite: bool, **norm):
        super().__init__()
        expand = _unit(before, inner, act=act, **norm) if inner != before else []
        self.block = nn.Sequential(*expand, *_unit(inner, inner, kernel, stride, inner, act=act, **norm),
                                   *([_SqueezeExcite(inner)] if excite else []), *_unit(inner, after, act=None, **norm))
        self.adds = stride == 1 and before == after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.block(x) if self.adds else self.block(x)


class MobileNetV2(_Network):
    """17 inverted residuals between a 3×3 stem and a 1×1 convolution; input (B, 3, 224, 224)."""

    #: Expansion, width, blocks and first stride of each stage.
    STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))

    def __init__(self, multiplier: float = 1.0, classes: int = 1000):
        super().__init__()
        before, last = divisible(32 * multiplier), divisible(1280 * max(1.0, multiplier))
        layers = _unit(3, before, 3, 2, act=nn.ReLU6)
        for expansion, width, blocks, stride in self.STAGES:
            after = divisible(width * multiplier)
            for index in range(blocks):
                step = 1 if index else stride
                layers.append(_Inverted(before, expansion * before, after, 3, step, nn.ReLU6, False))
                before = after
        layers += _unit(before, last, act=nn.ReLU6)
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))
        self._start()


#: Kernel, inner width, width, squeeze and excitation, hard swish instead of ReLU, stride of each block.
_V3_BLOCKS = {
    "small": ((3, 16, 16, True, False, 2), (3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1),
              (5, 96, 40, True, True, 2), (5, 240, 40, True, True, 1), (5, 240, 40, True, True, 1),
              (5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1), (5, 288, 96, True, True, 2),
              (5, 576, 96, True, True, 1), (5, 576, 96, True, True, 1)),
    "large": ((3, 16, 16, False, False, 1), (3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1),
              (5, 72, 40, True, False, 2), (5, 120, 40, True, False, 1), (5, 120, 40, True, False, 1),
              (3, 240, 80, False, True, 2), (3, 200, 80, False, True, 1), (3, 184, 80, False, True, 1),
              (3, 184, 80, False, True, 1), (3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1),
              (5, 672, 160, True, True, 2), (5, 960, 160, True, True, 1), (5, 960, 160, True, True, 1)),
}
_V3_LAST = {"small": 1024, "large": 1280}


class MobileNetV3(_Network):
    """Inverted residuals with squeeze and excitation; ``size`` is ``"small"`` or ``"large"``. Input (B, 3, 224, 224)."""

    def __init__(self, size: str = "large", multiplier: float = 1.0, classes: int = 1000):
        super().__init__()
        if size not in _V3_BLOCKS:
            raise ValueError(f"size is {size!r}; MobileNetV3 is 'small' or 'large'")
        norm = dict(eps=1e-3, momentum=0.01)
        before = divisible(16 * multiplier)
        layers = _unit(3, before, 3, 2, act=nn.Hardswish, **norm)
        for kernel, inner, width, excite, swish, stride in _V3_BLOCKS[size]:
            inner, after = divisible(inner * multiplier), divisible(width * multiplier)
            act = nn.Hardswish if swish else nn.ReLU
            layers.append(_Inverted(before, inner, after, kernel, stride, act, excite, **norm))
            before = after
        wide, last = 6 * before, divisible(_V3_LAST[size] * multiplier)
        self.features = nn.Sequential(*layers, *_unit(before, wide, act=nn.Hardswish, **norm))
        self.classifier = nn.Sequential(nn.Linear(wide, last), nn.Hardswish(inplace=True), nn.Dropout(0.2),
                                        nn.Linear(last, classes))
        self._start()
