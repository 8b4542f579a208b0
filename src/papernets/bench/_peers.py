"""The best form in which a user could write each layer with torch, numpy, scipy, faiss or spconv.

Everything that can be done beforehand is done beforehand: contiguous copies, buffers to write into, sparse formats.
"""

import logging
import math
import os
import warnings
from itertools import pairwise

import numpy as np
import scipy.sparse
import torch
from papernets_kernels import reference
from torch.nn import functional

from papernets.bench._race import Runner

HOW_TO_GET = "not installed; the extra [bench] has it"


def _tensor(y: torch.Tensor) -> np.ndarray:
    return y.numpy()


def dense_conv(x: np.ndarray, weight: np.ndarray) -> dict[str, Runner]:
    """Same-size convolution of ``x`` (1, C, …) with ``weight`` (Co, C, 3, …): torch in both layouts, and patches @ weight."""
    axes = x.ndim - 2
    name, call = ("conv2d", functional.conv2d) if axes == 2 else ("conv3d", functional.conv3d)
    last = torch.channels_last if axes == 2 else torch.channels_last_3d
    a, w = torch.from_numpy(x), torch.from_numpy(weight)
    a_last, w_last = a.contiguous(memory_format=last), w.contiguous(memory_format=last)
    return {f"torch {name}": Runner(lambda: call(a, w, padding=1), _tensor),
            f"torch {name}, channels last": Runner(lambda: call(a_last, w_last, padding=1), _tensor),
            "numpy patches and product": Runner(patches_product(x, weight))}


def patches_product(x: np.ndarray, weight: np.ndarray, product=None, dtype=np.float32):
    """im2col and a matrix product, for as many slices of the output at once as make a product of some 784 columns."""
    axes, channels, size = x.ndim - 2, x.shape[1], x.shape[2:]
    rest, taps = math.prod(size[1:]), channels * 3 ** (x.ndim - 2)
    step = min(size[0], math.ceil(784 / rest))
    padded = np.zeros((channels, *(n + 2 for n in size)), dtype)
    inside = padded[(slice(None), *(slice(1, -1) for _ in size))]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3,) * axes, tuple(range(1, axes + 1)))
    windows = windows.transpose(0, *range(1 + axes, 1 + 2 * axes), *range(1, 1 + axes))  # (C, 3, …, first, rest)
    flat, source = np.ascontiguousarray(weight.reshape(len(weight), -1), dtype), x[0].astype(dtype)
    patches, y = np.empty(taps * step * rest, dtype), np.empty((len(weight), size[0] * rest), np.float32)
    product = product or (lambda w, columns, out: np.matmul(w, columns, out=out))

    def call():
        np.copyto(inside, source)
        for start in range(0, size[0], step):
            window = windows[(*(slice(None),) * (1 + axes), slice(start, start + step))]
            part = patches[:window.size].reshape(window.shape)
            np.copyto(part, window)
            columns = part.reshape(taps, -1)
            product(flat, columns, y[:, start * rest:start * rest + columns.shape[1]])
        return y.reshape(1, len(weight), *size)

    return call


def dense_product(a: np.ndarray, b: np.ndarray) -> dict[str, Runner]:
    """``a`` (M, K) times ``b`` (K, P) in float32."""
    y = np.empty((len(a), b.shape[1]), np.float32)
    one, other, out = torch.from_numpy(a), torch.from_numpy(b), torch.empty(y.shape)
    return {"numpy product": Runner(lambda: np.matmul(a, b, out=y)),
            "torch mm": Runner(lambda: torch.mm(one, other, out=out), _tensor)}


def pointwise(weight: np.ndarray, x: np.ndarray, side: int, block: tuple[int, int] | None) -> dict[str, Runner]:
    """The 1x1 convolution of ``x`` (C, side²): dense products and convolutions, and what reads a sparse ``weight``."""
    outputs, inputs = weight.shape
    a, w = torch.from_numpy(x).view(1, inputs, side, side), torch.from_numpy(weight)
    a_last = a.contiguous(memory_format=torch.channels_last)

    def flat(y):
        return y.numpy().reshape(outputs, -1)

    csr, flat_x = scipy.sparse.csr_array(weight), torch.from_numpy(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls its sparse tensors a beta
        sparse = w.to_sparse_csr()
    found = {**dense_product(weight, x),
             "torch conv2d": Runner(lambda: functional.conv2d(a, w[:, :, None, None]), flat),
             "torch conv2d, channels last": Runner(lambda: functional.conv2d(a_last, w[:, :, None, None]), flat),
             "torch sparse csr": Runner(lambda: sparse @ flat_x, _tensor),
             "scipy csr": Runner(lambda: csr @ x)}
    if block:
        bsr = scipy.sparse.bsr_array(weight, blocksize=block)
        found["scipy bsr"] = Runner(lambda: bsr @ x)
    return found


def int8_product(a: np.ndarray, b: np.ndarray) -> dict[str, Runner]:
    """``a`` (M, K) times ``b`` (K, P), both of +1 and -1, in whole numbers of eight bits, by a private function of torch."""
    one, other = torch.from_numpy(a.astype(np.int8)), torch.from_numpy(b.astype(np.int8))
    return {"torch int8 product": Runner(lambda: torch._int_mm(one, other), _tensor)}


def int8_conv(x: np.ndarray, weight: np.ndarray) -> dict[str, Runner]:
    """As ``int8_product``, over patches."""
    def product(w, columns, out):
        out[:] = torch._int_mm(torch.from_numpy(w), torch.from_numpy(columns)).numpy()

    return {"torch int8 product over patches": Runner(patches_product(x, weight, product, np.int8))}


def winograd(x: np.ndarray, u: np.ndarray, columns: np.ndarray) -> dict[str, Runner]:
    """F(2x2x2, 3x3x3) in numpy, all of it products: ``x`` (1, C, D, H, W), ``u`` (columns, Co, C); same-size output."""
    channels, size, outputs = x.shape[1], x.shape[2:], u.shape[1]
    tiles = [-(-n // 2) for n in size]
    padded = np.zeros((channels, *(2 * t + 2 for t in tiles)), np.float32)
    inside = padded[:, 1:size[0] + 1, 1:size[1] + 1, 1:size[2] + 1]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (4, 4, 4), (1, 2, 3))[:, ::2, ::2, ::2]
    windows = windows.transpose(1, 4, 5, 6, 0, 2, 3)        # (Td, 4, 4, 4, C, Th, Tw)
    forward = reference.cube(reference.B_T)[columns].astype(np.float32)      # (columns, 64)
    backward = reference.cube(reference.A_T)[:, columns].astype(np.float32)  # (8, columns)
    patches = np.empty(windows.shape[1:], np.float32)
    flat = tiles[1] * tiles[2]
    y = np.empty((outputs, *(2 * t for t in tiles)), np.float32)
    places = y.reshape(outputs, tiles[0], 2, tiles[1], 2, tiles[2], 2)

    def call():
        np.copyto(inside, x[0])
        for d in range(tiles[0]):
            np.copyto(patches, windows[d])
            v = (forward @ patches.reshape(64, -1)).reshape(len(columns), channels, flat)
            m = np.matmul(u, v)                              # (columns, Co, Th Tw)
            part = (backward @ m.reshape(len(columns), -1)).reshape(2, 2, 2, outputs, tiles[1], tiles[2])
            places[:, d] = part.transpose(3, 0, 4, 1, 5, 2)
        return y[None, :, :size[0], :size[1], :size[2]]

    return {"numpy Winograd": Runner(call)}


def hamming(queries: np.ndarray, codes: np.ndarray, k: int, threads: int) -> tuple[dict[str, Runner], dict[str, str]]:
    """The ``k`` nearest of ``codes`` (N, words) to each of ``queries`` (Q, words), 64-bit words."""
    def view(found):
        return checked_neighbours(queries, codes, *found)

    def numpy_search():
        distances, indices = np.empty((len(queries), k), np.int64), np.empty((len(queries), k), np.int64)
        for q, query in enumerate(queries):
            apart = np.bitwise_count(codes ^ query).sum(1, dtype=np.uint16)
            near = np.argpartition(apart, k - 1)[:k]
            near = near[np.argsort(apart[near], kind="stable")]
            distances[q], indices[q] = apart[near], near
        return distances, indices

    peers = {"numpy": Runner(numpy_search, view)}
    try:
        import faiss
    except ImportError:
        return peers, {"faiss": HOW_TO_GET}
    faiss.omp_set_num_threads(threads)
    asked, held = queries.view(np.uint8), codes.view(np.uint8)
    for name, heap in (("faiss", True), ("faiss, counting", False)):
        index = faiss.IndexBinaryFlat(8 * held.shape[1])
        index.add(held)
        index.use_heap = heap
        peers[name] = Runner(lambda index=index: index.search(asked, k), view)
    return peers, {}


def checked_neighbours(queries, codes, distances, indices) -> np.ndarray:
    """The distances found, and those of the codes at the indices found: two halves that must be equal to all others'.

    Which of several codes at the same distance are named is left open.
    """
    truth = np.bitwise_count(codes[indices] ^ queries[:, None]).sum(-1, dtype=np.int64)
    distinct = all(len(set(row)) == len(row) for row in indices.tolist())
    return np.stack([np.asarray(distances, np.int64), truth if distinct else np.full_like(truth, -1)])


def sparse_conv(features: np.ndarray, coordinates: np.ndarray, weight: np.ndarray, grid: int, threads: int,
                ) -> tuple[dict[str, Runner], dict[str, str]]:
    """The submanifold convolution from the coordinates on: spconv with its search of pairs, and the dense grid.

    features (N, C), coordinates (N, 3), weight (27, C, K).
    """
    peers, missing = spconv(features, coordinates, weight, grid, threads, cached=False)
    z, y, x = coordinates.T.astype(np.int64)
    channels, outputs = weight.shape[1:]
    need = 5 * 4 * channels * grid**3
    if hasattr(os, "sysconf") and need > os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
        return peers, {**missing, "torch conv3d": f"a dense grid needs {need / 1e9:.0f} GB of memory"}
    dense = np.zeros((1, channels, grid, grid, grid), np.float32)
    dense[0, :, z, y, x] = features
    kernel = np.ascontiguousarray(weight.transpose(2, 1, 0)).reshape(outputs, channels, 3, 3, 3)
    for name, runner in dense_conv(dense, kernel).items():
        if name.startswith("torch"):
            peers[name] = Runner(runner.call, lambda found: found.numpy()[0][:, z, y, x].T)
    return peers, missing


def gathered(features: np.ndarray, rulebook, weight: np.ndarray) -> dict[str, Runner]:
    """The submanifold convolution from a rulebook on, in torch: gather, product, scatter, one kernel offset at a time."""
    x, w = torch.from_numpy(features), torch.from_numpy(weight)
    edges = rulebook.plane_pointers.tolist()
    planes = [(torch.from_numpy(rulebook.pair_inputs[a:b].astype(np.int64)),
               torch.from_numpy(rulebook.pair_outputs[a:b].astype(np.int64))) for a, b in pairwise(edges)]

    def call():
        y = torch.zeros(rulebook.outputs, w.shape[2])
        for k, (inputs, outputs) in enumerate(planes):
            y.index_add_(0, outputs, x[inputs] @ w[k])
        return y

    return {"torch gather and product": Runner(call, _tensor)}


def spconv(features, coordinates, weight, grid: int, threads: int, cached: bool) -> tuple[dict[str, Runner], dict[str, str]]:
    """spconv's CPU wheel, which is right on one thread only. ``cached``: the pairs were searched beforehand."""
    if threads > 1:
        return {}, {"spconv": "its results are sometimes wrong on more than one thread"}
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        import spconv.pytorch as library
        from spconv.core import ConvAlgo
    except ImportError:
        return {}, {"spconv": HOW_TO_GET}
    finally:
        logging.disable(level)
    channels, outputs = weight.shape[1:]
    layer = library.SubMConv3d(channels, outputs, 3, bias=False, algo=ConvAlgo.Native, indice_key="pairs" if cached else None)
    kernel = np.ascontiguousarray(weight.transpose(2, 0, 1)).reshape(outputs, 3, 3, 3, channels)
    layer.weight = torch.nn.Parameter(torch.from_numpy(kernel), requires_grad=False)
    batched = np.concatenate([np.zeros((len(coordinates), 1), np.int32), coordinates.astype(np.int32)], 1)
    x, indices = torch.from_numpy(features), torch.from_numpy(np.ascontiguousarray(batched))

    def enter():
        return library.SparseConvTensor(x, indices, [grid] * 3, 1)

    pairs = layer(enter()).indice_dict if cached else {}

    def call():
        tensor = enter()
        if cached:
            tensor.indice_dict = pairs
        return layer(tensor)

    return {"spconv": Runner(call, lambda found: found.features.numpy())}, {}
