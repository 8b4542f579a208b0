"""What several tests of AccSS3D look at."""

import numpy as np
import torch
from torch import nn

from papernets.data import Rooms, room
from papernets.papers.accss3d import Accelerator
from papernets.papers.accss3d.layers import DenseConv3d
from papernets.papers.accss3d.networks import UNet
from papernets.training import row


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


def run(seed, sparse, dense):
    return [row(seed, "sparse", sparse, loss=[1, 0.5], macs=1e7), row(seed, "dense", dense, loss=[2, 0.3], macs=2e8),
            row(seed, "majority", 0.2)]


def densified(model):
    """The dense network, masked after every layer, with the weights of a sparse one: the same outputs for far more work."""
    widths, level = [], model.level
    while level is not None:
        widths.append(level.before[0][0].weight.shape[2])
        level = level.below
    twin = UNet(widths, model.stem[0].weight.shape[1], model.head.out_features, repeats=len(model.level.before), dense=True,
                masked=True)
    theirs, ours = dict(model.named_modules()), dict(twin.named_modules())
    for name, module in ours.items():
        if isinstance(module, DenseConv3d):
            module.take_(theirs[name])
        elif isinstance(module, nn.BatchNorm3d | nn.Linear):
            module.load_state_dict(theirs[name].state_dict())
    return twin.train(model.training)
