"""Fixtures that two or more test files need."""

import io
import tarfile

import pytest
import torch


@pytest.fixture
def one_thread():
    """Torch on one thread, so that sums are added in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def write_archive(tmp_path):
    """Write a .tar.gz of ``(TarInfo or name, bytes)`` members and return its path."""
    def write(members, name="archive.tar.gz"):
        path = tmp_path / name
        with tarfile.open(path, "w:gz") as archive:
            for info, content in members:
                if isinstance(info, str):
                    info = tarfile.TarInfo(info)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return path
    return write
