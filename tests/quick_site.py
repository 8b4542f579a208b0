"""The site that the page tests look at."""

import subprocess
import sys
from pathlib import Path

from filelock import FileLock

from papernets.tools import paths


def quick_site() -> Path:
    """The book from quick runs, made by the command that users call. What ``make book`` left is not touched."""
    folder = paths.site("quick")
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "tests.lock"):  # the other process of the tests waits for it, so its core is free
        done = subprocess.run([sys.executable, "-m", "papernets", "site", "--profile", "quick"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "html"
