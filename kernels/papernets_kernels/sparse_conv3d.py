"""Sparse convolution in three dimensions: rulebooks, products, and orders of the voxels.

Omer et al., "AccSS3D: Accelerator for Spatially Sparse 3D DNNs", 2020; submanifold convolution is Graham, Engelcke, van der
Maaten, "3D Semantic Segmentation with Submanifold Sparse Convolutional Networks", 2018.

A rulebook lists, for each of the kernel's planes (its taps), the pairs (input voxel, output voxel) that the plane connects. A
product takes eight pairs of a plane at a time: eight rows of features by the plane's weights, whose sums are added to eight
outputs. It goes through the outputs in blocks that stay in the cache for all planes, so the order of the voxels decides how
often a feature is fetched.

Here are the products, and the names of all three. Rulebooks are made in ``_rulebook``, orders in ``_voxel_orders``.
"""

import numba
import numpy as np

from papernets_kernels import _check, simd
from papernets_kernels._rulebook import LIMIT, Rulebook, inverse_rulebook, rulebook, strided_rulebook
from papernets_kernels._voxel_orders import distinct_inputs, locality, morton_order, raster_order, surface_order

__all__ = [
    "LIMIT",
    "Rulebook",
    "convolve",
    "distinct_inputs",
    "inverse_rulebook",
    "locality",
    "morton_order",
    "raster_order",
    "rulebook",
    "strided_rulebook",
    "submanifold",
    "surface_order",
]


def submanifold(features, book: Rulebook, weight, bias=None, *, threads: int = 1) -> np.ndarray:
    """The submanifold convolution of ``features`` (N, C) float32 with ``weight`` (kernel_size^3, C, K): (N, K)."""
    if not book.submanifold:
        raise ValueError("the rulebook is not submanifold; make it with rulebook(), or call convolve()")
    return convolve(features, book, weight, bias, threads=threads)


def convolve(features, book: Rulebook, weight, bias=None, *, threads: int = 1) -> np.ndarray:
    """The convolution of ``features`` (inputs, C) float32 over a rulebook, ``weight`` (kernel_size^3, C, K): (outputs, K)."""
    features = _check.array("features", features, np.float32, "voxels C")
    weight = _check.array("weight", weight, np.float32, "planes C K")
    planes, inputs, outputs = weight.shape
    _check.same("the number of rows of features", len(features), "the number of inputs of the rulebook", book.inputs)
    _check.same("the number of columns of features", features.shape[1], "the number of input channels of the weight", inputs)
    _check.same("the number of planes of the weight", planes, "the number of planes of the rulebook", book.kernel_size**3)
    y = np.zeros((book.outputs, outputs), np.float32)
    if bias is not None:
        bias = _check.array("bias", bias, np.float32, "K")
        _check.same("the length of bias", len(bias), "the number of output channels of the weight", outputs)
        y[:] = bias
    # weights in strips of whole registers: (strips, planes, C, WIDTH lanes), zeros behind the last channel
    strip = min(WIDTH, max(1, -(-outputs // simd.F32))) * simd.F32
    strips = -(-outputs // strip)
    filled = weight
    if outputs % strip:
        filled = np.zeros((planes, inputs, strips * strip), np.float32)
        filled[:, :, :outputs] = weight
    filled = simd.align(filled.reshape(planes, inputs, strips, strip).transpose(2, 0, 1, 3))
    blocks = -(-book.outputs // BLOCK)
    product = _products[strip // simd.F32 - 1]
    pairs, work = (book.plane_pointers, book.pair_inputs, book.pair_outputs), book.pairs * inputs * outputs / 90
    simd.share(product, blocks, threads, work, features, *pairs, filled, y)
    return y


ROWS = 8 if simd.REGISTERS >= 32 else 4  # pairs at a time
WIDTH = 2  # registers of output channels at a time
BLOCK = 2048  # outputs at a time


def _product(width: int):
    lanes = width * simd.F32

    @numba.njit(nogil=True)
    def product(first, last, features, pointers, inputs, outputs, weight, y):
        """Outputs ``first BLOCK`` to ``last BLOCK``, block by block, all planes."""
        strips, planes, depth, _ = weight.shape
        channels = y.shape[1]
        place = np.empty(planes, np.int64)
        for k in range(planes):
            here = outputs[pointers[k] : pointers[k + 1]]
            place[k] = pointers[k] + np.searchsorted(here, first * BLOCK)
        row, line = simd.address(features), 4 * depth
        out, out_line = simd.address(y), 4 * channels
        for block in range(first, last):
            end = min(len(y), (block + 1) * BLOCK)
            for k in range(planes):
                begin = place[k]
                stop = begin + np.searchsorted(outputs[begin : pointers[k + 1]], end)
                place[k] = stop
                for s in range(strips):
                    w = simd.address(weight) + 4 * lanes * depth * (s * planes + k)
                    inside = min(lanes, channels - s * lanes)
                    p = begin
                    while p + ROWS <= stop:
                        rows = simd.rows_at(simd.address(inputs) + 4 * p, row, line, ROWS)
                        acc = simd.zeros_f32(ROWS, width)
                        for c in range(depth):
                            acc = simd.outer_rows_f32(acc, rows, 4 * c, w + 4 * lanes * c, ROWS, width)
                        targets = simd.rows_at(simd.address(outputs) + 4 * p, out + 4 * lanes * s, out_line, ROWS)
                        if inside == lanes:
                            simd.add_to_rows(targets, acc, ROWS)
                        else:
                            simd.add_to_rows_first(targets, acc, ROWS, inside)
                        p += ROWS
                    while p < stop:
                        rows = simd.rows_at(simd.address(inputs) + 4 * p, row, line, 1)
                        one = simd.zeros_f32(1, width)
                        for c in range(depth):
                            one = simd.outer_rows_f32(one, rows, 4 * c, w + 4 * lanes * c, 1, width)
                        targets = simd.rows_at(simd.address(outputs) + 4 * p, out + 4 * lanes * s, out_line, 1)
                        simd.add_to_rows_first(targets, one, 1, inside)
                        p += 1

    return product


_products = tuple(_product(width) for width in range(1, WIDTH + 1))
