"""The race, with a clock that only the runners move: who is called when, what counts, and what is refused."""

import gc
import hashlib
import threading
import time

import numpy as np
import pytest

from papernets.bench._race import OURS, Pace, Race, Runner, Unequal, run, settle, summary


class Clock:
    """Stands still until a runner is called."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def runner(self, name, *seconds, result=1.0, **options):
        """A runner whose calls take ``seconds``, the last of them for ever; ``result`` may be a function of the call."""
        left = list(seconds)

        def call():
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]
            return result(self.calls.count(name)) if callable(result) else result

        return Runner(call, **options)


ONE = Pace(fewest=5, most=5, seconds=0.0, turn=0.0)


def race(ours, peers, tolerance=0.0, **options):
    return Race(ours, peers, macs=1.0, dense=1.0, moved=1.0, tolerance=tolerance, **options)


def test_medians_and_quartiles_of_the_turns_after_three_calls_that_do_not_count():
    clock = Clock()
    ours, peer = clock.runner("ours", 50, 50, 50, 1, 2, 3, 4, 100), clock.runner("peer", 90, 90, 90, 10)
    found = run(race(ours, {"peer": peer}), ONE, clock)
    assert found["peer"] == {"median": 10, "low": 10, "high": 10, "turns": 5}
    assert found[OURS] == {"median": 3, "low": 2, "high": 4, "turns": 5}


def test_all_take_turns_and_each_round_begins_with_another():
    clock = Clock()
    run(race(clock.runner("o", 1), {"p": clock.runner("p", 1)}, beside={"b": clock.runner("b", 1)}), ONE, clock)
    assert "".join(clock.calls) == "pppooobbb" + "pob" + "obp" + "bpo" + "pob" + "obp"


def test_a_short_call_is_repeated_until_its_turn_is_full():
    clock = Clock()
    pace = Pace(fewest=2, most=2, seconds=0.0, turn=1.0)
    found = run(race(clock.runner("o", 0.3), {"p": clock.runner("p", 4)}), pace, clock)
    assert clock.calls.count("o") == 3 + 2 * 4 and clock.calls.count("p") == 3 + 2
    assert found[OURS] == {"median": 0.3, "low": 0.3, "high": 0.3, "turns": 2}


def test_one_slow_call_does_not_make_a_slow_turn():
    clock = Clock()
    pace = Pace(fewest=1, most=1, seconds=0.0, turn=3.0)
    found = run(race(clock.runner("o", 1, 1, 1, 1, 500, 2), {"p": clock.runner("p", 4)}), pace, clock)
    assert found[OURS]["median"] == 2


def test_the_time_given_ends_the_race_but_not_before_the_fewest_rounds():
    for seconds, rounds in ((0, 3), (7, 4), (1000, 9)):  # a round lasts 2 seconds
        clock = Clock()
        pace = Pace(fewest=3, most=9, seconds=seconds, turn=0.0)
        assert run(race(clock.runner("o", 1), {"p": clock.runner("p", 1)}), pace, clock)[OURS]["turns"] == rounds


def test_peers_twice_as_slow_as_the_fastest_sit_out_and_ours_never_does():
    clock = Clock()
    peers = {"fast": clock.runner("fast", 1), "near": clock.runner("near", 1.5), "slow": clock.runner("slow", 2.5)}
    pace = Pace(fewest=3, most=10, seconds=1e6, turn=0.0)
    found = run(race(clock.runner("ours", 50), peers, beside={"other": clock.runner("other", 60)}), pace, clock)
    assert {name: row["turns"] for name, row in found.items()} == {"fast": 10, "near": 10, "slow": 3, OURS: 10, "other": 10}


def test_what_is_done_between_the_turns_is_done_before_each():
    clock = Clock()
    pace = Pace(fewest=2, most=2, seconds=0.0, turn=0.0)
    run(race(clock.runner("o", 1), {"p": clock.runner("p", 1)}), pace, clock, lambda: clock.calls.append("-"))
    assert "".join(clock.calls) == "-ppp-ooo" + "-p-o" + "-o-p"


def test_calls_that_wake_the_threads_do_not_count_and_a_long_call_needs_none():
    clock = Clock()
    pace = Pace(fewest=1, most=1, seconds=0.0, turn=1.0, warm=2.0)
    found = run(race(clock.runner("o", 9, 9, 1, 7, 7, 1), {"p": clock.runner("p", 30)}), pace, clock)
    assert found[OURS]["median"] == 1 and clock.calls.count("o") == 3 + 2 + 1
    assert clock.calls.count("p") == 3 + 1


def test_settling_waits_for_threads_that_are_still_at_work():
    end = time.perf_counter() + 0.1

    def work():
        while time.perf_counter() < end:
            hashlib.sha256(bytes(10**6))

    thread = threading.Thread(target=work)
    thread.start()
    settle()
    assert not thread.is_alive()


@pytest.mark.parametrize("wrong", ["ours", "peer", "beside"])
@pytest.mark.parametrize("value", [np.array([1, 1, 1.001]), np.array([1, np.nan, 1]), np.array([1, np.inf, 1]), np.ones(4),
                                   np.ones((3, 1))])
def test_a_different_result_is_refused(wrong, value):
    clock = Clock()
    results = {name: np.ones(3) for name in ("ours", "peer", "beside")} | {wrong: value}
    runners = {name: clock.runner(name, 1, result=result) for name, result in results.items()}
    planted = race(runners["ours"], {"peer": runners["peer"]}, 5e-4, beside={"beside": runners["beside"]})
    with pytest.raises(Unequal):
        run(planted, ONE, clock)


def test_a_result_that_is_wrong_once_in_the_fourth_turn_is_refused_and_named():
    clock = Clock()
    ours = clock.runner("ours", 1, result=lambda call: np.full(3, 1.0 + (call == 7)))
    with pytest.raises(Unequal, match="ours and peer differ by 1; at most 2e-05 is allowed"):
        run(race(ours, {"peer": clock.runner("peer", 1, result=np.ones(3))}, 2e-5), ONE, clock)


def test_a_peer_that_writes_into_the_same_memory_does_not_change_what_is_expected():
    clock, memory = Clock(), np.zeros(2)

    def write(call):
        memory[:] = call
        return memory

    with pytest.raises(Unequal, match="peer and peer differ"):
        run(race(clock.runner("o", 1, result=np.ones(2)), {"peer": clock.runner("peer", 1, result=write)}), ONE, clock)


def test_a_difference_within_the_tolerance_and_a_view_are_fine():
    clock = Clock()
    peer = clock.runner("peer", 1, result=[np.array([[2.0], [-100.0]])], view=lambda found: found[0][:, 0])
    ours = clock.runner("ours", 1, result=np.float32([2.009, -100]))
    assert set(run(race(ours, {"peer": peer}, 1e-4), ONE, clock)) == {OURS, "peer"}
    with pytest.raises(Unequal):
        run(race(ours, {"peer": peer}, 8e-5), ONE, clock)


def test_the_dense_layer_that_is_replaced_may_give_other_numbers_and_the_rest_may_not():
    clock = Clock()
    peers = {"dense": clock.runner("dense", 1, result=7.0, same=False)}
    for other, fits in ((1.0, True), (2.0, False)):
        planted = race(clock.runner("ours", 1, result=1.0), peers, beside={"twin": clock.runner("twin", 1, result=other)})
        if fits:
            run(planted, ONE, clock)
        else:
            with pytest.raises(Unequal, match="twin and ours differ"):
                run(planted, ONE, clock)


def test_garbage_is_not_collected_while_the_clock_runs_and_is_again_after_a_failure():
    clock, seen = Clock(), []
    watch = clock.runner("o", 1, result=lambda _: seen.append(gc.isenabled()) or 1.0)
    run(race(watch, {"p": clock.runner("p", 1)}), ONE, clock)
    assert gc.isenabled() and seen and not any(seen)
    with pytest.raises(Unequal):
        run(race(clock.runner("o", 1, result=2.0), {"p": clock.runner("p", 1)}), ONE, clock)
    assert gc.isenabled()


def test_a_summary_has_five_digits():
    assert summary([0.123456789]) == {"median": 0.12346, "low": 0.12346, "high": 0.12346, "turns": 1}
