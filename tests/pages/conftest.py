"""The built site."""

import os
from pathlib import Path

import pytest
from quick_site import quick_site


@pytest.fixture(scope="session")
def site():
    """The book from quick runs, or the one that ``PAPERNETS_SITE`` points to."""
    return Path(os.environ["PAPERNETS_SITE"]).resolve() if os.environ.get("PAPERNETS_SITE") else quick_site()
