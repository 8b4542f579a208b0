"""Random tiles on every kind of sparse core and both engines, run after run, and the corners: sums that wrap, resets."""

import numpy as np
import pytest
from hdl_checks import SEARCH
from hypothesis import given
from hypothesis import strategies as st
from papernets_kernels.hdl import golden, simulate, sspnna
from papernets_kernels.hdl.sspnna import SSpNNA, Tile
from sspnna_checks import CORES, ENGINE, EVERY, SIZES, any_scene, any_tile, assert_runs, box, numbers, scene, weights

pytestmark = pytest.mark.xdist_group("hdl-sspnna")


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), length=st.integers(1, 3))
def test_runs_without_a_reset_between_them(core, engine, seed, length):
    rng = np.random.default_rng(seed)
    make = any_scene if rng.random() < 0.5 else any_tile
    runs = [[make(rng, core) for _ in range(rng.integers(1, core.pages + 1))] for _ in range(length)]
    assert_runs(core, engine, weights(rng, core), runs)


@ENGINE
@EVERY
def test_one_plane_after_the_other_with_few_outputs(core, engine):
    """Where planes are short, sums of the same output follow each other as closely as they can."""
    rng, runs = np.random.default_rng(0), []
    for n in (1, 2, 3):
        masks = np.full(n, 2**27 - 1)
        if 27 * n > core.pairs:
            masks[-1] = 1 << 13
        runs.append([Tile(numbers(rng, 4, core.channels), masks, rng.integers(0, 4, np.bitwise_count(masks).sum()))])
    assert_runs(core, engine, rng.integers(-128, 128, (27, core.channels, core.lanes), np.int8), runs)


@ENGINE
@EVERY
def test_a_full_tile_of_the_least_numbers(core, engine):
    full = Tile(np.full((12, core.channels), -128, np.int8), np.full(9, 2**27 - 2**18 | 1 << 13), np.arange(90) % 12)
    full.masks[:] = 0b11111111 << 13
    full.masks[:8] |= 1  # 9 times 8 and 8 more: all 80 pairs, 9 outputs, 12 inputs
    tile = Tile(full.features, full.masks, np.arange(80) % 12)
    weight = np.full((27, core.channels, core.lanes), -128, np.int8)
    assert_runs(core, engine, weight, [[tile] * core.pages, [tile]])


@ENGINE
@pytest.mark.parametrize("options", [{}, {"rows": 2}, {"planes": 2}])
def test_a_sum_wraps(engine, options):
    core = SSpNNA(2, 3, **SIZES, accumulator=16, **options)
    tile = Tile(np.full((1, 3), -128, np.int8), np.array([2**27 - 1]), np.zeros(27, int))
    assert golden.sspnna(tile.features, tile.masks, tile.indices, np.full((27, 3, 2), -128)).tolist() == [[27 * 3 * 2**14] * 2]
    assert 27 * 3 * 2**14 >= 2**16
    assert_runs(core, engine, np.full((27, 3, 2), -127, np.int8), [[tile]])


@ENGINE
@EVERY
@SEARCH
@given(seed=st.integers(0, 2**32), early=st.integers(0, 150))
def test_a_reset_in_the_middle_of_a_run(core, engine, seed, early):
    rng = np.random.default_rng(seed)
    weight, tile = weights(rng, core), any_tile(rng, core)
    whole = sspnna.stimulus(core, weight, [[tile]])
    at = next(i for i, step in enumerate(whole.steps) if step.until)  # the wait, after the start
    broken = simulate.Stimulus(core)
    broken.drive(early).drive(rst=1).drive(2, sample=("busy", "done", "cycles"))
    whole.steps[at:at] = [*broken.steps, whole.steps[at - 1]]  # and once more a start
    idle, sums, cycles = simulate.simulate(core, whole, engine).samples
    assert not idle["busy"].any() and not idle["done"].any() and not idle["cycles"].any()
    np.testing.assert_array_equal(sums["rd"][1:], golden.sspnna(tile.features, tile.masks, tile.indices, weight))
    assert cycles["cycles"] == [core.law([tile.masks])]


@ENGINE
@EVERY
def test_an_empty_tile_is_not_started(core, engine):
    todo = simulate.Stimulus(core).drive(start=1, n_out=0).drive(5, sample=("busy", "done", "ready"))
    (seen,) = simulate.simulate(core, todo, engine).samples
    assert not seen["busy"].any() and not seen["done"].any() and seen["ready"].all()


@ENGINE
def test_a_start_while_busy_is_not_taken(engine):
    core, rng = CORES["one"], np.random.default_rng(0)
    weight, tile = weights(rng, core), scene(rng, core, box(1, 2, 2))
    todo = sspnna.stimulus(core, weight, [[tile]])
    at = next(i for i, step in enumerate(todo.steps) if step.until)
    todo.steps[at:at] = simulate.Stimulus(core).drive(30, start=1, n_out=1).steps
    sums, cycles = simulate.simulate(core, todo, engine).samples
    np.testing.assert_array_equal(sums["rd"][1:], golden.sspnna(tile.features, tile.masks, tile.indices, weight))
    assert cycles["cycles"] == [core.law(tile.masks)]
