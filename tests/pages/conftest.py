"""The built site."""

import subprocess
import sys

import pytest
from filelock import FileLock

from papernets import paths


@pytest.fixture(scope="session")
def site():
    """The book, made by the command that users call."""
    paths.build().mkdir(exist_ok=True)
    with FileLock(paths.build() / "test-site.lock"):
        done = subprocess.run([sys.executable, "-m", "papernets", "site"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return paths.build() / "html"
