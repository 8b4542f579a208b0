"""The slow, obvious twin of every kernel of this package: a few lines of numpy each, straight from the definition.

The tests hold every kernel against its twin, and a chapter shows the twin before the kernel. Sums of floats are taken in
float64 and returned in float64, integers are exact, and nothing is checked: that is the kernels' part.
"""

from collections import deque
from itertools import product

import numpy as np

# ---- dense convolutions (correlations, as in deep learning) ----------------------------------------------------------


def conv2d(x, weight, stride=1, padding=0):
    """``x`` (B, C, H, W) with ``weight`` (Co, C, kh, kw) -> (B, Co, Ho, Wo) float64. ``stride``, ``padding``: int or pair."""
    return _conv(x, weight, stride, padding, axes=2)


def conv3d(x, weight, padding=0):
    """``x`` (B, C, D, H, W) with ``weight`` (Co, C, kd, kh, kw) -> (B, Co, Do, Ho, Wo) float64. ``padding``: int or triple."""
    return _conv(x, weight, 1, padding, axes=3)


def _conv(x, weight, stride, padding, axes):
    weight, stride, padding = np.float64(weight), _each(stride, axes), _each(padding, axes)
    x = np.pad(np.float64(x), [(0, 0), (0, 0), *((p, p) for p in padding)])
    size = [max(0, (length - k) // s + 1) for length, k, s in zip(x.shape[2:], weight.shape[2:], stride)]
    y = np.zeros((len(x), len(weight), *size))
    for tap in np.ndindex(*weight.shape[2:]):
        window = [slice(t, t + (n - 1) * s + 1 if n else t, s) for t, n, s in zip(tap, size, stride)]
        y += np.einsum("oc,bc...->bo...", weight[:, :, *tap], x[:, :, *window])
    return y


def _each(value, axes):
    return (value,) * axes if np.ndim(value) == 0 else tuple(value)


# ---- binary: one bit per number ---------------------------------------------------------------------------------------


def sign(x):
    """+1 where ``x >= 0``, else -1: both zeros give +1, NaN gives -1."""
    return np.where(np.asarray(x) >= 0, 1, -1).astype(np.int8)


def binary_pack(x):
    """``x`` (..., K) -> uint64 (..., ceil(K / 64)): bit ``j % 64`` of word ``j // 64`` is 1 where ``x[..., j] >= 0``."""
    x = np.asarray(x)
    words = np.zeros((*x.shape[:-1], -(-x.shape[-1] // 64)), np.uint64)
    for j in range(x.shape[-1]):
        words[..., j // 64] |= (x[..., j] >= 0).astype(np.uint64) << np.uint64(j % 64)
    return words


def binary_unpack(words, k):
    """Words (..., ceil(k / 64)) -> int8 (..., k) of +1 and -1."""
    bits = [words[..., j // 64] >> np.uint64(j % 64) & np.uint64(1) for j in range(k)]
    return 2 * np.stack(bits, -1).astype(np.int8) - 1 if k else np.zeros((*words.shape[:-1], 0), np.int8)


def binary_matmul(a, b):
    """Dot products of the rows of ``a`` (M, K) and ``b`` (N, K), both of +1 and -1 -> int32 (M, N)."""
    return np.int32(np.int64(a) @ np.int64(b).T)


def binary_conv2d(x, weight, stride=1, padding=0):
    """``conv2d(sign(x), weight)`` as int32; a padded position is 0, neither +1 nor -1."""
    return conv2d(sign(x), weight, stride, padding).astype(np.int32)


def subbit_pack_ids(ids, bits):
    """One id after the other, lowest bit first, into bytes filled from their lowest bit."""
    stream = sum(int(i) << (bits * place) for place, i in enumerate(np.ravel(ids)))  # one long number
    return np.frombuffer(stream.to_bytes(-(-np.size(ids) * bits // 8), "little"), np.uint8)


def subbit_unpack_ids(packed, bits, shape):
    """The inverse of ``subbit_pack_ids`` -> uint16 of ``shape``."""
    stream = int.from_bytes(bytes(packed), "little")
    return np.array([stream >> (bits * i) & (2**bits - 1) for i in range(np.prod(shape, dtype=int))], np.uint16).reshape(shape)


def subbit_conv2d(x, ids, codebook, stride=1, padding=0):
    """``binary_conv2d`` with the kernels ``codebook[ids]``: ``ids`` (Co, C), ``codebook`` (n, 3, 3)."""
    return binary_conv2d(x, np.asarray(codebook)[ids], stride, padding)


# ---- 1xN blocks and N of M --------------------------------------------------------------------------------------------


def one_by_n_pack(weight, n):
    """``weight`` (Co, C, kh, kw) -> values (blocks, kh, kw, n), columns (blocks,), rows (Co // n + 1,).

    A block is n consecutive output channels of one input channel. Blocks with a number that is not 0 are kept, group by
    group of outputs; those of group g are ``rows[g]:rows[g + 1]``, and ``columns`` gives their input channels.
    """
    values, columns, rows = [], [], [0]
    for start in range(0, weight.shape[0], n):
        for column in range(weight.shape[1]):
            block = weight[start : start + n, column]  # (n, kh, kw)
            if (block != 0).any():
                values.append(np.moveaxis(block, 0, -1))
                columns.append(column)
        rows.append(len(columns))
    kernel = weight.shape[2:]
    return np.array(values, np.float32).reshape(-1, *kernel, n), np.array(columns, np.int32), np.array(rows)


def one_by_n_conv2d(weight, n, x, stride=1, padding=0):
    """``conv2d`` over the kept blocks alone, so that a block of zeros keeps out even the infinities of its input."""
    y = conv2d(x[:, :0], weight[:, :0], stride, padding)  # zeros of the right shape
    values, columns, rows = one_by_n_pack(weight, n)
    for group in range(len(weight) // n):
        for block in range(rows[group], rows[group + 1]):
            kernels = np.moveaxis(values[block], -1, 0)[:, None]  # (n, 1, kh, kw)
            column = columns[block]
            y[:, group * n : (group + 1) * n] += conv2d(x[:, column : column + 1], kernels, stride, padding)
    return y


def one_by_n_matmul(weight, n, x):
    """``weight`` (Co, C) in blocks, times ``x`` (C, P) -> (Co, P)."""
    return one_by_n_conv2d(weight[:, :, None, None], n, x[None, :, None])[0, :, 0]


def n_of_m_pack(weight, n, m):
    """``weight`` (Co, K) -> values, indices (Co, K // m, n): the places of a group's numbers, ascending.

    A group with fewer than n numbers that are not 0 keeps the first of its zeros as well.
    """
    values = np.zeros((len(weight), weight.shape[1] // m, n), np.float32)
    indices = np.zeros(values.shape, np.uint8)
    for row, group in np.ndindex(values.shape[:2]):
        numbers = weight[row, group * m : (group + 1) * m]
        places = sorted(sorted(range(m), key=lambda place: numbers[place] == 0)[:n])  # a stable sort: numbers, then zeros
        indices[row, group], values[row, group] = places, numbers[places]
    return values, indices


def n_of_m_conv2d(weight, x, kernel, stride, padding, dilation):
    """``weight`` (Co, kh kw C), taps first; ``x`` (B, C, H, W). One product for each output."""
    taps = weight.reshape(len(weight), *kernel, x.shape[1])
    image = np.pad(x, ((0, 0), (0, 0), *((pad, pad) for pad in padding))).astype(np.float64)
    size = [(length - d * (k - 1) - 1) // s + 1 for length, d, k, s in zip(image.shape[2:], dilation, kernel, stride)]
    y = np.zeros((len(x), len(weight), *size))
    for b, o, i, j in np.ndindex(y.shape):
        for p, q in np.ndindex(*kernel):
            y[b, o, i, j] += taps[o, p, q] @ image[b, :, i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]]
    return y


def n_of_m_matmul(weight, n, m, x):
    """``weight`` (Co, K) with at most n of m numbers, times ``x`` (K, P) -> (Co, P): only the kept places are multiplied."""
    values, indices = n_of_m_pack(weight, n, m)
    y = np.zeros((len(weight), x.shape[1]))
    for row, group, place in np.ndindex(values.shape):
        k = group * m + int(indices[row, group, place])  # an index is one byte, the sum may need more
        y[row] += np.float64(values[row, group, place]) * np.float64(x[k])
    return y


# ---- Winograd F(2x2x2, 3x3x3) -----------------------------------------------------------------------------------------

B_T = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1.0]])  # (4, 4) of the input
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1.0]])  # (4, 3) of the kernel
A_T = np.array([[1, 1, 1, 0], [0, 1, -1, -1.0]])  # (2, 4) of the output


def cube(matrix):
    """The transform along z, y and x of a flattened cube: the Kronecker product of ``matrix`` with itself, three times."""
    return np.kron(np.kron(matrix, matrix), matrix)


def winograd3d_pack(weight):
    """Kernels ``weight`` (Co, C, 3, 3, 3) in the Winograd domain: U (64, Co, C), position p = 16 z + 4 y + x."""
    return np.einsum("pk,ock->poc", cube(G), np.float64(weight).reshape(*weight.shape[:2], 27))


def winograd3d(x, weight, padding=0, columns=None):
    """``conv3d`` by F(2x2x2, 3x3x3) (Lavin, Gray, CVPR 2016), one tile after the other.

    x: (B, C, D, H, W). weight: (Co, C, 3, 3, 3), or U (64, Co, C) of ``winograd3d_pack``.
    columns: the Winograd positions that are computed; the others count as zero. None: all 64.
    """
    u = winograd3d_pack(weight) if np.ndim(weight) == 5 else np.float64(weight)
    kept = np.arange(64) if columns is None else columns
    x = np.pad(np.float64(x), [(0, 0), (0, 0), *((p, p) for p in _each(padding, 3))])
    size = [max(0, length - 2) for length in x.shape[2:]]
    x = np.pad(x, [(0, 0), (0, 0), *((0, n % 2) for n in size)])  # whole tiles; what they add is cut off below
    y = np.zeros((len(x), u.shape[1], *(n + n % 2 for n in size)))
    of_input, of_output = cube(B_T), cube(A_T)
    for image, tile in product(range(len(x)), np.ndindex(*(n // 2 for n in y.shape[2:]))):
        z, r, c = (2 * place for place in tile)
        v = of_input @ x[image, :, z : z + 4, r : r + 4, c : c + 4].reshape(-1, 64).T  # (64, C)
        products = np.zeros((64, u.shape[1]))
        for p in kept:
            products[p] = u[p] @ v[p]  # (Co,)
        y[image, :, z : z + 2, r : r + 2, c : c + 2] = (of_output @ products).T.reshape(-1, 2, 2, 2)
    return y[:, :, : size[0], : size[1], : size[2]]


def winograd3d_column_norms(p, q):
    """Norms (64,) of the columns of M = P Q: ``p`` (Co, C, s), ``q`` (s, 64)."""
    return np.linalg.norm(np.float64(p).reshape(-1, len(q)) @ np.float64(q), axis=0)


# ---- Hamming distances ------------------------------------------------------------------------------------------------


def hamming_distances(queries, codes):
    """``queries`` (Q, w), ``codes`` (N, w) of 64-bit words -> uint16 (Q, N): the number of bits that differ."""
    found = [[sum((int(a) ^ int(b)).bit_count() for a, b in zip(query, code)) for code in codes] for query in queries]
    return np.array(found, np.uint16).reshape(len(queries), len(codes))


def hamming_top_k(queries, codes, k):
    """The k nearest codes of each query: distances (Q, k) ascending, indices (Q, k); ties by ascending index."""
    distances = hamming_distances(queries, codes)
    indices = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, indices, 1), indices


# ---- sparse 3D convolution --------------------------------------------------------------------------------------------
# A rulebook is a list of planes, one per kernel offset; a plane is a list of pairs (input, output), by ascending output.


def rulebook(coordinates, kernel_size=3):
    """Planes of the submanifold convolution: input i feeds output o in plane k when ``v_i = v_o + d_k``."""
    voxels = [tuple(map(int, voxel)) for voxel in coordinates]
    index, reach = {voxel: i for i, voxel in enumerate(voxels)}, kernel_size // 2
    planes = []
    for dz, dy, dx in product(range(-reach, reach + 1), repeat=3):
        neighbours = [(index.get((z + dz, y + dy, x + dx)), o) for o, (z, y, x) in enumerate(voxels)]
        planes.append([(i, o) for i, o in neighbours if i is not None])
    return planes


def strided_rulebook(coordinates, kernel_size=2, stride=2):
    """Planes, and the coordinates of the outputs in raster order: u is one when some input has ``v = u * stride + d``."""
    voxels = [tuple(map(int, voxel)) for voxel in coordinates]
    offsets = list(product(range(kernel_size), repeat=3))
    places = [
        (k, i, tuple(a - d for a, d in zip(voxel, offset)))
        for k, offset in enumerate(offsets)
        for i, voxel in enumerate(voxels)
    ]
    found = [
        (k, i, tuple(a // stride for a in place)) for k, i, place in places if all(a >= 0 and a % stride == 0 for a in place)
    ]
    outputs = sorted({u for _, _, u in found})
    index = {u: o for o, u in enumerate(outputs)}
    planes = [
        sorted(((i, index[u]) for plane, i, u in found if plane == k), key=lambda pair: pair[1]) for k in range(len(offsets))
    ]
    return planes, np.array(outputs, np.int64).reshape(-1, 3)


def lines(planes, outputs):
    """For each output the mask of its planes, bit k for plane k, and its inputs by ascending plane."""
    found = [(0, []) for _ in range(outputs)]
    for k, plane in enumerate(planes):
        for i, o in plane:
            mask, inputs = found[o]
            found[o] = mask | 1 << k, [*inputs, i]
    return found


def convolve(features, planes, outputs, weight, bias=None):
    """``y[o] = bias + sum of features[i] @ weight[k]`` over the pairs: ``features`` (inputs, C), ``weight`` (planes, C, K)."""
    y = np.zeros((outputs, weight.shape[2])) + (0 if bias is None else np.float64(bias))
    for k, plane in enumerate(planes):
        for i, o in plane:
            y[o] += np.float64(features[i]) @ np.float64(weight[k])
    return y


def raster_order(coordinates):
    """Indices of the voxels by z, then y, then x."""
    return np.array(sorted(range(len(coordinates)), key=lambda i: tuple(coordinates[i])), np.int64)


def morton_order(coordinates):
    """Indices of the voxels along a Z curve: by the bits of z, y and x in turn, from the highest, z first."""

    def key(i):
        return [int(a) >> bit & 1 for bit in range(20, -1, -1) for a in coordinates[i]]

    return np.array(sorted(range(len(coordinates)), key=key), np.int64)


def surface_order(planes, voxels, chunk, filled=False):
    """Indices of the voxels in an order that follows surfaces, after AccSS3D (Omer et al., arXiv 2011.12669).

    A chunk of ``chunk`` voxels grows breadth first from its seed over neighbours in the order of the planes. The seed is
    the oldest voxel that the chunk before has reached and not taken; without one, the unvisited voxel of fewest neighbours
    (ties: the lowest index). A chunk that runs dry ends short.
    ``filled``: it goes on from a new voxel of fewest neighbours; and of the voxels reached, the one of fewest neighbours
    is the next seed.
    """
    neighbours = [[] for _ in range(voxels)]
    for plane in planes:
        for i, o in plane:
            neighbours[o].append(i)

    def fewest(among):
        return min(among, key=lambda i: (len(neighbours[i]), i))

    order, frontier, unvisited = [], [], set(range(voxels))
    while unvisited:
        seed = fewest(unvisited) if not frontier else fewest(frontier) if filled else frontier[0]
        queue, reached, size = deque([seed]), {seed}, 0
        while queue and size < chunk:
            voxel = queue.popleft()
            order.append(voxel)
            unvisited.remove(voxel)
            size += 1
            for i in neighbours[voxel]:
                if i in unvisited and i not in reached:
                    reached.add(i)
                    queue.append(i)
            if filled and not queue and unvisited:
                queue.append(fewest(unvisited))
        frontier = list(queue)
    return np.array(order, np.int64)


def distinct_inputs(planes, outputs, tile, order=None):
    """The distinct inputs of each ``tile`` consecutive outputs, summed over the tiles; ``order`` renumbers the outputs."""
    inputs = [set(found) for _, found in lines(planes, outputs)]
    order = range(outputs) if order is None else order
    return sum(len(set().union(*(inputs[o] for o in order[start : start + tile]))) for start in range(0, outputs, tile))
