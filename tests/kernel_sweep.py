"""Every kernel once against its reference, at sizes that fill no register.

Quick enough to be repeated where a search cannot go: for other machines, and in memory that ends where the arrays end.
As a script: in the memory that comes, in guarded memory, and then the assembly, in JSON.
"""

import gc
import json
import os
import sys
from itertools import pairwise, product

import numpy as np
from kernel_checks import TRANSFORMS, assert_near, assert_same, normal, winograd_size
from numba.core.dispatcher import Dispatcher
from papernets_kernels import binary, hamming, n_of_m, one_by_n, reference, simd, sparse_conv3d, subbit, winograd3d


def sweep():
    """Yields the name of each kernel when it has passed."""
    rng = np.random.default_rng(0)
    for kernel in (_one_by_n, _n_of_m, _binary, _subbit, _hamming, _winograd3d, _sparse_conv3d):
        kernel(rng)
        yield kernel.__name__.strip("_")


def _one_by_n(rng):
    n = 14  # two tiles of seven rows
    for pixels in (1, 15, 17, 97):
        weight, x = normal(rng, 2 * n, 7, share=0.7), normal(rng, 7, pixels)
        found = one_by_n.matmul(one_by_n.pack(weight, n), x)
        assert_near(found, reference.one_by_n_matmul(weight, n, x), np.abs(weight) @ np.abs(x), 7)
    for stride, padding in product((1, 2), (0, (2, 1))):
        weight, x = normal(rng, n, 2, 3, 2, share=0.7), normal(rng, 2, 2, 5, 7)
        found = one_by_n.conv2d(one_by_n.pack(weight, n), x, stride, padding)
        size = reference.conv2d(np.abs(x), np.abs(weight), stride, padding)
        assert_near(found, reference.one_by_n_conv2d(weight, n, x, stride, padding), size, 12)


def _n_of_m(rng):
    for pixels, (outputs, groups) in product((15, 17, 193), ((5, 3), (2, 61), (700, 1))):
        weight = normal(rng, outputs, groups * 5)
        weight.reshape(outputs, groups, 5)[:, :, [0, 3]] = 0
        x = normal(rng, groups * 5, pixels)
        found = n_of_m.matmul(n_of_m.pack(weight, 3, 5), x)
        assert_near(found, np.float64(weight) @ np.float64(x), np.abs(weight) @ np.abs(x), 3 * groups)


def _binary(rng):
    for m, n, k in product((1, 9), (1, 7, 17, 33), (1, 64, 65, 129)):
        a, b = (np.where(rng.random((rows, k)) < 0.5, -1, 1) for rows in (m, n))
        assert_same(binary.matmul(binary.pack(a), binary.pack(b), k), reference.binary_matmul(a, b))
    for channels, stride, padding in product((1, 65), (1, (2, 3)), (0, 1, (0, 2))):
        x, weight = normal(rng, 2, channels, 5, 7), np.where(rng.random((9, channels, 3, 2)) < 0.5, -1, 1)
        assert_same(binary.conv2d(x, weight, stride, padding), reference.binary_conv2d(x, weight, stride, padding))


def _subbit(rng):
    # of 5 x 11 outputs with two more behind each line, the last lies alone in a register of any size: 5 x 13 = 65
    sizes = (((5, 11), 1, 1), ((7, 13), 1, 0), ((6, 19), 1, 1), ((5, 7), 2, 1), ((9, 7), (1, 3), (2, 0)), ((3, 3), 1, 0))
    for size, stride, padding in sizes:
        codebook, ids = np.where(rng.random((5, 3, 3)) < 0.5, -1, 1), rng.integers(0, 5, (3, 17))
        x = normal(rng, 2, 17, *size)
        expected = reference.subbit_conv2d(x, ids, codebook, stride, padding)
        assert_same(subbit.conv2d(x, ids, codebook, stride, padding), expected)


def _hamming(rng):
    for q, n, words in product((1, 4, 6), (1, 15, 33, 130), (1, 3)):
        queries, codes = (rng.integers(0, 2**16, (rows, words), np.uint64) for rows in (q, n))
        assert_same(hamming.distances(queries, codes), reference.hamming_distances(queries, codes))
        for k in {1, -(-n // 2), n}:
            found, expected = hamming.top_k(queries, codes, k), reference.hamming_top_k(queries, codes, k)
            assert_same(found[0], expected[0])
            assert_same(found[1], expected[1])


def _winograd3d(rng):
    for (outputs, inputs), size in product(((1, 1), (17, 3)), ((3, 3, 3), (2, 3, 5), (1, 2, 33))):
        x, weight = normal(rng, 2, inputs, *size), normal(rng, outputs, inputs, 3, 3, 3)
        for columns in (range(64), [0, 21, 63]):
            found = winograd3d.conv3d(x, winograd3d.pack(weight, columns), 1)
            assert_near(
                found, reference.winograd3d(x, weight, 1, columns), winograd_size(x, weight, 1, columns), inputs + TRANSFORMS
            )


def _sparse_conv3d(rng):
    for share, (inputs, outputs) in product((0.02, 0.3, 1.0), ((1, 1), (7, 17), (3, 33))):
        voxels = np.argwhere(rng.random((3, 4, 5)) < share)
        for book in (sparse_conv3d.rulebook(voxels), sparse_conv3d.strided_rulebook(voxels)):
            book.lines()
            features, weight = normal(rng, book.inputs, inputs), normal(rng, book.kernel_size**3, inputs, outputs)
            planes = [list(zip(book.pair_inputs[a:b], book.pair_outputs[a:b])) for a, b in pairwise(book.plane_pointers)]
            expected = reference.convolve(features, planes, book.outputs, weight)
            size = reference.convolve(np.abs(features), planes, book.outputs, np.abs(weight))
            assert_near(sparse_conv3d.convolve(features, book, weight), expected, size, weight.shape[0] * inputs)
        book = sparse_conv3d.rulebook(voxels)
        for order in (
            sparse_conv3d.raster_order(voxels),
            sparse_conv3d.morton_order(voxels),
            sparse_conv3d.surface_order(book, 7),
        ):
            found = reference.distinct_inputs(reference.rulebook(voxels), book.outputs, 7, order)
            assert sparse_conv3d.distinct_inputs(book, 7, order) == found


def assembly() -> dict[str, str]:
    """What the compiled functions of every kernel have become; after a sweep."""
    found = {}
    for function in gc.get_objects():  # most are made inside others, and have no name to find them by
        if isinstance(function, Dispatcher) and function.py_func.__module__.startswith("papernets_kernels."):
            name = function.py_func.__module__.split(".")[1]
            found[name] = "\n".join([found.get(name, ""), *function.inspect_asm().values()])
    return found


def main() -> None:
    """Prints a line for each kernel that has passed, and the width of the registers with the assembly at last."""
    for name in sweep():
        print("anywhere", name, flush=True)
    if sys.platform.startswith("linux"):
        from kernel_guard import guarded

        # without the room that these leave before and behind an array
        simd.aligned = simd.memory.aligned = np.empty
        simd.scratch = lambda purpose, shape, dtype=np.float32: np.empty(shape, dtype)
        for side in ("end", "start"):
            with guarded(side):
                for name in sweep():
                    print(side, name, flush=True)
    print(json.dumps([simd.BYTES, assembly()]), flush=True)
    os._exit(0)  # without taking down, one by one, what numpy has kept in guarded memory


if __name__ == "__main__":
    main()
