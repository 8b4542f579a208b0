"""What the cores compute, as integer numpy straight from the definitions. The tests hold every core to it, bit for bit."""

import numpy as np


def wrap(x, bits: int):
    """Whole numbers as a signed register of ``bits`` bits holds them: the highest bit counts negative."""
    x = np.asarray(x, np.int64) & (2**bits - 1)
    return np.where(x >> (bits - 1) & 1, x - 2**bits, x)


def sspnna(features, masks, indices, weight, bits: int = 32):
    """Sparse convolution of one tile: ``features`` (inputs, C) and ``weight`` (27, C, L) int8 -> (outputs, L) int64.

    Line o holds a 27-bit mask of its planes, and its inputs by ascending plane follow those of line o - 1 in ``indices``.
    """
    features, weight = np.int64(features), np.int64(weight)
    y, p = np.zeros((len(masks), weight.shape[2]), np.int64), 0
    for o, mask in enumerate(masks):
        for k in range(27):
            if int(mask) >> k & 1:
                y[o] += features[indices[p]] @ weight[k]
                p += 1
    return wrap(y, bits)
