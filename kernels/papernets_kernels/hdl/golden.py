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


def conv3x3(x, kernels, stride=1, padding=0, bits: int = 24):
    """``x`` (Ci, H, W) int8 with ``kernels`` (Co, Ci, 3, 3) of +1 and -1 -> (Co, Ho Wo) int64."""
    (sy, sx), (py, px) = np.broadcast_to(stride, 2), np.broadcast_to(padding, 2)
    x = np.pad(np.int64(x), [(0, 0), (py, py), (px, px)])
    rows, columns = (x.shape[1] - 3) // sy + 1, (x.shape[2] - 3) // sx + 1
    y = np.zeros((len(kernels), rows, columns), np.int64)
    for o, r, c in np.ndindex(*y.shape):
        y[o, r, c] = (x[:, r * sy : r * sy + 3, c * sx : c * sx + 3] * kernels[o]).sum()
    return wrap(y.reshape(len(kernels), -1), bits)


def binary_matmul(a, b):
    """Dot products of the rows of ``a`` (M, K) and ``b`` (N, K), both of +1 and -1 -> (M, N) int64."""
    return np.int64(a) @ np.int64(b).T
