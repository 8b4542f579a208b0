"""The sparse core: the worked tables and traces, whole scenes, and the refusals of its driver."""

import re

import numpy as np
import pytest
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import simulate, sspnna
from papernets_kernels.hdl.sspnna import SSpNNA, Tile
from sspnna_checks import CORES, ENGINE, any_scene, assert_runs, box, counts, law, scene, weights
from vcd.reader import TokenKind, tokenize

pytestmark = pytest.mark.xdist_group("hdl-sspnna")


# ---- worked examples -------------------------------------------------------------------------------------------------

TABLE = {  # N, P, planes, and cycles at (C, L) = (8, 8), (4, 8), (2, 4)
    "one voxel": (box(1, 1, 1), 1, 1, 1, (14, 10, 8)),
    "two neighbours in x": (box(1, 1, 2), 2, 4, 3, (44, 28, 20)),
    "line of 5": (box(1, 1, 5), 5, 13, 3, (128, 76, 50)),
    "2x2x2 cube": (box(2, 2, 2), 8, 64, 27, (614, 358, 230)),
    "4x4 plane": (box(1, 4, 4), 16, 100, 9, (928, 528, 328)),
    "3x3x3 cube": (box(3, 3, 3), 27, 343, 27, (3144, 1772, 1086)),
}


@ENGINE
@pytest.mark.parametrize("size", range(3))
def test_the_table_of_cycles(engine, size):
    channels, lanes = ((8, 8), (4, 8), (2, 4))[size]
    core, rng = SSpNNA(lanes, channels), np.random.default_rng(0)
    weight, tiles = rng.integers(-128, 128, (27, channels, lanes), np.int8), []
    for coordinates, n, p, planes, cycles in TABLE.values():
        tile = scene(rng, core, coordinates)
        assert (len(tile.masks), len(tile.indices), np.count_nonzero(counts(tile))) == (n, p, planes)
        assert core.law(tile.masks) == n + p * (channels + 1) + planes + 3 == cycles[size]
        tiles.append(tile)
    assert_runs(core, engine, weight, [[tile] for tile in tiles])


CUBE = {  # the 3x3x3 cube at C = L = 8: N + P = 370, and its 27 planes hold 27, 18 (6 times), 12 (12 times), 8 (8 times)
    "planes": (SSpNNA(8, 8, planes=2), 370 + 8 * (27 + 3 * 18 + 6 * 12 + 4 * 8) + 14 + 3, 1867),
    "rows 2": (SSpNNA(8, 8, rows=2), 370 + 8 * (14 + 6 * 9 + 12 * 6 + 8 * 4) + 27 + 3 + 1, 1777),
    "rows 8": (SSpNNA(8, 8, rows=8), 370 + 8 * (4 + 6 * 3 + 12 * 2 + 8 * 1) + 27 + 3 + 7, 839),
    "pages": (SSpNNA(8, 8, pages=2), 370 + (8 * 343 + 27) + 3 + 2, 3146),
}


@ENGINE
@pytest.mark.parametrize("name", CUBE)
def test_the_options_on_a_cube(engine, name):
    core, formula, cycles = CUBE[name]
    rng = np.random.default_rng(0)
    tile = scene(rng, core, box(3, 3, 3))
    assert sorted(counts(tile)) == [8] * 8 + [12] * 12 + [18] * 6 + [27]
    assert core.law([tile.masks]) == formula == cycles
    assert_runs(core, engine, weights(rng, core), [[tile]])


def states(path):
    """Cycle by cycle the state of the front end, or where that is idle of the engine, of a VCD file."""
    scopes, names, changes = [], {}, []
    with open(path, "rb") as file:
        now = 0
        for token in tokenize(file):
            if token.kind is TokenKind.SCOPE:
                scopes.append(token.scope.ident)
            elif token.kind is TokenKind.UPSCOPE:
                scopes.pop()
            elif token.kind is TokenKind.VAR and token.var.reference == "fsm_state" and token.var.type_.value == "string":
                names[token.var.id_code] = scopes[-1]
            elif token.kind is TokenKind.CHANGE_TIME:
                now = token.time_change
            elif token.kind is TokenKind.CHANGE_STRING and token.string_change.id_code in names:
                name = re.match(r"[A-Z]+", token.string_change.value)[0]
                changes.append((now, names[token.string_change.id_code], name))
        last, state, found = now, {"builder": "IDLE", "engine": "IDLE"}, []
    for edge in range(500_000_000, last, 1_000_000_000):  # of the clock, in femtoseconds
        state |= {part: name for when, part, name in changes if when < edge}
        found.append(state["builder"] if state["builder"] != "IDLE" else state["engine"])
    return found


def test_the_trace_of_two_neighbours(tmp_path):
    core, rng = SSpNNA(4, 2), np.random.default_rng(0)
    tile = Tile(rng.integers(-128, 128, (2, 2), np.int8), np.array([3 << 13, 3 << 12]), np.array([0, 1, 0, 1]))
    np.testing.assert_array_equal(scene(rng, core, box(1, 1, 2)).masks, tile.masks)
    np.testing.assert_array_equal(scene(rng, core, box(1, 1, 2)).indices, tile.indices)
    assert_runs(core, "amaranth", weights(rng, core), [[tile]], vcd=tmp_path / "two.vcd")
    work = [state for state in states(tmp_path / "two.vcd") if state != "IDLE"]
    lists = ["LOAD", "PUSH", "PUSH"] * 2
    centre, others = ["PLANE", *["MAC"] * 4], ["PLANE", "MAC", "MAC"] * 2
    assert work == [*lists, *centre, *others, "PLANE", "DRAIN", "DRAIN"] and len(work) == 20


@ENGINE
def test_the_ports_to_look_at_tell_who_works_when(engine):
    core, rng = SSpNNA(4, 2), np.random.default_rng(0)
    tile = Tile(rng.integers(-128, 128, (2, 2), np.int8), np.array([3 << 13, 3 << 12]), np.array([0, 1, 0, 1]))
    trace = simulate.simulate(core, sspnna.stimulus(core, weights(rng, core), [[tile]]), engine, trace=True).trace
    busy = trace["busy"] == 1
    units = {name: "".join("#" if works else "." for works in seen[busy]) for name, seen in core.units(trace).items()}
    assert units == {
        "LOAD":  "#..#................",
        "PUSH":  ".##.##..............",
        "PLANE": "......#....#..#..#..",
        "MAC":   ".......####.##.##...",
        "DRAIN": "..................##",
        "row 0": "........####.##.##..",
    }  # fmt: skip
    assert not any(seen[~busy].any() for seen in core.units(trace).values())


@pytest.mark.parametrize("name", ["rows 3 of 5", "planes"])
def test_each_row_multiplies_for_each_of_its_pairs(name):
    core, rng = CORES[name], np.random.default_rng(0)
    tile = any_scene(rng, core)
    trace = simulate.simulate(core, sspnna.stimulus(core, weights(rng, core), [[tile]]), trace=True).trace
    rows = [seen for unit, seen in core.units(trace).items() if unit.startswith("row")]
    assert len(rows) == max(core.rows, core.planes)
    assert sum(int(seen.sum()) for seen in rows) == len(tile.indices) * core.channels
    assert rows[0].sum() >= rows[-1].sum() > 0


@ENGINE
def test_a_sum_is_forwarded_across_a_plane(engine):
    # plane 13 ends on output 0, which plane 12 begins with: its accumulator is read before it is written
    core, rng = SSpNNA(4, 2), np.random.default_rng(0)
    tile = Tile(rng.integers(-128, 128, (2, 2), np.int8), np.array([3 << 12, 1 << 13]), np.array([1, 0, 1]))
    assert core.law(tile.masks) == 16
    assert_runs(core, engine, rng.integers(-128, 128, (27, 2, 4), np.int8), [[tile]])


# ---- whole scenes ----------------------------------------------------------------------------------------------------


@ENGINE
@pytest.mark.parametrize("options", [{}, {"pages": 4, "rows": 2}])
def test_a_scene_in_tiles_is_the_convolution(engine, options):
    core, rng = SSpNNA(4, 3, inputs=24, outputs=10, pairs=70, **options), np.random.default_rng(0)
    coordinates = np.unique(rng.integers(0, 5, (60, 3)), axis=0)
    book = sparse_conv3d.rulebook(coordinates)
    features, weight = rng.integers(-128, 128, (len(coordinates), 3), np.int8), weights(rng, core)
    tiles = sspnna.tiles(core, features, book)
    assert len(tiles) > 4 and sum(len(tile.masks) for tile in tiles) == len(coordinates)
    runs = [tiles[i : i + core.pages] for i in range(0, len(tiles), core.pages)]
    sums, cycles = sspnna.run(core, weight, runs, engine)
    found = np.concatenate([y for run in sums for y in run])
    expected = sparse_conv3d.submanifold(features.astype(np.float32), book, weight.astype(np.float32))  # exact below 2^24
    np.testing.assert_array_equal(found, expected)
    assert cycles == [law(core, run) for run in runs]


def test_overlapped_lists_save_what_they_promise():
    rng = np.random.default_rng(0)
    one, two = SSpNNA(8, 8), SSpNNA(8, 8, pages=4)
    tiles = [scene(rng, one, box(3, 3, 3)).masks] * 4
    assert sum(one.law(tile) for tile in tiles) - two.law(tiles) == 3 * (27 + 343) + 3 * 1 - 2  # lists; drains; the hand-over


# ---- refusals --------------------------------------------------------------------------------------------------------

CORE = CORES["one"]
OK = {"features": np.ones((2, 2), np.int8), "masks": np.array([3 << 13, 3 << 12]), "indices": np.array([0, 1, 0, 1])}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"masks": np.zeros(0, int), "indices": np.zeros(0, int)}, "the number of outputs is 0; a tile has at least 1"),
        ({"masks": np.full(10, 1 << 13)}, "the number of outputs is 10; a tile of this core has at most 9"),
        ({"features": np.ones((13, 2), np.int8)}, "the number of distinct inputs is 13; a tile of this core has at most 12"),
        ({"indices": np.zeros(81, int)}, "the number of pairs is 81; a tile of this core has at most 80"),
        ({"masks": np.array([3 << 13, 0])}, "the mask of output 1 is 0; every line has at least one plane"),
        ({"masks": np.array([3 << 13, 3 << 14])}, "the mask of output 1 lacks plane 13, where sums start"),
        ({"masks": np.array([3 << 13, 1 << 27])}, "masks holds 134217728; its entries lie in 0 ... 134217727"),
        ({"features": np.ones((2, 3), np.int8)}, "columns of features is 3, but the number of channels of the core is 2"),
        ({"features": np.ones((2, 2))}, "features is float64; int8 is expected"),
        ({"indices": np.array([0, 1, 0, 2])}, "indices holds 2; its entries lie in 0 ... 1"),
        ({"indices": np.array([0, 1, 0])}, "the number of indices is 3, but the number of bits of the masks is 4"),
    ],
)
def test_tiles_that_are_refused(change, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        sspnna.stimulus(CORE, np.ones((27, 2, 3), np.int8), [[Tile(**OK | change)]])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sspnna.stimulus(CORE, np.ones((27, 2, 4), np.int8), []), "lanes of weight is 4, but the number of lanes"),
        (lambda: sspnna.stimulus(CORE, np.ones((27, 2, 3)), []), "weight is float64; int8 is expected"),
        (lambda: sspnna.stimulus(CORE, np.ones((27, 2, 3), np.int8), [[]]), "a run has 0 tiles; this core holds 1"),
        (
            lambda: sspnna.stimulus(CORE, np.ones((27, 2, 3), np.int8), [[Tile(**OK)] * 2]),
            "a run has 2 tiles; this core holds 1",
        ),
        (lambda: SSpNNA(8, 1), "channels is 1; it is a whole number of at least 2"),
        (lambda: SSpNNA(rows=9), "rows is 9; a list gives one node a cycle, so at most channels = 8 rows"),
        (lambda: SSpNNA(rows=2, planes=2), "planes is 2 with rows = 2"),
        (lambda: SSpNNA(planes=3), "planes is 3 with rows = 1; planes is 1 or 2"),
        (lambda: SSpNNA(pages=3), "pages is 3; it is a power of two: 2 or 4"),
        (lambda: SSpNNA(accumulator=65), "accumulator is 65; at most 64 bits"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_an_output_with_more_inputs_than_a_core_holds():
    core, book = SSpNNA(inputs=26), sparse_conv3d.rulebook(box(3, 3, 3))
    with pytest.raises(ValueError, match="output 13 has 27 inputs; this core holds 26 inputs and 1024 pairs"):
        sspnna.tiles(core, np.ones((27, 8), np.int8), book)
