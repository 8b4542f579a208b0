"""The process that measures. It pins itself before a library starts its threads, and says one line of JSON for each case.

Started by ``_run`` as ``python -m papernets.bench._child '{"threads": 1, …}'`` in a cleaned environment.
"""

import json
import os
import sys

#: A measurement during which other programs used more of the cores than this is made again, so many times at most.
QUIET, ATTEMPTS = 0.03, 4


def main(threads: int, quick: bool, only: str, cores: list[int]) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    lines = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what a library prints is no result

    import torch
    from threadpoolctl import threadpool_limits

    from papernets.bench import _cases, _machine, _race
    every = _cases.cases(quick)
    chosen = [case for case in every if only.lower() in f"{case.group}, {case.at}".lower().replace("\u202f", " ")]
    print(json.dumps({"count": len(chosen), "kernels": list(dict.fromkeys(case.kernel for case in every)),
                      "cores": sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None}), file=lines)
    if not chosen:
        return
    pace = _race.QUICK if quick else _race.THREADED if threads > 1 else _race.Pace()
    torch.set_num_threads(threads)
    with threadpool_limits(threads), torch.inference_mode():
        print(json.dumps({"machine": _machine.describe(), "peaks": _machine.peaks()} if threads == 1 else {}), file=lines)
        for case in chosen:
            print(json.dumps({"begun": f"{case.group}, {case.at}"}), file=lines)
            print(json.dumps(measure(case, threads, pace, cores, 1 if quick else ATTEMPTS)), file=lines)


def measure(case, threads: int, pace, cores: list[int], attempts: int = 1) -> dict:
    """The row of one case. Whatever goes wrong becomes its error, and then it has no times."""
    from papernets.bench import _race
    from papernets.bench._machine import Watch
    row = {"kernel": case.kernel, "group": case.group, "at": case.at, "threads": threads}
    try:
        race = case.build(threads)
        others = 2.0
        for _ in range(attempts):
            watch = Watch(cores)
            found = _race.run(race, pace, between=_race.settle if threads > 1 else lambda: None)
            share = watch.others()
            if share < others:
                others, times = share, found
            if others <= QUIET:
                break
    except Exception as error:
        return {**row, "error": f"{type(error).__name__}: {error}"}
    return {**row, "macs": float(race.macs), "dense": float(race.dense), "moved": float(race.moved), "peak": race.peak,
            "times": times, "others": others, "peers": list(race.peers), "beside": list(race.beside),
            "missing": dict(race.missing), "replaced": [name for name, peer in race.peers.items() if not peer.same]}


if __name__ == "__main__":
    main(**json.loads(sys.argv[1]))
