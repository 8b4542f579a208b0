"""1xN sparsity: the figures."""

import numpy as np
import pytest
import torch

from papernets.cards import card
from papernets.papers.one_by_n import claims, experiment
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


def run(seed):
    arms = {name: {"before": 0.1, "after": 0.5 + 0.01 * i + 0.001 * seed, "norm": 0.6 - 0.01 * i}
            for i, name in enumerate(experiment.ARMS)}
    return {"seed": seed, "dense": 0.9, "arms": {p: arms for p in (0.5, 0.8, 0.9)}}


def test_every_miniature_is_recorded_with_its_own_baseline():
    races = [{"ours": 1.0, "dense": 2.0, "csr": 3.0}, {"ours": 1.1, "dense": 2.0, "csr": 3.0}]
    found = claims.records([run(0), run(1)], races)
    assert set(found) == {claim.id for claim in card("1xn").claims if claim.kind == "miniature"}
    names = list(experiment.ARMS)
    ours, baseline = found["mini.order.p90.1x2_1x4"]
    assert ours == pytest.approx([100 * (0.5 + 0.01 * names.index("1x2") + 0.001 * s) for s in (0, 1)])
    assert baseline == pytest.approx([100 * (0.5 + 0.01 * names.index("1x4") + 0.001 * s) for s in (0, 1)])
    assert found["mini.speed.csr"] == ([1.0, 1.1], [3.0, 3.0])
    assert found["mini.norm.n16"][0] == pytest.approx([100 * (0.6 - 0.01 * names.index("1x16 rearranged"))] * 2)


def test_bars_are_means_over_the_seeds():
    before, after = draw.accuracies([run(0), run(10)], 0.8).data
    assert list(before.y) == pytest.approx([10] * 7) and after.y[0] == pytest.approx(50.5)
    assert "blocks of 4 reach 52 %, filters 57 %" in draw.accuracies([run(0), run(10)], 0.8).layout.title.text


def test_the_crossing_is_the_rate_from_which_on_blocks_are_faster():
    times = {"rate": [0, 25, 50, 75], "ours": [3.0, 1.5, 2.5, 1.0], "dense": [2.0] * 4, "csr": [9.0, 5.0, 3.0, 1.1]}
    assert draw.crossing(times, "dense") == 75 and draw.crossing(times, "csr") == 0
    assert draw.crossing(times | {"ours": [3.0] * 4}, "dense") is None
    assert "from 75 % on" in draw.speed(times).layout.title.text
    assert "not faster" in draw.speed(times | {"ours": [3.0] * 4}).layout.title.text
    assert "the dense product takes 0.8 times and the single weights 1.2 times as long" in draw.speed_in_words(times)


def test_sentences_name_the_pair_and_the_verdict():
    def row(identity, unit, low, high, verdict):
        return {"kind": "miniature", "id": identity, "unit": unit, "ours": (low + high) / 2, "interval": [low, high],
                "seeds": 16, "verdict": verdict}
    rows = [row("mini.filter", "points", 1, 3, "shown"), row("mini.rearr.p80.n16", "points", -1, 1, "not shown"),
            row("mini.norm.n4", "%", 0.1, 0.3, "shown"), row("mini.speed.csr", "ms", -2, -1, "shown"),
            {"kind": "exact", "id": "x", "unit": "points"}]
    assert draw.evidence_in_words(rows).splitlines() == [
        "- 50 %: 1x4 rearranged − filter: +2.00 points of accuracy (+1.00 to +3.00): **shown**.",
        "- 80 %: 1x16 rearranged − 1x16: +0.00 points of accuracy (-1.00 to +1.00): **not shown**.",
        "- 50 %: 1x4 rearranged − 1x4: +0.20 % of the norm (+0.10 to +0.30): **shown**."]
    assert draw.evidence(rows).layout.title.text == "1 of 2 differences lie above zero, 16 paired seeds"


def test_the_latencies_of_the_paper():
    work, time = draw.paper_latency().data
    assert time.y[0] == pytest.approx(100 * 223 / 279.2) and work.y[0] == pytest.approx(100 * 166_804_352 / 300_774_272)
