"""AccSS3D: the functions on tensors."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papernets_kernels import sparse_conv3d
from papernets_kernels.sparse_conv3d import rulebook
from papers.accss3d.samples import some_voxels, warmed

from papernets.data import Rooms, points, room
from papernets.papers import accss3d
from papernets.papers.accss3d import (
    ORDERS,
    FlowTable,
    blocks,
    dataflow,
    least_traffic,
    metadata,
    mirrored,
    misses,
    optimise,
    order,
    output_lines,
    pairs_of,
    reuse,
    tangent_order,
    touches,
    turned,
)
from papernets.papers.accss3d.networks import UNet

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]
SEARCH = settings(max_examples=25, deadline=None, database=None, derandomize=True)


def test_lines_by_hand():
    """Two neighbours in x: the first sees itself and the one behind, the second the one before and itself."""
    book = rulebook(np.array([[0, 0, 0], [0, 0, 1]]))
    lines = output_lines(book)
    assert lines.kind == "output" and lines.mask.tolist() == [3 << 13, 3 << 12]
    assert lines.pointers.tolist() == [0, 2, 4] and lines.indices.tolist() == [0, 1, 0, 1]
    assert pairs_of(lines).tolist() == [[12, 0, 1], [13, 0, 0], [13, 1, 1], [14, 1, 0]]
    fed = turned(lines)
    assert fed.kind == "input" and fed.mask.tolist() == [3 << 12, 3 << 13] and fed.indices.tolist() == [1, 0, 1, 0]
    assert [lines.mask.dtype, lines.pointers.dtype, lines.indices.dtype] == [np.uint32, np.int32, np.int32]


@pytest.mark.parametrize("seed", range(4))
def test_submanifold_lines_turn_by_reversal(seed):
    book = rulebook(some_voxels(seed))
    lines = output_lines(book)
    counts = np.diff(book.plane_pointers)
    assert (counts == counts[::-1]).all()
    one, other = turned(lines), mirrored(lines)
    for name in ("kind", "mask", "pointers", "indices"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert [int(f"{m:027b}"[::-1], 2) for m in lines.mask] == one.mask.tolist()


def test_size_of_the_metadata(corner):
    sizes = metadata(corner.outputs, corner.pairs)
    assert sizes == {"lines": 27 * 10_993 + 107_967 * 14, "pairs": 2 * 107_967 * 14, "lines_bytes": 519_816,
                     "pairs_bytes": 863_736}
    lines = output_lines(corner)
    assert sum(getattr(lines, name).nbytes for name in ("mask", "pointers", "indices")) == 519_816
    assert metadata(1, 1) == {"lines": 28, "pairs": 2, "lines_bytes": 16, "pairs_bytes": 8}
    assert [accss3d.index_bits(n) for n in (0, 1, 2, 3, 4, 5, 8192, 8193)] == [0, 1, 1, 2, 2, 3, 13, 14]


def test_reuse_on_the_corner_room(corner):
    """u(T) of random, raster, Morton, chunks and filled chunks, at T = 64 and 1024, and the sums at 128."""
    for T, expected in ((64, (9.57, 3.19, 1.85, 1.88, 1.67)), (1024, (6.60, 1.30, 1.21, 1.16, 1.14))):
        found = [reuse(corner, T, order(name, corner, T)) for name in ORDERS[:5]]
        assert tuple(round(u, 2) for u in found) == expected
    assert reuse(corner, 1) == corner.arf
    found = [touches(corner, name, (128,))[128] for name in ORDERS[1:]]
    assert found[:4] == [29_710, 17_348, 17_198, 16_002]
    assert found[2] < found[4] < found[0]  # the tangent plane alone is no gain on plain chunks here


def test_the_normal_of_a_plane():
    flat = np.argwhere(np.ones((1, 7, 7)))
    for axes in ((0, 1, 2), (1, 0, 2), (2, 1, 0)):
        coordinates = flat[:, list(axes)] + 4
        place = {tuple(at): i for i, at in enumerate(coordinates.tolist())}
        n = accss3d.normal(place, coordinates, 24)
        assert abs(n[axes.index(0)]) == pytest.approx(1) and np.linalg.norm(n) == pytest.approx(1)


def test_a_tangent_chunk_stays_in_the_plane_of_its_seed():
    """A wall stands on the middle of a floor. Plain chunks climb it; tangent ones fill the floor first."""
    floor = [(0, y, x) for y in range(11) for x in range(11)]
    wall = [(z, 5, x) for z in range(1, 8) for x in range(11)]
    coordinates = np.array(floor + wall)
    book = rulebook(coordinates)
    climbed = {name: int((coordinates[order(name, book, 90)[:90], 0] > 0).sum()) for name in ("chunks", "tangent")}
    start = coordinates[tangent_order(book, 90)[0]]
    assert start[0] == 0  # a corner of the floor, of least degree
    assert climbed["tangent"] == 0 < climbed["chunks"]


def test_tangent_chunks_grow_over_neighbours():
    book = rulebook(room(1, 16).coordinates)
    _, pointers, indices = book.lines()
    by, seen, jumps = tangent_order(book, 20).tolist(), set(), 0
    for v in by:
        jumps += not seen & set(indices[pointers[v] : pointers[v + 1]].tolist())
        seen.add(v)
    assert jumps < 0.1 * len(by)  # nearly every voxel touches one before it
    assert len(tangent_order(rulebook(np.zeros((0, 3), int)), 5)) == 0


def slow_misses(addresses, sets, ways):
    held, missed = [[] for _ in range(sets)], 0
    for number in addresses:
        one = held[number % sets]
        if number in one:
            one.remove(number)
        else:
            missed += 1
            if len(one) == ways:
                one.pop(0)
        one.append(number)
    return missed


@pytest.mark.parametrize(("size", "line", "ways", "channels"),
                         [(64, 8, 2, 8), (128, 16, 4, 24), (32, 8, 1, 3), (512, 8, 64, 8)])
def test_misses_of_a_simulated_cache(size, line, ways, channels):
    coordinates = some_voxels(4, 5, 0.4)
    book, tile = rulebook(coordinates), 7
    by = order("Morton", book, tile)
    number = {tuple(at): i for i, at in enumerate(coordinates[by].tolist())}
    addresses = []
    for begin in range(0, len(by), tile):
        for k in [13, *range(13), *range(14, 27)]:
            for at in coordinates[by][begin : begin + tile].tolist():
                near = (at[0] + k // 9 - 1, at[1] + k // 3 % 3 - 1, at[2] + k % 3 - 1)
                if near in number:
                    first = number[near] * channels
                    addresses += range(first // line, (first + channels - 1) // line + 1)
    found = misses(book, by, tile, channels, size=size, line=line, ways=ways)
    assert found == slow_misses(addresses, size // line // ways, ways)
    assert misses(book, by, tile, channels, size=2**22, line=line, ways=ways) == len(set(addresses))


@pytest.mark.parametrize(("call", "message"), [
    (lambda b: order("spiral", b, 8), "no order 'spiral'; choose from random, raster, Morton"),
    (lambda b: tangent_order(b, 0), "chunk is 0; the smallest is 1"),
    (lambda b: tangent_order(sparse_conv3d.strided_rulebook(np.zeros((1, 3), int)), 4), "not submanifold"),
    (lambda b: misses(b, np.arange(1), 4, 8, size=64, line=64, ways=8), "nothing can be held"),
])
def test_orders_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call(rulebook(np.zeros((1, 3), int)))


def test_traffic_by_hand():
    """N = 10 in tiles of 4, twice read; C = 16 in blocks of 8, K = 24 in blocks of 8."""
    for flow, moved in (("OS", 20 * 16 * 3 + 3 * 27 * 384 + 240), ("WS", 27 * 384 + 20 * 16 * 3 + 4 * 240 * 2 + 240),
                        ("IS", 160 + 3 * 27 * 384 + 8 * 20 * 24 * 2)):
        one = dataflow(flow, 10, 20, 16, 24, 4, 8, 8)
        assert one.bytes == moved and one.buffer == 4 * 2 * 8 + 27 * 64 + 4 * 4 * 8
    assert least_traffic(10, 16, 24) == 160 + 27 * 384 + 240
    assert dataflow("OS", 10, 20, 16, 24, 64, 8, 8).buffer == 20 * 8 + 27 * 64 + 4 * 10 * 8  # a tile holds what there is


def test_choices_on_the_corner_room(corner):
    assert least_traffic(10_993, 32, 32) == 731_200
    expected = {"random": (64, 3_746_016), "raster": (128, 1_330_144), "Morton": (128, 934_560), "chunks": (128, 929_760),
                "filled": (128, 891_488)}
    for name, (T, moved) in expected.items():
        best = optimise(10_993, touches(corner, name), 32, 32)
        assert (best.flow, best.T, best.c, best.k, best.bytes) == ("WS", T, 32, 32, moved)
    reads = touches(corner)
    out, into = (optimise(10_993, reads, 32, 32, flows=(flow,)) for flow in ("OS", "IS"))
    assert (out.T, out.c, out.k, out.bytes) == (512, 8, 16, 1_836_000)
    assert (into.T, into.c, into.k, into.bytes) == (512, 32, 8, 4_463_904)
    # the next larger tile does not fit, and a smaller buffer changes the choice
    assert dataflow("WS", 10_993, reads[256], 32, 32, 256, 32, 32).buffer > 65_536
    assert optimise(10_993, reads, 32, 32, buffer=16_384).flow != "WS" or optimise(10_993, reads, 32, 32, 16_384).T < 128


@SEARCH
@given(seed=st.integers(0, 999), C=st.sampled_from([4, 8, 24, 64]), K=st.sampled_from([8, 16, 48]),
       buffer=st.sampled_from([8_000, 20_000, 65_536, 10**6]))
def test_the_search_finds_the_least(seed, C, K, buffer):
    rng = np.random.default_rng(seed)
    N = int(rng.integers(1, 5000))
    touched = {T: int(N * (1 + 8 * rng.random())) for T in accss3d.TILES}
    every = [dataflow(flow, N, touched[T], C, K, T, c, k) for flow in accss3d.FLOWS for T in touched
             for c in range(1, C + 1) if c in (8, 16, 32, 64, C) and C % c == 0 and (c >= 8 or C == 4)
             for k in (8, 16, 32, 48) if K % k == 0 and k & (k - 1) == 0]
    fitting = [one for one in every if one.buffer <= buffer]
    if not fitting:
        with pytest.raises(ValueError, match=f"no tile and block fits {buffer} bytes"):
            optimise(N, touched, C, K, buffer)
        return
    best = optimise(N, touched, C, K, buffer)
    assert best.bytes == min(one.bytes for one in fitting if one.c in blocks(C))
    assert best.buffer <= buffer and best.bytes >= least_traffic(N, C, K)
    assert best.buffer == min(one.buffer for one in fitting if one.bytes == best.bytes and one.c in blocks(C))


def test_blocks():
    assert blocks(32) == [8, 16, 32] and blocks(24) == [8] and blocks(2) == [2] and blocks(20) == [20]


@pytest.mark.parametrize(("call", "message"), [
    (lambda: dataflow("XS", 1, 1, 1, 1, 1, 1, 1), "no loop order 'XS'; choose from OS, WS, IS"),
    (lambda: dataflow("OS", 0, 1, 1, 1, 1, 1, 1), "N = 0"),
    (lambda: FlowTable([], [(8, 8)]), "no scene to build the table from"),
    (lambda: FlowTable([(10, 20, {32: 12})], [(8, 8)]).choose(10, 20, 8, 16), "no layer of 8 to 16 channels; it has 8 to 8"),
])
def test_dataflow_refuses(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_the_table_is_the_search_done_before():
    scenes = {}
    for seed, grid in ((0, 24), (1, 24), (2, 48)):
        book = rulebook(room(seed, grid).coordinates)
        scenes[book.outputs, book.pairs] = touches(book)
    (n, p), touched = next(iter(scenes.items()))
    alone = FlowTable([(n, p, touched)], [(32, 32), (8, 8)])
    assert len(alone) == 2 and alone.choose(n, p, 32, 32) == optimise(n, touched, 32, 32)
    far = alone.choose(50 * n, 20 * p, 32, 32)  # statistics that it never saw: the nearest
    assert far == alone.choose(n, p, 32, 32)
    table = FlowTable([(*key, reads) for key, reads in scenes.items()], [(32, 32)])
    for (N, P), reads in scenes.items():
        one = table.choose(N, P, 32, 32)
        real = dataflow(one.flow, N, reads[one.T], 32, 32, one.T, one.c, one.k)
        assert real.buffer <= 65_536 and real.bytes <= 1.05 * optimise(N, reads, 32, 32).bytes
    assert {accss3d.statistics_key(1000, 9400), accss3d.statistics_key(1024, 9800)} == {(20, 19)}


def test_what_the_factors_imply():
    found = accss3d.reading()
    expected = {"share.time": (0.9732, 4), "share.energy_left": (4.03, 2), "share.energy_other": (3.99, 2),
                "power.conv": (132.9, 1), "power.e2e": (2.1, 2)}
    assert {name: round(found[name], digits) for name, (_, digits) in expected.items()} == {
        name: value for name, (value, _) in expected.items()}
    f = accss3d.implied_share(16.8, 11.8)
    assert 1 / (1 - f + f / 16.8) == pytest.approx(11.8) and accss3d.implied_share(5, 5) == pytest.approx(1)
    for wrong in ((5, 6), (5, 1), (5, 0.5)):
        with pytest.raises(ValueError, match="1 < whole ≤ part is needed"):
            accss3d.implied_share(*wrong)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_pairs_of_a_full_grid(n):
    assert rulebook(np.argwhere(np.ones((n, n, n)))).pairs == (3 * n - 2) ** 3


def test_rooms_of_a_batch_do_not_see_each_other():
    model = warmed(widths=(3, 5, 7))
    rooms = [room(5, 16), room(6, 13), room(7, 16)]
    rows, _ = Rooms(rooms)[[0, 1, 2]]
    with torch.no_grad():
        torch.testing.assert_close(model(rows), torch.cat([model(points(one)[0]) for one in rooms]), atol=1e-6, rtol=1e-5)


def test_a_network_is_saved_and_loaded():
    model, other = warmed(widths=(3, 5)), UNet((3, 5))
    other.load_state_dict(model.state_dict())
    rows, _ = points(room(8, 16))
    with torch.no_grad():
        assert torch.equal(other.eval()(rows), model(rows))
