"""AccSS3D: the figures."""

import numpy as np
import pytest
from papernets_kernels.hdl import sspnna_host
from papernets_kernels.hdl.sspnna import SSpNNA
from papernets_kernels.sparse_conv3d import rulebook
from papers.accss3d.samples import places, run

from papernets.cards import card
from papernets.chapter import BASELINE, OURS, Choice, Explorer, Slider
from papernets.data import ROOM_CLASSES, Room, points, room
from papernets.papers import accss3d
from papernets.papers.accss3d import claims, experiment, networks
from papernets.papers.accss3d import figures as draw

pytestmark = pytest.mark.xdist_group("numba")


def test_a_scene_has_every_voxel_in_its_class():
    one = room(3, 20)
    figure = draw.scene(one)
    assert [trace.name for trace in figure.data] == list(ROOM_CLASSES)
    for number, trace in enumerate(figure.data):
        assert places(trace) == {tuple(at) for at in one.coordinates[one.labels == number].tolist()}
    assert f"{len(one):,} are occupied" in figure.layout.title.text
    assert all(figure.layout.scene[f"{axis}axis"].title.text == f"{axis} (voxel)" for axis in "xyz")


def test_the_camera_stands_inside_the_room():
    """The wall at x = 0 is looked at from large x, and one at the end from small x."""
    floor = [(0, y, x) for y in range(9) for x in range(9)]
    for at, sign in ((0, 1), (8, -1)):
        coordinates = np.array(floor + [(z, y, at) for z in range(1, 5) for y in range(9)], np.int32)
        one = Room(coordinates, np.array([0] * 81 + [1] * 36), 9)
        assert np.sign(draw.scene(one).layout.scene.camera.eye.x) == sign
    box = Room(np.array([[0, 0, 0]], np.int32), np.array([2]), 9)
    assert draw.scene(box).layout.scene.camera.eye.x > 0


def test_mistakes_are_marked():
    one = room(3, 20)
    found = one.labels.copy()
    found[[5, 70]] = (found[[5, 70]] + 1) % 4
    figure = draw.mistakes(one, found, "Net")
    assert figure.layout.title.text.startswith("Net: 2 of ") and figure.data[-1].name == "wrong"
    assert places(figure.data[-1]) == {tuple(at) for at in one.coordinates[[5, 70]].tolist()}
    assert "wrong" not in [trace.name for trace in draw.mistakes(one, one.labels, "Net").data]


def test_reuse_curves():
    figure = draw.reuse_curves((128, 1024))
    found = {trace.name: [round(value, 2) for value in trace.y] for trace in figure.data}
    assert found["random"] == [9.32, 6.6] and found["chunks (ours)"] == [1.56, 1.16] and found["chunks, filled"] == [1.46, 1.14]
    assert len(found) == 6 and next(t for t in figure.data if t.line.color == OURS).name == "chunks (ours)"
    assert "“chunks, filled” reads 1.46" in figure.layout.title.text


def test_cache_curves_and_their_text():
    """What the chapter says about the caches: raster misses least at 4 KB, most at 8, and not more than chunks at 64."""
    found = {trace.name: dict(zip(trace.x, trace.y)) for trace in draw.cache_curves((4, 8, 32, 64)).data}
    chunks, raster = found["chunks (ours)"], found["raster"]
    assert raster[4] == min(values[4] for values in found.values()) and raster[8] == max(values[8] for values in found.values())
    assert raster[64] < chunks[64] < 1.1 * raster[64]
    title = draw.cache_curves((8, 64)).layout.title.text
    assert f"{chunks[8]:,}" in title and f"{raster[64]:,}" in title


def test_traffic_bars():
    figure = draw.traffic_bars()
    assert [round(1e6 * y) for y in figure.data[0].y] == [3_746_016, 1_330_144, 934_560, 929_760, 891_488]
    assert list(figure.data[0].text) == ["T = 64"] + ["T = 128"] * 4
    assert figure.layout.shapes[0].y0 == pytest.approx(0.7312) and "1.43 times" in figure.layout.title.text


@pytest.mark.parametrize("order", ["random", "raster", "Morton", "chunks", "filled"])
@pytest.mark.parametrize("log_T", [5, 8])
def test_the_explorer_shows_tiles_and_their_halo(order, log_T):
    figure = draw.explore_tiles(order, log_T, 16, "OS")
    voxels, halo, bars = figure.data
    book, T = draw._explored_book(), 2**log_T
    by = accss3d.order(order, book, T)
    tile = np.empty(len(by), int)
    tile[by] = np.arange(len(by)) // T
    assert list(voxels.marker.color) == (tile % 8).tolist() and voxels.marker.cmax == 7
    middle = tile.max() // 2
    near = {tuple(at) for at in book.out_coordinates[tile == middle].tolist()}
    reads = {(z + a, y + b, x + c) for z, y, x in near for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1)}
    assert places(halo) == (reads & places(voxels)) - near
    touched = accss3d.touches(book, order, (T,))[T]
    flows = [accss3d.dataflow(flow, book.outputs, touched, 32, 32, T, 16, 16) for flow in accss3d.FLOWS]
    assert list(bars.y) == [one.bytes / 1024 for one in flows] and list(bars.marker.color) == [OURS, BASELINE, BASELINE]
    assert f"u = {touched / book.outputs:.2f}" in figure.layout.title.text


def test_the_explorer_says_what_does_not_fit():
    assert "but needs a buffer of" in draw.explore_tiles("random", 9, 32, "WS").layout.title.text
    assert "does not fit" in draw.explore_tiles("random", 9, 32, "WS").data[2].text[0]
    assert "needs" not in draw.explore_tiles("chunks", 6, 8, "IS").layout.title.text


@pytest.mark.parametrize(("order", "T", "block"), [("chunks", 64, 16), ("raster", 128, 8), ("random", 32, 32)])
def test_the_cycles_of_the_explorer_are_those_of_the_core(order, T, block):
    book = draw._explored_book()
    core = SSpNNA(8, block, inputs=2048, outputs=T, pairs=27 * T)
    cut = sspnna_host.schedule(core, book, accss3d.order(order, book, T))
    assert draw.explored_cycles(order, T, block) == cut.cycles(32, 32)


def test_the_text_on_the_explorer_holds():
    """From random to raster to chunks the halo shrinks and the bytes fall; with half blocks weights no longer stay cheaply."""
    halos = [len(draw.tiles_of(order, 64)["halo"]) for order in ("random", "raster", "chunks")]
    moved = [draw.explore_tiles(order, 6, 32, "WS").data[2].y[1] for order in ("random", "raster", "chunks")]
    assert halos == sorted(halos, reverse=True) and moved == sorted(moved, reverse=True)
    whole, half = (draw.explore_tiles("chunks", 9, block, "WS").data[2].y for block in (32, 16))
    assert min(whole) == whole[1] and min(half) != half[1]


def test_waves_and_overlap():
    _, trace = experiment.worked_trace()
    figure = draw.waves(trace)
    assert list(figure.layout.yaxis.ticktext) == ["start", "busy", "front end", "engine", "products", "done"]
    assert "20 cycles" in figure.layout.title.text
    tile = experiment.shape_tile("cube3", 4)
    alone, overlapped = SSpNNA(4, 4), SSpNNA(4, 4, pages=4)
    cycles = overlapped.law([tile.masks] * 3), 3 * alone.law(tile.masks)
    assert f"{cycles[0]:,} cycles instead of {cycles[1]:,}" in draw.overlap().layout.title.text


def test_the_table_of_cycles():
    names = [f"{name}.{build}" for name in experiment.SHAPES for build, *_ in experiment.BUILDS]
    found = dict(zip(names, range(len(names))))
    rows = draw.cycle_table(found).splitlines()
    assert rows[3] == "| 1 × 1 × 2 | 2 | 4 | 3 | 3 | 4 | 5 |" and rows[7] == "| 3 × 3 × 3 | 27 | 343 | 27 | 15 | 16 | 17 |"


def test_network_cycles():
    rows, _ = points(room(1, 16))
    layers = accss3d.plan(networks.UNet((8, 16)), rows)
    useful, whole = sorted(draw.network_cycles(layers).data, key=lambda bar: bar.name != "cycles of useful products")
    assert list(whole.y) == [layer.cycles / 1e6 for layer in layers] and list(useful.x) == ["1", "2", "3↓", "4", "5↑", "6"]
    assert [u / w for u, w in zip(useful.y, whole.y)] == pytest.approx([layer.utilisation for layer in layers])


def test_every_exact_claim_has_a_value():
    values = claims.facts(experiment.core_cycles())
    exact = {claim.id: claim for claim in card("accss3d").claims if claim.kind == "exact"}
    assert set(values) == set(exact)
    assert all(claim.accept.allows(values[name], claim.paper) for name, claim in exact.items())


def test_sentences():
    assert "sparse 60 %, dense 70 %" in draw.learning([*run(0, 0.5, 0.6), *run(1, 0.7, 0.8)]).layout.title.text
    assert "10.0 million" in draw.cost_in_words(run(0, 0, 0)) and "20 times" in draw.cost_in_words(run(0, 0, 0))
    good = {"layers": 6, "sums": 10, "equal": True, "cycles": 5, "law": 5, "agree": 1.0, "iou": 0.5, "float_iou": 0.6}
    assert "equal to the last bit" in draw.core_in_words(good) and "exactly the law's" in draw.core_in_words(good)
    bad = draw.core_in_words({**good, "equal": False, "cycles": 6}, "no compiler")
    assert "NOT equal" in bad and "not the law's 5" in bad and "only a corner" in bad
    assert "difference is 2" in draw.samples_in_words([{"tiles": 1, "cycles": 9, "law": 7, "wrong": 0}])
    table = {"entries": 4, "misfits": 2, "regret": [1, 1, 1.3], "look_up": 1, "search": 2}
    assert "2 of 5 choices" in draw.table_in_words(table) and "1.300 times at worst" in draw.table_in_words(table)


def test_the_race_figure_says_who_wins():
    rows = [{"density": d, "macs_ratio": 1 / d, "dense": 1.0, "sparse": s} for d, s in ((0.01, 0.1), (0.5, 0.9), (1.0, 1.2))]
    figure = draw.race_by_density(rows)
    assert "faster up to 50 %" in figure.layout.title.text
    assert "at every density" in draw.race_by_density(rows[:2]).layout.title.text
    assert "dense convolution is faster" in draw.race_by_density(rows[2:]).layout.title.text
    words = draw.race_in_words([{"voxels": 1000, "dense": 0.1, "sparse": 0.005, "search": 0.001, "macs_ratio": 40}])
    assert "100 ms" in words and "5.0 ms, 20 times less" in words


def test_amdahl_goes_through_the_abstract():
    curve, point = draw.amdahl().data
    assert point.x[0] == pytest.approx(97.32, abs=0.005) and point.y[0] == 11.8
    assert np.interp(point.x[0], curve.x, curve.y) == pytest.approx(11.8, abs=0.2) and curve.y[-1] == pytest.approx(16.8)


def test_every_miniature_is_recorded():
    rooms = experiment.compare_orders(3, grid=24)
    races = [{"sparse": 0.005, "dense": 0.1}]
    every = claims.order_records(rooms) | claims.network_records(run(0, 0.5, 0.6)) | claims.time_records(races)
    assert every.keys() == {claim.id for claim in card("accss3d").claims if claim.kind == "miniature"}
    assert every["unet.dense"] == ([50.0], [60.0]) and every["sparse.time"] == ([5.0], [100.0])
    (ours,), (raster,) = every["order.bytes"]
    assert ours < raster and every["unet.macs"] == ([1e7], [2e8])


def test_the_corner_room_in_words():
    text = draw.metadata_in_words()
    assert "10,993 voxels and 107,967 pairs, so ARF = 9.821" in text and "1.67 times" in text and "519,816" in text
    assert rulebook(room(*draw.EXPLORED).coordinates).outputs == draw._explored_book().outputs


def test_the_explorer_is_live():
    """A control that moves changes the figure in place, as the function draws it."""
    controls = {"order": Choice("random", "chunks", value="chunks"), "log_T": Slider(4, 10, value=6),
                "block": Choice(8, 32, value=32), "flow": Choice("OS", "WS", value="WS")}
    explorer = Explorer(draw.explore_tiles, controls, "Tiles", "pn-test")
    live = explorer.widget
    live.inputs["order"].value, live.inputs["log_T"].value = "random", 9
    wanted = draw.explore_tiles("random", 9, 32, "WS")
    assert live.message.value == "" and live.view.layout.title.text == wanted.layout.title.text
    for seen, drawn in zip(live.view.data, wanted.data):
        assert seen.type == drawn.type and list(seen.x) == list(drawn.x)
    assert list(live.view.data[0].marker.color) == list(wanted.data[0].marker.color)
