"""The tile of a product that 1xN and Winograd layers share: weights in groups of rows, each with its own list of inputs."""

from functools import cache

import numba

from papernets_kernels import simd

AHEAD = 8 * 1024  # bytes of weights asked for before they are needed


@cache
def tiles(rows: int, n: int, *widths: int):
    """A tile of ``rows`` outputs and ``wanted`` registers of pixels, ``wanted`` being one of ``widths``.

    Block q of ``blocks`` multiplies the input at ``x + stride columns[q]`` with the numbers at ``weight + 4 n q``; rows of
    ``x`` are ``stride`` bytes apart, those of ``y`` ``y_stride``. Only ``inside`` numbers of each row are read and written.
    """
    width = widths[0]

    @numba.njit(nogil=True)
    def tile(wanted, x, stride, inside, weight, columns, blocks, y, y_stride):
        acc = simd.zeros_f32(rows, width)
        if inside == width * simd.F32:
            for q in range(blocks[0], blocks[1]):
                simd.prefetch(weight + 4 * n * q + AHEAD)
                acc = simd.outer_f32(acc, weight + 4 * n * q, 4, x + stride * columns[q], rows, width)
            simd.store(y, y_stride, acc, rows)
        else:  # the last pixels
            for q in range(blocks[0], blocks[1]):
                acc = simd.outer_f32_first(acc, weight + 4 * n * q, 4, x + stride * columns[q], inside, rows, width)
            simd.store_first(y, y_stride, acc, rows, inside)

    if len(widths) == 1:
        return tile
    others = tiles(rows, n, *widths[1:])

    @numba.njit(nogil=True)
    def choose(wanted, x, stride, inside, weight, columns, blocks, y, y_stride):
        if wanted == width:
            tile(wanted, x, stride, inside, weight, columns, blocks, y, y_stride)
        else:
            others(wanted, x, stride, inside, weight, columns, blocks, y, y_stride)

    return choose


def widths(pixels: int, most: int) -> tuple[int, ...]:
    """The widths, in registers, of the fewest tiles of at most ``most`` that cover ``pixels``, as even as can be."""
    vectors = max(1, -(-pixels // simd.F32))
    count = -(-vectors // most)
    return tuple(sorted({-(-vectors // count), vectors // count}, reverse=True))
