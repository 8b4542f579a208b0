"""Hamming distances between binary codes, and the nearest codes of a query.

Used by the hashing papers, first Lin, Ji, Chen, Zheng, Sun, Zhang, Cao, Guo, Huang, "Supervised Online Hashing via Similarity
Distribution Learning", 2019. A code of r bits is ceil(r / 64) words, the unused high bits 0 (``binary.pack``).

A block of codes stays in the nearest cache while all queries pass over it, four at a time. A register holds a word of eight
codes; a distance costs an exclusive or, a count of bits and, for more than one word, an addition. To find the nearest k, each
query keeps its k best; most registers hold no code nearer than the worst of these, which one comparison tells.
"""

import numba
import numpy as np

from papernets_kernels import _check, simd


def distances(queries: np.ndarray, codes: np.ndarray, *, threads: int = 1) -> np.ndarray:
    """The number of bits in which each query (Q, w) and each code (N, w), uint64, differ: (Q, N) uint16.

    Codes of one word may be given as (N,).
    """
    queries, codes = _codes(queries, codes)
    found = np.empty((len(queries), len(codes)), np.uint16)
    simd.share(_distances, len(codes), threads, len(queries) * codes.size / WORDS, 0, queries, codes, found)
    return found


def top_k(queries: np.ndarray, codes: np.ndarray, k: int, *, threads: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """The ``k`` codes nearest to each query: distances (Q, k) uint16 and indices (Q, k) int64, nearest first.

    Of codes equally far the one with the lower index comes first.
    """
    queries, codes = _codes(queries, codes)
    k = _check.whole("k", k, 1)
    if k > len(codes):
        raise ValueError(f"k is {k}, and there are {len(codes)} codes; the largest k is {len(codes)}")
    parts = simd.parts(len(codes) // 1024, threads, len(queries) * codes.size / WORDS)
    edges = [len(codes) * part // parts for part in range(parts + 1)]
    near = np.empty((parts, len(queries), k), np.uint16)
    index = np.empty((parts, len(queries), k), np.int64)
    search = _nearest if k <= FEW else _counted

    def parts_of(first, last):
        for part in range(first, last):
            search(edges[part], edges[part + 1], queries, codes, near[part], index[part])

    simd.share(parts_of, parts, parts, np.inf)
    if parts == 1:
        return near[0], index[0]
    # each part is in order, and the parts are in the order of the indices: a stable sort by distance keeps both
    near, index = (found.transpose(1, 0, 2).reshape(len(queries), -1) for found in (near, index))
    best = np.argsort(near, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(near, best, 1), np.take_along_axis(index, best, 1)


def _codes(queries, codes) -> tuple[np.ndarray, np.ndarray]:
    queries, codes = (x[:, None] if np.ndim(x) == 1 else x for x in (queries, codes))
    queries, codes = (_check.array(name, x, np.uint64, "codes words") for name, x in (("queries", queries), ("codes", codes)))
    _check.same("the number of words of a query", queries.shape[1], "the number of words of a code", codes.shape[1])
    if not 1 <= codes.shape[1] <= 1023:
        raise ValueError(f"a code has {codes.shape[1]} words; 1 to 1023 are possible (a distance is 16 bits)")
    return queries, codes


# ---- the kernels -----------------------------------------------------------------------------------------------------

ROWS = 4  # queries at a time
WIDTH = 4 if simd.REGISTERS >= 32 else 2  # registers of codes at a time
TILE = WIDTH * simd.I64
WORDS = 16  # of codes compared with a query in a nanosecond, roughly
FEW = 256  # so many best are kept in order as they come; more are counted
NEAR = 16 * 1024  # bytes of codes in a block
MANY = np.iinfo(np.uint16).max


@numba.njit(nogil=True)
def _block(codes, begin, end, panel):
    """Codes ``begin`` to ``end`` word by word, the last tile filled up with zeros: their address, and the length of a row."""
    words = codes.shape[1]
    length = -(-(end - begin) // TILE) * TILE
    if words == 1 and length == end - begin:
        return simd.address(codes) + 8 * begin, length
    out = simd.address(panel)
    i = 0
    if words == 2 or words == 4:
        for i in range(0, (end - begin) // simd.I64 * simd.I64, simd.I64):
            source = simd.address(codes) + 8 * words * (begin + i)
            if words == 2:
                simd.store(out + 8 * i, 8 * length, simd.transpose_i64(source, 2), 2)
            else:
                simd.store(out + 8 * i, 8 * length, simd.transpose_i64(source, 4), 4)
        i = (end - begin) // simd.I64 * simd.I64
    for rest in range(i, length):
        for w in range(words):
            if begin + rest < end:
                panel[w * length + rest] = codes[begin + rest, w]
            else:
                panel[w * length + rest] = 0
    return out, length


@numba.njit(nogil=True)
def _size(words):
    """Codes in a block: whole tiles."""
    return max(1, NEAR // (8 * words * TILE)) * TILE


@numba.njit(nogil=True)
def _distances(first, last, origin, queries, codes, found):
    """Distances of codes ``first`` to ``last``; the columns of ``found`` begin with code ``origin``."""
    words = codes.shape[1]
    size = _size(words)
    panel = np.empty(size * words, np.uint64)
    for begin in range(first, last, size):
        end = min(last, begin + size)
        source, length = _block(codes, begin, end, panel)
        for q in range(len(queries)):
            for i in range(0, end - begin, TILE):
                acc = simd.zeros_i64(1, WIDTH)
                for w in range(words):
                    query = simd.address(queries) + 8 * (q * words + w)
                    acc = simd.outer_popcount(acc, query, 0, source + 8 * (w * length + i), 1, WIDTH)
                out = simd.address(found) + 2 * (q * found.shape[1] + begin - origin + i)
                simd.store_first(out, 0, simd.narrow_i16(acc), 1, min(TILE, end - begin - i))
    simd.keep(panel)


@numba.njit(nogil=True)
def _nearest(first, last, queries, codes, near, index):
    """The best of codes ``first`` to ``last`` for each query, kept in order by insertion."""
    words = codes.shape[1]
    near[:] = MANY
    index[:] = -1
    size = _size(words)
    panel = np.empty(size * words, np.uint64)
    limits = np.full(len(queries), MANY, np.int64)  # of each query, the worst of its best
    tile = np.empty((ROWS, TILE), np.int64)
    for begin in range(first, last, size):
        end = min(last, begin + size)
        source, length = _block(codes, begin, end, panel)
        for q in range(0, len(queries), ROWS):
            start, limit = simd.address(queries) + 8 * q * words, simd.address(limits) + 8 * q
            if q + ROWS <= len(queries):
                for i in range(0, end - begin, TILE):
                    acc = simd.zeros_i64(ROWS, WIDTH)
                    for w in range(words):
                        acc = simd.outer_popcount(acc, start + 8 * w, 8 * words, source + 8 * (w * length + i), ROWS, WIDTH)
                    if simd.any_below(acc, limit, ROWS):
                        simd.store(simd.address(tile), 8 * TILE, acc, ROWS)
                        for r in range(ROWS):
                            _insert(tile[r], begin + i, end, near[q + r], index[q + r], limits, q + r)
            else:
                for r in range(len(queries) - q):
                    for i in range(0, end - begin, TILE):
                        one = simd.zeros_i64(1, WIDTH)
                        for w in range(words):
                            word = start + 8 * (r * words + w)
                            one = simd.outer_popcount(one, word, 0, source + 8 * (w * length + i), 1, WIDTH)
                        if simd.any_below(one, limit + 8 * r, 1):
                            simd.store(simd.address(tile), 0, one, 1)
                            _insert(tile[0], begin + i, end, near[q + r], index[q + r], limits, q + r)
    simd.keep(panel)
    simd.keep(limits)
    simd.keep(tile)


@numba.njit(nogil=True)
def _insert(tile, begin, end, near, index, limits, q):
    """The distances of the codes from ``begin`` on, of those that lie before ``end``, into the best of query ``q``."""
    lanes = simd.lanes_below(simd.address(tile), limits[q], WIDTH)
    while lanes:
        lane = simd.lowest_bit(lanes)
        lanes &= lanes - 1
        d = tile[lane]
        if begin + lane >= end or d >= limits[q]:
            continue
        place = len(near) - 1
        while place > 0 and near[place - 1] > d:
            near[place] = near[place - 1]
            index[place] = index[place - 1]
            place -= 1
        near[place] = d
        index[place] = begin + lane
        limits[q] = near[len(near) - 1]


@numba.njit(nogil=True)
def _counted(first, last, queries, codes, near, index):
    """As ``_nearest``, for many: all distances, how often each occurs, and so the place of every code."""
    words, k, count = codes.shape[1], near.shape[1], last - first
    near[:] = MANY
    index[:] = -1
    found = np.empty((1, count), np.uint16)
    for q in range(len(queries)):
        _distances(first, last, first, queries[q : q + 1], codes, found)
        places = np.zeros(64 * words + 2, np.int64)
        for i in range(count):
            places[found[0, i] + 1] += 1
        for d in range(64 * words):
            places[d + 1] += places[d]
        for i in range(count):
            d = found[0, i]
            if places[d] < k:
                near[q, places[d]] = d
                index[q, places[d]] = first + i
            places[d] += 1
