"""The networks of AccSS3D, and what they cost."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from papernets.papers.accss3d.layers import Cells, DenseConv3d, NormReLU, Scene, SparseConv3d, Voxels


class _Level(nn.Module):
    def __init__(self, widths: Sequence[int], block: Callable, repeats: int):
        super().__init__()
        width = widths[0]
        self.before = nn.Sequential(*[block(width, width, "submanifold") for _ in range(repeats)])
        self.down = self.below = self.up = self.after = None
        if len(widths) > 1:
            self.down, self.up = block(width, widths[1], "down"), block(widths[1], width, "up")
            self.below = _Level(widths[1:], block, repeats)
            self.after = nn.Sequential(*[block(width if i else 2 * width, width, "submanifold") for i in range(repeats)])

    def forward(self, x):
        x = self.before(x)
        return x if self.below is None else self.after(x.joined(self.up(self.below(self.down(x)))))


class UNet(nn.Module):
    """A U-Net of ``len(widths)`` levels that gives every occupied voxel a score for each class.

    The input is (n, 4 + features): the number of the room in the batch, z, y, x, and the features. ``dense`` is the twin of
    equal width that computes in all of space; ``masked`` zeroes its empty cells after every layer.
    """

    def __init__(self, widths: Sequence[int] = (8, 16), features: int = 2, classes: int = 4, *, repeats: int = 1,
                 dense: bool = False, masked: bool = False):
        super().__init__()
        if not widths or min(*widths, features, classes, repeats, 1) < 1:
            raise ValueError(f"widths {tuple(widths)}, features {features}, classes {classes}, repeats {repeats}: "
                             "each is at least 1")
        if masked and not dense:
            raise ValueError("masked is for the dense twin; the sparse network has no empty cells")
        self.dense, self.levels, self.grid = dense, len(widths), None

        def block(inputs, outputs, kind):
            conv = DenseConv3d(inputs, outputs, kind, masked) if dense else SparseConv3d(inputs, outputs, kind)
            return nn.Sequential(conv, NormReLU(outputs, dense, masked))

        self.stem = block(features, widths[0], "submanifold")
        self.level = _Level(widths, block, repeats)
        self.head = nn.Linear(widths[0], classes)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        if not self.dense:
            return self.head(self.level(self.stem(voxels(rows, self.levels))).features)
        x, place = cells(rows, self.levels)
        y = self.level(self.stem(x)).features  # (B, C, S, S, S)
        b, z, y_, x_ = place.unbind(1)
        return self.head(y[b, :, z, y_, x_])


def _placed(rows: torch.Tensor) -> torch.Tensor:
    if rows.ndim != 2 or rows.shape[1] < 5:
        raise ValueError(f"the input has shape {tuple(rows.shape)}; it is (n, 4 + features): room, z, y, x and features")
    return rows[:, :4].long()


def voxels(rows: torch.Tensor, levels: int = 2) -> Voxels:
    """The input of a U-Net as voxels. The rooms of a batch stand above each other, too far apart to touch at any level."""
    place = _placed(rows).cpu().numpy()
    step = 2 ** (levels - 1)
    height = int(place[:, 1].max()) + 1 if len(place) else 1
    apart = (-(-height // step) + 1) * step
    coordinates = place[:, 1:] + np.array([1, 0, 0]) * apart * place[:, :1]
    return Voxels(rows[:, 4:], Scene(coordinates))


def cells(rows: torch.Tensor, levels: int = 2) -> tuple[Cells, torch.Tensor]:
    """The input of a U-Net as a dense grid, and the place (n, 4) of every voxel in it."""
    place = _placed(rows)
    step = 2 ** (levels - 1)
    side = -(-(int(place[:, 1:].max()) + 1) // step) * step
    batch = int(place[:, 0].max()) + 1
    grid = rows.new_zeros(batch, 1 + rows.shape[1] - 4, side, side, side)
    b, z, y, x = place.unbind(1)
    grid[b, :, z, y, x] = torch.cat([torch.ones_like(rows[:, :1]), rows[:, 4:]], 1)
    occupied = [grid[:, :1]]
    for _ in range(levels - 1):
        occupied.append(F.max_pool3d(occupied[-1], 2))
    return Cells(grid[:, 1:], tuple(occupied)), place
