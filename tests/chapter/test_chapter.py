"""A chapter's settings, and its calls spread over processes or a cluster."""

import operator

import pytest
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
