"""A small checkout of its own: one paper, one chapter."""

import pytest
from toy_chapters import checkout, write_chapter


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """``toy(record=…, extra=…)`` writes the checkout; the chapter is then ``01-toy``."""
    monkeypatch.setenv("PAPERNETS_ROOT", str(tmp_path))
    checkout(tmp_path)

    def write(**parts):
        write_chapter(tmp_path, **parts)
        return tmp_path

    return write
