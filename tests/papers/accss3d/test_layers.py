"""AccSS3D: the layers and the verbs."""

import math

import numpy as np
import pytest
import torch
from hdl_checks import ENGINES
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl import sspnna_host
from papernets_kernels.sparse_conv3d import rulebook
from papers.accss3d.samples import SMALL, at, some_voxels, warmed
from torch.nn import functional as F

from papernets.data import points, room
from papernets.measure import count, macs
from papernets.papers import accss3d
from papernets.papers.accss3d import (
    ORDERS,
    Accelerator,
    CoreProduct,
    DenseConv3d,
    IntegerConv3d,
    Scene,
    SparseConv3d,
    Voxels,
    integer_product,
    least_traffic,
    on_core,
    order,
    output_lines,
    pairs_of,
    plan,
    quantised,
    renumbered,
    sparse_convolution,
    turned,
)
from papernets.papers.accss3d.networks import UNet
from papernets.training import seed_everything

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]


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


def grid_of(features, coordinates, side):
    """(1, C, S, S, S) with zeros where no voxel is."""
    z, y, x = torch.from_numpy(np.ascontiguousarray(coordinates.T)).long()
    rows = torch.zeros(side**3, features.shape[1], dtype=features.dtype)
    rows = rows.index_copy(0, (z * side + y) * side + x, features)
    return rows.T.reshape(1, -1, side, side, side)


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
