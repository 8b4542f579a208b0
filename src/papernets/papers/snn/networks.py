"""The networks of SNN, and what they cost."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from papernets import check
from papernets.measure import evaluating
from papernets.nn import Network, Networks, ResNetBasic
from papernets.papers.snn.layers import SNN, SubBitConv2d, subbit_
from papernets.papers.snn.method import binarise, subset_size


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


NETWORKS = Networks({
    "resnet18": Network(BinaryResNet, (3, 224, 224), SNN()),
    "resnet34": Network(functools.partial(BinaryResNet, (6, 8, 12, 6)), (3, 224, 224), SNN()),
})


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
    seen = []

    def watch(name):
        def hook(module, inputs, output):
            seen.append(Size(name, module.weight.shape[1], *output.shape[1:]))
        return hook

    handles = [module.register_forward_hook(watch(name)) for name, module in model.named_modules()
               if isinstance(module, SubBitConv2d)]
    try:
        with evaluating(model):
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(seen)


@functools.cache
def layers(name: str) -> tuple[Size, ...]:
    """The 3×3 layers of a network of the paper at 224×224, read off the network itself."""
    network = NETWORKS[name]
    model = network.outline
    subbit_(model, network.config)
    return sizes(model, network.example.to("meta"))


def weight_bits(sizes: Sequence[Size], tau: int, codebook: bool = False) -> int:
    """τ bits a kernel; with ``codebook`` also 9·2^τ a layer (none at τ = 9, where the id is the kernel)."""
    book = 9 * subset_size(tau) if codebook and tau < 9 else 0
    return sum(tau * size.kernels + book for size in sizes)


def bit_ops(sizes: Sequence[Size], tau: int, addition: float = 0.5) -> float:
    """Multiply-accumulates of signs: 9 for each of min(2^τ, Co) dot products of an item, plus the additions of shared results.

    An addition, one for each output of an item if Co > 2^τ, counts as half a multiply-accumulate: that is the convention which
    gives the numbers of the authors' README. At τ = 9 nothing is shared, and it is the count of the binary network.
    """
    number, total = subset_size(tau), 0
    for size in sizes:
        shared = size.outputs > number
        total += size.items * (9 * min(number, size.outputs) + (addition * size.outputs if shared else 0))
    return total


def item_cycles(outputs: int, tau: int, adders: int = 4) -> int:
    """Cycles of an item on the sub-bit core: max(2^τ, ⌈Co/A⌉), as Dot9 and the adders work at the same time."""
    check.whole("adders", adders)
    return max(subset_size(tau), -(-outputs // adders))


def cycles(sizes: Sequence[Size], tau: int, adders: int = 4) -> int:
    """Cycles of all items on the sub-bit core, without the first fill and the last drain of a layer."""
    return sum(size.items * item_cycles(size.outputs, tau, adders) for size in sizes)


def binary_cycles(sizes: Sequence[Size]) -> int:
    """Cycles on the plain core: one dot product, one output, one cycle."""
    return sum(size.items * size.outputs for size in sizes)


def exact_cycles(sizes: Sequence[Size], core) -> int:
    """Cycles by the law of a simulated core, with the first fill and the last drain of every layer, one run a layer."""
    return sum(core.law(size.height * size.width, size.inputs, size.outputs) for size in sizes)


class SmallNet(nn.Module):
    """A real 3×3 stem and two 3×3 convolutions with activations in [-1, 1], for 8×8 digits."""

    def __init__(self, width: int = 24, classes: int = 10, channels: int = 1):
        super().__init__()
        self.stem, self.bn0 = nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.hardtanh(self.bn0(self.stem(x)))  # (B, width, 8, 8)
        x = functional.max_pool2d(functional.hardtanh(self.bn1(self.conv1(x))), 2)  # (B, width, 4, 4)
        x = functional.hardtanh(self.bn2(self.conv2(x)))
        return self.classifier(x.mean((2, 3)))


def teacher() -> ResNetBasic:
    """The real ResNet-34; a state of torchvision's resnet34 fits as well as one of ours."""
    model = ResNetBasic(34)
    model.register_load_state_dict_pre_hook(_renamed)
    return model


def _renamed(module: nn.Module, state: dict[str, torch.Tensor], *_) -> None:
    """Put tensors under torchvision's names in ``state`` under ours: ``layer2.0.downsample.1.bias`` is that of block 3."""
    first = {"layer1": 0, "layer2": 3, "layer3": 7, "layer4": 13}  # the block with which a stage begins
    for name in list(state):
        part, *rest = name.split(".")
        if part in first:
            index, *rest = rest
            inner = ["shortcut" if one == "downsample" else one for one in rest]
            state[".".join(["blocks", str(first[part] + int(index)), *inner])] = state.pop(name)
        elif part == "fc":
            state[".".join(["classifier", *rest])] = state.pop(name)
