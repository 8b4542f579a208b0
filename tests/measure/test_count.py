"""Counts against hand-computed values, against PyTorch's own FLOP counter, and the refusals."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from papernets.measure import count, macs, parameters, stored_bits
from papernets.nn import (
    VGG,
    ConvNet,
    GoogLeNet,
    MobileNetV1,
    MobileNetV2,
    MobileNetV3,
    ResNetBasic,
    ResNetCIFAR,
    ResNetImageNet,
)


def on_meta(build):
    with torch.device("meta"):
        return build()


def flop_counter_macs(model, x):
    """PyTorch counts a multiplication and an addition each: two FLOPs a MAC."""
    model.eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


def thop_extra(layer, x):
    """What the thop convention adds to the plain count."""
    return macs(layer, x, "thop") - macs(layer, x, "mac")


BACKBONES = {
    "vgg": (VGG, 32), "resnet56": (ResNetCIFAR, 32), "resnet110": (lambda: ResNetCIFAR(110), 32),
    "googlenet": (GoogLeNet, 32), "resnet50": (ResNetImageNet, 224), "convnet": (ConvNet, 29),
    "vgg narrow": (lambda: VGG((3, 5, 7, 11, 13, 3, 5, 7, 11, 13, 3, 5, 7)), 32),
    "resnet20 narrow": (lambda: ResNetCIFAR(20, (3, 5, 7, 11, 13, 17, 19, 23, 29), (5, 11, 17)), 32),
    "resnet18": (ResNetBasic, 97), "resnet34 narrow": (lambda: ResNetBasic(34, range(3, 19), (5, 7, 11, 13), 3), 97),
    "mobilenet v1": (lambda: MobileNetV1(0.5), 65), "mobilenet v2": (lambda: MobileNetV2(0.25, 7), 65),
    "mobilenet v3 small": (lambda: MobileNetV3("small"), 65), "mobilenet v3 large": (lambda: MobileNetV3("large", 0.75), 65),
    "resnet50 narrow": (lambda: ResNetImageNet((3,) * 16, (5,) * 16, (7, 11, 13, 17), 5), 97),
}


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("batch", [1, 3])
def test_backbones_agree_with_the_flop_counter(name, batch):
    build, size = BACKBONES[name]
    model, x = on_meta(build), torch.empty(batch, 3, size, size, device="meta")
    assert macs(model, x) == flop_counter_macs(model, x) > 0


def test_resnet50_of_the_paper():
    model = on_meta(ResNetImageNet)
    assert macs(model, torch.empty(1, 3, 224, 224, device="meta")) == 4_089_184_256
    assert parameters(model) == 25_557_032


@pytest.mark.parametrize(
    ("build", "multiplications", "numbers"),
    [(ResNetBasic, 1_814_073_344, 11_689_512), (lambda: ResNetBasic(34), 3_663_761_408, 21_797_672),
     (MobileNetV1, 568_740_352, 4_231_976), (MobileNetV2, 300_774_272, 3_504_872),
     (lambda: MobileNetV3("small"), 56_510_400, 2_542_856), (lambda: MobileNetV3("large"), 216_589_760, 5_483_032)],
    ids=["resnet18", "resnet34", "mobilenet v1", "mobilenet v2", "mobilenet v3 small", "mobilenet v3 large"])
def test_networks_for_imagenet_as_published(build, multiplications, numbers):
    model = on_meta(build)
    assert macs(model, torch.empty(1, 3, 224, 224, device="meta")) == multiplications
    assert parameters(model) == numbers


def test_vgg16_in_both_conventions():
    model, x = on_meta(VGG), torch.empty(1, 3, 32, 32, device="meta")
    assert macs(model, x) == 313_201_664
    assert macs(model, x, "thop") == 314_031_104 + 1024 == 314_032_128
    assert parameters(model) == 14_728_266


def test_the_two_conventions_of_vgg16_differ_by_bias_norm_and_pooling():
    spatial = {0: 32, 1: 32, 2: 16, 3: 16, 4: 8, 5: 8, 6: 8, 7: 4, 8: 4, 9: 4, 10: 2, 11: 2, 12: 2}
    widths = (64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512)
    outputs = sum(width * spatial[index] ** 2 for index, width in enumerate(widths))
    assert thop_extra(on_meta(VGG), torch.empty(1, 3, 32, 32, device="meta")) == 3 * outputs + 2 * 512


# one layer at a time: input, layer, MACs, and what thop adds
LAYERS = [
    # 5 filters over 3 channels and 3×3, output 7×11, batch 2
    ("conv", (2, 3, 9, 13), lambda: nn.Conv2d(3, 5, 3, bias=False), 2 * 5 * 7 * 11 * 27, 0),
    ("conv with bias", (2, 3, 9, 13), lambda: nn.Conv2d(3, 5, 3), 2 * 5 * 7 * 11 * 27, 2 * 5 * 7 * 11),
    ("conv of stride 2", (1, 3, 9, 13), lambda: nn.Conv2d(3, 5, 3, 2, 1, bias=False), 5 * 5 * 7 * 27, 0),
    ("conv, dilated", (1, 3, 9, 13), lambda: nn.Conv2d(3, 5, 3, dilation=2, bias=False), 5 * 5 * 9 * 27, 0),
    ("conv of 3×5", (1, 3, 9, 13), lambda: nn.Conv2d(3, 5, (3, 5), bias=False), 5 * 7 * 9 * 45, 0),
    ("conv in 3 groups", (1, 9, 7, 11), lambda: nn.Conv2d(9, 15, 3, 1, 1, groups=3, bias=False), 15 * 7 * 11 * 27, 0),
    ("depthwise", (1, 7, 5, 11), lambda: nn.Conv2d(7, 7, 3, 1, 1, groups=7), 7 * 5 * 11 * 9, 7 * 5 * 11),
    ("conv 1d", (1, 3, 13), lambda: nn.Conv1d(3, 7, 5), 7 * 9 * 15, 7 * 9),
    ("conv 3d", (1, 3, 5, 7, 11), lambda: nn.Conv3d(3, 2, 3), 2 * 3 * 5 * 9 * 81, 2 * 3 * 5 * 9),
    # every input element meets 7 filters of 3×3; output (4 × 2 + 3) × (6 × 2 + 3)
    ("transposed", (1, 3, 5, 7), lambda: nn.ConvTranspose2d(3, 7, 3, 2), 3 * 5 * 7 * 63, 7 * 11 * 15),
    ("transposed in 3 groups", (1, 3, 5, 7), lambda: nn.ConvTranspose2d(3, 15, 3, 2, groups=3, bias=False),
     3 * 5 * 7 * 5 * 9, 0),
    ("transposed 1d", (2, 3, 5), lambda: nn.ConvTranspose1d(3, 7, 3, bias=False), 2 * 3 * 5 * 21, 0),
    ("linear", (2, 13), lambda: nn.Linear(13, 7), 2 * 7 * 13, 0),
    ("linear on a sequence", (2, 5, 13), lambda: nn.Linear(13, 7, bias=False), 2 * 5 * 7 * 13, 0),
    ("batch norm", (2, 7, 3, 5), lambda: nn.BatchNorm2d(7), 0, 2 * 2 * 7 * 3 * 5),
    ("batch norm 1d", (2, 7), lambda: nn.BatchNorm1d(7), 0, 2 * 2 * 7),
    ("average pool 3", (1, 5, 9, 15), lambda: nn.AvgPool2d(3), 0, 5 * 3 * 5 * (3 + 1)),
    ("average pool 1", (1, 5, 3, 7), lambda: nn.AvgPool2d(1), 0, 5 * 3 * 7 * 2),
    ("average pool (3, 5)", (1, 5, 9, 15), lambda: nn.AvgPool2d((3, 5)), 0, 5 * 3 * 3 * (15 + 1)),
    ("average pool 1d", (1, 5, 9), lambda: nn.AvgPool1d(3), 0, 5 * 3 * (3 + 1)),
    ("adaptive to 1", (2, 5, 7, 11), lambda: nn.AdaptiveAvgPool2d(1), 0, 2 * 5 * (77 + 1)),
    ("adaptive to 3×5", (1, 7, 9, 15), lambda: nn.AdaptiveAvgPool2d((3, 5)), 0, 7 * 15 * (9 + 1)),
    ("max pool", (1, 5, 9, 15), lambda: nn.MaxPool2d(3), 0, 0),
    ("relu", (1, 5, 9, 15), nn.ReLU, 0, 0),
]


@pytest.mark.parametrize(("shape", "build", "expected", "extra"), [case[1:] for case in LAYERS],
                         ids=[case[0] for case in LAYERS])
def test_one_layer_by_hand(shape, build, expected, extra):
    layer, x = build(), torch.zeros(shape)
    assert macs(layer, x) == expected
    assert macs(layer, x, "thop") == expected + extra
    assert flop_counter_macs(layer, x) == expected


def slow_convolution(x, weight, groups):
    """A convolution in loops, which counts its multiplications as it does them."""
    filters, per_group, k, _ = weight.shape
    _, height, width = x.shape
    y = torch.zeros(filters, height - k + 1, width - k + 1)
    done = 0
    for f in range(filters):
        first = f // (filters // groups) * per_group
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                for c in range(per_group):
                    for u in range(k):
                        for v in range(k):
                            y[f, i, j] += weight[f, c, u, v] * x[first + c, i + u, j + v]
                            done += 1
    return y, done


@pytest.mark.parametrize("groups", [1, 3])
def test_convolution_in_loops_does_as_many(groups):
    torch.manual_seed(0)
    layer, x = nn.Conv2d(3, 3, 3, groups=groups, bias=False), torch.randn(3, 5, 7)
    with torch.no_grad():
        y, done = slow_convolution(x, layer.weight, groups)
        torch.testing.assert_close(y, layer(x[None])[0], atol=1e-5, rtol=1e-5)
    assert macs(layer, x[None]) == done


def test_a_layer_that_runs_twice_costs_twice_and_is_stored_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(7, 7)

        def forward(self, x):
            return self.layer(self.layer(x))

    found = count(Twice(), torch.zeros(3, 7))
    assert found["layer"].macs == 2 * 3 * 7 * 7
    assert found["layer"].parameters == 7 * 7 + 7
    assert parameters(Twice()) == 56


def test_count_lists_layers_in_the_order_they_run():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.second = nn.Linear(5, 3)
            self.first = nn.Linear(7, 5)
            self.never = nn.Linear(3, 3)

        def forward(self, x):
            return self.second(self.first(x))

    found = count(Backwards(), torch.zeros(1, 7))
    assert list(found) == ["first", "second"]
    assert [found["first"].macs, found["second"].macs] == [35, 15]


def test_parts_sum_to_the_whole():
    model, x = ConvNet((7, 11), 5), torch.zeros(1, 3, 8, 8)
    found = count(model, x, "thop")
    assert sum(layer.macs for layer in found.values()) == macs(model, x, "thop")
    assert sum(layer.parameters for layer in found.values()) == parameters(model)


def test_a_layer_may_bring_its_own_cost():
    class Own(nn.Module):
        def macs_of(self, x, y, convention):
            return 1000 * x.numel() + (convention == "thop")

        def forward(self, x):
            return x

    assert macs(Own(), torch.zeros(1, 7)) == 7000
    assert macs(Own(), torch.zeros(1, 7), "thop") == 7001


def test_a_tuple_is_several_inputs():
    class Sum(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 5), nn.Linear(7, 5)

        def forward(self, x, y):
            return self.left(x) + self.right(y)

    assert macs(Sum(), (torch.zeros(1, 3), torch.zeros(1, 7))) == 15 + 35


def test_the_model_is_left_as_it_was():
    model = ConvNet((3, 5), 7)
    model.train()
    model.features[1].eval()  # a frozen batch norm stays frozen
    before = {name: module.training for name, module in model.named_modules()}
    state = {name: value.clone() for name, value in model.state_dict().items()}
    macs(model, torch.randn(2, 3, 8, 8), "thop")
    assert {name: module.training for name, module in model.named_modules()} == before
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_is_left_as_it_was_if_the_pass_fails():
    model = ConvNet((3, 5), 7).train()
    with pytest.raises(RuntimeError):
        macs(model, torch.zeros(1, 2, 8, 8))
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_unknown_convention_is_refused():
    with pytest.raises(ValueError, match=r"convention 'flops' is not known; choose one of mac, thop"):
        macs(nn.Linear(3, 5), torch.zeros(1, 3), "flops")


def test_shared_parameters_count_once():
    model = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    assert parameters(model) == 25 + 5 + 5
    assert stored_bits(model) == 32 * 35


def test_stored_bits_in_their_own_type():
    assert stored_bits(nn.Linear(7, 3)) == 32 * 24
    assert stored_bits(nn.Linear(7, 3, dtype=torch.float16)) == 16 * 24
    assert stored_bits(nn.Linear(7, 3, dtype=torch.float64)) == 64 * 24
    assert stored_bits(nn.BatchNorm2d(7)) == 32 * 14  # running statistics are buffers


def test_stored_bits_with_overrides():
    model = ConvNet((3, 5), 7)  # weights 81 and 135, norms 6 and 10, classifier 35 + 7
    assert stored_bits(model) == 32 * (81 + 135 + 6 + 10 + 42)
    assert stored_bits(model, {"features.0.weight": 1}) == 81 + 32 * (135 + 6 + 10 + 42)
    assert stored_bits(model, {"classifier": 8}) == 32 * (81 + 135 + 6 + 10) + 8 * 42
    assert stored_bits(model, {"features": 2, "classifier": 8}) == 2 * (81 + 135 + 6 + 10) + 8 * 42


def test_the_longest_name_wins():
    model = ConvNet((3, 5), 7)
    bits = {"features": 2, "features.0": 4, "classifier": 16, "classifier.bias": 1}
    for order in (bits, dict(reversed(bits.items()))):
        assert stored_bits(model, order) == 4 * 81 + 2 * (135 + 6 + 10) + 16 * 35 + 7


def test_a_share_of_a_bit_rounds_up():
    assert stored_bits(nn.Linear(7, 1, bias=False), {"weight": 1.58}) == 12  # 11.06


def test_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"no parameter is called 'features\.1' and no module of that name has one"):
        stored_bits(nn.Linear(3, 5), {"features.1": 8})
    with pytest.raises(ValueError, match=r"no parameter is called 'feat'"):  # a part of a name is no name
        stored_bits(ConvNet((3,)), {"feat": 8})


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_a_width_without_bits_is_refused(width):
    with pytest.raises(ValueError, match=r"weight: a width of .* bits stores nothing; it must be above 0"):
        stored_bits(nn.Linear(3, 5), {"weight": width})
