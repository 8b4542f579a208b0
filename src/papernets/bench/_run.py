"""Measuring in fresh processes, one for each number of threads, and putting their rows together."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from papernets.bench._machine import cores
from papernets.bench._race import OURS
from papernets.bench._targets import TARGETS, compare, judge
from papernets.tools import paths
from papernets.tools.environment import cleaned
from papernets.tools.files import write_json

#: Numbers of threads of a full run, and of a quick one.
THREADS, QUICK_THREADS = (1, 2), (1,)


#: A run is not written if other programs used more than this of the cores in any measurement: that favours one or the other.
BUSY = 0.1


class BenchError(RuntimeError):
    """The measurement did not end as it must."""


def bench_kernels(quick: bool = False, only: str = "", report: Callable[[dict, int, int], None] = lambda *_: None) -> dict:
    """Measure the kernels against their peers: the result as ``book/results/kernels.json`` has it.

    quick: small layers, few repeats, one thread; for seeing that it works. only: cases with this text in their names.
    report: called with each row, its number and the number of rows.
    """
    begun, counts = time.monotonic(), QUICK_THREADS if quick else THREADS
    pinned = {threads: cores(threads) for threads in counts}
    runs = [threads for threads in counts if pinned[threads]]
    rows, about, used, others, done = [], {}, {}, {}, 0
    for threads in runs:
        for line in _lines({"threads": threads, "quick": quick, "only": only, "cores": pinned[threads]}):
            if "count" in line:
                if not line["count"]:
                    raise ValueError(f"no case has {only!r} in its name; the kernels are {', '.join(line['kernels'])}")
                total, used[str(threads)] = line["count"] * len(runs), line["cores"]
            elif "machine" in line:
                about = line
            else:
                done += 1
                rows.append(line)
                others[str(threads)] = max(others.get(str(threads), 0.0), line.get("others", 0.0))
                report(line, done, total)
    return {"schema": 1, "benchmark": "kernels", "quick": quick, "only": only, "removed": cleaned(os.environ)[1],
            "cores": used, "others": others,
            "skipped": {str(threads): "this process may use too few cores" for threads in counts if threads not in runs},
            "seconds": round(time.monotonic() - begun, 1),
            **together(rows, about, judged=not quick)}


def together(rows: list[dict], about: dict, judged: bool = True) -> dict:
    """Rows of all numbers of threads as one entry a case, with ratios and shares, and the targets with their verdicts."""
    found: dict[tuple[str, str], dict] = {}
    for row in rows:
        case = found.setdefault((row["group"], row["at"]), {"kernel": row["kernel"], "group": row["group"], "at": row["at"],
                                                            "threads": {}})
        if "error" in row:
            case.setdefault("errors", {})[str(row["threads"])] = row["error"]
            continue
        case |= {name: row[name] for name in ("macs", "dense", "moved", "peak")}
        entry = {name: row[name] for name in ("times", "others", "peers", "beside", "missing", "replaced")}
        entry |= compare(row["times"], row["peers"])
        entry["rate"] = row["macs"] / row["times"][OURS]["median"]
        if row["threads"] == 1:
            entry["share"] = entry["rate"] / about["peaks"][row["peak"]]
        case["threads"][str(row["threads"])] = entry
    cases = list(found.values())
    return {**about, "targets": [judge(target, cases, judged) for target in TARGETS], "cases": cases}


def errors(result: dict) -> list[str]:
    """One line for each case that failed."""
    return [f"{case['group']}, {case['at']}, {threads} thread{'s' * (threads != '1')}: {error}"
            for case in result["cases"] for threads, error in case.get("errors", {}).items()]


def kernels_file() -> Path:
    return paths.results() / "kernels.json"


def save(result: dict) -> Path:
    """Write a full run for the book; half a run, one in which results differed and one among other programs are refused."""
    if result["quick"] or result["only"] or errors(result):
        raise ValueError("only a full run without an error is written; run: papernets bench kernels")
    others = max(result["others"].values(), default=0)
    if others > BUSY:
        raise BenchError(f"other programs used up to {100 * others:.0f} % of the cores; nothing was written; "
                         "measure again on a quiet machine")
    write_json(kernels_file(), result)
    return kernels_file()


def _lines(options: dict) -> Iterator[dict]:
    """What the measuring process says, line by line. ``BenchError`` names the case it died in."""
    environment = cleaned(os.environ)[0]
    environment["OMP_NUM_THREADS"] = str(options["threads"])
    command, last = [sys.executable, "-m", "papernets.bench._child", json.dumps(options)], "the start"
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=said, text=True, env=environment, encoding="utf-8")
        try:
            for text in child.stdout:
                line = json.loads(text)
                if "begun" in line:
                    last = line["begun"]
                elif line:
                    yield line
            status = child.wait()
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
        if status:
            said.seek(0)
            why = (said.read().strip().splitlines() or ["it said nothing"])[-1]
            raise BenchError(f"the measurement stopped with status {status} at {last}: {why}")
