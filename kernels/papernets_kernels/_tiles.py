"""The tile of a product that 1xN layers and Winograd layers share: weights in groups of rows, each with its own list of inputs."""

from functools import cache

import numba

from papernets_kernels import simd

AHEAD = 8 * 1024  # bytes of weights asked for before they are needed


@cache
def tiles(rows: int, n: int, width: int):
    """A tile of ``rows`` outputs and ``wanted`` registers of pixels, for every ``wanted`` up to ``width``.

    Block q of ``blocks`` multiplies the input at ``x + stride columns[q]`` with the numbers at ``weight + 4 n q``; rows of
    ``x`` and ``y`` are ``stride`` bytes apart. With ``more``, what ``y`` holds is added to. Only ``inside`` numbers of each row are read and written.
    """

    @numba.njit(nogil=True)
    def tile(wanted, x, stride, inside, weight, columns, blocks, y, more):
        if more:  # on whole tiles only
            acc = simd.load_rows_f32(y, stride, rows, width)
        else:
            acc = simd.zeros_f32(rows, width)
        if inside == width * simd.F32:
            for q in range(blocks[0], blocks[1]):
                simd.prefetch(weight + 4 * n * q + AHEAD)
                acc = simd.outer_f32(acc, weight + 4 * n * q, 4, x + stride * columns[q], rows, width)
            simd.store(y, stride, acc, rows)
        else:  # the last pixels
            for q in range(blocks[0], blocks[1]):
                acc = simd.outer_f32_first(acc, weight + 4 * n * q, 4, x + stride * columns[q], inside, rows, width)
            simd.store_first(y, stride, acc, rows, inside)

    if width == 1:
        return tile
    narrower = tiles(rows, n, width - 1)

    @numba.njit(nogil=True)
    def choose(wanted, x, stride, inside, weight, columns, blocks, y, more):
        if wanted == width:
            tile(wanted, x, stride, inside, weight, columns, blocks, y, more)
        else:
            narrower(wanted, x, stride, inside, weight, columns, blocks, y, more)

    return choose
