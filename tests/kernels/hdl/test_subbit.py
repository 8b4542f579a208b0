"""The sub-bit and the plain core: random layers on both engines, cycles around the balance, corners and refusals."""

import re

import numpy as np
import pytest
from hdl_checks import COMPILED, ENGINES, SEARCH
from hypothesis import assume, given
from hypothesis import strategies as st
from papernets_kernels.hdl import golden, simulate, subbit
from papernets_kernels.hdl.subbit import Layer, PlainBinary, SubBit

pytestmark = pytest.mark.xdist_group("hdl-products")

CORES = {
    "tau 1, 1 adder": SubBit(1, 1, windows=40, kernels=70, outputs=20),
    "tau 2, 3 adders": SubBit(2, 3, windows=40, kernels=70, outputs=20),
    "tau 3, 2 adders": SubBit(3, 2, windows=40, kernels=90, outputs=26),
    "tau 5, 4 adders": SubBit(5, 4, windows=12, kernels=600, outputs=150),
    "plain": PlainBinary(windows=40, kernels=70, outputs=20),
}
EVERY = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def law(core, positions, channels, outputs):
    items = positions * channels
    if isinstance(core, PlainBinary):
        return items * outputs + 2
    groups = -(-outputs // core.adders)
    return 2**core.tau + (items - 1) * max(2**core.tau, groups) + groups + 2


def make(rng, core, outputs, channels, size, stride=1, padding=0):
    n = int(rng.integers(1, 2**core.kernel_bits + 1))
    x = rng.integers(-128, 128, (channels, *size), np.int8)
    return Layer(x, rng.integers(0, n, (outputs, channels)), rng.choice([-1, 1], (n, 3, 3)), stride, padding)


def fits(core, layer):
    items = len(subbit.windows(layer.x, layer.stride, layer.padding)) * len(layer.x)
    ids = -(-len(layer.ids) // core.adders) * core.adders * len(layer.x)
    return items <= core.windows and len(layer.ids) <= core.outputs and ids <= core.words * core.adders


def assert_runs(core, engine, layers, bits=24):
    outputs, cycles = subbit.run(core, layers, engine)
    for layer, y, taken in zip(layers, outputs, cycles, strict=True):
        expected = golden.conv3x3(layer.x, layer.codebook[layer.ids], layer.stride, layer.padding, bits)
        np.testing.assert_array_equal(y, expected, strict=True)
        shape = y.shape[1], len(layer.x), len(y)
        assert taken == law(core, *shape) == core.law(*shape)


@ENGINE
@EVERY
@SEARCH
@given(data=st.data())
def test_layers_one_after_the_other(core, engine, data):
    rng, layers = np.random.default_rng(data.draw(st.integers(0, 2**32))), []
    for _ in range(data.draw(st.integers(1, 3))):
        outputs, channels = data.draw(st.integers(1, core.outputs)), data.draw(st.integers(1, 4))
        size = data.draw(st.tuples(st.integers(3, 6), st.integers(3, 6)))
        options = data.draw(st.sampled_from([(1, 0), (2, 1), ((1, 2), 0), (3, (1, 0))]))
        layer = make(rng, core, outputs, channels, size, *options)
        assume(fits(core, layer))
        layers.append(layer)
    assert_runs(core, engine, layers)


@ENGINE
@pytest.mark.parametrize("tau", [1, 3])
def test_around_the_balance_of_fill_and_drain(engine, tau):
    """Where G is just below, at, and just above 2^tau, an item still takes the larger of the two, without a bubble."""
    core, rng = CORES[{1: "tau 1, 1 adder", 3: "tau 3, 2 adders"}[tau]], np.random.default_rng(0)
    groups = range(1, 2**tau + 5)
    assert_runs(core, engine, [make(rng, core, core.adders * g, 3, (4, 5)) for g in groups])


@ENGINE
@EVERY
def test_one_output_adds_to_the_same_sum_in_every_cycle(core, engine):
    assert_runs(core, engine, [make(np.random.default_rng(0), core, 1, 4, (3, 5))])


def test_the_published_balance():
    core = SubBit(5, 4)
    assert [core.law(100, 64, outputs) - core.law(99, 64, outputs) for outputs in (64, 128, 256, 512)] == [
        64 * cycles for cycles in (32, 32, 64, 128)
    ]


@ENGINE
@EVERY
def test_the_least_numbers(core, engine):
    x = np.full((2, 3, 3), -128, np.int8)
    book = np.stack([np.ones((3, 3), int), -np.ones((3, 3), int)])
    assert_runs(core, engine, [Layer(x, np.array([[0, 0], [1, 1], [0, 1]]), book)])  # -2304, 2304, 0


@ENGINE
def test_a_sum_wraps(engine):
    for core in (SubBit(1, 2, 8, 8, 4, accumulator=12), PlainBinary(8, 8, 4, accumulator=12)):
        x, ids = np.full((2, 3, 3), -128, np.int8), np.array([[0, 0], [1, 1]])
        book = np.stack([np.ones((3, 3), int), -np.ones((3, 3), int)])
        layer = Layer(x, ids, book)
        assert golden.conv3x3(x, book[ids], bits=12).tolist() == [[-2304 + 4096], [2304 - 4096]]
        assert_runs(core, engine, [layer], bits=12)


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), early=st.integers(0, 120))
def test_a_reset_in_the_middle_of_a_run(core, engine, seed, early):
    layer = make(np.random.default_rng(seed), core, 5, 3, (4, 4))
    todo = subbit.stimulus(core, [layer])
    at = next(i for i, step in enumerate(todo.steps) if step.until)
    broken = simulate.Stimulus(core).drive(early).drive(rst=1).drive(2, sample=("busy", "done", "y_valid"))
    todo.steps[at:at] = [*broken.steps, todo.steps[at - 1]]
    idle, seen, cycles = simulate.simulate(core, todo, engine).samples
    assert not idle["busy"].any() and not idle["done"].any() and not idle["y_valid"].any()
    y = seen["y"][seen["y_valid"] == 1].reshape(4, -1)[:, :5].T
    np.testing.assert_array_equal(y, golden.conv3x3(layer.x, layer.codebook[layer.ids]))
    assert cycles["cycles"] == [law(core, 4, 3, 5)]


@ENGINE
@EVERY
@pytest.mark.parametrize("port", ["n_positions", "n_channels", "n_groups"])
def test_an_empty_layer_is_not_started(core, engine, port):
    numbers = {"n_positions": 1, "n_channels": 1, "n_groups": 1} | {port: 0}
    todo = simulate.Stimulus(core).drive(start=1, **numbers).drive(5, sample=("busy", "done", "ready"))
    (seen,) = simulate.simulate(core, todo, engine).samples
    assert not seen["busy"].any() and not seen["done"].any() and seen["ready"].all()


@COMPILED
def test_a_wide_layer_is_as_much_faster_as_the_law_says():
    core, plain = SubBit(5, 4, windows=9600, kernels=20480, outputs=128), PlainBinary(9600, 20480, 128)
    layer = make(np.random.default_rng(0), core, 128, 160, (8, 10))
    layer = Layer(layer.x[:100], layer.ids[:, :100], layer.codebook)  # 48 positions, 4800 items
    outputs, cycles = zip(*(subbit.run(c, [layer], "compiled") for c in (core, plain)))
    np.testing.assert_array_equal(outputs[0][0], outputs[1][0])
    assert cycles == ([32 * 4801 + 2], [128 * 4800 + 2])


CORE, LAYER = (
    CORES["tau 2, 3 adders"],
    {"x": np.ones((2, 3, 3), np.int8), "ids": np.zeros((3, 2), int), "codebook": np.ones((4, 3, 3))},
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": np.ones((2, 3, 3))}, "x is float64; int8 is expected"),
        ({"x": np.ones((1, 3, 3), np.int8)}, "input channels of ids is 2, but the number of channels of x is 1"),
        ({"x": np.ones((2, 9, 9), np.int8)}, "positions times channels, is 98; this core holds 1 to 40"),
        ({"x": np.ones((2, 2, 3), np.int8)}, "the kernel is 3 long, the padded input 2; padding must be at least 1"),
        ({"ids": np.full((3, 2), 4)}, "ids holds 4; its entries lie in 0 ... 3"),
        ({"ids": np.zeros((21, 2), int)}, "the number of outputs is 21; this core holds 1 to 20"),
        ({"ids": np.zeros((0, 2), int)}, "the number of outputs is 0; this core holds 1 to 20"),
        ({"codebook": np.ones((5, 3, 3))}, "kernels in the codebook is 5; this core holds 1 to 4"),
        ({"codebook": np.zeros((4, 3, 3))}, "codebook holds 0.0; its entries are +1 or -1"),
        ({"codebook": np.ones((4, 5, 5))}, "codebook has shape (4, 5, 5); it is (n, 3, 3)"),
        ({"x": np.ones((9, 3, 3), np.int8), "ids": np.zeros((19, 9), int)}, "in whole words of the adders, is 189; this core"),
    ],
)
def test_layers_that_are_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        subbit.stimulus(CORE, [Layer(**LAYER | change)])


@pytest.mark.parametrize("tau", [0, 10, 2.0])
def test_sizes_that_are_refused(tau):
    with pytest.raises(ValueError, match="tau is "):
        SubBit(tau)
