"""Orders of the voxels of a sparse convolution, and how many inputs a tile of outputs reads in an order.

An order decides how often a feature is fetched, and no sum: nothing here computes a convolution.
"""

import numba
import numpy as np

from papernets_kernels import _check
from papernets_kernels._rulebook import LIMIT, Rulebook, checked, keys_of


def raster_order(coordinates: np.ndarray) -> np.ndarray:
    """The voxels by z, then y, then x: entry j is the number of the voxel that comes j-th."""
    return np.argsort(keys_of(checked(coordinates)), kind="stable")


def morton_order(coordinates: np.ndarray) -> np.ndarray:
    """The voxels along a Z-shaped curve: by the bits of z, y and x in turn, highest first."""
    coordinates = checked(coordinates).astype(np.int64)
    code = np.zeros(len(coordinates), np.int64)
    for bit in range(LIMIT.bit_length() - 1):
        for axis in range(3):
            code |= (coordinates[:, axis] >> bit & 1) << (3 * bit + 2 - axis)
    return np.argsort(code, kind="stable")


def surface_order(book: Rulebook, chunk: int, filled: bool = False) -> np.ndarray:
    """The voxels in chunks that grow along the surface, breadth first over neighbours.

    A chunk starts at an unvisited voxel of least degree (its number of neighbours; of several the first) and takes
    neighbours in the order they were met, those of a voxel by ascending plane, until it holds ``chunk`` voxels or nothing
    more is in reach. The next starts at the oldest voxel that was met and not taken. With ``filled``, a chunk that runs dry
    goes on at another voxel of least degree, and the next starts at the voxel of least degree among those met and not taken.
    """
    if not book.submanifold:
        raise ValueError("the rulebook is not submanifold; make it with rulebook()")
    _, pointers, indices = book.lines()
    return _grow(pointers, indices, _check.whole("chunk", chunk, 1), filled)


@numba.njit(nogil=True)
def _grow(pointers, indices, chunk, filled):
    count = len(pointers) - 1
    degree = pointers[1:] - pointers[:-1]
    by_degree = np.argsort(degree, kind="mergesort")
    order = np.empty(count, np.int64)
    taken, met = np.zeros(count, np.bool_), np.zeros(count, np.bool_)
    queue, left = np.empty(count, np.int64), np.empty(count, np.int64)
    done, next_seed, lefts = 0, 0, 0
    while done < count:
        seed = -1
        if filled:
            for i in range(lefts):
                v = left[i]
                if not taken[v] and (seed < 0 or degree[v] < degree[seed] or (degree[v] == degree[seed] and v < seed)):
                    seed = v
        else:
            for i in range(lefts):
                if not taken[left[i]]:
                    seed = left[i]
                    break
        head, tail, size = 0, 0, 0
        while size < chunk and done < count:
            if head == tail:
                if size and not filled:
                    break
                if seed < 0:
                    while taken[by_degree[next_seed]]:
                        next_seed += 1
                    seed = by_degree[next_seed]
                queue[tail] = seed
                met[seed] = True
                tail += 1
                seed = -1
            v = queue[head]
            head += 1
            taken[v] = True
            order[done] = v
            done += 1
            size += 1
            for p in range(pointers[v], pointers[v + 1]):
                w = indices[p]
                if not met[w]:
                    met[w] = True
                    queue[tail] = w
                    tail += 1
        lefts = tail - head
        for i in range(lefts):
            left[i] = queue[head + i]
            met[left[i]] = False
    return order


def distinct_inputs(book: Rulebook, tile: int, order: np.ndarray | None = None) -> int:
    """How many inputs tiles of ``tile`` consecutive outputs read, each counted once a tile, summed over the tiles.

    ``order`` (outputs,): the outputs in another order, as the functions above return it.
    """
    tile = _check.whole("tile", tile, 1)
    if order is None:
        order = np.arange(book.outputs)
    order = _check.integers("order", order, "outputs", 0, max(1, book.outputs))
    if len(order) != book.outputs or (np.bincount(order, minlength=book.outputs) != 1).any():
        raise ValueError(f"order has {len(order)} entries; it holds each of 0 ... {book.outputs - 1} once")
    _, pointers, indices = book.lines()
    return int(_distinct(pointers, indices, order.astype(np.int64), tile, book.inputs))


@numba.njit(nogil=True)
def _distinct(pointers, indices, order, tile, inputs):
    seen = np.full(inputs, -1, np.int64)
    total = 0
    for j in range(len(order)):
        for p in range(pointers[order[j]], pointers[order[j] + 1]):
            if seen[indices[p]] != j // tile:
                seen[indices[p]] = j // tile
                total += 1
    return total


def locality(book: Rulebook, tile: int, order: np.ndarray | None = None) -> float:
    """Distinct inputs of a tile for each of its outputs, u(tile): the average receptive field for 1, near 1 in good orders."""
    return distinct_inputs(book, tile, order) / book.outputs if book.outputs else 0.0
