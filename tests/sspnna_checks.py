"""What the tests of the sparse core share: cores of every kind, tiles for them, and the laws of their cycles once more."""

import numpy as np
import pytest
from hdl_checks import ENGINES
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import golden, sspnna
from papernets_kernels.hdl.sspnna import SSpNNA, Tile

# a core of every engine, with and without pages; small, so that hypothesis meets their limits
SIZES = {"inputs": 12, "outputs": 9, "pairs": 80}
CORES = {
    "one": SSpNNA(3, 2, **SIZES),
    "one of 3 channels": SSpNNA(2, 3, **SIZES),
    "rows 2": SSpNNA(3, 2, **SIZES, rows=2),
    "rows 3 of 5": SSpNNA(2, 5, **SIZES, rows=3),
    "planes": SSpNNA(3, 2, **SIZES, planes=2),
    "planes of 3 channels": SSpNNA(2, 3, **SIZES, planes=2),
    "pages 2": SSpNNA(2, 2, **SIZES, pages=2),
    "pages 4, rows 2": SSpNNA(2, 3, **SIZES, pages=4, rows=2),
    "pages 2, planes": SSpNNA(2, 2, **SIZES, pages=2, planes=2),
}
EVERY = pytest.mark.parametrize("core", CORES.values(), ids=CORES.keys())
ENGINE = pytest.mark.parametrize("engine", ENGINES)


# ---- tiles -----------------------------------------------------------------------------------------------------------


def numbers(rng, *shape):
    """Of int8; one time in three only the least, which is the one whose negative does not fit."""
    return np.full(shape, -128, np.int8) if rng.random() < 1 / 3 else rng.integers(-128, 128, shape, np.int8)


def weights(rng, core):
    return numbers(rng, 27, core.channels, core.lanes)


def scene(rng, core, coordinates):
    book = sparse_conv3d.rulebook(np.asarray(coordinates))
    masks, _, indices = book.lines()
    return Tile(numbers(rng, len(coordinates), core.channels), masks, indices)


def box(*size):
    return np.argwhere(np.ones(size))


def any_tile(rng, core):
    """Lines that no scene need have: any planes beside the centre, any inputs."""
    inputs, n = rng.integers(1, core.inputs + 1), rng.integers(1, core.outputs + 1)
    share, masks = rng.random(), np.full(n, 1 << 13)
    for o in range(n):
        for k in np.flatnonzero(rng.random(27) < share):
            if np.bitwise_count(masks).sum() < core.pairs:
                masks[o] |= 1 << int(k)
    return Tile(numbers(rng, inputs, core.channels), masks, rng.integers(0, inputs, np.bitwise_count(masks).sum()))


def any_scene(rng, core):
    n = int(rng.integers(1, min(core.inputs, core.outputs) + 1))
    places = np.unique(rng.integers(0, rng.integers(2, 5), (n, 3)), axis=0)
    tile = scene(rng, core, rng.permutation(places))
    return tile if len(tile.indices) <= core.pairs else scene(rng, core, places[:2])


# ---- what a run must give --------------------------------------------------------------------------------------------


def counts(tile):
    return np.array([np.count_nonzero(tile.masks >> k & 1) for k in range(27)])


def law(core, tiles):
    """The laws once more, from the counts of pairs."""
    ceil, c, build, walk = lambda a, b: -(-a // b), core.channels, [], []
    for tile in tiles:
        p = counts(tile)
        if core.planes == 2:
            pairs = [max(p[k], p[26 - k]) for k in range(13)]
            slots, planes = p[13] + sum(pairs), (p[13] > 0) + np.count_nonzero(pairs)
        else:
            slots, planes = sum(ceil(x, core.rows) for x in p), np.count_nonzero(p)
        build.append(len(tile.masks) + p.sum())
        walk.append(slots * c + planes)
    if core.pages == 1:
        return build[0] + walk[0] + 3 + core.rows - 1
    overlapped = sum(max(w + 2, b + 1) for w, b in zip(walk, [*build[1:], 0]))
    return 1 + build[0] + overlapped + 2 + core.rows - 1


def assert_runs(core, engine, weight, runs, **options):
    sums, cycles = sspnna.run(core, weight, runs, engine, **options)
    for tiles, found, taken in zip(runs, sums, cycles, strict=True):
        for tile, y in zip(tiles, found, strict=True):
            expected = golden.sspnna(tile.features, tile.masks, tile.indices, weight, core.accumulator)
            np.testing.assert_array_equal(y, expected, strict=True)
        assert taken == law(core, tiles) == core.law([tile.masks for tile in tiles])
