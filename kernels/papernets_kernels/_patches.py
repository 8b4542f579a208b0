"""The patch matrix of a convolution ("im2col"): one row for each input channel and tap, one column for each output pixel."""

import numba
import numpy as np

from papernets_kernels import simd


def patches(image: np.ndarray, kernel, stride, padding, size, threads: int = 1) -> np.ndarray:
    """``image`` (C, H, W) to (C kh kw, Ho Wo): entry (c, i, j; y, x) is ``image[c, y s + i - p, x s + j - p]``, or zero."""
    rows = np.empty((image.shape[0] * kernel[0] * kernel[1], size[0] * size[1]), image.dtype)
    simd.share(_patches, rows.shape[0], threads, rows.nbytes / 8, image, *kernel, *stride, *padding, *size, rows)
    return rows


@numba.njit(nogil=True)
def _patches(first, last, image, kh, kw, sy, sx, py, px, height, width, rows):
    size = image.itemsize
    high, wide = image.shape[1], image.shape[2]
    for row in range(first, last):
        c, i, j = row // (kh * kw), row // kw % kh, row % kw
        # the outputs whose input column, x sx + j - px, lies inside
        begin = min(width, max(0, -(-(px - j) // sx)))
        end = max(begin, min(width, (wide - 1 + px - j) // sx + 1))
        for y in range(height):
            source = y * sy + i - py
            out = simd.address(rows) + size * (row * height + y) * width
            if source < 0 or source >= high or begin == end:
                simd.clear(out, size * width)
                continue
            simd.clear(out, size * begin)
            if sx == 1:
                line = simd.address(image) + size * ((c * high + source) * wide + begin + j - px)
                simd.copy(out + size * begin, line, size * (end - begin))
            else:
                for x in range(begin, end):
                    rows[row, y * width + x] = image[c, source, x * sx + j - px]
            simd.clear(out + size * end, size * (width - end))
