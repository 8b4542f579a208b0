"""LRPET: the search for ranks."""

import math
import subprocess
import sys

import numpy as np
import pytest

from papernets.data import digits
from papernets.measure import macs
from papernets.nn import ConvNet
from papernets.papers.lrpet import LRPET, compact, expected_improvement, project_, ranks, search, short_training
from papernets.training import accuracy, fit, loader, seed_everything, steps

pytestmark = pytest.mark.usefixtures("one_thread")


def test_expected_improvement():
    ei = expected_improvement
    assert ei(np.array([2.0]), np.array([3.0]), 2.0) == pytest.approx(3 / math.sqrt(2 * math.pi))
    assert ei(np.array([1.0, 5.0]), np.array([0.0, 0.0]), 2.0) == pytest.approx([1, 0])
    drawn = np.maximum(0, 1.5 - np.random.default_rng(0).normal(2, 0.7, 400_000)).mean()
    assert ei(np.array([2.0]), np.array([0.7]), 1.5) == pytest.approx(drawn, rel=0.02)


def bowl(config):
    """Smallest where the three layers have the shares 0.9, 0.4 and 0.6; the second matters most."""
    shares = list(config.removed.values())
    return sum(w * math.log(share / best) ** 2 for w, share, best in zip((1, 4, 2), shares, (0.9, 0.4, 0.6)))


def test_the_search_finds_what_chance_does_not():
    model, better = ConvNet((8, 12, 16)), 0
    for seed in range(4):
        best, tried = search(model, bowl, calls=24, first=8, seed=seed)
        _, drawn = search(model, bowl, calls=24, first=24, seed=seed)
        assert [a.removed for a, _ in tried[:8]] == [a.removed for a, _ in drawn[:8]]  # both begin with the same draws
        assert bowl(best) == min(value for _, value in tried) and len(tried) == 24
        better += min(value for _, value in tried) < min(value for _, value in drawn) / 3
        assert all(0.3 <= share <= 0.999 for config, _ in tried for share in config.removed.values())
    assert better >= 3
    again, _ = search(model, bowl, calls=12, first=8, seed=1)
    assert again == search(model, bowl, calls=12, first=8, seed=1)[0]


def test_the_search_keeps_the_rest_of_the_configuration():
    base = LRPET(energy=False, ignore=("features.0",), ranks=None)
    best, _ = search(ConvNet((8, 12, 16)), bowl_of_two, base, calls=3, first=2)
    assert not best.energy and best.ignore == ("features.0",) and len(best.removed) == 2
    assert set(ranks(ConvNet((8, 12, 16)), best)) == set(best.removed)


def bowl_of_two(config):
    return sum(config.removed.values())


@pytest.mark.parametrize(("options", "message"), [
    (dict(start=0), "between 0 and 1"), (dict(start=0.5, end=0.4), "must rise"), (dict(end=1), "between 0 and 1"),
    (dict(first=0), "at least 1 must be"), (dict(calls=3, first=4), "at most all")])
def test_a_search_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        search(ConvNet((4, 4)), bowl, **options)


def test_an_objective_that_is_no_number_is_named():
    with pytest.raises(ValueError, match=r"the objective is nan for the shares .*features\.0"):
        search(ConvNet((4, 4)), lambda config: math.nan, calls=1, first=1)


def test_the_objective_is_error_before_and_after_and_work():
    train, test = digits(100, 0)
    batches, example = (loader(train, 50, True), loader(test, 500, False)), train.images[:1]

    def build():
        return ConvNet((6, 8), channels=1, pool=(0,))

    config = LRPET(removed=0.6)
    free, paid, other = (short_training(build, batches, example, epochs=1, weight=weight)(config) for weight in (0, 1, 1))
    seed_everything(0)
    model = build()
    fit(model, batches[0], None, epochs=1, lr=steps(0.1, (0.5, 0.75)), weight_decay=1e-4, seed=0)
    errors = 1 - accuracy(model, batches[1])
    project_(model, config, example)
    pairs = compact(model.eval(), config)
    errors += 1 - accuracy(pairs, batches[1])
    assert free == pytest.approx(errors) and paid == other
    assert paid - free == pytest.approx(macs(pairs, example) / macs(build(), example))


def test_the_library_of_the_search_is_imported_by_the_search_alone():
    code = "import sys, papernets.papers.lrpet; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
