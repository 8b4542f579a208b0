"""What it costs to import a method: processor seconds of a fresh Python, beside those of torch alone."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence

#: A method may take this much longer to import than torch alone, in processor seconds.
GOAL = 0.5
_CODE = """
import json, time
begin = time.process_time()
import torch
middle = time.process_time()
import {module}
print(json.dumps([middle - begin, time.process_time() - middle]))
"""


def bench_imports(modules: Sequence[str], repeats: int = 3) -> Iterator[dict]:
    """For each of ``modules``: ``torch`` and ``more`` processor seconds, each the least of ``repeats`` fresh processes."""
    for module in modules:
        runs = [json.loads(subprocess.run([sys.executable, "-c", _CODE.format(module=module)], capture_output=True, text=True,
                                          check=True).stdout) for _ in range(repeats)]
        torch, more = (min(run[at] for run in runs) for at in range(2))
        yield {"module": module, "torch": torch, "more": more, "goal": GOAL}


def import_row(row: dict, tell: Callable[[str], None]) -> None:
    """Tell a row as a line."""
    met = "" if row["more"] <= row["goal"] else f", more than the {row['goal']:g} s of the goal"
    tell(f"{row['module']:<36} torch {row['torch']:.2f} s, and {row['more']:.2f} s more{met}")
