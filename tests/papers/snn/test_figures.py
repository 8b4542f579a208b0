"""Sub-bit networks: the figures."""

import math
import time

import numpy as np
import pytest

from papernets.chapter import Slider
from papernets.chapter._explorer import BYTES, STATES, Explorer
from papernets.papers.snn import figures as draw
from papernets.papers.snn import networks
from papernets.training import row, scores


def test_the_dot_products_of_a_window():
    binary, different, shared = draw.repeated_kernels().data
    assert list(binary.y) == [64, 128, 256, 512] and list(shared.y) == [32] * 4
    rng = np.random.default_rng(0)
    for width, expected in zip(binary.y, different.y):
        drawn = np.mean([len(set(rng.integers(0, 512, width))) for _ in range(300)])
        assert drawn == pytest.approx(expected, rel=0.02)


def test_tiles_keep_their_order_and_their_gaps():
    rows = np.arange(45).reshape(5, 9)
    image = draw.mosaic(rows, 3)
    assert image.shape == (7, 11)
    assert image[:3, :3].tolist() == rows[0].reshape(3, 3).tolist()
    assert image[4:, 4:7].tolist() == rows[4].reshape(3, 3).tolist()
    assert np.isnan(image[3]).all() and np.isnan(image[:, 3]).all() and np.isnan(image[4:, 8:]).all()
    assert np.isfinite(image).sum() == 45


def test_the_nearest_patterns_are_the_nearest():
    figure = draw.nearest_patterns()
    nearest, signs, w = (np.array(trace.z, float) for trace in figure.data)
    ids = [int(text) for text in figure.layout.xaxis.ticktext]
    used = set()
    for i in range(6):
        at = slice(4 * i, 4 * i + 3)
        assert (np.sign(w[:, at]) == signs[:, at]).all()
        others = [nearest[:, 4 * j:4 * j + 3] for j in range(6)]
        assert (w[:, at] * nearest[:, at]).sum() == pytest.approx(max((w[:, at] * other).sum() for other in others))
        used.add((ids[i], *nearest[:, at].flatten()))
    assert len({key[0] for key in used}) == len({key[1:] for key in used}) == len(used)
    flips = int(np.nansum(signs != nearest) - np.isnan(signs).sum())
    assert figure.layout.title.text == f"6 kernels: {len(used)} of 4 patterns are used, and {flips} of 54 signs give way"


def test_steps_until_a_sign_turns():
    series = {trace.name: list(trace.y) for trace in draw.steps_to_flip((1e-2, 1e-1), (1.0, 0.1)).data}
    assert series["p starts at ±1"] == pytest.approx([2525, 275], abs=25)  # (1 + θ) / rate steps of 25 iterations
    assert series["p starts at ±0.1"] == pytest.approx([275, 50], abs=25)


def two_halves(items, fill, drain):
    """Cycle by cycle: a unit that fills, a unit that drains, two halves."""
    filled = drained = busy_fill = busy_drain = 0
    fills, drains, halves = [], [], 0
    for cycle in range(10**6):
        if busy_fill == 0 and len(fills) < items and halves < 2:
            fills.append(cycle)
            busy_fill, halves = fill, halves + 1
        if busy_drain == 0 and filled > len(drains):
            drains.append(cycle)
            busy_drain = drain
        if busy_fill:
            busy_fill -= 1
            filled += busy_fill == 0
        if busy_drain:
            busy_drain -= 1
            if busy_drain == 0:
                halves, drained = halves - 1, drained + 1
        if drained == items:
            return fills, drains
    raise AssertionError


@pytest.mark.parametrize(("fill", "drain"), [(32, 32), (32, 16), (32, 64), (2, 512), (512, 2), (1, 1)])
def test_the_timeline_is_that_of_two_units_and_two_halves(fill, drain):
    assert draw.timeline(6, fill, drain) == two_halves(6, fill, drain)


@pytest.mark.parametrize(("tau", "outputs", "adders"), [(5, 128, 4), (1, 32, 1), (9, 512, 16), (8, 32, 4), (3, 96, 5)])
def test_the_explorer_shows_the_layer(tau, outputs, adders):
    figure = draw.explore_core(tau, outputs, adders)
    used, tiles, ids, book, binary, fills, drains = figure.data
    P, expected = draw.toy_layer(tau, outputs)
    assert len(P) == 2**tau and expected.shape == (outputs, 16)
    assert list(used.y[1:-1]) == [int((expected == k).sum()) for k in range(2**tau)]
    assert sum(used.y[1:-1]) == 16 * outputs
    image = np.array(tiles.z, float)
    assert np.isfinite(image).sum() == 9 * 2**tau and image[:3, :3].tolist() == (P[0].reshape(3, 3) > 0).tolist()
    assert ids.x[0] == pytest.approx(tau / 9) and binary.x[0] == 1
    assert book.x[0] == pytest.approx(0 if tau == 9 else 2**tau / outputs**2) and book.base[0] == ids.x[0]
    drain = math.ceil(outputs / adders)
    assert (list(fills.base), list(drains.base)) == draw.timeline(6, 2**tau, drain)
    assert set(fills.x) == {2**tau} and set(drains.x) == {drain}
    text = figure.layout.title.text
    found = {name: networks.binary_cycles(networks.layers(name)) / networks.cycles(networks.layers(name), tau, adders)
             for name in draw.PAPER}
    assert f"{max(2**tau, drain)} cycles an item" in text
    assert f"ResNet-18 {found['resnet18']:.2f}×, ResNet-34 {found['resnet34']:.2f}× (paper, at τ = 5: 3.13×, 3.33×)" in text


def test_the_text_on_the_explorer_holds():
    """What the chapter tells the reader to see there."""
    assert "32 cycles an item, in balance; ResNet-18 3.14×" in draw.explore_core(5, 128, 4).layout.title.text
    assert "Dot9 limits" in draw.explore_core(5, 64, 4).layout.title.text  # half the outputs: the adders wait
    assert "the adders limit" in draw.explore_core(5, 256, 4).layout.title.text
    weights = [draw.explore_core(tau, 32, 4).data for tau in (7, 8)]
    assert [data[2].x[0] + data[3].x[0] > 1 for data in weights] == [False, True]
    small, large = draw.toy_layer(3, 32)[0], draw.toy_layer(4, 32)[0]
    assert (large[:8] == small).all()


def test_the_explorer_fits_the_page_and_answers_at_once(monkeypatch):
    explorer = Explorer(draw.explore_core, dict(
        tau=Slider(1, 9, value=5), outputs=Slider(32, 512, step=32, value=128, page=(32, 64, 128, 256, 512)),
        adders=Slider(1, 16, value=4, page=(1, 2, 4, 8, 16))), "x", "n", 640)
    assert len(explorer.page().encode()) < BYTES and 9 * 5 * 5 <= STATES
    draw.explore_core(8, 512, 1)
    start = time.process_time()
    draw.explore_core(8, 512, 1)
    assert time.process_time() - start < 0.15


def test_the_waves_are_those_of_the_law():
    figure = draw.waves(tau=2, adders=2, outputs=8)
    found = {}
    for trace in figure.data:
        for text in trace.hovertext or ():
            lane, _, rest = text.partition(" = ")
            value, _, cycles = rest.partition("<br>")
            if value != "–":
                first, _, last = cycles.replace("cycles ", "").replace("cycle ", "").partition(" to ")
                found.setdefault(lane, []).append((int(first), int(last or first), value))
    fills, drains = found["Dot9 fills"], found["adders drain"]
    assert [value for *_, value in fills[:4]] == ["half 0", "half 1", "half 0", "half 1"]
    assert all(last - first == 3 for first, last, _ in fills[:4] + drains[:3])
    for (first, last, half), (start, end, other) in zip(fills[1:4], drains[:3]):
        assert half != other  # while one half is filled, the other is drained
        assert start - first == end - last == 1  # the stages of the pipeline lie between


def test_who_waits_for_whom():
    figure = draw.occupancy()
    (heat,) = figure.data
    shares = {name.split("<br>")[0]: np.mean(row) for name, row in zip(heat.y, heat.z)}
    assert shares == {"8 outputs: Dot9": 1, "8 outputs: adders": 0.5, "16 outputs: Dot9": 1, "16 outputs: adders": 1,
                      "32 outputs: Dot9": 0.5, "32 outputs: adders": 1}


def test_the_table_of_the_law():
    rows = [{"core": "sub-bit", "channels": 64, "cycles": 4114, "law": 4114, "equal": True, "full": 9},
            {"core": "binary", "channels": 64, "cycles": 8194, "law": 8194, "equal": True, "full": 12_845_058}]
    text = draw.law_in_words(rows)
    assert "| 64 | binary | 8,194 | 0 | 12,845,058 |" in text and "In 2 of 2 runs the outputs are those" in text
    rows[1] |= {"cycles": 8195, "equal": False}
    text = draw.law_in_words(rows)
    assert "| 8,195 | 1 |" in text and "In 1 of 2 runs" in text


def test_cycles_and_speed_ups():
    plain, shared = draw.cycles_by_stage().data
    assert list(plain.y) == pytest.approx([51.38, 44.96, 44.96, 44.96], abs=0.005)
    assert list(shared.y) == pytest.approx([25.69, 11.24, 11.24, 11.24], abs=0.005)
    first, paper, second, other = draw.gain_by_adders().data
    at = list(first.x).index(4)
    assert first.y[at] == pytest.approx(3.135, abs=1e-3) and second.y[at] == pytest.approx(3.342, abs=1e-3)
    assert set(paper.y) == {3.13} and set(other.y) == {3.33}
    for a in range(len(first.x)):  # at no other number of adders do both come within 2 %
        near = abs(first.y[a] / 3.13 - 1) < 0.02 and abs(second.y[a] / 3.33 - 1) < 0.02
        assert near == (a == at)
    text = draw.speeds_in_words().replace("\u2011", "-")
    assert "| ResNet-18 | 3.13× | 3.135× | 3.135× | 0.2 % |" in text
    assert "| ResNet-34 | 3.33× | 3.342× | 3.342× | 0.4 % |" in text


def test_the_table_of_storage():
    text = draw.storage_in_words()
    assert "| 5 | 0.56 | 6.103 | 6.1076 | 0.5014 | 0.594 |" in text
    assert "| 9 | 1.00 | 10.985 | 10.9855 | 1.6763 | 1.676 |" in text


def test_accuracy_by_tau():
    rng = np.random.default_rng(0)
    rows = [row(seed, arm, float(rng.uniform()), tau, cut=float(rng.uniform())) for seed in range(3) for tau in (9, 5, 3, 2, 1)
            for arm in ("kept", "refined", "frequent", "random")]
    kept, seeds, refined = draw.by_tau(rows).data
    assert list(kept.x) == [1, 2, 3, 5, 9] and list(refined.x) == [2, 3, 5]
    assert kept.y[4] == pytest.approx(100 * np.mean(scores(rows, "kept", 9)))
    assert refined.y[0] == pytest.approx(100 * np.mean(scores(rows, "refined", 2)))
    assert len(seeds.x) == 15 and list(seeds.x[:5]) == [1, 2, 3, 5, 9]
    assert list(seeds.y[:5]) == pytest.approx([100 * scores(rows, "kept", tau)[0] for tau in (1, 2, 3, 5, 9)])
    assert "3 seeds" in draw.by_tau(rows).layout.title.text and "3 seeds" in draw.cut_in_words(rows)
    assert f"{100 * np.mean(scores(rows, 'random', 3, 'cut')):.0f} % with random ones" in draw.cut_in_words(rows)


def test_clustering_is_shown_against_chance():
    rng = np.random.default_rng(0)
    random, few = rng.integers(0, 512, 576), rng.integers(0, 20, 576)
    band, first, second = draw.clustering([random, few]).data
    assert first.y[0] == pytest.approx(100 * np.bincount(random).max() / 576)
    assert list(second.y) == sorted(second.y, reverse=True) and sum(second.y) == pytest.approx(100)
    high, low = np.array(band.y[:64]), np.array(band.y[64:][::-1])
    inside = (np.array(first.y) <= high + 1e-9) & (np.array(first.y) >= low - 1e-9)
    assert inside.mean() > 0.8 and (np.array(second.y[:10]) > high[:10]).all()
    assert "clusters" in draw.clustering([random, few]).layout.title.text
    assert "clusters" not in draw.clustering([few, random]).layout.title.text


def test_both_stages_of_training():
    real, one, five = draw.stages_of_training({"real": [0.1, 0.2], "tau9": [0.3, 0.4], "tau5": [0.1, 0.5]}).data
    assert list(real.x) == [1, 2] and list(one.x) == list(five.x) == [2, 3, 4]
    assert list(five.y) == pytest.approx([20, 10, 50]) and five.name == "0.56 bit (τ = 5)"


def test_the_search_in_words():
    rows = [row(0, "kept", 0.5, moved=0.0), row(1, "kept", 0.7, moved=0.0), row(0, "refined", 0.48, (0.1, 1.0, 5), moved=10.0),
            row(1, "refined", 0.74, (0.1, 1.0, 5), moved=20.0)]
    assert "| ±0.1 | ×1 | 5 | +1.0 | 15.0 % |" in draw.search_in_words(rows)


def test_the_clock_in_words():
    times = {"float32 (torch)": [8.0, 9.0], "bits counted": [1.0, 1.0], "results shared": [2.0, 3.0]}
    text = draw.times_in_words(times)
    assert "3.0 to 4.0 times as fast as the float" in text and "2.0 to 3.0 times as fast as sharing" in text
    figure = draw.measured(times)
    assert "counting bits is 2.0 to 3.0 times faster" in figure.layout.title.text
    assert list(figure.data[0].y) == [8000, 9000]  # seconds in, milliseconds out


def test_the_core_in_words():
    class Ran:
        def __init__(self, cycles):
            self.cycles, self.plan = cycles, self
            self.writes = 7

    seen = {"sub-bit": [Ran(10), Ran(20)], "binary": [Ran(90)]}
    text = draw.on_core_in_words(seen, 2, True, {"float": 0.5, "int8": 0.25})
    assert "equal to the last bit" in text and "took 30 cycles and the binary core 90, 3.00 times" in text
    assert "14 more cycles" in text and "50.0 %" in text and "25.0 %" in text
    assert "NOT equal" in draw.on_core_in_words(seen, 1, False, {"float": 0.5, "int8": 0.25})
