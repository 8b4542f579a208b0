"""Sub-bit networks: the networks and their counts."""

import pytest
import torch
from model_checks import lively
from papernets_kernels.hdl import subbit
from papers.snn.sample import names
from torch import nn
from torch.nn import functional

from papernets.measure import parameters
from papernets.papers.snn import SNN, SubBitConv2d, networks, subbit_
from papernets.papers.snn.networks import (
    BinaryResNet,
    Block,
    Size,
    bit_ops,
    cycles,
    item_cycles,
    layers,
    sizes,
    teacher,
    weight_bits,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def test_subbit_keeps_the_weights_and_leaves_the_rest():
    model = BinaryResNet((1, 1), (4, 6), 3, small=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    subbit_(model, SNN(tau=4, ignore=("stem",)))  # and so what is in it
    assert names(model, SubBitConv2d) == ["blocks.0.conv", "blocks.1.conv"]
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert type(model.stem[0]) is nn.Conv2d and model.blocks[1].conv.stride == (2, 2)
    assert "tau=4" in repr(model)


def test_networks_that_are_refused():
    with pytest.raises(ValueError, match="network is 'resnet50'; choose from resnet18, resnet34"):
        layers("resnet50")
    with pytest.raises(ValueError, match="3 numbers of blocks and 2 widths"):
        BinaryResNet((1, 1, 1), (4, 8))
    with pytest.raises(ValueError, match="adders is 0; it is a whole number of at least 1"):
        item_cycles(64, 5, 0)


def test_the_layers_are_those_of_the_network():
    found = layers("resnet18")
    assert len(found) == 16 and len(layers("resnet34")) == 32
    assert [(size.inputs, size.outputs, size.height, size.width) for size in found[3:6]] == [
        (64, 64, 56, 56), (64, 128, 28, 28), (128, 128, 28, 28)]
    assert found[-1] == Size("blocks.15.conv", 512, 512, 7, 7)


def test_the_numbers_to_the_last_digit():
    r18, r34 = layers("resnet18"), layers("resnet34")
    assert weight_bits(r18, 9) == 10_985_472 and weight_bits(r34, 9) == 21_086_208
    assert [weight_bits(r18, tau) for tau in (6, 5, 4)] == [7_323_648, 6_103_040, 4_882_432]
    assert [weight_bits(r18, tau, True) for tau in (6, 5, 4)] == [7_332_864, 6_107_648, 4_884_736]
    assert weight_bits(r18, 9, True) == weight_bits(r18, 9)
    assert bit_ops(r18, 9) == 1_676_279_808 and bit_ops(r34, 9) == 3_525_967_872
    assert [bit_ops(r18, tau) for tau in (6, 5, 4)] == [883_900_416, 501_358_592, 297_242_624]
    assert [round(bit_ops(r18, tau, addition=1) / 1e9, 3) for tau in (6, 5, 4)] == [0.951, 0.594, 0.390]
    assert (networks.binary_cycles(r18), cycles(r18, 5)) == (186_253_312, 59_408_384)
    assert (networks.binary_cycles(r34), cycles(r34, 5)) == (391_774_208, 117_211_136)


def test_each_stage_as_it_stands_in_the_table():
    """Per stage of ResNet-18: MMAC, shared-dot MMAC, additions, and cycles of both cores, in millions."""
    found = layers("resnet18")
    for width, expected in {64: (462.42, 231.21, 51.38, 51.38, 25.69), 128: (404.62, 101.15, 44.96, 44.96, 11.24),
                            256: (404.62, 50.58, 44.96, 44.96, 11.24), 512: (404.62, 25.29, 44.96, 44.96, 11.24)}.items():
        stage = [size for size in found if size.outputs == width]
        assert len(stage) == 4
        dots = bit_ops(stage, 5, addition=0)
        values = bit_ops(stage, 9), dots, bit_ops(stage, 5, addition=1) - dots, networks.binary_cycles(stage), cycles(stage, 5)
        assert [round(value / 1e6, 2) for value in values] == list(expected)


@pytest.mark.parametrize(("outputs", "adders", "expected"), [
    (64, 4, 32), (128, 4, 32), (129, 4, 33), (256, 4, 64), (512, 4, 128), (64, 1, 64), (512, 16, 32)])
def test_cycles_of_an_item(outputs, adders, expected):
    assert item_cycles(outputs, 5, adders) == expected


def test_the_exact_law_of_the_networks():
    core, plain = subbit.SubBit(5, 4, 64, 64, 512), subbit.PlainBinary(64, 64, 512)
    for name in ("resnet18", "resnet34"):
        found = layers(name)
        for size in found:
            one = [size]
            assert 0 < networks.exact_cycles(one, core) - cycles(one, 5) <= 34 + 128
            assert abs(networks.exact_cycles(one, core) / cycles(one, 5) - 1) < 1e-3
            assert networks.exact_cycles(one, plain) == networks.binary_cycles(one) + 2
        ratio = networks.exact_cycles(found, plain) / networks.exact_cycles(found, core)
        assert ratio == pytest.approx(networks.binary_cycles(found) / cycles(found, 5), rel=1e-4)


def published(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """A state under torchvision's names: four stages, of 3, 4, 6 and 3 blocks."""
    blocks = [f"layer{stage}.{index}" for stage, number in enumerate((3, 4, 6, 3), 1) for index in range(number)]
    named = {}
    for name, tensor in state.items():
        for block in range(15, -1, -1):
            name = name.replace(f"blocks.{block}.", f"{blocks[block]}.")
        named[name.replace("shortcut", "downsample").replace("classifier", "fc")] = tensor
    return named


def test_the_teacher_takes_the_published_state_as_well_as_its_own():
    with torch.device("meta"):
        assert parameters(teacher()) == 21_797_672
    first, second = lively(teacher()), teacher().eval()
    state = published(first.state_dict())
    assert state["layer2.0.downsample.0.weight"].shape == (128, 64, 1, 1) and len(state) == 218
    assert {"conv1.weight", "bn1.running_mean", "layer4.2.conv2.weight", "fc.bias"} <= set(state)
    assert "layer1.0.downsample.0.weight" not in state
    x = torch.randn(1, 3, 64, 64)
    for given in (state, first.state_dict()):
        second.load_state_dict(given)
        with torch.no_grad():
            assert torch.equal(second(x), first(x))
            second.classifier.weight.zero_()
    with pytest.raises(RuntimeError, match=r"Missing key\(s\) in state_dict: \"blocks.3.shortcut.1.bias\""):
        second.load_state_dict({name: tensor for name, tensor in state.items() if name != "layer2.0.downsample.1.bias"})


@pytest.mark.parametrize(("before", "after", "stride"), [(4, 4, 1), (4, 6, 2), (4, 6, 1)])
def test_the_block(before, after, stride):
    block = Block(before, after, stride).eval()
    with torch.no_grad():
        for p in block.parameters():
            p.uniform_(-1, 1)
    x = torch.randn(2, before, 6, 8)
    signs = torch.where(x + block.before.shift.view(-1, 1, 1) >= 0, 1.0, -1.0)
    y = block.bn(functional.conv2d(signs, block.conv.weight, stride=stride, padding=1))
    side = x
    if stride == 2:
        side = (x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4
    if before != after:
        side = block.shortcut[-1](functional.conv2d(side, block.shortcut[-2].weight))
    y = y + side + block.left.shift.view(-1, 1, 1)
    y = torch.where(y > 0, y, block.prelu.weight.view(-1, 1, 1) * y) + block.right.shift.view(-1, 1, 1)
    torch.testing.assert_close(block(x), y)


def test_sizes_leave_the_network_as_it_was():
    model = BinaryResNet((1, 1), (4, 6), 3, small=True)
    subbit_(model, SNN(tau=4, ignore=("stem",)))
    model.blocks[1].bn.eval()  # as when a part is frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = sizes(model, torch.zeros(1, 3, 32, 32))
    assert [(size.inputs, size.outputs, size.height, size.width) for size in found] == [(4, 4, 16, 16), (4, 6, 8, 8)]
    assert [name for name, module in model.named_modules() if not module.training] == ["blocks.1.bn"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert found[1].kernels == 24 and found[1].items == 256
