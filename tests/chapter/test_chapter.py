"""A chapter's settings, and its calls spread over processes or a cluster."""

import operator

import pytest
from claim_checks import exact
from distributed import LocalCluster, get_worker

from papernets.chapter import Chapter


@pytest.mark.parametrize(("profile", "setting"), [("quick", 1), ("book", 2), ("evidence", 3)])
def test_pick(profile, setting):
    assert Chapter("dcff", profile).pick(quick=1, book=2, evidence=3) == setting


@pytest.mark.parametrize(("options", "says"), [(dict(profile="fast"), "choose from quick, book, evidence"),
                                               (dict(seed=-1), "a whole number from 0"), (dict(seed=0.5), "a whole number")])
def test_wrong_settings_are_refused(options, says):
    with pytest.raises(ValueError, match=says):
        Chapter("dcff", **options)


@pytest.mark.parametrize("profile", ["quick", "evidence"])
def test_map_keeps_the_order(profile, monkeypatch):
    monkeypatch.setenv("PAPERNETS_JOBS", "2")
    assert Chapter("dcff", profile).map(operator.neg, range(5)) == [0, -1, -2, -3, -4]


def on_worker(i):
    return i, get_worker().address  # raises anywhere else


def test_map_on_a_dask_cluster(monkeypatch):
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None,
                      protocol="tcp", host="127.0.0.1") as cluster:
        monkeypatch.setenv("PAPERNETS_SCHEDULER", cluster.scheduler_address)
        found = Chapter("dcff", "evidence").map(on_worker, range(5))
        assert found == [(i, worker.address) for i in range(5) for worker in cluster.workers.values()]


@pytest.mark.parametrize(("profile", "seed", "says"), [
    ("fast", 0, "profile 'fast'.*quick, book, evidence"), ("quick", -1, "seed is -1"), ("quick", 1.5, "seed is 1.5"),
    ("quick", "0", "seed is '0'")])
def test_chapter_refuses(profile, seed, says):
    with pytest.raises(ValueError, match=says):
        Chapter("dcff", profile, seed)


@pytest.mark.parametrize(("profile", "picked"), [("quick", 1), ("book", 2), ("evidence", 3)])
def test_pick_in_a_chapter_of_another_card(profile, picked, chapter):
    assert chapter(exact(), profile=profile).pick(quick=1, book=2, evidence=3) == picked


@pytest.mark.parametrize("profile", ["quick", "book"])
def test_map_of_an_iterator_and_an_option_keeps_the_order(profile, chapter):
    assert chapter(exact(), profile=profile).map(pow, iter([3, 5, 2]), exp=2) == [9, 25, 4]


def test_map_of_an_evidence_run_on_one_job(chapter, monkeypatch):
    monkeypatch.setenv("PAPERNETS_JOBS", "1")
    assert chapter(exact(), profile="evidence").map(lambda value, plus: value + plus, [3, 5, 2], plus=7) == [10, 12, 9]
