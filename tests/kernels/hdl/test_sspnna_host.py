"""Whole layers on the sparse core: tiles, channel blocks, lane groups, strided rulebooks; against integers, cycle by cycle."""

import re

import numpy as np
import pytest
from hdl_checks import ENGINES
from hypothesis import given, settings
from hypothesis import strategies as st
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import sspnna_host
from papernets_kernels.hdl.sspnna import SSpNNA

pytestmark = pytest.mark.xdist_group("hdl-sspnna")

SIZES = {"inputs": 30, "outputs": 9, "pairs": 80}
CORES = {
    "one": SSpNNA(3, 2, **SIZES),
    "rows 2": SSpNNA(2, 3, **SIZES, rows=2),
    "planes": SSpNNA(3, 2, **SIZES, planes=2),
    "pages 2": SSpNNA(2, 2, **SIZES, pages=2),
}
EVERY = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())
SEARCH = settings(max_examples=12, deadline=None, database=None, derandomize=True)
ENGINE = pytest.mark.parametrize("engine", ENGINES)


def expected(features, book, weight):
    """Pair by pair, in whole numbers of any size."""
    y = np.zeros((book.outputs, weight.shape[2]), object)
    for k in range(len(book.plane_pointers) - 1):
        for p in range(book.plane_pointers[k], book.plane_pointers[k + 1]):
            y[book.pair_outputs[p]] += features[book.pair_inputs[p]].astype(object) @ weight[k].astype(object)
    return y.astype(np.int64)


def numbers(rng, *shape):
    return np.full(shape, -128, np.int8) if rng.random() < 0.25 else rng.integers(-128, 128, shape, np.int8)


def law(core, book, channels, outputs, order=None):
    """The cycles once more, from counts alone: valid for the core without options."""
    assert (core.pages, core.planes, core.rows) == (1, 1, 1)
    passes = -(-channels // core.channels) * -(-outputs // core.lanes)
    cycles = 0
    for piece in sspnna_host.schedule(core, book, order).pieces:
        pairs, planes = len(piece.indices), len({k for mask in piece.masks.tolist() for k in range(27) if mask >> k & 1})
        cycles += len(piece.outputs) + pairs * (core.channels + 1) + planes + 3
    return passes * cycles


def books(rng, kind, share=0.4, side=4):
    voxels = rng.permutation(np.argwhere(rng.random((side,) * 3) < share))
    if kind == "submanifold":
        return sparse_conv3d.rulebook(voxels)
    if kind == "point":
        return sparse_conv3d.rulebook(voxels, 1)
    down = sparse_conv3d.strided_rulebook(voxels, *{"strided 2": (2, 2), "strided 3": (3, 2), "inverse": (2, 2)}[kind])
    return sparse_conv3d.inverse_rulebook(down, voxels) if kind == "inverse" else down


KINDS = ["submanifold", "point", "strided 2", "strided 3", "inverse"]


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(KINDS), channels=st.integers(1, 5), outputs=st.integers(1, 5))
def test_a_layer_is_the_integer_convolution(core, engine, seed, kind, channels, outputs):
    rng = np.random.default_rng(seed)
    book = books(rng, kind, rng.choice([0.05, 0.3, 0.6]), int(rng.integers(2, 5)))
    features, weight = numbers(rng, book.inputs, channels), numbers(rng, len(book.plane_pointers) - 1, channels, outputs)
    order = rng.permutation(book.outputs) if rng.random() < 0.5 else None
    sums, cycles = sspnna_host.convolve(core, features, book, weight, order=order, engine=engine)
    np.testing.assert_array_equal(sums, expected(features, book, weight))
    plan = sspnna_host.schedule(core, book, order)
    assert cycles == plan.cycles(channels, outputs)
    if (core.pages, core.planes, core.rows) == (1, 1, 1):
        assert cycles == law(core, book, channels, outputs, order)


@EVERY
@pytest.mark.parametrize("kind", KINDS)
def test_tiles_take_every_output_and_fit_the_memories(core, kind):
    rng = np.random.default_rng(3)
    book = books(rng, kind, 0.5, 6)
    plan = sspnna_host.schedule(core, book)
    assert np.concatenate([piece.outputs for piece in plan.pieces]).tolist() == list(range(book.outputs))
    for piece in plan.pieces:
        assert len(piece.outputs) <= core.outputs and len(piece.indices) <= core.pairs
        assert len(piece.inputs) == len(set(piece.inputs.tolist())) <= core.inputs
        assert sorted(set(piece.indices.tolist())) == list(range(len(piece.inputs)))
        assert (piece.masks >> 13 & 1).all()
    assert sum(len(piece.indices) for piece in plan.pieces) == book.pairs + plan.filled
    assert plan.filled == (0 if kind in ("submanifold", "point") else book.outputs - np.diff(book.plane_pointers).max())


def test_the_halo_is_counted():
    """A row of nine in tiles of four: two halo inputs for the inner tile, one for the outer ones."""
    book = sparse_conv3d.rulebook(np.argwhere(np.ones((1, 1, 9))))
    plan = sspnna_host.schedule(SSpNNA(2, 2), book, tile=4)
    assert [piece.inputs.tolist() for piece in plan.pieces] == [[0, 1, 2, 3, 4], [3, 4, 5, 6, 7, 8], [7, 8]]
    assert plan.distinct_inputs == 13 == sparse_conv3d.distinct_inputs(book, 4)
    passes = 2 * 3  # three channels in blocks of two, five outputs in groups of two
    assert plan.transfers(3, 5) == {"features": 6 * 13 * 2, "weights": 6 * 54, "masks": 54, "indices": 6 * 25, "sums": 54}
    assert plan.passes(3, 5) == passes
    assert plan.cycles(3, 5) == passes * (9 + 25 * 3 + 8 + 9)  # three tiles, the last of two planes
    assert plan.utilisation(3, 5) == pytest.approx(25 * 15 / (2 * plan.cycles(3, 5)))


def test_lists_are_built_again_for_every_block_and_group():
    """Nothing of a pass is free: twice the lanes needed, twice the cycles, whatever the core has kept."""
    book, core = sparse_conv3d.rulebook(np.argwhere(np.ones((2, 2, 2)))), CORES["one"]
    plan = sspnna_host.schedule(core, book)
    assert plan.cycles(2, 3) == sum(plan.law()) and plan.cycles(2, 6) == plan.cycles(4, 3) == 2 * sum(plan.law())
    assert plan.cycles(1, 1) == plan.cycles(2, 3) and plan.cycles(3, 4) == 4 * sum(plan.law())


@ENGINE
def test_chosen_tiles_alone(engine):
    rng, core = np.random.default_rng(1), CORES["pages 2"]
    book = books(rng, "submanifold", 0.4, 6)
    features, weight = numbers(rng, book.inputs, 3), numbers(rng, 27, 3, 3)
    plan = sspnna_host.schedule(core, book)
    assert len(plan.pieces) > 6
    chosen = (5, 0, 3)
    outputs, sums, cycles = sspnna_host.run_tiles(plan, features, weight, chosen, engine)
    np.testing.assert_array_equal(outputs, np.concatenate([plan.pieces[i].outputs for i in chosen]))
    np.testing.assert_array_equal(sums, expected(features, book, weight)[outputs])
    assert cycles == plan.law(chosen) * 4  # two runs, four passes


def test_a_line_without_any_pair_sums_to_zero():
    """A way back to voxels that no coarse voxel saw: kernel size 1 with stride 2 skips the odd ones."""
    voxels = np.argwhere(np.ones((1, 1, 5)))
    down = sparse_conv3d.strided_rulebook(voxels, 1, 2)
    book = sparse_conv3d.inverse_rulebook(down, voxels)
    features, weight = np.full((3, 2), 7, np.int8), np.full((1, 2, 3), 5, np.int8)
    sums, _ = sspnna_host.convolve(CORES["one"], features, book, weight, engine="amaranth")
    assert sums.tolist() == [[70] * 3, [0] * 3, [70] * 3, [0] * 3, [70] * 3]


@EVERY
def test_an_empty_scene_costs_nothing(core):
    book = sparse_conv3d.rulebook(np.zeros((0, 3), np.int32))
    sums, cycles = sspnna_host.convolve(core, np.zeros((0, 3), np.int8), book, np.ones((27, 3, 4), np.int8), engine="amaranth")
    assert sums.shape == (0, 4) and cycles == 0


CUBE = sparse_conv3d.rulebook(np.argwhere(np.ones((3, 3, 3))))


@pytest.mark.parametrize(("call", "message"), [
    (lambda: sspnna_host.schedule(SSpNNA(inputs=26), CUBE),
     "output 13 has 27 inputs; this core holds 26 inputs and 1024 pairs"),
    (lambda: sspnna_host.schedule(SSpNNA(pairs=26), CUBE),
     "output 13 has 27 inputs; this core holds 64 inputs and 26 pairs"),
    (lambda: sspnna_host.schedule(SSpNNA(), sparse_conv3d.rulebook(np.zeros((1, 3), int), 5)),
     "the rulebook has 125 planes (kernel_size 5); the core has 27: kernel_size is at most 3"),
    (lambda: sspnna_host.schedule(SSpNNA(), CUBE, np.zeros(27, int)), "order has 27 entries; it holds each of 0 ... 26 once"),
    (lambda: sspnna_host.schedule(SSpNNA(), CUBE, tile=0), "tile is 0; it is a whole number of at least 1"),
    (lambda: sspnna_host.convolve(SSpNNA(), np.ones((27, 4855), np.int8), CUBE, np.ones((27, 4855, 1), np.int8)),
     "at most 4854 channels"),
    (lambda: sspnna_host.convolve(SSpNNA(accumulator=16), np.ones((27, 1), np.int8), CUBE, np.ones((27, 1, 1), np.int8)),
     "an accumulator of 16 bits holds 32767: at most 0 channels"),
    (lambda: sspnna_host.convolve(SSpNNA(), np.ones((26, 2), np.int8), CUBE, np.ones((27, 2, 1), np.int8)),
     "rows of features is 26, but the number of inputs of the rulebook is 27"),
    (lambda: sspnna_host.convolve(SSpNNA(), np.ones((27, 2), np.int8), CUBE, np.ones((27, 3, 1), np.int8)),
     "columns of features is 2, but the number of input channels of the weight is 3"),
    (lambda: sspnna_host.convolve(SSpNNA(), np.ones((27, 2), np.int8), CUBE, np.ones((8, 2, 1), np.int8)),
     "planes of the weight is 8, but the number of planes of the rulebook is 27"),
    (lambda: sspnna_host.convolve(SSpNNA(), np.ones((27, 2)), CUBE, np.ones((27, 2, 1), np.int8)),
     "features is float64; int8 is expected"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
