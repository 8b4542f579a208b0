"""Fixtures of several tests of AccSS3D."""

import pytest
from papernets_kernels.sparse_conv3d import rulebook

from papernets.data import corner_room


@pytest.fixture(scope="module")
def corner():
    return rulebook(corner_room().coordinates)
