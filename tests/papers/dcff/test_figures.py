"""Dynamic-coded filter fusion: the figures."""

import numpy as np
import pytest
import torch

from papernets.papers import dcff
from papernets.papers.dcff import figures as draw
from papernets.training import row


@pytest.mark.parametrize("log_T", [-1.0, 0.0, 1.5, 4.0])
@pytest.mark.parametrize("m", [1, 6, 12])
def test_the_explorer_shows_the_kept_filters_and_their_blends(log_T, m):
    figure = draw.explore_fusion(log_T, m)
    lines, filters, blends, proxies = figure.data
    W = draw.toy_filters()
    D = dcff.distances(W)
    S = dcff.select(dcff.importance(D, 10**log_T), m).tolist()
    assert [i for i, width in enumerate(filters.marker.line.width) if width] == S
    expected = dcff.fuse(W, dcff.proxy(D, 10**log_T)[S])
    assert np.allclose(np.stack([blends.x, blends.y], 1), expected.numpy())
    assert np.allclose(proxies.z, dcff.proxy(D, 10**log_T).numpy())
    assert len(lines.x) == 3 * m


def test_the_text_on_the_explorer_holds():
    """What the chapter tells the reader to see there."""
    W = draw.toy_filters()
    D = dcff.distances(W)
    centre = W.mean(0)
    for T, spread in ((0.1, 0.1), (30.0, None)):
        blends = dcff.fuse(W, dcff.proxy(D, T))
        if spread:
            assert (blends - centre).norm() < spread * (W - centre).norm()
        else:
            assert (blends - W)[9:].norm() < 1e-6
        assert set(dcff.select(dcff.importance(D, T), 3).tolist()) == {9, 10, 11}
    assert "underflows" in draw.explore_fusion(4.0, 6, code=True).layout.title.text
    assert "selection" in draw.explore_fusion(4.0, 6).layout.title.text


def test_the_slider_moves_one_filter():
    moved = draw.toy_filters(0.5) - draw.toy_filters()
    assert torch.allclose(moved[-1], torch.tensor([0.5, 0.0], dtype=moved.dtype)) and not moved[:-1].any()


def test_costs_are_those_of_the_networks():
    wide, compact = draw.cost_by_layer().data
    assert len(wide.y) == len(compact.y) == 13
    assert sum(compact.y) * 1e6 == pytest.approx(72_349_240 - 760)  # all but the classifier of 76 inputs
    assert max(wide.y) == pytest.approx(64 * 64 * 9 * 1024 / 1e6)


def test_underflow_counts_layers():
    code, stable = draw.underflow((1, 1000)).data
    assert list(code.y) == [4, 0] and list(stable.y) == [4, 4]


def test_learning_and_exchanges_are_read_from_the_rows():
    rows = [row(seed, arm, 0.5, accuracies=[0.1, 0.3 + 0.1 * seed], exchanged=[3, 1])
            for seed in (0, 1) for arm in ("fused", "narrow", "l1", "random")]
    figure = draw.learning(rows)
    assert {len(line.y) for line in figure.data} == {2} and len(figure.data) == 4
    assert list(figure.data[-1].y) == pytest.approx([10, 35]) and "2 seeds" in figure.layout.title.text
    figure = draw.selection_changes({"as published": rows[0]}, 80)
    assert figure.layout.title.text == "Of 80 kept filters, 4 change (as published)"
    assert draw.forms_in_words({"as published": rows[0]}).startswith(
        "Test accuracy after the last epoch and filters exchanged in all, one seed: as published: 50.0 % and 4 exchanged.")


def test_the_cost_table_has_the_published_counts():
    text = draw.cost_in_words()
    assert "| compact | 1,071,248 | 4,284,992 | 72,349,240 |" in text and "| wide | 14,728,266 |" in text
