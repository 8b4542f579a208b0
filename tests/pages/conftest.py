"""The built site."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from papernets.tools import paths


@pytest.fixture(scope="session")
def site():
    """The book from quick runs, made by the command that users call; or the one that ``PAPERNETS_SITE`` points to."""
    if os.environ.get("PAPERNETS_SITE"):
        return Path(os.environ["PAPERNETS_SITE"]).resolve()
    paths.build().mkdir(exist_ok=True)
    with FileLock(paths.build() / "test-site.lock"):  # the other process of the tests waits for it, so its core is free
        done = subprocess.run([sys.executable, "-m", "papernets", "site", "--profile", "quick", "--jobs", "2"],
                              capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return paths.build() / "html"
