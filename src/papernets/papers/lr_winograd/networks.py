"""The networks of LR-Winograd, and what they cost."""

import functools

import torch
from torch import nn
from torch.nn import functional

from papernets.measure import count_of, parameters
from papernets.nn import Network, Networks
from papernets.papers.lr_winograd.layers import LowRankWinograd, Plan, WinogradConv, convertible
from papernets.papers.lr_winograd.method import columns_gone


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
        return self.classifier(self.features(x).mean((2, 3, 4)))  # (B, classes)


class _Block3d(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv3d(before, after, 3, stride, 1, bias=False), nn.BatchNorm3d(after)
        self.conv2, self.bn2 = nn.Conv3d(after, after, 3, 1, 1, bias=False), nn.BatchNorm3d(after)
        self.shortcut = nn.Identity() if stride == 1 else nn.Sequential(nn.Conv3d(before, after, 1, stride, bias=False),
                                                                        nn.BatchNorm3d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + self.shortcut(x))


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


_CLIP = (3, 16, 112, 112)
NETWORKS = Networks({"c3d": Network(C3D, _CLIP), "r3d": Network(ResNet3D18, _CLIP)})


@functools.cache
def convolutions(name: str) -> dict[str, tuple[int, int, tuple[int, int, int], bool]]:
    """Of every 3×3×3 convolution of a network: Co, Ci, the volume (D, H, W) it reads, and whether it has a Winograd form."""
    with torch.device("meta"):
        model = NETWORKS[name].build().eval()
        volumes: dict[nn.Module, tuple[int, int, int]] = {}
        every = {layer: module for layer, module in model.named_modules()
                 if isinstance(module, nn.Conv3d) and module.kernel_size == (3, 3, 3)}
        for module in every.values():
            module.register_forward_hook(lambda module, inputs, output: volumes.update({module: tuple(inputs[0].shape[2:])}))
        model(NETWORKS[name].example)
    fits = convertible(model)
    return {layer: (conv.out_channels, conv.in_channels, volumes[conv], layer in fits) for layer, conv in every.items()}


def counts(name: str, m: int = 2, removed: float = 0.0, size: tuple[int, int, int] | None = None) -> dict[str, int]:
    """Of the 3×3×3 convolutions of a network: ``macs`` of all, ``direct`` of those with stride 1, their Winograd ``products``
    and ``additions``, spatial ``parameters`` and transformed ones, ``expanded``. ``size`` (D, H, W) leaves only the layers that
    read such a volume. ``ValueError`` lists the networks.
    """
    made = NETWORKS[name]
    macs = {layer: cost.macs for layer, cost in count_of(made.build, made.shape).items()}
    total = dict.fromkeys(("macs", "direct", "products", "additions", "parameters", "expanded"), 0)
    columns = (m + 2) ** 3 - columns_gone((m + 2) ** 3, removed)
    for layer, (Co, Ci, volume, fits) in convolutions(name).items():
        if size is not None and volume != size:
            continue
        total["macs"] += macs[layer]
        if fits:
            plan = Plan(m, volume)
            into, out = plan.additions()
            total["direct"] += macs[layer]
            total["products"] += Co * Ci * plan.products(columns)
            total["additions"] += Ci * into + Co * out
            total["parameters"] += 27 * Co * Ci
            total["expanded"] += Co * Ci * columns
    return total


def trained_numbers(Co: int, Ci: int, config: LowRankWinograd) -> int:
    """Parameters of a layer without bias, counted on one."""
    return parameters(WinogradConv(nn.Conv3d(Ci, Co, 3, padding=1, bias=False), config))


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
