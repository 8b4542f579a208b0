"""The networks of SNN, and what they cost."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from papernets.papers.snn.layers import SNN, SubBitConv2d, subbit_
from papernets.papers.snn.method import binarise, count_of


class Shift(nn.Module):
    """A learnable constant a channel, added."""

    def __init__(self, channels: int):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.shift.view(-1, 1, 1)


class Block(nn.Module):
    """One binary convolution with a residual of its own, and ReActNet's shifts before the sign and around a PReLU."""

    def __init__(self, before: int, after: int, stride: int = 1):
        super().__init__()
        self.before = Shift(before)
        self.conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn = nn.BatchNorm2d(after)
        self.left, self.prelu, self.right = Shift(after), nn.PReLU(after), Shift(after)
        self.shortcut = nn.Identity()
        if stride != 1 or before != after:
            pool = [nn.AvgPool2d(stride)] if stride != 1 else []
            self.shortcut = nn.Sequential(*pool, nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn(self.conv(binarise(self.before(x)))) + self.shortcut(x)
        return self.right(self.prelu(self.left(y)))


class BinaryResNet(nn.Module):
    """The residual network of the authors' code: binary activations, real stem, shortcuts and classifier.

    ``blocks`` are the numbers of blocks of the stages: (4, 4, 4, 4) is ResNet-18, (6, 8, 12, 6) ResNet-34. Its 3×3 convolutions
    have real weights, as in the first stage of training; ``subbit_`` makes them sub-bit. ``small`` has a 3×3 stem of stride 2
    for small images.
    """

    def __init__(self, blocks: Sequence[int] = (4, 4, 4, 4), widths: Sequence[int] = (64, 128, 256, 512), classes: int = 1000,
                 small: bool = False):
        super().__init__()
        if len(blocks) != len(widths) or min(blocks, default=0) < 1:
            raise ValueError(f"{len(blocks)} numbers of blocks and {len(widths)} widths; give as many, each at least 1")
        first = [nn.Conv2d(3, widths[0], 3, 2, 1, bias=False), nn.BatchNorm2d(widths[0])] if small else [
            nn.Conv2d(3, widths[0], 7, 2, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.MaxPool2d(3, 2, 1)]
        self.stem = nn.Sequential(*first)
        layers, before = [], widths[0]
        for stage, (count, width) in enumerate(zip(blocks, widths)):
            for index in range(count):
                layers.append(Block(before, width, 2 if stage and not index else 1))
                before = width
        self.blocks = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(self.stem(x))  # (B, C, h, w)
        return self.classifier(x.mean((2, 3)))  # (B, classes)


NETWORKS = {"resnet18": (4, 4, 4, 4), "resnet34": (6, 8, 12, 6)}


def network(name: str, config: SNN = SNN()) -> BinaryResNet:
    """A network of the paper, its 3×3 convolutions sub-bit. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    model = BinaryResNet(NETWORKS[name])
    subbit_(model, config)
    return model


@dataclass(frozen=True)
class Size:
    """A 3×3 layer: input and output channels, and the height and width of its output."""

    name: str
    inputs: int
    outputs: int
    height: int
    width: int

    @property
    def kernels(self) -> int:
        return self.inputs * self.outputs

    @property
    def items(self) -> int:
        """Windows: output positions times input channels."""
        return self.inputs * self.height * self.width


def sizes(model: nn.Module, example: torch.Tensor) -> tuple[Size, ...]:
    """The sub-bit layers of ``model`` in the order in which they run on ``example``."""
    found = []

    def watch(name):
        def hook(module, inputs, output):
            found.append(Size(name, module.weight.shape[1], *output.shape[1:]))
        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()
               if isinstance(module, SubBitConv2d)]
    was = model.training
    try:
        with torch.no_grad():
            model.eval()(example)
    finally:
        model.train(was)
        for handle in handles:
            handle.remove()
    return tuple(found)


@functools.cache
def layers(name: str) -> tuple[Size, ...]:
    """The 3×3 layers of a network of the paper at 224×224, read off the network itself."""
    with torch.device("meta"):
        return sizes(network(name), torch.empty(1, 3, 224, 224))


def weight_bits(found: Sequence[Size], tau: int, codebook: bool = False) -> int:
    """τ bits a kernel; with ``codebook`` also 9·2^τ a layer (none at τ = 9, where the id is the kernel)."""
    book = 9 * count_of(tau) if codebook and tau < 9 else 0
    return sum(tau * size.kernels + book for size in found)


def bit_ops(found: Sequence[Size], tau: int, addition: float = 0.5) -> float:
    """Multiply-accumulates of signs: 9 for each of min(2^τ, Co) dot products of an item, plus the additions of shared results.

    An addition, one for each output of an item if Co > 2^τ, counts as half a multiply-accumulate: that is the convention which
    gives the numbers of the authors' README. At τ = 9 nothing is shared, and it is the count of the binary network.
    """
    number, total = count_of(tau), 0
    for size in found:
        shared = size.outputs > number
        total += size.items * (9 * min(number, size.outputs) + (addition * size.outputs if shared else 0))
    return total


def item_cycles(outputs: int, tau: int, adders: int = 4) -> int:
    """Cycles of an item on the sub-bit core: max(2^τ, ⌈Co/A⌉), as Dot9 and the adders work at the same time."""
    if not isinstance(adders, int) or adders < 1:
        raise ValueError(f"adders is {adders!r}; it is a whole number of at least 1, and the paper draws 4")
    return max(count_of(tau), -(-outputs // adders))


def cycles(found: Sequence[Size], tau: int, adders: int = 4) -> int:
    """Cycles of all items on the sub-bit core, without the first fill and the last drain of a layer."""
    return sum(size.items * item_cycles(size.outputs, tau, adders) for size in found)


def binary_cycles(found: Sequence[Size]) -> int:
    """Cycles on the plain core: one dot product, one output, one cycle."""
    return sum(size.items * size.outputs for size in found)


def exact_cycles(found: Sequence[Size], core) -> int:
    """Cycles by the law of a simulated core, with the first fill and the last drain of every layer, one run a layer."""
    return sum(core.law(size.height * size.width, size.inputs, size.outputs) for size in found)


class SmallNet(nn.Module):
    """A real 3×3 stem and two 3×3 convolutions with activations in [-1, 1], for 8×8 digits."""

    def __init__(self, width: int = 24, classes: int = 10, channels: int = 1):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.hardtanh(self.bn0(self.stem(x)))  # (B, width, 8, 8)
        x = F.max_pool2d(F.hardtanh(self.bn1(self.conv1(x))), 2)  # (B, width, 4, 4)
        x = F.hardtanh(self.bn2(self.conv2(x)))
        return self.classifier(x.mean((2, 3)))


class _Basic(nn.Module):
    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after)
        self.conv2, self.bn2 = nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Teacher(nn.Module):
    """The real ResNet-34; its parameters have the names of torchvision's, so a published state fits as well as one of ours."""

    def __init__(self, classes: int = 1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        before = 64
        for stage, (count, width) in enumerate(zip((3, 4, 6, 3), (64, 128, 256, 512)), 1):
            blocks = [_Basic(before if not i else width, width, 2 if stage > 1 and not i else 1) for i in range(count)]
            self.add_module(f"layer{stage}", nn.Sequential(*blocks))
            before = width
        self.fc = nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))
