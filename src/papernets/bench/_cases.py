"""What is measured: each kernel on the layers of the networks that the papers compress."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from papernets_kernels import binary, hamming, n_of_m, one_by_n, sparse_conv3d, subbit, winograd3d

from papernets.bench import _peers
from papernets.bench._race import Race, Runner
from papernets.cards.present import number_text


@dataclass(frozen=True)
class Case:
    """One kernel on one layer. ``group`` is what the targets are stated for; ``build(threads)`` makes the arrays."""

    group: str
    at: str
    build: Callable[[int], Race]

    @property
    def kernel(self) -> str:
        return self.group.split(",")[0]


def cases(quick: bool = False) -> list[Case]:
    """All cases in the order of the page; ``quick`` has the same kernels on small layers."""
    return [case for part in (_binary_conv, _binary_product, _subbit, _one_by_n, _n_of_m, _winograd, _hamming, _sparse)
            for case in part(quick)]


# ---- binary networks -------------------------------------------------------------------------------------------------

#: The 3x3 layers of ResNet-18: channels and side.
RESNET = ((64, 56), (128, 28), (256, 14), (512, 7))


def _signs(rng, *shape) -> np.ndarray:
    return np.where(rng.random(shape, np.float32) < 0.5, np.float32(-1), np.float32(1))


def _resnet(quick: bool) -> tuple:
    return ((32, 7),) if quick else RESNET


def _square(channels: int, side: int) -> str:
    return f"{channels}→{channels} at {side}×{side}"


def _binary_conv(quick: bool) -> Iterator[Case]:
    for channels, side in _resnet(quick):
        yield Case("binary.conv2d", _square(channels, side), lambda threads, c=channels, s=side: binary_conv(c, s, threads))


def binary_conv(channels: int, side: int, threads: int) -> Race:
    """Signs of the input are taken and packed inside the timed call; the peers are given the signs."""
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((1, channels, side, side), np.float32), _signs(rng, channels, channels, 3, 3)
    packed, signs = binary.pack_weight(weight), np.where(x >= 0, np.float32(1), np.float32(-1))
    macs = channels**2 * 9 * side**2
    return Race(Runner(lambda: binary.conv2d(x, packed, padding=1, threads=threads)), _peers.dense_conv(signs, weight),
                macs, macs, 2 * x.nbytes + weight.size / 8, "popcount", 0, beside=_peers.int8_conv(signs, weight))


def _binary_product(quick: bool) -> Iterator[Case]:
    for channels, side in _resnet(quick):
        sizes = channels, side**2, 9 * channels
        yield Case("binary.matmul", "{}×{} by {} bits".format(*sizes), lambda threads, n=sizes: binary_product(*n, threads))


def binary_product(rows: int, columns: int, bits: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    a, b = _signs(rng, rows, bits), _signs(rng, columns, bits)
    one, other, flipped = binary.pack(a), binary.pack(b), np.ascontiguousarray(b.T)
    macs = rows * columns * bits
    return Race(Runner(lambda: binary.matmul(one, other, bits, threads=threads)), _peers.dense_product(a, flipped), macs, macs,
                one.nbytes + other.nbytes + 4 * rows * columns, "popcount", 0, beside=_peers.int8_product(a, flipped))


def _subbit(quick: bool) -> Iterator[Case]:
    for channels, side in _resnet(quick):
        yield Case("subbit.conv2d, 32 patterns", _square(channels, side),
                   lambda threads, c=channels, s=side: subbit_conv(c, s, 32, threads))


def subbit_conv(channels: int, side: int, patterns: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((1, channels, side, side), np.float32), rng.integers(0, patterns, (channels, channels))
    places = rng.choice(512, patterns, replace=False)[:, None] >> np.arange(9) & 1
    codebook = (2 * places - 1).astype(np.float32).reshape(patterns, 3, 3)
    weight, signs = codebook[ids], np.where(x >= 0, np.float32(1), np.float32(-1))
    packed, macs = binary.pack_weight(weight), channels**2 * 9 * side**2
    plain = Runner(lambda: binary.conv2d(x, packed, padding=1, threads=threads))
    bits = (patterns - 1).bit_length()
    shared = subbit.SharedWeight(ids, codebook)
    return Race(Runner(lambda: subbit.conv2d(x, shared, padding=1, threads=threads)), _peers.dense_conv(signs, weight),
                macs, macs, 2 * x.nbytes + ids.size * bits / 8, "popcount", 0, beside={"binary.conv2d": plain})


# ---- pruned networks -------------------------------------------------------------------------------------------------

#: Pointwise layers of MobileNet-V2, then of ResNet: inputs, outputs, side.
POINTWISE = ((96, 576, 14), (576, 96, 14), (160, 960, 7), (320, 1280, 7), (32, 192, 28), (24, 144, 56), (512, 512, 14),
             (256, 256, 28))


def _pointwise(quick: bool) -> tuple:
    return ((32, 64, 7),) if quick else POINTWISE


def _layer(inputs: int, outputs: int, side: int) -> str:
    return f"{inputs}→{outputs} at {side}×{side}"


def _one_by_n(quick: bool) -> Iterator[Case]:
    for n in (4, 8, 16):
        for zeros in (50, 75, 90):
            for layer in _pointwise(quick):
                yield Case(f"one_by_n.matmul, N = {n}, {zeros} % zeros", _layer(*layer),
                           lambda threads, n=n, zeros=zeros, layer=layer: one_by_n_product(*layer, n, zeros, threads))
    for channels, side in _resnet(quick):
        yield Case("one_by_n.conv2d, N = 8, 75 % zeros", _square(channels, side),
                   lambda threads, c=channels, s=side: one_by_n_conv(c, s, 8, 75, threads))


def _blocks(rng, outputs: int, inputs: int, n: int, zeros: int) -> np.ndarray:
    """1 where a weight of (outputs, inputs) is kept: whole blocks, chosen by chance, their number exact."""
    count = outputs // n * inputs
    kept = rng.permutation(count) >= round(count * zeros / 100)
    return np.repeat(kept.reshape(outputs // n, inputs), n, axis=0).astype(np.float32)


def one_by_n_product(inputs: int, outputs: int, side: int, n: int, zeros: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs), np.float32) * _blocks(rng, outputs, inputs, n, zeros)
    x = rng.standard_normal((inputs, side**2), np.float32)
    packed, kept = one_by_n.pack(weight, n), np.count_nonzero(weight)
    return Race(Runner(lambda: one_by_n.matmul(packed, x, threads=threads)), _peers.pointwise(weight, x, side, (n, 1)),
                kept * side**2, weight.size * side**2, x.nbytes + 4 * outputs * side**2 + 4 * kept + 4 * kept / n)


def one_by_n_conv(channels: int, side: int, n: int, zeros: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    kept = _blocks(rng, channels, channels, n, zeros)[:, :, None, None]
    weight, x = rng.standard_normal((channels, channels, 3, 3), np.float32) * kept, rng.standard_normal(
        (1, channels, side, side), np.float32)
    packed = one_by_n.pack(weight, n)
    return Race(Runner(lambda: one_by_n.conv2d(packed, x, padding=1, threads=threads)), _peers.dense_conv(x, weight),
                9 * kept.sum() * side**2, weight.size * side**2, 2 * x.nbytes + packed.values.nbytes + packed.columns.nbytes)


def _n_of_m(quick: bool) -> Iterator[Case]:
    for n, m in ((2, 4), (1, 4)):
        for layer in _pointwise(quick):
            yield Case(f"n_of_m.matmul, {n}:{m}", _layer(*layer),
                       lambda threads, n=n, m=m, layer=layer: n_of_m_product(*layer, n, m, threads))


def n_of_m_product(inputs: int, outputs: int, side: int, n: int, m: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((outputs, inputs // m, m), np.float32)
    weight[np.argsort(np.argsort(np.abs(weight), 2), 2) < m - n] = 0
    weight, x = weight.reshape(outputs, inputs), rng.standard_normal((inputs, side**2), np.float32)
    packed, kept = n_of_m.pack(weight, n, m), weight.size * n // m
    return Race(Runner(lambda: n_of_m.matmul(packed, x, threads=threads)), _peers.pointwise(weight, x, side, None),
                kept * side**2, weight.size * side**2, x.nbytes + 4 * outputs * side**2 + 5 * kept)


# ---- video -----------------------------------------------------------------------------------------------------------

#: The 3x3x3 layers of C3D: inputs, outputs, frames, side.
C3D = ((64, 128, 16, 56), (128, 256, 8, 28), (256, 256, 8, 28), (256, 512, 4, 14), (512, 512, 4, 14), (512, 512, 2, 7))


def _winograd(quick: bool) -> Iterator[Case]:
    for group, share in (("winograd3d.conv3d, dense", 100), ("winograd3d.conv3d, low rank, 50 % of the columns", 50)):
        for layer in ((16, 16, 4, 6),) if quick else C3D:
            yield Case(group, "{}→{} at {}×{}×{}".format(*layer, layer[-1]),
                       lambda threads, share=share, layer=layer: winograd(*layer, share, threads))


def winograd(inputs: int, outputs: int, frames: int, side: int, share: int, threads: int) -> Race:
    """``share`` = 50: the half of the columns with the largest norms of a matrix of rank 8. No 3x3x3 kernel has these
    columns, so conv3d computes the dense layer that this one replaces."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, inputs, frames, side, side), np.float32)
    weight = rng.standard_normal((outputs, inputs, 3, 3, 3), np.float32) / np.float32(27 * inputs) ** 0.5
    peers = _peers.dense_conv(x, weight)
    if share == 100:
        packed = winograd3d.pack(weight)
    else:
        p, q = rng.standard_normal((outputs, inputs, 8), np.float32), rng.standard_normal((8, 64), np.float32)
        columns = np.sort(np.argsort(winograd3d.column_norms(p, q))[-64 * share // 100:])
        packed = winograd3d.pack_low_rank(p, q, columns)
        peers = {name: Runner(peer.call, peer.view, same=False) for name, peer in peers.items()}
    tiles = -(-frames // 2) * (-(-side // 2)) ** 2
    return Race(Runner(lambda: winograd3d.conv3d(x, packed, padding=1, threads=threads)), peers,
                len(packed.columns) * inputs * outputs * tiles, 27 * inputs * outputs * frames * side**2,
                x.nbytes + 4 * outputs * frames * side**2 + packed.u.nbytes, tolerance=2e-4,
                beside=_peers.winograd(x, packed.u, packed.columns))


# ---- retrieval -------------------------------------------------------------------------------------------------------


def _hamming(quick: bool) -> Iterator[Case]:
    sizes = ((10**3, 64),) if quick else ((10**6, 64), (10**4, 64), (10**6, 256))
    for codes, bits in sizes:
        group = f"hamming.top_k, {number_text(codes)} codes of {bits} bits"
        for queries in (100, 1):
            yield Case(group, f"{queries} quer{'ies' if queries > 1 else 'y'}, k = 10",
                       lambda threads, n=codes, b=bits, q=queries: neighbours(n, b, q, 10, threads))


def neighbours(codes: int, bits: int, queries: int, k: int, threads: int) -> Race:
    rng = np.random.default_rng(0)
    held = rng.integers(0, 2**64, (codes, bits // 64), np.uint64)
    asked = rng.integers(0, 2**64, (queries, bits // 64), np.uint64)
    peers, missing = _peers.hamming(asked, held, k, threads)
    return Race(Runner(lambda: hamming.top_k(asked, held, k, threads=threads),
                       lambda found: _peers.checked_neighbours(asked, held, *found)), peers,
                queries * codes * bits, queries * codes * bits, held.nbytes + asked.nbytes + 10 * queries * k, "popcount", 0,
                missing=missing)


# ---- sparse scenes ---------------------------------------------------------------------------------------------------


def scene(side: int) -> np.ndarray:
    """Voxels (N, 3) of the surfaces of a room in a grid of ``side``: a floor, two walls and a sphere; about 2.7 side²."""
    z, y, x = np.indices((side,) * 3, np.float32, sparse=True)
    wall = (z >= 2) & (z < side * 40 // 64)
    apart = np.sqrt((z - side * 20 / 64) ** 2 + (y - side * 30 / 64) ** 2 + (x - side * 35 / 64) ** 2)
    solid = (z == 2) | ((y == 3) & wall) | ((x == 3) & wall) | (np.abs(apart - side * 12 / 64) < 0.6)
    return np.argwhere(solid).astype(np.int32)


def _sparse(quick: bool) -> Iterator[Case]:
    for group, cached in (("sparse_conv3d.submanifold, with the rulebook", False),
                          ("sparse_conv3d.submanifold, rulebook at hand", True)):
        for side in (20,) if quick else (61, 105, 191):
            yield Case(group, f"{number_text(len(scene(side)))} voxels, 32→32",
                       lambda threads, side=side, cached=cached: sparse(side, 32, cached, threads))


def sparse(side: int, channels: int, cached: bool, threads: int) -> Race:
    rng, coordinates = np.random.default_rng(0), scene(side)
    features = rng.standard_normal((len(coordinates), channels), np.float32)
    weight = rng.standard_normal((27, channels, channels), np.float32) / np.float32(27 * channels) ** 0.5
    rules = sparse_conv3d.rulebook(coordinates)
    if cached:
        ours = Runner(lambda: sparse_conv3d.submanifold(features, rules, weight, threads=threads))
        peers, missing = _peers.spconv(features, coordinates, weight, side, threads, cached=True)
        peers |= _peers.gathered(features, rules, weight)
    else:
        ours = Runner(lambda: sparse_conv3d.submanifold(features, sparse_conv3d.rulebook(coordinates), weight, threads=threads))
        peers, missing = _peers.sparse_conv(features, coordinates, weight, side, threads)
    moved = 2 * features.nbytes + weight.nbytes + (8 * rules.pairs if cached else coordinates.nbytes)
    return Race(ours, peers, rules.pairs * channels**2, 27 * channels**2 * side**3, moved, missing=missing)
