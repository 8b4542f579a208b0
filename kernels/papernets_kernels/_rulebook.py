"""Rulebooks of a sparse convolution: which input voxel meets which output voxel, plane by plane.

A rulebook is made from coordinates alone. What is multiplied along its pairs is ``sparse_conv3d``; in which order the voxels
are best taken is ``_voxel_orders``.
"""

from dataclasses import dataclass, field

import numba
import numpy as np

from papernets_kernels import _check, simd

LIMIT = 2**20  # coordinates lie below: three of them and a border fit one 64-bit key


@dataclass(frozen=True, eq=False)
class Rulebook:
    """Pairs of voxels, plane by plane; within a plane the outputs ascend.

    Plane k owns the pairs ``plane_pointers[k]`` to ``plane_pointers[k + 1]`` of ``pair_inputs`` and ``pair_outputs`` (P,)
    int32. ``inputs`` and ``outputs`` count voxels; ``out_coordinates`` (outputs, 3) are those of the outputs.
    """

    inputs: int
    outputs: int
    kernel_size: int
    stride: int
    plane_pointers: np.ndarray
    pair_inputs: np.ndarray
    pair_outputs: np.ndarray
    out_coordinates: np.ndarray = field(repr=False)
    submanifold: bool = False

    def __post_init__(self):
        """However it was made: the kernel reads and writes memory at these places. ``ValueError`` says which part is wrong."""
        inputs = _check.integers("pair_inputs", self.pair_inputs, "P", 0, self.inputs)
        outputs = _check.integers("pair_outputs", self.pair_outputs, "P", 0, self.outputs)
        _check.same("the number of pair_outputs", len(outputs), "that of pair_inputs", len(inputs))
        planes = _check.integers("plane_pointers", self.plane_pointers, "planes", 0, len(inputs) + 1)
        _check.pointers("plane_pointers", planes, len(inputs))
        parts = {"pair_inputs": inputs.astype(np.int32, copy=False), "pair_outputs": outputs.astype(np.int32, copy=False),
                 "plane_pointers": planes.astype(np.int64, copy=False)}
        for name, part in parts.items():
            object.__setattr__(self, name, part)

    @property
    def pairs(self) -> int:
        return len(self.pair_inputs)

    @property
    def arf(self) -> float:
        """Average receptive field: pairs for each output."""
        return self.pairs / self.outputs if self.outputs else 0.0

    def lines(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The receptive-field form: for each output a mask of its planes and its inputs by ascending plane.

        Masks (outputs,) uint32, pointers (outputs + 1,) int64, indices (P,) int32.
        """
        planes = len(self.plane_pointers) - 1
        if planes > 32:
            raise ValueError(f"kernel_size is {self.kernel_size}; a mask of 32 bits holds the planes of at most 3")
        mask, indices = np.zeros(self.outputs, np.uint32), np.empty(self.pairs, np.int32)
        pointers = np.zeros(self.outputs + 1, np.int64)
        np.cumsum(np.bincount(self.pair_outputs, minlength=self.outputs), out=pointers[1:])
        _lines(self.plane_pointers, self.pair_inputs, self.pair_outputs, pointers[:-1].copy(), mask, indices)
        return mask, pointers, indices


@numba.njit(nogil=True)
def _lines(plane_pointers, pair_inputs, pair_outputs, place, mask, indices):
    for k in range(len(plane_pointers) - 1):
        for p in range(plane_pointers[k], plane_pointers[k + 1]):
            o = pair_outputs[p]
            mask[o] |= np.uint32(1) << np.uint32(k)
            indices[place[o]] = pair_inputs[p]
            place[o] += 1


# ---- rulebooks -------------------------------------------------------------------------------------------------------


def rulebook(coordinates: np.ndarray, kernel_size: int = 3, *, threads: int = 1) -> Rulebook:
    """The rulebook of the submanifold convolution: outputs are the inputs, ``coordinates`` (N, 3) whole numbers z, y, x.

    Plane k of kernel size s = 2 r + 1 connects output v and input ``v + (k // s^2 - r, k // s % s - r, k % s - r)``. In the
    order of their coordinates, the voxels and the voxels shifted by a plane's offset are two sorted lists; what they have in
    common is the plane. Planes that differ by x alone share one walk through the lists. Planes k and s^3 - 1 - k hold the
    same pairs, turned around.
    """
    if kernel_size not in (1, 3, 5):
        raise ValueError(f"kernel_size is {kernel_size!r}; a submanifold convolution has a centre: 1, 3 or 5")
    coordinates = checked(coordinates)
    keys, order = _sorted_keys(coordinates)
    count, half = len(keys), kernel_size**3 // 2
    walks = np.array([k for k in range(half) if k % kernel_size % 3 == 0], np.int64)
    found = simd.scratch("pairs", (half + 1, 2, count), np.int32)  # the last for planes that a walk does without
    lengths = np.zeros(half + 1, np.int64)
    simd.share(_walk, len(walks), threads, 3 * count * len(walks), keys, kernel_size, walks, found, lengths)
    lengths = lengths[:half]
    pointers = np.zeros(2 * half + 2, np.int64)
    np.cumsum(np.concatenate([lengths, [count], lengths[::-1]]), out=pointers[1:])
    inputs, outputs = np.empty(pointers[-1], np.int32), np.empty(pointers[-1], np.int32)
    centre = slice(*pointers[half : half + 2])
    inputs[centre] = outputs[centre] = np.arange(count, dtype=np.int32)
    simd.share(_both, half, threads, lengths.sum(), found, lengths, pointers, inputs, outputs)
    if order is not None:
        simd.share(_renumber, 2 * half + 1, threads, 4 * len(inputs), order, pointers, inputs, outputs)
    return Rulebook(count, count, kernel_size, 1, pointers, inputs, outputs, coordinates, submanifold=True)


def checked(coordinates) -> np.ndarray:
    """Coordinates (N, 3) of voxels, whole numbers below ``LIMIT``; what is not is refused."""
    coordinates = _check.integers("coordinates", coordinates, "voxels axes", 0, LIMIT)
    _check.same("the number of columns of coordinates", coordinates.shape[1], "the number of axes", 3)
    return coordinates


def keys_of(coordinates: np.ndarray) -> np.ndarray:
    """Coordinates as one number each, in the same order; 21 bits an axis, so that a shift by 2 meets no other line."""
    keys = np.empty(len(coordinates), np.int64)
    _fill_keys(coordinates, keys)
    return keys


@numba.njit(nogil=True)
def _fill_keys(coordinates, keys):
    """The keys, and whether they ascend."""
    ascend = True
    for i in range(len(coordinates)):
        z, y, x = coordinates[i]
        keys[i] = np.int64(z) << 42 | np.int64(y) << 21 | np.int64(x)
        ascend &= i == 0 or keys[i - 1] < keys[i]
    return ascend


def _sorted_keys(coordinates: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The keys in ascending order, and where each was (None: already in order). A voxel that comes twice is refused.

    The keys are valid until the next call.
    """
    keys = simd.scratch("keys", len(coordinates), np.int64)
    if _fill_keys(coordinates, keys):
        return keys, None
    order = np.argsort(keys)
    keys = keys[order]
    twice = np.nonzero(keys[1:] == keys[:-1])[0]
    if len(twice):
        one, other = sorted(order[twice[0] : twice[0] + 2].tolist())
        voxel = tuple(coordinates[one].tolist())
        raise ValueError(f"voxels {one} and {other} are both at {voxel}; a place is taken once: np.unique(..., axis=0)")
    return keys, order


@numba.njit(nogil=True)
def _walk(first, last, keys, size, walks, found, lengths):
    """For walks ``first`` to ``last``: the places of inputs and outputs that plane k and the two behind it connect.

    The three differ by x alone, so the inputs they give an output lie next to each other in ``keys``. Every step writes, and
    what was no pair is overwritten by the next.
    """
    half, r = size**3 // 2, size // 2
    for k in walks[first:last]:
        line_ends = min(half, k - k % size + size)
        one, two = k + 1 if k + 1 < line_ends else half, k + 2 if k + 2 < line_ends else half
        shift = np.int64(k // size**2 - r) * (1 << 42) + np.int64(k // size % size - r) * (1 << 21) + k % size - r
        i, zeros, ones, twos = 0, 0, 0, 0
        for o in range(len(keys)):
            wanted = keys[o] + shift
            while keys[i] < wanted:  # a shift is negative, so this ends before the list does
                i += 1
            at = i
            found[k, 0, zeros], found[k, 1, zeros] = at, o
            hit = keys[at] == wanted
            zeros, at = zeros + hit, at + hit
            found[one, 0, ones], found[one, 1, ones] = at, o
            hit = keys[at] == wanted + 1
            ones, at = ones + hit, min(at + hit, o)
            found[two, 0, twos], found[two, 1, twos] = at, o
            twos += keys[at] == wanted + 2
        lengths[k], lengths[one], lengths[two] = zeros, ones, twos


@numba.njit(nogil=True)
def _both(first, last, found, lengths, pointers, inputs, outputs):
    """The pairs of planes ``first`` to ``last``, and turned around those of the planes opposite."""
    planes = len(pointers) - 1
    for k in range(first, last):
        here, there = pointers[k], pointers[planes - 1 - k]
        for p in range(lengths[k]):
            inputs[here + p] = outputs[there + p] = found[k, 0, p]
            outputs[here + p] = inputs[there + p] = found[k, 1, p]


@numba.njit(nogil=True)
def _renumber(first, last, order, pointers, inputs, outputs):
    """From places in the order of the coordinates to the caller's numbers; outputs ascend again."""
    partner = np.full(len(order), -1, np.int32)
    for k in range(first, last):
        for p in range(pointers[k], pointers[k + 1]):
            partner[order[outputs[p]]] = order[inputs[p]]
        p = pointers[k]
        for o in range(len(order)):
            if partner[o] >= 0:
                inputs[p], outputs[p] = partner[o], o
                partner[o] = -1
                p += 1


def strided_rulebook(coordinates: np.ndarray, kernel_size: int = 2, stride: int = 2) -> Rulebook:
    """The rulebook of a convolution that coarsens: output u exists where an input lies at ``u stride + d``.

    Each coordinate of d is from 0 to ``kernel_size`` - 1; plane k of kernel size s has ``d = (k // s^2, k // s % s, k % s)``.
    Outputs are sorted by z, y, x; as at the border of a convolution without padding, none is negative.
    """
    kernel_size, stride = _check.whole("kernel_size", kernel_size, 1), _check.whole("stride", stride, 1)
    coordinates = checked(coordinates)
    _sorted_keys(coordinates)  # refuses a voxel that comes twice
    place = coordinates.astype(np.int64)
    voxels, keys = [], []
    for k in range(kernel_size**3):
        coarse = place - [k // kernel_size**2, k // kernel_size % kernel_size, k % kernel_size]
        meets = np.nonzero(((coarse % stride == 0) & (coarse >= 0)).all(1))[0]
        voxels.append(meets)
        keys.append(keys_of(coarse[meets] // stride))
    active = np.unique(np.concatenate(keys))
    out = np.stack([active >> 42, active >> 21 & (1 << 21) - 1, active & (1 << 21) - 1], 1)
    outputs = [np.searchsorted(active, key) for key in keys]
    return _book(len(coordinates), len(active), kernel_size, stride, voxels, outputs, out.astype(coordinates.dtype))


def inverse_rulebook(book: Rulebook, coordinates: np.ndarray) -> Rulebook:
    """The way back: inputs and outputs of ``book`` exchanged. ``coordinates`` are those that ``book`` was made from."""
    coordinates = checked(coordinates)
    _check.same("the number of coordinates", len(coordinates), "the number of inputs of the rulebook", book.inputs)
    parts = [slice(*book.plane_pointers[k : k + 2]) for k in range(len(book.plane_pointers) - 1)]
    inputs, outputs = [book.pair_outputs[part] for part in parts], [book.pair_inputs[part] for part in parts]
    return _book(book.outputs, book.inputs, book.kernel_size, book.stride, inputs, outputs, coordinates)


def _book(count_in, count_out, kernel_size, stride, inputs: list, outputs: list, coordinates) -> Rulebook:
    """A rulebook from the pairs of each plane, in any order."""
    orders = [np.argsort(out, kind="stable") for out in outputs]
    pointers = np.zeros(len(outputs) + 1, np.int64)
    np.cumsum([len(out) for out in outputs], out=pointers[1:])
    pair_inputs, pair_outputs = (
        np.concatenate([voxels[order] for voxels, order in zip(pairs, orders, strict=True)]).astype(np.int32)
        for pairs in (inputs, outputs)
    )
    return Rulebook(count_in, count_out, kernel_size, stride, pointers, pair_inputs, pair_outputs, coordinates)
