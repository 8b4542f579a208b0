"""Finding a Chromium on this machine; the page tests drive it."""

import os
import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def find_browser() -> str | None:
    """Path of a browser: ``PAPERNETS_BROWSER``, or the first Chromium or Chrome on the path; nothing if there is none."""
    return os.environ.get("PAPERNETS_BROWSER") or next(filter(None, map(shutil.which, _NAMES)), None)
