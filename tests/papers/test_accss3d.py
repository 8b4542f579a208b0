"""AccSS3D: metadata, orders, traffic, layers against the dense convolution, 8 bits on the simulated core, and the recipe."""

import math
import re

import numpy as np
import pytest
import torch
from hdl_checks import ENGINES
from hypothesis import given, settings
from hypothesis import strategies as st
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import sspnna_host
from papernets_kernels.sparse_conv3d import rulebook
from torch.nn import functional as F

from papernets.cards import card
from papernets.data import Rooms, corner_room, points, room
from papernets.measure import count, macs
from papernets.papers import accss3d
from papernets.papers.accss3d import (
    ORDERS,
    RECIPES,
    Accelerator,
    CoreProduct,
    DenseConv3d,
    FlowTable,
    IntegerConv3d,
    Scene,
    SparseConv3d,
    UNet,
    Voxels,
    blocks,
    dataflow,
    densified,
    integer_product,
    least_traffic,
    mean_iou,
    memory_bits,
    metadata,
    mirrored,
    misses,
    on_core,
    optimise,
    order,
    output_lines,
    pairs_of,
    plan,
    quantised,
    renumbered,
    reuse,
    sparse_convolution,
    tangent_order,
    touches,
    turned,
)
from papernets.training import run_recipe, seed_everything

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]
SEARCH = settings(max_examples=25, deadline=None, database=None, derandomize=True)


@pytest.fixture(scope="module")
def corner():
    return rulebook(corner_room().coordinates)


def some_voxels(seed, side=5, share=0.3):
    rng = np.random.default_rng(seed)
    found = rng.permutation(np.argwhere(rng.random((side,) * 3) < share))
    return found if len(found) else np.array([[1, 2, 3]])


# --- metadata --------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
@pytest.mark.parametrize("seed", range(4))
def test_round_trip_of_the_metadata(kind, seed):
    scene = Scene(some_voxels(seed))
    book = {"submanifold": scene.book, "down": scene.down, "up": scene.up}[kind]
    plane = np.repeat(np.arange(len(book.plane_pointers) - 1), np.diff(book.plane_pointers))
    pairs = np.stack([plane, book.pair_inputs, book.pair_outputs], 1)
    pairs = pairs[np.lexsort(pairs.T[::-1])]
    lines = output_lines(book)
    assert len(lines) == book.outputs and np.bitwise_count(lines.mask).sum() == book.pairs
    np.testing.assert_array_equal(pairs_of(lines), pairs)
    np.testing.assert_array_equal(pairs_of(turned(lines)), pairs)
    back = turned(turned(lines))
    for name in ("mask", "pointers", "indices"):
        np.testing.assert_array_equal(getattr(back, name), getattr(lines, name))
    assert back.kind == "output" and back.others == lines.others


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


# --- orders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ORDERS)
def test_orders_are_permutations_and_keep_the_convolution(name):
    """Bitwise in whole numbers: features in another order give the same sums in that order."""
    rng, coordinates = np.random.default_rng(1), some_voxels(3, 6)
    book = rulebook(coordinates)
    by = order(name, book, 16, seed=5)
    assert sorted(by.tolist()) == list(range(len(coordinates)))
    renewed, fresh = renumbered(book, by), rulebook(coordinates[by])
    for field in ("plane_pointers", "pair_inputs", "pair_outputs", "out_coordinates"):
        np.testing.assert_array_equal(getattr(renewed, field), getattr(fresh, field))
    features, weight = (rng.integers(-128, 128, shape, np.int8) for shape in ((len(coordinates), 3), (27, 3, 5)))
    np.testing.assert_array_equal(integer_product(features[by], renewed, weight), integer_product(features, book, weight)[by])


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


# --- dataflow --------------------------------------------------------------------------------------------------------


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


def test_table_regret():
    found = accss3d.table_regret([0, 1], (16, 24), held=(7,), channels=((8, 8), (32, 32)))
    assert len(found["regret"]) + found["misfits"] == 4 and min(found["regret"]) >= 1
    assert found["entries"] >= 2 and found["look_up"] > 0 and found["search"] > 0


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


# --- layers ----------------------------------------------------------------------------------------------------------


def grid_of(features, coordinates, side):
    """(1, C, S, S, S) with zeros where no voxel is."""
    z, y, x = torch.from_numpy(np.ascontiguousarray(coordinates.T)).long()
    rows = torch.zeros(side**3, features.shape[1], dtype=features.dtype)
    rows = rows.index_copy(0, (z * side + y) * side + x, features)
    return rows.T.reshape(1, -1, side, side, side)


def at(cube, coordinates):
    z, y, x = torch.from_numpy(np.ascontiguousarray(coordinates.T)).long()
    return cube[0, :, z, y, x].T


def dense_of(layer, features, coordinates, out, side):
    """The layer computed by torch in all of space, read where its outputs are. Sides are even."""
    twin = DenseConv3d(*layer.weight.shape[1:], layer.kind)
    assert sum(p.numel() for p in twin.parameters()) == layer.weight.numel()
    twin = twin.to(features.dtype)
    twin.take_(layer)
    cube = grid_of(features, coordinates, side)
    return at(twin.conv(cube), out), twin, cube


@pytest.mark.parametrize("share", [0.0, 0.05, 0.4, 1.0])
@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
def test_layers_are_the_dense_convolution_on_the_active_voxels(kind, share):
    voxels_ = some_voxels(7, 6, share)
    scene = Scene(voxels_, 6)
    start = scene.coarse if kind == "up" else scene
    layer = SparseConv3d(3, 5, kind).double()
    features = torch.randn(len(start), 3, dtype=torch.float64)
    y = layer(Voxels(features, start))
    side = 3 if kind == "up" else 6
    expected, _, _ = dense_of(layer, features, np.asarray(start.coordinates), np.asarray(y.scene.coordinates), side)
    torch.testing.assert_close(y.features, expected, atol=1e-12, rtol=1e-12)
    assert len(y.scene) == len({"submanifold": scene, "down": scene.coarse, "up": scene}[kind])


def test_active_voxels_stay_the_same():
    """A dense 3x3x3 convolution would spread to the neighbours; here what was empty stays empty."""
    scene = Scene(some_voxels(2, 6, 0.1))
    x = Voxels(torch.ones(len(scene), 2), scene)
    y = SparseConv3d(2, 2)(SparseConv3d(2, 2)(x))
    assert y.scene is scene and y.features.shape == x.features.shape
    up = SparseConv3d(2, 2, "up")(SparseConv3d(2, 2, "down")(x))
    assert up.scene is scene


def test_two_voxels_by_hand():
    book = rulebook(np.array([[0, 0, 0], [0, 0, 1]]))
    weight = torch.arange(27.0).reshape(27, 1, 1)
    y = sparse_convolution(torch.tensor([[2.0], [3.0]]), weight, book)
    assert y.tolist() == [[2 * 13 + 3 * 14], [3 * 13 + 2 * 12]] == [[68], [63]]
    assert integer_product(np.array([[2], [3]], np.int8), book, weight.numpy().astype(np.int8)).tolist() == [[68], [63]]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_pairs_of_a_full_grid(n):
    assert rulebook(np.argwhere(np.ones((n, n, n)))).pairs == (3 * n - 2) ** 3


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
def test_gradients(kind):
    scene = Scene(some_voxels(5, 4, 0.4))
    start = scene.coarse if kind == "up" else scene
    book, _ = accss3d.step(start, kind)
    features = torch.randn(len(start), 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(accss3d.KINDS[kind], 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda f, w: sparse_convolution(f, w, book), (features, weight))


@pytest.mark.parametrize("kind", ["submanifold", "down", "up"])
def test_gradients_are_those_of_the_dense_convolution(kind):
    scene = Scene(some_voxels(9, 6, 0.3), 6)
    start = scene.coarse if kind == "up" else scene
    layer = SparseConv3d(3, 5, kind).double()
    features = torch.randn(len(start), 3, dtype=torch.float64, requires_grad=True)
    y = layer(Voxels(features, start))
    expected, twin, _ = dense_of(layer, features, np.asarray(start.coordinates), np.asarray(y.scene.coordinates),
                                 3 if kind == "up" else 6)
    seed = torch.randn_like(expected)
    ours = torch.autograd.grad((y.features * seed).sum(), (features, layer.weight), retain_graph=True)
    theirs = torch.autograd.grad((expected * seed).sum(), (features, twin.conv.weight))
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-11, rtol=1e-11)
    moved = SparseConv3d(3, 5, kind).double()
    with torch.no_grad():
        moved.weight.copy_(ours[1])
    again = DenseConv3d(3, 5, kind).double()
    again.take_(moved)
    torch.testing.assert_close(again.conv.weight.detach(), theirs[1], atol=1e-11, rtol=1e-11)


def test_a_layer_without_gradients_for_its_input():
    scene = Scene(some_voxels(1))
    layer = SparseConv3d(2, 3)
    layer(Voxels(torch.randn(len(scene), 2), scene)).features.sum().backward()
    assert layer.weight.grad.shape == (27, 2, 3) and layer.weight.grad.abs().sum() > 0


def test_an_empty_scene_gives_nothing():
    scene = Scene(np.zeros((0, 3), np.int32))
    y = SparseConv3d(2, 3)(Voxels(torch.zeros(0, 2), scene))
    assert y.features.shape == (0, 3)


@pytest.mark.parametrize(("call", "message"), [
    (lambda: Scene(np.array([[0, 0, 4]]), 4), r"voxel \(0, 0, 4\) is outside the grid of 4\^3; coordinates are 0 to 3"),
    (lambda: Scene(np.array([[0, -1, 0]]), 4), r"voxel \(0, -1, 0\) is outside"),
    (lambda: Scene(np.array([[0, 1, 0], [0, 1, 0]])).book, r"voxels 0 and 1 are both at \(0, 1, 0\)"),
    (lambda: SparseConv3d(2, 2, "sideways"), "no convolution of kind 'sideways'; choose from submanifold, down, up"),
    (lambda: SparseConv3d(0, 2), "0 to 2 channels"),
    (lambda: rulebook(np.zeros((1, 3), int), 2), "kernel_size is 2; a submanifold convolution has a centre: 1, 3 or 5"),
    (lambda: SparseConv3d(2, 2, "up")(Voxels(torch.zeros(1, 2), Scene(np.zeros((1, 3), int)))), "there is no way up"),
    (lambda: sparse_convolution(torch.zeros(2, 3), torch.zeros(27, 3, 1), rulebook(np.zeros((1, 3), int))),
     r"\(1, C\) and \(27, C, K\) are expected"),
    (lambda: sparse_convolution(torch.zeros(1, 2), torch.zeros(27, 3, 1), rulebook(np.zeros((1, 3), int))), "do not fit"),
    (lambda: UNet((8, 0)), "each is at least 1"), (lambda: UNet(masked=True), "masked is for the dense twin"),
    (lambda: UNet()(torch.zeros(3, 4)), r"the input has shape \(3, 4\); it is \(n, 4 \+ features\)"),
    (lambda: densified(UNet(dense=True)), "dense already"),
    (lambda: on_core(UNet(), integer_product), "call quantised"),
    (lambda: plan(UNet(dense=True), points(room(0, 12))[0]), "no sparse convolution"),
    (lambda: Accelerator(order="zigzag"), "no order 'zigzag'"),
    (lambda: Accelerator(planes=2, rows=2), "planes is 2 with rows = 2"),
    (lambda: accss3d.halves(0, 1), "at least 2 are needed"),
    (lambda: IntegerConv3d(SparseConv3d(2, 2), math.nan), "the largest feature is nan"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- networks --------------------------------------------------------------------------------------------------------


def warmed(**options):
    """A U-Net whose batch norms have seen something."""
    model = UNet(**options)
    rows, _ = Rooms([room(1, 16), room(2, 16)])[[0, 1]]
    for _ in range(3):
        model(rows)
    return model.eval()


@pytest.mark.parametrize("options", [{"widths": (3, 5)}, {"widths": (3, 5, 7), "repeats": 2}, {"widths": (3,)}])
def test_the_masked_dense_twin_gives_the_same_outputs(options):
    model = warmed(**options)
    twin = densified(model)
    rows, _ = Rooms([room(5, 16), room(6, 15)])[[0, 1]]
    with torch.no_grad():
        torch.testing.assert_close(twin(rows), model(rows), atol=2e-5, rtol=1e-4)
    loose = UNet(**options, dense=True)
    loose.load_state_dict(twin.state_dict())
    with torch.no_grad():
        assert (loose.eval()(rows) - model(rows)).abs().max() > 1e-2  # without the mask it is another network


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


def test_macs_of_both_twins():
    rows, _ = points(room(3, 16))
    sparse, dense = UNet((3, 5)), UNet((3, 5), dense=True)
    scene = Scene(rows[:, 1:4].long().numpy())
    fine, coarse = scene.book.pairs, scene.coarse.book.pairs
    n, s = len(scene), 16**3
    assert macs(sparse, rows) == fine * (2 * 3 + 3 * 3 + 6 * 3) + n * (3 * 5 + 5 * 3) + coarse * 25 + n * 12
    assert macs(dense, rows) == 27 * s * (2 * 3 + 3 * 3 + 6 * 3) + s * (15 + 15) + 27 * s // 8 * 25 + n * 12
    assert sum(p.numel() for p in sparse.parameters()) == sum(p.numel() for p in dense.parameters())
    assert [one.macs for one in plan(sparse, rows)] == [c.macs for name, c in count(sparse, rows).items() if name != "head"
                                                        and "norm" not in name and not name.endswith(".1")]


def test_a_layer_learns_to_look_at_a_neighbour():
    """The label is the sign of the neighbour behind in x. Only plane 14 tells it; no voxel knows by itself."""
    seed_everything(3)
    coordinates = np.array([(z, y, x) for z in range(6) for y in range(6) for x in range(6)])
    train, test = torch.randn(216, 1).sign(), torch.randn(216, 1).sign()
    inside = torch.from_numpy(coordinates[:, 2] < 5)
    behind = torch.from_numpy(np.flatnonzero(coordinates[:, 2] < 5) + 1)
    scene, layer = Scene(coordinates), SparseConv3d(1, 2)
    optimiser = torch.optim.SGD(layer.parameters(), 0.5, momentum=0.9)
    for _ in range(60):
        optimiser.zero_grad()
        scores = layer(Voxels(train, scene)).features[inside]
        F.cross_entropy(scores, (train[behind, 0] > 0).long()).backward()
        optimiser.step()
    with torch.no_grad():
        found = layer(Voxels(test, scene)).features[inside].argmax(1)
    assert (found == (test[behind, 0] > 0).long()).float().mean() == 1
    spread = (layer.weight[:, 0, 1] - layer.weight[:, 0, 0]).detach()
    assert int(spread.argmax()) == 14


def test_a_network_learns_rooms():
    """Better than any guess of one class, from a few small rooms."""
    found = accss3d.segment(70, rooms=10, grid=16, epochs=12, widths=(6, 8))
    assert found.loss[-1] < 0.3 * found.loss[0] and found.iou > 0.55


def test_mean_iou_by_hand():
    found, labels = torch.tensor([0, 0, 1, 1, 2, 0]), torch.tensor([0, 1, 1, 1, 0, -100])
    assert mean_iou(found, labels, 4) == pytest.approx((1 / 3 + 2 / 3 + 0) / 3)  # class 3 is nowhere and does not count
    assert mean_iou(labels[:5], labels[:5], 4) == 1


# --- on the core -----------------------------------------------------------------------------------------------------

SMALL = Accelerator(lanes=3, channels=2, inputs=40, outputs=12, pairs=120)


def test_eight_bits_by_hand():
    layer = SparseConv3d(1, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.weight[13, 0], layer.weight[14, 0, 0] = torch.tensor([0.496, -2.0]), 1.27
    whole = IntegerConv3d(layer, 2.54)
    assert whole.weight[13, 0].tolist() == [50, -127] and whole.weight[14, 0].tolist() == [127, 0]
    x = Voxels(torch.tensor([[0.995], [-9.0]]), Scene(np.array([[0, 0, 0], [0, 0, 1]])))
    y = whole(x).features  # 0.995 is 49.75 steps of 0.02 and 0.496 is 49.6 of 0.01; -9 is cut at -127
    assert whole.sums.tolist() == [[50 * 50 - 127 * 127, -127 * 50], [-127 * 50, 127 * 127]]
    torch.testing.assert_close(y, torch.tensor(whole.sums).float() * 0.02 * torch.tensor([0.01, 2 / 127]))


def test_rounding_errs_by_half_a_step():
    layer, scene = SparseConv3d(4, 3), Scene(some_voxels(3, 6))
    x = Voxels(torch.randn(len(scene), 4), scene)
    whole = IntegerConv3d(layer, float(x.features.abs().max()))
    steps = whole.scale * whole.weight_scale
    error = (whole(x).features - layer(x).features).abs()
    lines = np.diff(scene.book.lines()[1])
    most = 4 * torch.tensor(lines)[:, None] * (127 * 0.5 * 2 + 0.25) * steps
    assert (error <= most * 1.001).all() and error.max() > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_quantised_network_on_the_core(engine):
    model, one = warmed(widths=(3, 4)), room(4, 12, spheres=(1, 1), boxes=(0, 0))
    rows, labels = points(one)
    rows, labels = rows[:90], labels[:90]
    product = CoreProduct(SMALL, engine)
    reference = quantised(model, rows)
    simulated = on_core(reference, product)
    with torch.no_grad():
        assert torch.equal(reference(rows), simulated(rows))
    sums = [(a.sums, b.sums) for a, b in zip(reference.modules(), simulated.modules()) if isinstance(a, IntegerConv3d)]
    assert len(sums) == 6 == len(product.log) and all(np.array_equal(a, b) and a.any() for a, b in sums)
    assert all(cycles == law for *_, cycles, law in product.log)
    planned = plan(model, rows, SMALL)
    assert [(one.schedule.book.pairs, one.C, one.K, one.cycles) for one in planned] == [row[:4] for row in product.log]
    assert [one.kind for one in planned] == ["submanifold", "submanifold", "down", "submanifold", "up", "submanifold"]
    assert isinstance(model.stem[0], SparseConv3d)  # the network itself is unchanged


def test_eight_bits_keep_the_scores():
    model = warmed(widths=(6, 8))
    rows, _ = points(room(9, 16))
    with torch.no_grad():
        plain, whole = model(rows), quantised(model, rows)(rows)
    assert (plain - whole).abs().max() < 0.1 * plain.abs().max()
    assert (plain.argmax(1) == whole.argmax(1)).float().mean() > 0.9


def test_core_test_compares_everything(monkeypatch):
    model, one = warmed(widths=(3, 4)), room(4, 12, boxes=(0, 0))
    found = accss3d.core_test(model, one, CoreProduct(SMALL, "fastest"))
    assert found["equal"] and found["cycles"] == found["law"] > 0 and found["layers"] == 6

    class Wrong(CoreProduct):
        def __call__(self, features, book, weight):
            sums = super().__call__(features, book, weight)
            sums[-1, -1] += 1
            return sums

    assert not accss3d.core_test(model, one, Wrong(SMALL))["equal"]


def test_sampled_tiles_agree_with_the_law():
    rows, _ = points(room(2, 16))
    layers = plan(UNet((3, 4)), rows, SMALL)
    rows_ = accss3d.sampled_difference(layers, 2)
    assert len(rows_) == 6 and all(row["cycles"] == row["law"] > 0 and row["wrong"] == 0 for row in rows_)
    assert [row["tiles"] for row in rows_] == [2] * 6


def test_a_plan_adds_up():
    rows, _ = points(room(2, 24))
    for accelerator in (Accelerator(), Accelerator(order="raster", rows=4), Accelerator(pages=2)):
        core = accelerator.core()
        for layer in plan(UNet((8, 16)), rows, accelerator):
            cut = layer.schedule
            passes = math.ceil(layer.C / 8) * math.ceil(layer.K / 8)
            runs = cut.runs()
            assert layer.cycles == passes * sum(core.law([piece.masks for piece in run]) for run in runs)
            assert 0 < layer.utilisation < 1 and all(len(run) <= accelerator.pages for run in runs)
            assert (layer.flow is None) == (layer.kind != "submanifold")
            if layer.flow:
                assert layer.flow.bytes >= least_traffic(cut.book.outputs, layer.C, layer.K)
    chunks, random = (sum(layer.schedule.distinct_inputs for layer in plan(UNet((8, 16)), rows, Accelerator(order=name)))
                      for name in ("chunks", "random"))
    assert chunks < 0.5 * random


def test_cycles_of_the_corner_room(corner):
    """32 to 32 channels on 8 lanes: 13.8 million multiply cycles, and the law on top of them."""
    accelerator = Accelerator()
    cut = accelerator.cut(corner)
    assert 107_967 * 32 * 32 // 8 == 13_819_776
    planes = sum(len({k for mask in piece.masks.tolist() for k in range(27) if mask >> k & 1}) for piece in cut.pieces)
    expected = 16 * (10_993 + 107_967 * 9 + planes + 3 * len(cut.pieces))
    assert cut.cycles(32, 32) == expected and 13_819_776 / expected == pytest.approx(cut.utilisation(32, 32))


def test_the_core_counts_as_the_table():
    rows = {claim.id.removeprefix("rtl."): claim.paper for claim in card("accss3d").claims
            if claim.id.startswith("rtl.") and claim.unit == "cycle" and claim.id != "rtl.scene"}
    assert len(rows) == 19 and accss3d.core_cycles() == rows


def test_wrong_sums_of_the_core_are_an_error(monkeypatch):
    true = accss3d.golden.sspnna
    monkeypatch.setattr(accss3d.golden, "sspnna", lambda *args: true(*args) + 1)
    with pytest.raises(AssertionError, match=r"sums of one\.c8 differ from the integer model"):
        accss3d.core_cycles()


def test_the_worked_trace_takes_twenty_cycles():
    core, trace = accss3d.worked_trace()
    assert trace["busy"].sum() == 20 == trace["cycles"][-1] and trace["start"].tolist()[:2] == [1, 0]
    assert (core.lanes, core.channels) == (4, 2) and trace["working"].sum() == 8  # four pairs of two channels


def test_memory_of_the_core():
    found = memory_bits(accss3d.SSpNNA())
    assert found == {"inputs": 4096, "weights": 13_824, "masks": 1728, "indices": 6144, "nodes": 23_552, "sums": 16_384}
    assert sum(found.values()) == 65_728


# --- experiments -----------------------------------------------------------------------------------------------------


def test_compare_orders():
    one, again = accss3d.compare_orders(3, grid=24), accss3d.compare_orders(3, grid=24)
    assert one == again and set(one) == set(ORDERS)
    book = rulebook(room(3, 24, boxes=(0, 0)).coordinates)
    by = order("chunks", book, 128)
    assert one["chunks"]["reuse"] == reuse(book, 128, by) and one["chunks"]["misses"] == misses(book, by, 128, 32)
    assert one["chunks"]["bytes"] == optimise(book.outputs, touches(book), 32, 32).bytes
    assert one["random"]["reuse"] > one["raster"]["reuse"] > one["chunks"]["reuse"]


def test_race(monkeypatch):
    found = accss3d.race(0, grid=16, channels=8, repeats=2)
    assert found["macs_ratio"] == 27 * 16**3 / found["pairs"] and found["sparse"] > 0 and found["dense"] > 0
    true = sparse_conv3d.submanifold
    monkeypatch.setattr(accss3d.sparse_conv3d, "submanifold", lambda *args: true(*args) * 1.01)
    with pytest.raises(ValueError, match="no time is quoted"):
        accss3d.race(0, grid=16, channels=8, repeats=1)


def test_race_by_density():
    rows = accss3d.race_by_density([0.1, 1.0], grid=12, channels=4, repeats=1)
    assert rows[1]["density"] == 1 and rows[1]["pairs"] == 34**3 and rows[0]["macs_ratio"] > rows[1]["macs_ratio"] > 1
    assert rows[1]["macs_ratio"] == pytest.approx(27 * 12**3 / 34**3)


def test_compare_networks():
    options = dict(rooms=4, grid=16, epochs=1, widths=(3, 4))
    one = accss3d.compare_networks(2, **options)
    assert one == accss3d.compare_networks(2, **options)
    assert one["sparse"]["macs"] < one["dense"]["macs"] / 5 and 0 < one["majority"] < 0.3
    train, test = accss3d.halves(2, 4, 16)
    assert (len(train), len(test)) == (3, 1)
    places = {one.coordinates.tobytes() for one in train.images} & {one.coordinates.tobytes() for one in test.images}
    assert not places


def write_scans(folder):
    """Three scans of a corner with two labels, in the published form."""
    mesh = np.dtype([(name, "<f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "alpha")])
    rng = np.random.default_rng(0)
    for part, number in (("train", 0), ("train", 1), ("val", 2)):
        (folder / part).mkdir(parents=True, exist_ok=True)
        vertices = np.zeros(400, mesh)
        for axis in "xyz":
            vertices[axis] = rng.uniform(0, 0.4, 400)
        vertices["z"][:200] = 0
        labelled = np.zeros(400, [*mesh.descr, ("label", "<u2")])
        labelled["label"] = np.where(vertices["z"] == 0, 2, 1)
        for suffix, values in (("", vertices), (".labels", labelled)):
            names = {"f": "float", "u": "uchar"}
            head = ["ply", "format binary_little_endian 1.0", "element vertex 400"]
            head += [f"property {'ushort' if n == 'label' else names[values.dtype[n].kind]} {n}" for n in values.dtype.names]
            path = folder / part / f"scene000{number}_00_vh_clean_2{suffix}.ply"
            path.write_bytes("\n".join([*head, "end_header\n"]).encode() + values.tobytes())


def test_the_recipe_runs_on_scans(tmp_path):
    write_scans(tmp_path / "scans")
    recipe = RECIPES["unet-scannet"]()
    assert len(recipe.build().head.bias) == 20 and recipe.epochs == 200
    small = type(recipe)(**{**recipe.__dict__, "build": lambda: UNet((4, 6), 3, 20), "batch": 2})
    history = run_recipe(small, tmp_path / "run", data=tmp_path / "scans", epochs=2)
    assert len(history.loss) == 2 and history.loss[1] < history.loss[0] and (tmp_path / "run" / "best.pt").exists()


def test_the_recipe_says_what_data_it_needs(tmp_path):
    with pytest.raises(ValueError, match=r"scannet cannot be fetched.*give its folder with --data"):
        run_recipe(RECIPES["unet-scannet"](), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_every_full_claim_has_a_recipe():
    for claim in card("accss3d").claims:
        if claim.kind == "full":
            assert re.fullmatch(r"papernets train accss3d --config (\S+)", claim.recipe)[1] in RECIPES


def test_public_names_exist():
    assert all(hasattr(accss3d, name) for name in accss3d.__all__)


def test_the_host_and_the_reference_share_one_definition():
    """The integer reference, the kernel and the torch layer agree on the same small numbers."""
    coordinates = some_voxels(11, 6, 0.35)
    book, rng = rulebook(coordinates), np.random.default_rng(0)
    features, weight = rng.integers(-20, 20, (len(coordinates), 3), np.int8), rng.integers(-20, 20, (27, 3, 4), np.int8)
    whole = integer_product(features, book, weight)
    fast = sparse_conv3d.submanifold(features.astype(np.float32), book, weight.astype(np.float32))
    np.testing.assert_array_equal(fast, whole)
    floats = sparse_convolution(torch.from_numpy(features).double(), torch.from_numpy(weight).double(), book)
    np.testing.assert_array_equal(floats.numpy(), whole)
    sums, _ = sspnna_host.convolve(SMALL.core(), features, book, weight)
    np.testing.assert_array_equal(sums, whole)
