"""What several tests of AccSS3D look at."""

import numpy as np
import torch

from papernets.data import Rooms, room
from papernets.papers.accss3d import Accelerator
from papernets.papers.accss3d.networks import UNet


def some_voxels(seed, side=5, share=0.3):
    rng = np.random.default_rng(seed)
    found = rng.permutation(np.argwhere(rng.random((side,) * 3) < share))
    return found if len(found) else np.array([[1, 2, 3]])


def at(cube, coordinates):
    z, y, x = torch.from_numpy(np.ascontiguousarray(coordinates.T)).long()
    return cube[0, :, z, y, x].T


def warmed(**options):
    """A U-Net whose batch norms have seen something."""
    model = UNet(**options)
    rows, _ = Rooms([room(1, 16), room(2, 16)])[[0, 1]]
    for _ in range(3):
        model(rows)
    return model.eval()


SMALL = Accelerator(lanes=3, channels=2, inputs=40, outputs=12, pairs=120)


def places(trace):
    return {tuple(at) for at in zip(trace.z, trace.y, trace.x)}


def run(sparse, dense):
    return {"sparse": {"iou": sparse, "loss": [1, 0.5], "macs": 1e7}, "dense": {"iou": dense, "loss": [2, 0.3], "macs": 2e8}}
