"""Every case builds, its kernel and its peers agree, and it can do without the peers that are optional."""

import sys
import time

import numpy as np
import pytest

from papernets.bench import _cases, _peers
from papernets.bench._child import measure
from papernets.bench._machine import Watch, cores
from papernets.bench._race import OURS, QUICK, Pace, Runner, Unequal, run

ONCE = Pace(fewest=1, most=1, seconds=0.0, turn=0.0)
QUICK_CASES = _cases.cases(quick=True)


@pytest.mark.parametrize("case", QUICK_CASES, ids=lambda case: f"{case.group}, {case.at}")
def test_a_kernel_and_its_peers_agree(case, one_thread):
    race = case.build(1)
    times = run(race, ONCE)
    assert race.peers and set(times) == {*race.peers, *race.beside, OURS}
    assert 0 < race.macs <= race.dense and race.moved > 0 and race.peak in ("fma", "popcount")


def test_the_full_run_has_the_groups_of_the_quick_one():
    def kernels(quick):
        return list(dict.fromkeys(case.kernel for case in _cases.cases(quick)))

    assert kernels(True) == kernels(False)


@pytest.mark.parametrize(("hidden", "needle"), [("faiss", "hamming.top_k"), ("spconv", "sparse_conv3d")])
def test_without_an_optional_peer_the_rest_is_measured_and_the_row_says_so(monkeypatch, one_thread, hidden, needle):
    for name in [name for name in sys.modules if name.split(".")[0] == hidden] + [hidden, f"{hidden}.pytorch"]:
        monkeypatch.setitem(sys.modules, name, None)
    for case in QUICK_CASES:
        if case.group.startswith(needle):
            row = measure(case, 1, QUICK, cores(1))
            assert row["missing"] == {hidden: "not installed; the extra [bench] has it"}
            assert row["peers"] and not any(name.startswith(hidden) for name in row["peers"])


def test_spconv_is_not_trusted_on_two_threads():
    peers, missing = _peers.spconv(np.zeros((1, 1), np.float32), np.zeros((1, 3), np.int32), np.zeros((27, 1, 1), np.float32),
                                   4, threads=2, cached=False)
    assert peers == {} and "more than one thread" in missing["spconv"]


def test_a_kernel_that_is_wrong_has_an_error_and_no_times(one_thread):
    case = _cases.Case("k", "1→2", lambda threads: planted)
    good = _cases.n_of_m_product(8, 6, 3, 2, 4, 1)
    planted = type(good)(Runner(lambda: good.ours.call() + 1), good.peers, 1.0, 1.0, 1.0)
    row = measure(case, 1, QUICK, cores(1))
    assert row["error"].startswith("Unequal: ours and numpy product differ by 1") and "times" not in row


def test_a_measurement_among_other_programs_is_made_again_and_the_quietest_counts(monkeypatch, one_thread):
    case = _cases.Case("k", "1→2", lambda threads: _cases.n_of_m_product(8, 6, 3, 2, 4, threads))
    for seen, attempts, kept, made in (([0.5, 0.2, 0.02], 4, 0.02, 3), ([0.5, 0.2, 0.3], 3, 0.2, 3), ([0.0], 4, 0.0, 1)):
        shares = list(seen)
        monkeypatch.setattr(Watch, "others", lambda _, shares=shares: shares.pop(0))
        assert measure(case, 1, ONCE, cores(1), attempts)["others"] == kept
        assert len(seen) - len(shares) == made


def test_the_share_of_others_is_that_of_the_cores_and_the_time():
    watch = Watch(cores(1))
    if watch.busy is None:
        pytest.skip("this system does not count the work of its cores")
    watch.begun, watch.busy = time.perf_counter() - 10, watch.busy - 3
    assert 0.28 <= watch.others() <= 0.5
    watch.busy += 10
    assert watch.others() == 0


@pytest.mark.parametrize("size", [(5, 3), (60, 28), (3, 4, 5)])
def test_the_product_over_patches_is_the_convolution(one_thread, size):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 2, *size), np.float32)
    weight = rng.standard_normal((4, 2, *(3,) * len(size)), np.float32)
    runners = _peers.dense_conv(x, weight)
    expected = np.asarray(runners.pop(next(iter(runners))).call())
    for name, runner in runners.items():
        np.testing.assert_allclose(runner.view(runner.call()), expected, atol=2e-5, err_msg=name)


def test_neighbours_with_a_wrong_distance_or_named_twice_are_seen():
    codes = np.array([[0], [1], [3], [7]], np.uint64)
    queries = np.array([[0]], np.uint64)
    right = _peers.checked_neighbours(queries, codes, np.array([[0, 1]]), np.array([[0, 1]]))
    assert right.tolist() == [[[0, 1]], [[0, 1]]]
    for distances, indices in (([[0, 1]], [[0, 2]]), ([[0, 0]], [[0, 0]])):
        wrong = _peers.checked_neighbours(queries, codes, np.array(distances), np.array(indices))
        assert not np.array_equal(wrong, right)


def test_blocks_have_the_exact_share_of_zeros():
    kept = _cases._blocks(np.random.default_rng(0), 24, 10, 4, 75)
    assert kept.shape == (24, 10) and kept.mean() == 0.25
    assert (kept.reshape(6, 4, 10) == kept.reshape(6, 4, 10)[:, :1]).all()


@pytest.mark.parametrize("side", [20, 64])
def test_the_scene_is_a_surface(side):
    voxels = _cases.scene(side)
    assert len(np.unique(voxels, axis=0)) == len(voxels) and voxels.min() >= 0 and voxels.max() < side
    assert 2.2 * side**2 < len(voxels) < 2.9 * side**2


def test_unequal_is_an_error_of_values():
    assert issubclass(Unequal, ValueError)
