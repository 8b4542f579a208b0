"""What the tests of sparse convolutions share: sets of voxels, small rulebooks, and one in the form of the reference."""

from itertools import pairwise

import numpy as np
from hypothesis import strategies as st
from papernets_kernels import sparse_conv3d

SIDES = st.integers(1, 6)
SHARES = st.sampled_from([0.0, 0.05, 0.3, 1.0])
CORNERS = st.sampled_from([0, 1, 1023, 2**20 - 6])
TWO = np.array([[0, 0, 0], [0, 0, 1]])  # neighbours
BOOK, STRIDED = (lambda: sparse_conv3d.rulebook(TWO)), (lambda: sparse_conv3d.strided_rulebook(TWO))


def voxels(rng, side, share, corner=0):
    """Voxels of a cube in no order."""
    found = np.argwhere(rng.random((side,) * 3) < share) + corner
    return rng.permutation(found)


def planes(book):
    """A rulebook in the form of the reference."""
    pairs = list(zip(book.pair_inputs.tolist(), book.pair_outputs.tolist()))
    return [pairs[start:stop] for start, stop in pairwise(book.plane_pointers)]
