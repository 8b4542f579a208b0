"""AccSS3D: the experiments."""

import math

import numpy as np
import pytest
import torch
from papernets_kernels import sparse_conv3d
from papernets_kernels.hdl.sspnna import SSpNNA
from papernets_kernels.sparse_conv3d import rulebook
from papers.accss3d.samples import SMALL, warmed

from papernets.data import points, room
from papernets.papers.accss3d import (
    ORDERS,
    Accelerator,
    CoreProduct,
    IntegerConv3d,
    Scene,
    SparseConv3d,
    Voxels,
    experiment,
    integer_product,
    misses,
    on_core,
    optimise,
    order,
    plan,
    reuse,
    sparse_convolution,
    touches,
)
from papernets.papers.accss3d.experiment import memory_bits
from papernets.papers.accss3d.networks import UNet

pytestmark = [pytest.mark.usefixtures("one_thread"), pytest.mark.xdist_group("numba")]


def test_table_regret():
    found = experiment.table_regret([0, 1], (16, 24), held=(7,), channels=((8, 8), (32, 32)))
    assert len(found["regret"]) + found["misfits"] == 4 and min(found["regret"]) >= 1
    assert found["entries"] >= 2 and found["look_up"] > 0 and found["search"] > 0


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
    (lambda: on_core(UNet(), integer_product), "call quantised"),
    (lambda: plan(UNet(dense=True), points(room(0, 12))[0]), "no sparse convolution"),
    (lambda: Accelerator(order="zigzag"), "no order 'zigzag'"),
    (lambda: Accelerator(planes=2, rows=2), "planes is 2 with rows = 2"),
    (lambda: experiment.halves(0, 1), "at least 2 are needed"),
    (lambda: IntegerConv3d(SparseConv3d(2, 2), math.nan), "the largest feature is nan"),
])
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_network_learns_rooms():
    """Better than any guess of one class, from a few small rooms."""
    found = experiment.segment(70, rooms=10, grid=16, epochs=12, widths=(6, 8))
    assert found.loss[-1] < 0.3 * found.loss[0] and found.iou > 0.55


def test_core_test_compares_everything(monkeypatch):
    model, one = warmed(widths=(3, 4)), room(4, 12, boxes=(0, 0))
    found = experiment.core_test(model, one, CoreProduct(SMALL, "fastest"))
    assert found["equal"] and found["cycles"] == found["law"] > 0 and found["layers"] == 6

    class Wrong(CoreProduct):
        def __call__(self, features, book, weight):
            sums = super().__call__(features, book, weight)
            sums[-1, -1] += 1
            return sums

    assert not experiment.core_test(model, one, Wrong(SMALL))["equal"]


def test_sampled_tiles_agree_with_the_law():
    rows, _ = points(room(2, 16))
    layers = plan(UNet((3, 4)), rows, SMALL)
    rows_ = experiment.sampled_difference(layers, 2)
    assert len(rows_) == 6 and all(row["cycles"] == row["law"] > 0 and row["wrong"] == 0 for row in rows_)
    assert [row["tiles"] for row in rows_] == [2] * 6


def test_wrong_sums_of_the_core_are_an_error(monkeypatch):
    true = experiment.golden.sspnna
    monkeypatch.setattr(experiment.golden, "sspnna", lambda *args: true(*args) + 1)
    with pytest.raises(AssertionError, match=r"sums of one\.c8 differ from the integer model"):
        experiment.core_cycles()


def test_the_worked_trace_takes_twenty_cycles():
    core, trace = experiment.worked_trace()
    assert trace["busy"].sum() == 20 == trace["cycles"][-1] and trace["start"].tolist()[:2] == [1, 0]
    assert (core.lanes, core.channels) == (4, 2) and trace["working"].sum() == 8  # four pairs of two channels


def test_memory_of_the_core():
    found = memory_bits(SSpNNA())
    assert found == {"inputs": 4096, "weights": 13_824, "masks": 1728, "indices": 6144, "nodes": 23_552, "sums": 16_384}
    assert sum(found.values()) == 65_728


def test_compare_orders():
    one, again = experiment.compare_orders(3, grid=24), experiment.compare_orders(3, grid=24)
    assert one == again and [row["arm"] for row in one] == list(ORDERS)
    (chunks,) = (row for row in one if row["arm"] == "chunks")
    book = rulebook(room(3, 24, boxes=(0, 0)).coordinates)
    by = order("chunks", book, 128)
    assert chunks["score"] == reuse(book, 128, by) and chunks["misses"] == misses(book, by, 128, 32)
    assert chunks["bytes"] == optimise(book.outputs, touches(book), 32, 32).bytes
    by_name = {row["arm"]: row["score"] for row in one}
    assert by_name["random"] > by_name["raster"] > by_name["chunks"]


def test_race(monkeypatch):
    found = experiment.race(0, grid=16, channels=8, repeats=2)
    assert found["macs_ratio"] == 27 * 16**3 / found["pairs"] and found["sparse"] > 0 and found["dense"] > 0
    true = sparse_conv3d.submanifold
    monkeypatch.setattr(experiment.sparse_conv3d, "submanifold", lambda *args: true(*args) * 1.01)
    with pytest.raises(ValueError, match="no time is quoted"):
        experiment.race(0, grid=16, channels=8, repeats=1)


def test_race_by_density():
    rows = experiment.race_by_density([0.1, 1.0], grid=12, channels=4, repeats=1)
    assert rows[1]["density"] == 1 and rows[1]["pairs"] == 34**3 and rows[0]["macs_ratio"] > rows[1]["macs_ratio"] > 1
    assert rows[1]["macs_ratio"] == pytest.approx(27 * 12**3 / 34**3)


def test_compare_networks():
    options = dict(rooms=4, grid=16, epochs=1, widths=(3, 4))
    one = experiment.compare_networks(2, **options)
    assert one == experiment.compare_networks(2, **options)
    sparse, dense, majority = one
    assert [row["arm"] for row in one] == ["sparse", "dense", "majority"]
    assert sparse["macs"] < dense["macs"] / 5 and 0 < majority["score"] < 0.3
    train, test = experiment.halves(2, 4, 16)
    assert (len(train), len(test)) == (3, 1)
    places = {one.coordinates.tobytes() for one in train.images} & {one.coordinates.tobytes() for one in test.images}
    assert not places
