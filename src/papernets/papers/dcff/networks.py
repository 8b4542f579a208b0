"""The networks of DCFF, and what they cost."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import nn

from papernets.measure import size_of
from papernets.nn import GOOGLENET_WIDTHS, VGG, VGG16_WIDTHS, GoogLeNet, Network, Networks, ResNetCIFAR, ResNetImageNet, chosen
from papernets.papers.dcff.method import DCFF, FusedConv2d, fuse_narrow_, kept_width


def _widths(dense: Sequence[int], rates: Sequence[float]) -> list[int]:
    """The kept widths of layers with ``dense`` filters, at these pruning rates."""
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


def _narrow_r50(rates: tuple[str, str, str]) -> Callable[[], nn.Module]:
    first, second, stages = (_list(part) for part in rates)
    return partial(ResNetImageNet, _widths(_R50, first), _widths(_R50, second), _widths((256, 512, 1024, 2048), stages))


def _no_shortcut(name: str, module: nn.Module) -> bool:
    return ".shortcut." not in name


NETWORKS = Networks({
    "vgg16": Network(VGG, config=DCFF()),
    "resnet56": Network(partial(ResNetCIFAR, 56), config=DCFF()),
    "resnet110": Network(partial(ResNetCIFAR, 110), config=DCFF()),
    "googlenet": Network(GoogLeNet, config=DCFF(ignore=("stem",))),
    **{f"resnet50-{key}": Network(ResNetImageNet, (3, 224, 224), DCFF(ignore=("conv1",), filter_fn=_no_shortcut))
       for key in _R50_RATES},
})
#: The compact network that the published rates leave of each.
NARROW: dict[str, Callable[[], nn.Module]] = {
    "vgg16": partial(VGG, _VGG16),
    "resnet56": partial(ResNetCIFAR, 56, _R56),
    "resnet110": partial(ResNetCIFAR, 110, _R110, _R110_STAGES),
    "googlenet": partial(GoogLeNet, _GOOGLENET),
    **{f"resnet50-{key}": _narrow_r50(rates) for key, rates in _R50_RATES.items()},
}
#: How the wide filters are initialised: the fan of a normal distribution. Others begin as a convolution does.
FANS = {"resnet56": "fan_in", "resnet110": "fan_in", **dict.fromkeys((f"resnet50-{key}" for key in _R50_RATES), "fan_out")}


def fused(name: str) -> nn.Module:
    """The narrow network of ``name`` with its fused layers, ready to train. ``ValueError`` lists the names."""
    made = NETWORKS[name]
    wide = chosen(made.outline, nn.Conv2d, ignore=made.config.ignore, filter_fn=made.config.filter_fn)
    model = NARROW[name]()
    fuse_narrow_(model, {layer: module.out_channels for layer, module in wide.items()}, made.config)
    for module in model.modules():
        if isinstance(module, FusedConv2d) and name in FANS:
            nn.init.kaiming_normal_(module.weight, mode=FANS[name], nonlinearity="relu")
            module.restart()
    return model


def counts(name: str) -> dict[str, float]:
    """MACs (thop convention) and parameters of a compact network of the paper, and the shares removed in per cent.

    ``ValueError`` lists the names.
    """
    made = NETWORKS[name]
    left, whole = (size_of(build, made.shape, "thop") for build in (NARROW[name], made.build))
    return left | {f"{key}_cut": 100 * (1 - left[key] / whole[key]) for key in whole}
