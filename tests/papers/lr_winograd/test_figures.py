"""Low-rank Winograd: the figures."""

import numpy as np
import pytest
import torch
from papers.lr_winograd.sample import compared

from papernets.papers import lr_winograd
from papernets.papers.lr_winograd import figures as draw


def test_the_price_is_counted():
    products, numbers = draw.price().data
    assert list(products.y) == [27, 8, 3.375] and list(numbers.y) == [27, 64, 216]


def test_singular_values_end_at_the_wall():
    for trace in draw.singular_values().data:
        values = np.asarray(trace.y)
        assert (values[:27] > 1e-3).all() and (values[27:] < 1e-12).all() and values[0] == 1


@pytest.mark.parametrize("m", [2, 4])
@pytest.mark.parametrize("s", [8, 27, 40])
@pytest.mark.parametrize("removed", [0, 0.3, 0.9])
def test_the_explorer_counts_what_it_shows(m, s, removed):
    cells, bars = (figure := draw.explore_columns(m, s, removed)).data
    value, t = dict(zip(bars.y, bars.x)), m + 2
    z = np.stack([cells.z[:, a * (t + 1):a * (t + 1) + t] for a in range(t)])
    kept = np.isfinite(z)
    assert int(np.isfinite(cells.z).sum()) == kept.sum() == t**3 - int(removed * t**3 + 1e-9)
    assert value["products"] == pytest.approx(100 * kept.sum() / (27 * m**3))
    assert value["weights at run time"] == pytest.approx(100 * kept.sum() / 27)
    pair = 256 * 256
    assert value["trained, low rank"] == pytest.approx(100 * s * (pair + t**3) / (27 * pair))
    M = lr_winograd.expand(draw.example_kernels(), m)
    P, Q = lr_winograd.factors(M, s)
    norms = (P @ Q).norm(dim=0).view(t, t, t)
    shares = (norms / norms.max()).numpy()
    np.testing.assert_allclose(z[kept], shares[kept], atol=1e-3)
    assert kept.all() or shares[kept].min() >= shares[~kept].max()
    error = 100 * float((P @ Q - M).norm() / M.norm())
    assert f"rank {s} loses {error:.0f} %" in figure.layout.title.text and (error < 1e-6) == (s >= 27)


def test_small_volumes_waste_tiles():
    two, four = draw.tiles_of_c3d().data
    assert list(two.y[:4]) == [3.375] * 4 and two.y[7] == pytest.approx(2.58, abs=0.005)
    assert four.y[4] == 6.125 and four.y[7] == pytest.approx(3.06, abs=0.005)


def test_bars_are_means_over_the_seeds():
    figure = draw.accuracies(compared(0) + compared(10))
    bars = {trace.name: list(trace.y) for trace in figure.data}
    assert bars["low rank"] == pytest.approx([90.5, 81, 60])
    assert bars["low rank, random columns"] == pytest.approx([90.5, 70, 40])
    assert bars["vanilla"] == pytest.approx([80.5, 71, 50]) and bars["spatial kernels"] == pytest.approx([85.5, 76, 55])
    assert "60 % right with low rank, 50 % with vanilla" in figure.layout.title.text


def raced(half, channels=64):
    return {"channels": channels, "ours": {0: 0.002, 0.5: half}, "peers": {"torch conv3d": 0.008, "other": 0.003},
            "peer": 0.003}


def test_times_are_compared_with_the_fastest_peer():
    assert "takes 3.0 times as long" in draw.speed(raced(0.001)).layout.title.text
    assert "as fast or faster" in draw.speed(raced(0.004)).layout.title.text
    text = draw.speed_in_words(raced(0.001))
    assert "*other* with 3.00 ms" in text and "1.5 times as long as the Winograd layer with all" in text
    assert "4.0 times as long as the layer with all" in text
    assert "3.4 and 6.8 times fewer" in text and "2.0 times as fast" in text
    half, whole = sorted(draw.widths([raced(0.001, 8), raced(0.0015, 16)]).data, key=lambda trace: trace.name, reverse=True)
    assert list(half.x) == [8, 16] and list(half.y) == pytest.approx([3, 2]) and list(whole.y) == pytest.approx([1.5, 1.5])


def test_example_kernels_have_rank_27():
    assert int(torch.linalg.matrix_rank(lr_winograd.expand(draw.example_kernels()))) == 27
