"""The networks of LR-Winograd, and what they cost."""

import functools

import torch
from torch import nn
from torch.nn import functional as F

from papernets.papers.lr_winograd.layers import LowRankWinograd, Plan, WinogradConv, _unfit
from papernets.papers.lr_winograd.method import removed


class C3D(nn.Module):
    """Eight 3×3×3 convolutions of stride 1 and poolings between them, for clips of 3 × 16 × 112 × 112.

    The network of Tran et al., "Learning Spatiotemporal Features with 3D Convolutional Networks", 2015, which we count on. The
    classifier is a mean and one linear layer, where the original has three. ``width`` scales all channels.
    """

    def __init__(self, classes: int = 101, width: float = 1.0, norm: bool = True):
        super().__init__()
        plan = (64, "first", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512)
        layers, before = [], 3
        for step in plan:
            if isinstance(step, str):
                layers.append(nn.MaxPool3d((1, 2, 2) if step == "first" else 2))
                continue
            after = max(1, round(step * width))
            layers += [nn.Conv3d(before, after, 3, padding=1, bias=not norm), *([nn.BatchNorm3d(after)] if norm else []),
                       nn.ReLU()]
            before = after
        self.features, self.classifier = nn.Sequential(*layers), nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.features(x).mean((2, 3, 4)))


class _Block3d(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.BatchNorm3d(after)
        self.conv2, self.bn2 = nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False),
                                                                        nn.BatchNorm3d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class ResNet3D18(nn.Module):
    """A stem of 3×7×7 and four stages of two blocks, for clips of 3 × 16 × 112 × 112."""

    def __init__(self, classes: int = 101):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), bias=False), nn.BatchNorm3d(64), nn.ReLU())
        stages = [_Block3d(before, after, stride) for before, after, stride in (
            (64, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1), (256, 512, 2), (512, 512, 1))]
        self.stages, self.classifier = nn.Sequential(*stages), nn.Linear(512, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.stages(self.stem(x)).mean((2, 3, 4)))


NETWORKS = {"c3d": C3D, "r3d": ResNet3D18}


@functools.cache
def _convolutions(name: str) -> tuple[tuple[str, int, int, tuple[int, ...], int, bool], ...]:
    """(name, Co, Ci, size of the input, multiply-adds, whether it has a Winograd form) of every 3×3×3 convolution."""
    found = []
    with torch.device("meta"):
        model = NETWORKS[name]()
        for layer, module in model.named_modules():
            if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3):
                def watch(module, inputs, output, layer=layer):
                    found.append((layer, module.out_channels, module.in_channels, tuple(inputs[0].shape[2:]),
                                  output.numel() * 27 * module.in_channels, not _unfit(module)))
                module.register_forward_hook(watch)
        model.eval()(torch.empty(1, 3, 16, 112, 112))
    return tuple(found)


def counts(name: str, m: int = 2, rho: float = 0.0, size: tuple[int, int, int] | None = None) -> dict[str, int]:
    """Of the 3×3×3 convolutions of a network: ``macs`` of all, ``direct`` of those with stride 1, their Winograd ``products``
    and ``additions``, spatial ``parameters`` and transformed ones, ``expanded``. ``size`` (D, H, W) leaves only the layers that
    read such a volume."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    found = dict.fromkeys(("macs", "direct", "products", "additions", "parameters", "expanded"), 0)
    columns = (m + 2) ** 3 - removed((m + 2) ** 3, rho)
    for _, Co, Ci, volume, macs, fits in _convolutions(name):
        if size is not None and volume != size:
            continue
        found["macs"] += macs
        if fits:
            plan = Plan(m, volume)
            into, out = plan.additions()
            found["direct"] += macs
            found["products"] += Co * Ci * plan.products(columns)
            found["additions"] += Ci * into + Co * out
            found["parameters"] += 27 * Co * Ci
            found["expanded"] += Co * Ci * columns
    return found


def trained_numbers(Co: int, Ci: int, config: LowRankWinograd) -> int:
    """Parameters of a layer without bias, counted on one."""
    return sum(p.numel() for p in WinogradConv(nn.Conv3d(Ci, Co, 3, padding=1, bias=False), config).parameters())


class ClipNet(nn.Module):
    """A direct convolution and a pooling, then two convolutions of ``width`` channels, and the largest answer anywhere."""

    def __init__(self, width: int = 8, classes: int = 4):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(1, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU(),
                                  nn.MaxPool3d((1, 2, 2)))
        self.body = nn.Sequential(*(layer for _ in range(2) for layer in (
            nn.Conv3d(width, width, 3, padding=1, bias=False), nn.BatchNorm3d(width), nn.ReLU())))
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.body(self.stem(x)).amax((2, 3, 4)))
