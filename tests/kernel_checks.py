"""What the tests of the kernels share: the bound on rounding, and the settings of the searches."""

from unittest import mock

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from papernets_kernels import reference

UNIT = 2.0**-24  # half a unit in the last place of 1.0 in float32: the relative error of one rounding

SEARCH = settings(max_examples=40, deadline=None, database=None, derandomize=True)
SEEDS = st.integers(0, 999)
SHARES = st.sampled_from([0.0, 0.1, 0.5, 1.0])  # of numbers that are not zero
COUNTS = st.sampled_from([0, 1, 2, 7, 15, 16, 17, 31, 33, 63, 64, 65, 97, 130, 193, 257])  # around multiples of every register
PAIRS = {low: st.one_of(st.integers(low, 2), st.tuples(st.integers(low, 3), st.integers(low, 2))) for low in (0, 1)}


def normal(rng, *shape, share=1.0) -> np.ndarray:
    """Float32 numbers N(0, 1) of which ``share`` are not zero."""
    numbers = rng.standard_normal(shape, np.float32)
    numbers[rng.random(shape) >= share] = 0
    return numbers


def assert_near(found, expected, magnitude, terms):
    """Every sum of ``terms`` products is as near as float32 can promise, in whatever order it is added.

    Each product passes through at most ``terms`` roundings, itself included, so the error is at most
    ``terms u / (1 - terms u)`` times ``magnitude``, the sum of the products' absolute values (Higham, "Accuracy and
    Stability of Numerical Algorithms", 2002, section 3.1), plus what is lost below the smallest float32.
    NaN and infinities are in the same places.
    """
    assert found.dtype == np.float32 and found.shape == expected.shape
    finite = np.isfinite(expected)
    np.testing.assert_array_equal(found[~finite], expected[~finite])
    bound = terms * UNIT / (1 - terms * UNIT) * magnitude[finite] + terms * 2.0**-150
    error = np.abs(found[finite] - expected[finite])
    assert (error <= bound).all(), f"{np.max(error - bound):.3g} beyond the bound"  # red, too, where found is not finite


def assert_same(found, expected):
    """Equal in type, shape and every bit (NaN equals NaN)."""
    np.testing.assert_array_equal(found, expected, strict=True)


# Roundings of one product of a Winograd layer, beside the sum over the input channels: 3 additions of the input; 3 times
# (3 products, 2 additions) of the kernel, which is rounded to float32 once more; 3 times 2 additions of the output.
TRANSFORMS = 3 + 15 + 1 + 6


def winograd_size(x, weight, padding=0, columns=None):
    """The sum of absolute values by which the rounding of a Winograd layer is measured: no minus in any matrix."""
    with mock.patch.multiple(reference, **{name: np.abs(getattr(reference, name)) for name in ("B_T", "G", "A_T")}):
        return reference.winograd3d(np.abs(x), np.abs(weight), padding, columns)
