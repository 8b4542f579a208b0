"""Whole layers on the sub-bit and the plain core: the integer convolution bit for bit, the cycles of the law, the refusals."""

import math
import re

import numpy as np
import pytest
from hdl_checks import COMPILED, ENGINES, SEARCH
from hypothesis import assume, given
from hypothesis import strategies as st
from papernets_kernels.hdl import golden, subbit_layer
from papernets_kernels.hdl.subbit import Layer, PlainBinary, SubBit
from papernets_kernels.hdl.subbit_layer import convolve, plan, steady

pytestmark = pytest.mark.xdist_group("hdl-products")

CORES = {
    "tau 2, 3 adders": SubBit(2, 3, windows=23, kernels=36, outputs=7),
    "tau 3, 2 adders": SubBit(3, 2, windows=31, kernels=41, outputs=10),
    "plain": PlainBinary(windows=23, kernels=36, outputs=7),
}
SIZES = dict(windows=1024, kernels=2**18, outputs=512)
WIDE = SubBit(5, 4, **SIZES), PlainBinary(**SIZES)  # room for 512 by 512 kernels
EVERY = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def make(rng, core, outputs, channels, size, stride=1, padding=0):
    n = int(rng.integers(1, 2**core.kernel_bits + 1))
    x = rng.integers(-128, 128, (channels, *size), np.int8)
    return Layer(x, rng.integers(0, n, (outputs, channels)), rng.choice([-1, 1], (n, 3, 3)), stride, padding)


def cycles_by_hand(core, positions, channels, outputs):
    """The law of one run, written out, summed over tiles that are cut one after the other."""
    total, left = 0, outputs
    while left:
        across = min(left, core.outputs, core.words // channels * core.adders)
        some = positions
        while some:
            p = min(some, core.windows // channels)
            if isinstance(core, PlainBinary):
                total += p * channels * across + 2
            else:
                groups = math.ceil(across / core.adders)
                total += 2**core.tau + (p * channels - 1) * max(2**core.tau, groups) + groups + 2
            some -= p
        left -= across
    return total


def assert_convolves(core, engine, layer):
    found = convolve(core, layer, engine)
    expected = golden.conv3x3(layer.x, layer.codebook[layer.ids], layer.stride, layer.padding)
    np.testing.assert_array_equal(found.y.reshape(len(layer.ids), -1), expected, strict=True)
    positions = found.y.shape[1] * found.y.shape[2]
    assert found.cycles == found.plan.cycles == cycles_by_hand(core, positions, len(layer.x), len(layer.ids))
    return found


@ENGINE
@EVERY
@SEARCH
@given(data=st.data())
def test_layers_of_any_size(core, engine, data):
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    outputs, channels = data.draw(st.integers(1, 13)), data.draw(st.integers(1, 6))
    size = data.draw(st.tuples(st.integers(2, 6), st.integers(2, 6)))
    stride, padding = data.draw(st.sampled_from([(1, 0), (1, 1), (2, 1), ((1, 2), (0, 1)), (3, (2, 0))]))
    heights = [n + 2 * p for n, p in zip(size, np.broadcast_to(padding, 2))]
    assume(min(heights) >= 3)
    assert_convolves(core, engine, make(rng, core, outputs, channels, size, stride, padding))


@ENGINE
def test_a_layer_in_tiles_of_both_kinds(engine, monkeypatch):
    """Sizes at which outputs and positions are cut, the last of both shorter; also with a simulation for every run."""
    core = CORES["tau 2, 3 adders"]
    layer = make(np.random.default_rng(1), core, 11, 5, (4, 5), 1, 1)
    found = assert_convolves(core, engine, layer)
    assert found.y.shape == (11, 4, 5)
    assert found.plan.outputs == ((0, 6), (6, 11))  # 12 words of ids hold two groups of three outputs for each channel
    assert found.plan.positions == ((0, 4), (4, 8), (8, 12), (12, 16), (16, 20))
    assert found.plan.writes == 2 * 20 * 5 + (2 + 2) * 5 + 4
    monkeypatch.setattr(subbit_layer, "TOGETHER", 1)
    assert_convolves(core, engine, layer)


@pytest.mark.parametrize("engine", ENGINES)
def test_extreme_numbers(engine):
    """-128 with the sign -: 9 * 128 for every channel, and no overflow on the way."""
    core = CORES["tau 3, 2 adders"]
    book = np.stack([np.ones((3, 3), int), -np.ones((3, 3), int)])
    layer = Layer(np.full((7, 3, 4), -128, np.int8), np.array([[0] * 7, [1] * 7, [0, 1] * 3 + [0]]), book)
    assert assert_convolves(core, engine, layer).y[:, 0, 0].tolist() == [-8064, 8064, -1152]


@COMPILED
@pytest.mark.parametrize(("channels", "outputs", "stride"), [(64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2),
                                                             (256, 256, 1), (256, 512, 2), (512, 512, 1)])
def test_the_layers_of_resnet_take_what_the_law_says(channels, outputs, stride):
    """True channels on a few positions, on both cores: the same outputs, and no cycle more or less than the law."""
    core, plain = WIDE
    layer = make(np.random.default_rng(0), core, outputs, channels, (1, 2), stride, 1)
    shared, usual = assert_convolves(core, "compiled", layer), assert_convolves(plain, "compiled", layer)
    np.testing.assert_array_equal(shared.y, usual.y)
    n = shared.y.shape[1] * shared.y.shape[2]
    item = {64: 32, 128: 32, 256: 64, 512: 128}[outputs]
    assert shared.cycles - n * channels * item == 32 + outputs // 4 + 2 - item  # the first fill and the last drain
    assert usual.cycles - n * channels * outputs == 2
    assert steady(core, n, channels, outputs) == n * channels * item
    assert steady(plain, n, channels, outputs) == n * channels * outputs


def test_cutting_the_outputs_fills_the_table_again():
    """Where Dot9 is the slower of the two, two blocks of outputs take twice the cycles of one."""
    whole, half = (SubBit(5, 4, windows=64, kernels=64 * 64, outputs=outputs) for outputs in (64, 32))
    assert plan(whole, 1, 64, 64).cycles == 32 * 64 + 16 + 2
    assert plan(half, 1, 64, 64).cycles == 2 * (32 * 64 + 8 + 2)


@EVERY
def test_more_channels_than_a_core_sums_are_refused(core):
    message = f"channels is 24; this core sums at most {min(core.windows, core.words)} input channels"
    with pytest.raises(ValueError, match=re.escape(message)):
        plan(core, 1, 24, 3) if core.words < 24 else plan(SubBit(3, 2, 23, 90), 1, 24, 3)
    least = SubBit(2, 3, windows=24, kernels=24 * 3, outputs=5)  # what the message advises
    assert plan(least, 2, 24, 5).positions == ((0, 1), (1, 2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((2, 3, 3))}, "x is float64; int8 is expected"),
        ({"x": np.ones((1, 3, 3), np.int8)}, "input channels of ids is 2, but the number of channels of x is 1"),
        ({"x": np.ones((2, 2, 3), np.int8)}, "the kernel is 3 long, the padded input 2; padding must be at least 1"),
        ({"ids": np.full((3, 2), 4)}, "ids holds 4; its entries lie in 0 ... 3"),
        ({"ids": np.zeros((0, 2), int)}, "outputs is 0; it is a whole number of at least 1"),
        ({"codebook": np.ones((5, 3, 3))}, "kernels in the codebook is 5; this core holds 1 to 4"),
        ({"codebook": np.zeros((4, 3, 3))}, "codebook holds 0.0; its entries are +1 or -1"),
        ({"stride": 0}, "stride is 0; it is a whole number of at least 1"),
        ({"padding": -1}, "padding is -1; it is a whole number of at least 0"),
    ],
)
def test_layers_that_are_refused(change, message):
    layer = {"x": np.ones((2, 3, 3), np.int8), "ids": np.zeros((3, 2), int), "codebook": np.ones((4, 3, 3))}
    with pytest.raises(ValueError, match=re.escape(message)):
        convolve(CORES["tau 2, 3 adders"], Layer(**layer | change))
