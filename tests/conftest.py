"""Fixtures that two or more test files need."""

import io
import os
import tarfile

import numpy as np
import pytest
import torch

from papernets.tools.browser import find_browser


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    """Tests of a group stay in one process. pytest-xdist 3.8 tells by the name of a test, where pytest 9.2 no longer looks."""
    for item in items if getattr(config.option, "loadgroup", False) else ():
        groups = sorted({mark.args[0] for mark in item.iter_markers("xdist_group")})
        if groups and not item.nodeid.endswith(suffix := f"@{'_'.join(groups)}"):
            item._id = type(item._id).parse(item.nodeid + suffix)


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


@pytest.fixture
def cifar(write_archive):
    """CIFAR-10 with 35 + 14 images in which the colour says the class."""
    rng = np.random.default_rng(0)

    def batch(count):
        labels = rng.integers(0, 3, count)
        pixels = np.clip(rng.integers(0, 80, (count, 3, 1024)) + 150 * np.eye(3, dtype=int)[labels][:, :, None], 0, 255)
        return np.concatenate([labels[:, None], pixels.reshape(count, 3072)], 1).astype(np.uint8).tobytes()

    members = {f"data_batch_{index}.bin": batch(7) for index in range(1, 6)}
    members |= {"test_batch.bin": batch(14), "batches.meta.txt": b"red\ngreen\nblue\n"}
    return write_archive((f"cifar-10-batches-bin/{name}", content) for name, content in members.items())


@pytest.fixture(scope="session")
def chromium():
    path = find_browser()
    if path is None:
        reason = "no Chromium or Chrome on this machine; papernets doctor says how to get one"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


SCREENS = {"desktop-light": dict(viewport={"width": 1280, "height": 900}, color_scheme="light"),
           "desktop-dark": dict(viewport={"width": 1280, "height": 900}, color_scheme="dark"),
           "phone-light": dict(viewport={"width": 390, "height": 844}, color_scheme="light", has_touch=True),
           "phone-dark": dict(viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True)}


@pytest.fixture(scope="session")
def screen(chromium):
    """``screen(name)`` is a window of that size and theme, with the network off."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = chromium.new_context(offline=True, **SCREENS[name])
        return made[name]

    yield get
    for context in made.values():
        context.close()
