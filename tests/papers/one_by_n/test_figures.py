"""1xN sparsity: the figures."""

import numpy as np
import pytest
import torch
from papers.one_by_n.sample import rows_of

from papernets.papers.one_by_n import experiment
from papernets.papers.one_by_n import figures as draw


def test_the_picture_has_the_same_zeros_three_times():
    figure = draw.three_ways()
    assert [int(np.isnan(part.z).sum()) for part in figure.data] == [256, 256, 256]
    blocks = np.isnan(figure.data[1].z).reshape(8, 4, 16)
    assert (blocks.all(1) | ~blocks.any(1)).all()
    assert {int(row.sum()) for row in np.isnan(figure.data[2].z)} == {0, 16}


@pytest.mark.parametrize("shape", draw.SHAPES)
@pytest.mark.parametrize("N", [1, 4, 16])
@pytest.mark.parametrize("p", [0.25, 0.9])
@pytest.mark.parametrize("rearrange", [False, True])
def test_the_explorer_counts_what_it_shows(shape, N, p, rearrange):
    figure = draw.explore_blocks(shape, N, p, rearrange)
    cells, bars = figure.data
    value = dict(zip(bars.y, bars.x))
    kept = np.isfinite(cells.z)
    W = draw.example_weight()[:, :, 0, 0]
    rows = [int(name) for name in cells.y]
    assert sorted(rows) == list(range(32))
    assert value["multiply-adds"] == pytest.approx(100 * kept.sum() / 512)
    norm = float((W[rows].abs() * torch.from_numpy(kept)).sum() / W.abs().sum())
    assert value["kept norm"] == pytest.approx(100 * norm, abs=1e-3)
    if shape == "1×N block":
        blocks = kept.reshape(32 // N, N, 16)
        assert (blocks.all(1) | ~blocks.any(1)).all()
        assert value["inputs read"] == pytest.approx(100 * blocks.any(1).sum() / 512)
        norms = W[rows].abs().sum(1).tolist()
        assert not rearrange or norms == sorted(norms)


def test_what_the_text_on_the_explorer_says():
    """Larger blocks keep less norm, bytes and inputs; the rearrangement keeps more norm."""
    def bars(*values):
        return dict(zip(draw.explore_blocks(*values).data[1].y, draw.explore_blocks(*values).data[1].x))
    by_size = [bars("1×N block", N, 0.5, False) for N in (1, 2, 4, 8, 16)]
    for quantity in ("kept norm", "bytes", "inputs read"):
        values = [found[quantity] for found in by_size]
        assert values == sorted(values, reverse=True), quantity
    assert all(bars("1×N block", N, 0.5, True)["kept norm"] > bars("1×N block", N, 0.5, False)["kept norm"] for N in (2, 4, 8))
    assert bars("filter", 4, 0.5, False)["kept norm"] < by_size[2]["kept norm"] < bars("weight", 4, 0.5, False)["kept norm"]


def test_bars_are_means_over_the_seeds():
    before, after = draw.accuracies([*rows_of(0), *rows_of(10)], 0.8).data
    assert list(before.y) == pytest.approx([10] * 7) and after.y[0] == pytest.approx(50.5)
    assert "blocks of 4 reach 52 %, filters 57 %" in draw.accuracies([*rows_of(0), *rows_of(10)], 0.8).layout.title.text


def test_the_norms_are_means_over_the_seeds_by_share():
    figure = draw.kept_norms([*rows_of(0), *rows_of(1)])
    ours = next(trace for trace in figure.data if trace.name == "1x4 rearranged")
    assert list(ours.x) == [0.5, 0.8, 0.9] and list(ours.y) == pytest.approx([60 - list(experiment.ARMS).index(ours.name)] * 3)


def test_the_crossing_is_the_share_from_which_on_blocks_are_faster():
    times = {"removed": [0.0, 0.25, 0.5, 0.75], "ours": [3.0, 1.5, 2.5, 1.0], "dense": [2.0] * 4, "csr": [9.0, 5.0, 3.0, 1.1]}
    assert draw.crossing(times, "dense") == 0.75 and draw.crossing(times, "csr") == 0
    assert draw.crossing(times | {"ours": [3.0] * 4}, "dense") is None
    assert "from 75 % on" in draw.speed(times).layout.title.text
    assert "not faster" in draw.speed(times | {"ours": [3.0] * 4}).layout.title.text
    ours = next(trace for trace in draw.speed(times).data if trace.name.startswith("1×8"))
    assert list(ours.x) == [0, 25, 50, 75] and list(ours.y) == [3000, 1500, 2500, 1000]  # seconds in, milliseconds out
    text = draw.speed_in_words(times)
    assert "At 50 % this run needs 2500.000 ms" in text and "At 75 % the dense product takes 2.0 times" in text
    assert "the dense product takes 0.8 times and the single weights 1.2 times as long" in text


def test_the_latencies_of_the_paper():
    work, time = draw.paper_latency().data
    assert time.y[0] == pytest.approx(100 * 223 / 279.2) and work.y[0] == pytest.approx(100 * 166_804_352 / 300_774_272)
