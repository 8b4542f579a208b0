"""The backbones: shapes, parameter counts from an independent formula, the padding shortcut, and the refusals."""

import pytest
import torch
from torch import nn

from papernets.measure import macs
from papernets.nn import (
    GOOGLENET_WIDTHS,
    VGG,
    VGG16_WIDTHS,
    ConvNet,
    DenseNetCIFAR,
    GoogLeNet,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    PadShortcut,
    ResNetBasic,
    ResNetCIFAR,
)
from papernets.nn import ResNetImageNet as ResNet50


def size(model):
    return sum(p.numel() for p in model.parameters())


def on_meta(build):
    with torch.device("meta"):
        return build()


def conv(before, after, kernel, bias=False):
    """Weights of a convolution and of the batch norm behind it."""
    return before * after * kernel**2 + bias * after + 2 * after


def vgg_parameters(widths, classes):
    return sum(conv(b, a, 3, True) for b, a in zip((3, *widths), widths)) + (widths[-1] + 1) * classes


def resnet_cifar_parameters(depth, inner, stages, classes):
    n = (depth - 2) // 6
    outputs = [stages[0]] + [stages[index // n] for index in range(3 * n)]
    blocks = sum(conv(outputs[i], inner[i], 3) + conv(inner[i], outputs[i + 1], 3) for i in range(3 * n))
    return conv(3, stages[0], 3) + blocks + (stages[2] + 1) * classes


def resnet50_parameters(first, second, stages, stem, classes):
    total, before, block = conv(3, stem, 7), stem, 0
    for stage, count in enumerate((3, 4, 6, 3)):
        for index in range(count):
            total += conv(before, first[block], 1) + conv(first[block], second[block], 3)
            total += conv(second[block], stages[stage], 1)
            if index == 0:
                total += conv(before, stages[stage], 1)
            before, block = stages[stage], block + 1
    return total + (before + 1) * classes


def googlenet_parameters(widths, classes):
    total, before = conv(3, 192, 3, True), 192
    for unit in ("a3", "b3", "a4", "b4", "c4", "d4", "e4", "a5", "b5"):
        one, r3, three, r5, five1, five2, pool = widths[unit]
        for b, a, k in ((before, one, 1), (before, r3, 1), (r3, three, 3), (before, r5, 1), (r5, five1, 3),
                        (five1, five2, 3), (before, pool, 1)):
            total += conv(b, a, k, True)
        before = one + three + five2 + pool
    return total + (before + 1) * classes


def densenet_parameters(depth, growth, classes):
    """Every layer: a batch norm on all channels so far, and a 3×3 convolution to ``growth`` new ones."""
    n, total, width = (depth - 4) // 3, 27 * 2 * growth, 2 * growth
    for stage in range(3):
        for _ in range(n):
            total += 2 * width + 9 * width * growth
            width += growth
        total += (2 * width + width**2) if stage < 2 else 2 * width
    return total + (width + 1) * classes


def plain_inner(depth, stages=(16, 32, 64)):
    return [width for width in stages for _ in range((depth - 2) // 6)]


NARROW_VGG = (3, 5, 7, 11, 13, 3, 5, 7, 11, 13, 3, 5, 7)
NARROW_INNER = (3, 5, 7, 11, 13, 17, 19, 23, 29)
NARROW_GOOGLENET = {unit: tuple(2 + (3 * row + 5 * i) % 11 for i in range(7))
                    for row, unit in enumerate(GOOGLENET_WIDTHS)}


@pytest.mark.parametrize(("widths", "classes"), [(VGG16_WIDTHS, 10), (VGG16_WIDTHS, 100), (NARROW_VGG, 7)])
def test_vgg_parameters(widths, classes):
    assert size(on_meta(lambda: VGG(widths, classes))) == vgg_parameters(widths, classes)


@pytest.mark.parametrize(("depth", "published"), [(20, 269_722), (56, 853_018), (110, 1_727_962)])
def test_resnet_cifar_parameters(depth, published):
    expected = resnet_cifar_parameters(depth, plain_inner(depth), (16, 32, 64), 10)
    assert size(on_meta(lambda: ResNetCIFAR(depth))) == expected == published


def test_narrow_resnet_cifar_parameters():
    model = on_meta(lambda: ResNetCIFAR(20, NARROW_INNER, (5, 11, 17), 7))
    assert size(model) == resnet_cifar_parameters(20, NARROW_INNER, (5, 11, 17), 7)


def test_resnet50_parameters():
    inner = [width for width, count in zip((64, 128, 256, 512), (3, 4, 6, 3)) for _ in range(count)]
    expected = resnet50_parameters(inner, inner, (256, 512, 1024, 2048), 64, 1000)
    assert size(on_meta(ResNet50)) == expected == 25_557_032


def test_narrow_resnet50_parameters():
    first, second = [3 + 2 * i for i in range(16)], [41 - 2 * i for i in range(16)]
    model = on_meta(lambda: ResNet50(first, second, (7, 13, 19, 29), 5, 11))
    assert size(model) == resnet50_parameters(first, second, (7, 13, 19, 29), 5, 11)


@pytest.mark.parametrize(("widths", "classes"), [(GOOGLENET_WIDTHS, 10), (NARROW_GOOGLENET, 7)])
def test_googlenet_parameters(widths, classes):
    assert size(on_meta(lambda: GoogLeNet(widths, classes))) == googlenet_parameters(widths, classes)


@pytest.mark.parametrize(("depth", "growth", "classes"), [(40, 12, 10), (13, 5, 7)])
def test_densenet_parameters(depth, growth, classes):
    assert size(on_meta(lambda: DenseNetCIFAR(depth, growth, classes))) == densenet_parameters(depth, growth, classes)


def test_densenet40_costs_what_is_published():
    with torch.device("meta"):
        model = DenseNetCIFAR()
        assert size(model) == 1_059_298 and macs(model, torch.empty(1, 3, 32, 32)) == 282_917_328


def test_a_dense_layer_hands_on_what_it_read(one_thread):
    torch.manual_seed(0)
    model = DenseNetCIFAR(10, 5).eval()
    x = torch.randn(2, 10, 9, 7)
    with torch.no_grad():
        y = model.blocks[1](model.blocks[0](x))
    assert y.shape == (2, 20, 9, 7) and torch.equal(y[:, :10], x) and y[:, 15:].abs().sum() > 0


def test_convnet_parameters():
    model = ConvNet((5, 7, 11), classes=3, channels=2)
    assert size(model) == conv(2, 5, 3) + conv(5, 7, 3) + conv(7, 11, 3) + 12 * 3


@pytest.mark.parametrize(("build", "pixels"), [
    (lambda: VGG(NARROW_VGG, 7), 32),
    (lambda: ResNetCIFAR(20, NARROW_INNER, (5, 11, 17), 7), 32),
    (lambda: ResNet50((3,) * 16, (5,) * 16, (7, 11, 13, 17), 5, 7), 97),
    (lambda: ResNetBasic(18, (3,) * 8, (5, 7, 11, 13), 7), 97),
    (lambda: MobileNetV1(0.25, 7), 65), (lambda: MobileNetV2(0.25, 7), 65), (lambda: MobileNetV3("small", 0.5, 7), 65),
    (lambda: GoogLeNet(NARROW_GOOGLENET, 7), 32),
    (lambda: ConvNet((5, 11), 7), 29), (lambda: DenseNetCIFAR(10, 5, 7), 29),
], ids=["vgg", "resnet cifar", "resnet50", "resnet18", "mobilenet v1", "mobilenet v2", "mobilenet v3", "googlenet", "convnet",
        "densenet"])
def test_every_parameter_learns(build, pixels, one_thread):
    torch.manual_seed(0)
    model = build()
    output = model(torch.randn(3, 3, pixels, pixels))
    assert output.shape == (3, 7)
    # a different weight an output: the sum alone cannot reach what a batch norm removes
    (output * torch.randn(3, 7)).sum().backward()
    for name, p in model.named_parameters():
        assert p.grad is not None, name
        assert torch.isfinite(p.grad).all(), name
    parameters = list(model.parameters())
    assert parameters[0].grad.abs().sum() > 0 and parameters[-2].grad.abs().sum() > 0  # the first layer, and the classifier


@pytest.mark.parametrize("build", [VGG, ResNetCIFAR, GoogLeNet, DenseNetCIFAR])
def test_default_shapes(build):
    model = on_meta(build).eval()
    assert model(torch.empty(3, 3, 32, 32, device="meta")).shape == (3, 10)


def test_stages_halve_the_image():
    model = on_meta(lambda: ResNetCIFAR(20))
    sizes, x = [], torch.empty(1, 16, 32, 32, device="meta")
    for block in model.blocks:
        x = block(x)
        sizes.append(x.shape[1:])
    assert sizes == [(16, 32, 32)] * 3 + [(32, 16, 16)] * 3 + [(64, 8, 8)] * 3


def test_resnet50_strides_on_the_3x3():
    model = on_meta(ResNet50)
    strided = [name for name, layer in model.blocks.named_modules()
               if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)]
    assert strided == [f"{block}.{layer}" for block in (3, 7, 13) for layer in ("conv2", "shortcut.0")]


def test_the_basic_block_adds_its_input(one_thread):
    """With the second norm at zero a block is its shortcut; all of them, and the network is its stem."""
    torch.manual_seed(0)
    model = ResNetCIFAR(20, stages=(5, 5, 5)).eval()
    for block in model.blocks:
        nn.init.zeros_(block.bn2.weight)
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        stem = torch.relu(model.bn1(model.conv1(x)))
        expected = model.classifier(stem[:, :, ::4, ::4].mean((2, 3)))
        torch.testing.assert_close(model(x), expected)


def test_convnet_pools_where_told():
    shapes = {pool: ConvNet((3, 5, 7), pool=pool).features(torch.zeros(1, 3, 29, 29)).shape[2:]
              for pool in ((), (0,), (0, 1, 2))}
    assert shapes == {(): (29, 29), (0,): (14, 14), (0, 1, 2): (3, 3)}


def slow_pad_shortcut(x, after, stride):
    batch, before, height, width = x.shape
    rows, columns = range(0, height, stride), range(0, width, stride)
    y = torch.zeros(batch, after, len(rows), len(columns))
    first = (after - before) // 2
    for b in range(batch):
        for c in range(before):
            for i, row in enumerate(rows):
                for j, column in enumerate(columns):
                    y[b, first + c, i, j] = x[b, c, row, column]
    return y


@pytest.mark.parametrize(("before", "after", "stride"),
                         [(3, 7, 2), (3, 8, 2), (3, 4, 1), (3, 3, 2), (5, 11, 3), (1, 1, 1)])
def test_pad_shortcut_slow_oracle(before, after, stride):
    x = torch.randn(2, before, 7, 5)
    y = PadShortcut(before, after, stride)(x)
    torch.testing.assert_close(y, slow_pad_shortcut(x, after, stride), atol=0, rtol=0)


def test_pad_shortcut_by_hand():
    x = torch.tensor([[[[1., 2., 3.], [4., 5., 6.], [7., 8., 9.]]]])
    y = PadShortcut(1, 4, 2)(x)  # three new channels: one before, the odd one after
    assert y.tolist() == [[[[0, 0], [0, 0]], [[1, 3], [7, 9]], [[0, 0], [0, 0]], [[0, 0], [0, 0]]]]
    assert size(PadShortcut(1, 4, 2)) == 0


def test_pad_shortcut_cannot_narrow():
    with pytest.raises(ValueError, match="cannot narrow 7 channels to 5; it needs at least 7"):
        PadShortcut(7, 5, 1)


def test_narrowing_stages_are_refused():
    with pytest.raises(ValueError, match="cannot narrow 16 channels to 8"):
        ResNetCIFAR(20, stages=(16, 8, 32))


@pytest.mark.parametrize(("depth", "nearest"), [(57, 56), (18, 20), (2, 8), (0, 8), (-4, 8)])
def test_depth_is_refused_with_the_nearest(depth, nearest):
    with pytest.raises(ValueError, match=rf"depth {depth} is not 6n \+ 2; the nearest is {nearest}"):
        ResNetCIFAR(depth)


@pytest.mark.parametrize(("build", "message"), [
    (lambda: VGG((64,) * 12), "VGG-16 takes 13 widths, got 12"),
    (lambda: VGG((64,) * 5 + (0,) + (64,) * 7), "VGG-16: width 5 is 0; the smallest is 1"),
    (lambda: ResNetCIFAR(20, (16,) * 8), "ResNet inner takes 9 widths, got 8"),
    (lambda: ResNetCIFAR(20, (16, -1) + (16,) * 7), "ResNet inner: width 1 is -1; the smallest is 1"),
    (lambda: ResNetCIFAR(20, stages=(16, 32)), "ResNet stages takes 3 widths, got 2"),
    (lambda: ResNet50((64,) * 15), "ResNet-50 first takes 16 widths, got 15"),
    (lambda: ResNet50(second=(64,) * 17), "ResNet-50 second takes 16 widths, got 17"),
    (lambda: ResNet50(stages=(256, 512, 0, 2048)), "ResNet-50 stages: width 2 is 0; the smallest is 1"),
    (lambda: GoogLeNet({**GOOGLENET_WIDTHS, "c4": (1, 2, 3)}), "unit c4 takes 7 widths, got 3"),
    (lambda: GoogLeNet({**GOOGLENET_WIDTHS, "b5": (1, 2, 3, 0, 5, 6, 7)}), "unit b5: width 3 is 0; the smallest is 1"),
    (lambda: GoogLeNet({"a3": GOOGLENET_WIDTHS["a3"]}), "GoogLeNet has the units a3, b3, .*, b5; got a3"),
    (lambda: ResNetBasic(50), "depth is 50; choose from 18, 34"),
    (lambda: ResNetBasic(34, (64,) * 8), "ResNet-34 inner takes 16 widths, got 8"),
    (lambda: MobileNetV3("medium"), "size is 'medium'; MobileNetV3 is 'small' or 'large'"),
    (lambda: MobileNetV1(0), "a width of 0 leaves no channel; the multiplier must be above 0"),
    (lambda: MobileNetV2(-1.0), "a width of -32.0 leaves no channel"),
    (lambda: DenseNetCIFAR(39), r"depth 39 is not 3n \+ 4; the nearest is 40"),
    (lambda: DenseNetCIFAR(4), r"depth 4 is not 3n \+ 4; the nearest is 7"),
    (lambda: DenseNetCIFAR(growth=0), "growth is 0; the smallest is 1"),
    (lambda: ConvNet((3, 0)), "ConvNet: width 1 is 0; the smallest is 1"),
])
def test_wrong_widths_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
