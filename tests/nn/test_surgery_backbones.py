"""Removing dead filters from the backbones of the book: the outputs stay what they were."""

import pytest
from surgery_checks import FIVE, SEVEN, assert_dead_filters_do_not_matter, keep, prepared
from torch import nn

from papernets.nn import GOOGLENET_WIDTHS, VGG, ConvNet, GoogLeNet, ResNetCIFAR, ResNetImageNet

pytestmark = pytest.mark.usefixtures("one_thread")


def behind(name):
    """The norm behind a convolution of a Sequential."""
    parent, index = name.rsplit(".", 1)
    return f"{parent}.{int(index) + 1}"


def convolutions(model, *starts):
    return [name for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d) and name.startswith(starts)]


def test_convnet():
    model, x = prepared(lambda: ConvNet((7, 5, 11), 3), (9, 13))
    kept = {"features.0": SEVEN, "features.4": FIVE, "features.8": keep(0, 5, 10)}
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_vgg():
    model, x = prepared(lambda: VGG((3, 5, 7, 5, 3, 5, 7, 5, 3, 5, 7, 5, 3), 3), (32, 32))
    kept = {name: keep(0, 2) for name in convolutions(model, "features")}
    assert len(kept) == 13
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_googlenet():
    widths = {unit: tuple(3 + (row + i) % 5 for i in range(7)) for row, unit in enumerate(GOOGLENET_WIDTHS)}
    model, x = prepared(lambda: GoogLeNet(widths, 3), (32, 32), batch=2)
    kept = {name: keep(0, 2) for name in convolutions(model, "a3", "c4", "b5")}
    assert len(kept) == 21
    assert_dead_filters_do_not_matter(model, x, kept, {name: behind(name) for name in kept})


def test_resnet_cifar_inside_its_blocks():
    model, x = prepared(lambda: ResNetCIFAR(14, stages=(5, 7, 11), classes=3), (32, 32))
    kept = {f"blocks.{index}.conv1": keep(0, 3, 4) for index in range(6)}
    assert_dead_filters_do_not_matter(model, x, kept, {name: name.replace("conv", "bn") for name in kept})


def test_resnet50_inside_its_blocks_and_a_stage():
    model, x = prepared(lambda: ResNetImageNet((3,) * 16, (5,) * 16, (7, 11, 13, 17), 5, 3), (65, 65), batch=2)
    kept = {f"blocks.{index}.conv{layer}": keep(0, 2) for index in range(16) for layer in (1, 2)}
    kept |= {f"blocks.{index}.conv3": keep(0, 2, 9) for index in (3, 4, 5, 6)}
    norms = {name: name.replace("conv", "bn") for name in kept}
    kept["blocks.3.shortcut.0"], norms["blocks.3.shortcut.0"] = keep(0, 2, 9), "blocks.3.shortcut.1"
    assert_dead_filters_do_not_matter(model, x, kept, norms)
