"""Generated rooms: the fixed scene voxel by voxel, the parts of a drawn room, seeds, batches and refusals."""

import math

import numpy as np
import pytest
import torch
from papernets_kernels import sparse_conv3d

from papernets.data import ROOM_CLASSES, Room, Rooms, corner_room, points, room


def grid_of(one):
    """The labels on the grid, -1 where it is empty."""
    grid = np.full((one.grid,) * 3, -1)
    grid[tuple(one.coordinates.T)] = one.labels
    return grid


def test_the_corner_room_voxel_by_voxel():
    one = corner_room()
    assert len(one) == 10_993 and one.grid == 64
    assert one.density == pytest.approx(0.0419, abs=5e-5)
    assert sparse_conv3d.rulebook(one.coordinates).pairs == 107_967
    seen = dict(zip(map(tuple, one.coordinates.tolist()), one.labels.tolist()))
    wanted = {}
    for z in range(64):
        for y in range(64):
            for x in range(64):
                if abs(math.dist((z, y, x), (20, 30, 35)) - 12) < 0.6:
                    wanted[z, y, x] = "sphere"
                elif 2 <= z < 40 and (y == 3 or x == 3):
                    wanted[z, y, x] = "wall"
                elif z == 2:
                    wanted[z, y, x] = "floor"
    assert seen == {place: ROOM_CLASSES.index(name) for place, name in wanted.items()}


def in_order(coordinates):
    keys = [tuple(row) for row in coordinates.tolist()]
    return keys == sorted(set(keys))


@pytest.mark.parametrize("grid", [12, 32, 64])
@pytest.mark.parametrize("seed", range(6))
def test_a_room_holds_what_it_says(grid, seed):
    one = room(seed, grid)
    assert one.coordinates.dtype == np.int32 and one.labels.dtype == np.int64
    assert in_order(one.coordinates)
    assert one.coordinates.min() >= 0 and one.coordinates.max() < grid
    assert set(np.unique(one.labels)) == {0, 1, 2, 3}
    cells = grid_of(one)
    floor = one.coordinates[one.labels == 0][:, 0]
    assert len(set(floor.tolist())) == 1 and one.coordinates[:, 0].min() == floor[0]
    assert (cells[floor[0]] >= 0).all()  # the floor has no hole
    walls = one.coordinates[one.labels == 1]
    y, x = (int(np.argmax(np.bincount(walls[:, axis]))) for axis in (1, 2))
    assert ((walls[:, 1] == y) | (walls[:, 2] == x)).all()
    assert max(min(y, grid - 1 - y), min(x, grid - 1 - x)) <= grid // 16 + 1


def test_shells_are_hollow_and_closed():
    """From the centre of a sphere one meets its shell in every direction along the axes; inside there is nothing of it."""
    for seed in range(5):
        one = room(seed, 48, spheres=(1, 1), boxes=(0, 0))
        ball = one.coordinates[one.labels == ROOM_CLASSES.index("sphere")]
        centre, away = ball.mean(0), np.linalg.norm(ball - ball.mean(0), axis=1)
        assert away.max() - away.min() < 2.5 and 0.09 * 48 < away.mean() < 0.21 * 48
        assert centre.min() > 0 and set(one.labels.tolist()) == {0, 1, 3}


def test_a_box_has_a_top_and_no_bottom():
    for seed in range(5):
        one = room(seed, 48, spheres=(0, 0), boxes=(1, 1))
        box = one.coordinates[one.labels == ROOM_CLASSES.index("box")]
        low, high = box.min(0), box.max(0)
        floor = one.coordinates[one.labels == 0][0, 0]
        assert low[0] == floor + 1
        inner = ((box > low) & (box < high))[:, 1:].all(1)
        assert (box[inner][:, 0] == high[0]).all()  # only the top lies within the sides
        assert inner.sum() == np.prod(high[1:] - low[1:] - 1)


def test_spheres_win_over_boxes_over_walls_over_the_floor():
    kept = np.zeros((4, 4), int)
    for seed in range(30):
        every = grid_of(room(seed, 24))
        none = grid_of(room(seed, 24, spheres=(0, 0), boxes=(0, 0)))
        both = (every >= 0) & (none >= 0)
        np.add.at(kept, (none[both], every[both]), 1)
    assert (np.tril(kept, -1) == 0).all() and kept[1, 2] > 0 and kept[1, 3] > 0


def test_the_seed_decides_and_holes_take_voxels_away():
    one, again, other = room(3, 24), room(3, 24), room(4, 24)
    np.testing.assert_array_equal(one.coordinates, again.coordinates)
    np.testing.assert_array_equal(one.labels, again.labels)
    assert len(one) != len(other) or (one.coordinates != other.coordinates).any()
    holed = room(3, 24, missing=0.25)
    whole = {tuple(row) for row in one.coordinates.tolist()}
    assert {tuple(row) for row in holed.coordinates.tolist()} < whole
    assert 0.2 < 1 - len(holed) / len(one) < 0.3


def test_features_are_the_height_and_one():
    one = Room(np.array([[0, 1, 2], [7, 3, 4], [14, 0, 0]], np.int32), np.array([0, 1, 2]), 15)
    np.testing.assert_array_equal(one.features, np.array([[0, 1], [0.5, 1], [1, 1]], np.float32))


def test_a_part_of_a_room():
    one = Room(np.array([[0, 1, 2], [2, 2, 2], [3, 0, 0]], np.int32), np.array([0, 1, 2]), 15)
    part = one.part(3)
    assert part.coordinates.tolist() == [[0, 1, 2], [2, 2, 2]] and part.labels.tolist() == [0, 1] and part.grid == 15


def test_a_batch_keeps_rooms_apart_and_in_order():
    rooms = [room(seed, 13) for seed in range(3)]
    rows, labels = Rooms(rooms)[[2, 0]]
    assert rows.dtype == torch.float32 and labels.dtype == torch.int64 and rows.shape == (len(labels), 6)
    sizes = [len(rooms[2]), len(rooms[0])]
    assert torch.bincount(rows[:, 0].long()).tolist() == sizes
    np.testing.assert_array_equal(rows[:sizes[0], 1:4].numpy(), rooms[2].coordinates)
    np.testing.assert_array_equal(rows[sizes[0]:, 4:].numpy(), rooms[0].features)
    np.testing.assert_array_equal(labels.numpy(), np.concatenate([rooms[2].labels, rooms[0].labels]))
    alone, _ = points(rooms[1])
    np.testing.assert_array_equal(alone[:, 1:4].numpy(), rooms[1].coordinates)
    assert len(Rooms(rooms)) == 3


@pytest.mark.parametrize(("options", "message"), [
    ({"grid": 11}, "grid is 11; a room has from 12 to 512"), ({"grid": 20.0}, "grid is 20.0"),
    ({"missing": 1.0}, r"missing is 1.0; it is a share in \[0, 1\)"), ({"missing": -0.1}, "the nearest is 0"),
    ({"spheres": (2, 1)}, r"spheres is \(2, 1\)"), ({"boxes": (-1, 1)}, r"boxes is \(-1, 1\)")])
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        room(0, **options)


def test_an_empty_set_is_refused():
    with pytest.raises(ValueError, match="there is no room"):
        Rooms([])
