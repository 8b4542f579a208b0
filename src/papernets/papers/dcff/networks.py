"""The networks of DCFF, and what they cost."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import nn

from papernets.measure import macs, parameters
from papernets.nn import GOOGLENET_WIDTHS, VGG, VGG16_WIDTHS, GoogLeNet, ResNetCIFAR, ResNetImageNet
from papernets.papers.dcff.method import DCFF, FusedConv2d, fuse_narrow_, kept_width


@dataclass(frozen=True)
class Network:
    """A dense network of the paper and the narrow one its published rates leave; ``fused`` names the fused layers."""

    dense: Callable[[], nn.Module]
    narrow: Callable[[], nn.Module]
    example: tuple[int, ...]
    unfused: tuple[str, ...] = ()
    init: str = "default"
    config: DCFF = field(default_factory=DCFF)

    def build(self) -> nn.Module:
        """The narrow network with its fused layers, ready to train."""
        with torch.device("meta"):
            wide = {name: module.out_channels for name, module in self.dense().named_modules()
                    if isinstance(module, nn.Conv2d)}
        model = self.narrow()
        fused = {name: C for name, C in wide.items() if not name.startswith(self.unfused or ("\0",))
                 and ".shortcut." not in name}
        fuse_narrow_(model, fused, self.config)
        if self.init != "default":
            for module in model.modules():
                if isinstance(module, FusedConv2d):
                    nn.init.kaiming_normal_(module.weight, mode=self.init, nonlinearity="relu")
                    module.restart()
        return model


def _widths(dense: Sequence[int], rates: Sequence[float]) -> list[int]:
    return [kept_width(C, rate) for C, rate in zip(dense, rates, strict=True)]


def _list(text: str) -> list[float]:
    """``".5*2 0"`` → ``[0.5, 0.5, 0.0]``, the way the authors write rates."""
    rates = []
    for part in text.split():
        rate, _, times = part.partition("*")
        rates += [float(rate)] * int(times or 1)
    return rates


_VGG16 = _widths(VGG16_WIDTHS, _list(".5*2 .4*2 .35*3 .85*6"))
_R56 = _widths([16] * 9 + [32] * 9 + [64] * 9, _list(
    ".7*2 .5*3 .3*2 .4 .8   .7*2 .8*4 .4 .2*2   .7 .3 .8 .4*2 .7 .3 .4 .8"))
_R110 = _widths([16] * 18 + [32] * 18 + [64] * 18, _list(
    ".2 0 .2 .3 .7 .7 .1 .3 .3 .4 .7 .7 .5 .1 .3 0 .6 0   .2 .5 0 .7 .7 .5 .7 .7 .4 .4 0 .3 .1 .5 .1 .1 .1 .7   "
    ".1 .1 .3*5 .5 .7 .2 .4 .7*5 .5 .1"))
_R110_STAGES = _widths((16, 32, 64), (0.6, 0.2, 0.5))
_R50 = [64] * 3 + [128] * 4 + [256] * 6 + [512] * 3
#: Rates of ResNet-50: first convolutions | second convolutions | third convolutions and shortcuts, per stage.
_R50_RATES = {
    "a": (".8*10 .7*6", ".6*10 .4*6", ".3*4"),
    "b": (".6*10 .5*6", ".5*10 .4*6", ".2*4"),
    "c": (".35*10 .3*6", ".4*10 .3*6", ".1*4"),
    "d": (".5*16", ".5*16", ".25*3 0"),
    "e": (".7*7 .45*9", ".7*7 .45*9", ".24*3 0"),
    "f": (".43*7 .73*9", ".43*7 .73*9", ".45*3 0"),
}
_GOOGLENET_RATE = {"a3": 0.8, "b3": 0.9, "a4": 0.9, "b4": 0.9, "c4": 0.8, "d4": 0.8, "e4": 0.8, "a5": 0.9, "b5": 0.9}
_GOOGLENET = {unit: tuple(_widths(GOOGLENET_WIDTHS[unit], [0, r, 0, r, r, 0, 0])) for unit, r in _GOOGLENET_RATE.items()}
_CIFAR, _IMAGENET = (1, 3, 32, 32), (1, 3, 224, 224)


def _r50(rates: tuple[str, str, str]) -> Callable[[], nn.Module]:
    first, second, stages = (_list(part) for part in rates)
    return lambda: ResNetImageNet(_widths(_R50, first), _widths(_R50, second),
                                  _widths((256, 512, 1024, 2048), stages))


NETWORKS = {
    "vgg16": Network(VGG, lambda: VGG(_VGG16), _CIFAR),
    "resnet56": Network(lambda: ResNetCIFAR(56), lambda: ResNetCIFAR(56, _R56), _CIFAR, init="fan_in"),
    "resnet110": Network(lambda: ResNetCIFAR(110), lambda: ResNetCIFAR(110, _R110, _R110_STAGES), _CIFAR, init="fan_in"),
    "googlenet": Network(GoogLeNet, lambda: GoogLeNet(_GOOGLENET), _CIFAR, unfused=("stem",)),
    **{f"resnet50-{key}": Network(ResNetImageNet, _r50(rates), _IMAGENET, unfused=("conv1",), init="fan_out")
       for key, rates in _R50_RATES.items()},
}


def network(name: str) -> Network:
    """A network of the paper by name. ``ValueError`` lists the names."""
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; choose from {', '.join(NETWORKS)}")
    return NETWORKS[name]


def counts(name: str) -> dict[str, float]:
    """MACs (thop convention) and parameters of a compact network of the paper, and the shares removed in per cent."""
    made = network(name)
    found, whole = _cost(made.narrow, made.example), _cost(made.dense, made.example)
    return found | {f"{key}_cut": 100 * (1 - found[key] / whole[key]) for key in whole}


@functools.cache
def _cost(build: Callable[[], nn.Module], example: tuple[int, ...]) -> dict[str, int]:
    with torch.device("meta"):
        model = build()
        return {"macs": macs(model, torch.empty(example), "thop"), "params": parameters(model)}
