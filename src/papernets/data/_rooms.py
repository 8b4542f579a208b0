"""Generated rooms: surfaces on a grid of voxels, each voxel labelled by the geometry it belongs to.

A scan of a room is nearly empty: what is occupied are surfaces. A room here has a floor, two walls that meet in a corner,
hollow spheres, and boxes that stand on the floor. Nothing is scanned, so every label is right, and a seed makes the same
room everywhere.
"""

from dataclasses import dataclass

import numpy as np
import torch

#: What a voxel belongs to; where two surfaces meet, the later name wins.
ROOM_CLASSES = ("floor", "wall", "box", "sphere")


@dataclass(frozen=True, eq=False)
class Room:
    """``coordinates`` (N, 3) int32, z, y, x, sorted in this order; ``labels`` (N,) int64; all on a grid of ``grid``^3."""

    coordinates: np.ndarray
    labels: np.ndarray
    grid: int

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def density(self) -> float:
        return len(self) / self.grid**3

    @property
    def features(self) -> np.ndarray:
        """(N, 2) float32: the height from 0 to 1, and 1 for every occupied voxel."""
        height = self.coordinates[:, 0] / (self.grid - 1)
        return np.stack([height, np.ones_like(height)], 1).astype(np.float32)

    def part(self, side: int) -> "Room":
        """The voxels within the first ``side``^3 cells."""
        inside = (self.coordinates < side).all(1)
        return Room(self.coordinates[inside], self.labels[inside], self.grid)


def _room(names: np.ndarray) -> Room:
    """From a grid of class numbers, -1 where it is empty."""
    coordinates = np.argwhere(names >= 0)
    return Room(coordinates.astype(np.int32), names[tuple(coordinates.T)].astype(np.int64), len(names))


def _shell(grid: int, centre, radius: float) -> np.ndarray:
    z, y, x = np.ogrid[:grid, :grid, :grid]
    return np.abs(np.sqrt((z - centre[0]) ** 2 + (y - centre[1]) ** 2 + (x - centre[2]) ** 2) - radius) < 0.6


def corner_room() -> Room:
    """The one room with fixed sizes, 64^3: a floor, two walls 38 voxels high and a sphere of radius 12. 10 993 voxels."""
    names = np.full((64, 64, 64), -1)
    names[2] = ROOM_CLASSES.index("floor")
    names[2:40, 3, :] = names[2:40, :, 3] = ROOM_CLASSES.index("wall")
    names[_shell(64, (20, 30, 35), 12)] = ROOM_CLASSES.index("sphere")
    return _room(names)


def room(seed: int, grid: int = 64, *, spheres: tuple[int, int] = (1, 3), boxes: tuple[int, int] = (1, 3),
         missing: float = 0.0) -> Room:
    """A room drawn by ``seed`` on ``grid``^3 voxels.

    The floor is near the bottom; the walls are near two sides that meet, a part of the grid high. ``spheres`` and
    ``boxes`` are the least and the most of each. A sphere has a radius of 10 to 20 % of the grid and lies within it; a box
    has sides of 12 to 30 %, a top and no bottom. ``missing`` is the share of voxels that are left out, as a scan has holes.
    """
    if not isinstance(grid, int | np.integer) or not 12 <= grid <= 512:
        raise ValueError(f"grid is {grid!r}; a room has from 12 to 512 voxels a side")
    if not 0 <= missing < 1:
        raise ValueError(f"missing is {missing}; it is a share in [0, 1), and the nearest is {0.0 if missing < 0 else 0.9}")
    for name, (least, most) in (("spheres", spheres), ("boxes", boxes)):
        if not 0 <= least <= most:
            raise ValueError(f"{name} is {(least, most)}; it is the least and the most, such as (1, 3)")
    rng = np.random.default_rng([seed, 20201123])
    names = np.full((grid,) * 3, -1)
    near = max(2, grid // 16 + 1)
    floor = int(rng.integers(1, near))
    top = floor + int(rng.uniform(0.4, 0.7) * grid)
    side = [int(at) if first else grid - 1 - int(at)
            for at, first in zip(rng.integers(1, near, 2), rng.random(2) < 0.5)]  # y of one wall, x of the other
    names[floor] = ROOM_CLASSES.index("floor")
    names[floor:top, side[0], :] = names[floor:top, :, side[1]] = ROOM_CLASSES.index("wall")
    for _ in range(rng.integers(boxes[0], boxes[1] + 1)):
        height, depth, width = np.maximum(3, (rng.uniform(0.12, 0.3, 3) * grid).astype(int))
        y, x = (int(rng.integers(0, grid - size + 1)) for size in (depth, width))
        solid = np.zeros(names.shape, bool)
        solid[floor + 1 : floor + 1 + height, y : y + depth, x : x + width] = True
        solid[floor + 1 : floor + height, y + 1 : y + depth - 1, x + 1 : x + width - 1] = False  # sides and a top are left
        names[solid] = ROOM_CLASSES.index("box")
    for _ in range(rng.integers(spheres[0], spheres[1] + 1)):
        radius = rng.uniform(0.1, 0.2) * grid
        low = np.array([floor + 1 + radius, radius, radius])
        names[_shell(grid, rng.uniform(low, grid - 1 - radius), radius)] = ROOM_CLASSES.index("sphere")
    if missing:
        names[rng.random(names.shape) < missing] = -1
    return _room(names)


def points(rooms: "Room | list[Room]") -> tuple[torch.Tensor, torch.Tensor]:
    """Rooms as one batch: (N, 4 + features) float32, each row the number of its room, z, y, x and its features; labels (N,)."""
    rooms = [rooms] if isinstance(rooms, Room) else list(rooms)
    rows = [np.concatenate([np.full((len(one), 1), number), one.coordinates, one.features], 1)
            for number, one in enumerate(rooms)]
    return (torch.from_numpy(np.concatenate(rows).astype(np.float32)),
            torch.from_numpy(np.concatenate([one.labels for one in rooms])))


class Rooms:
    """A set of rooms that a loader can batch: indexed by a list of numbers it gives the ``points`` of these rooms."""

    def __init__(self, rooms: list[Room]):
        if not rooms:
            raise ValueError("there is no room; give at least one")
        self.images = tuple(rooms)
        self.classes = ROOM_CLASSES

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        return points([self.images[i] for i in np.atleast_1d(index)])
