"""What several tests of Low-rank Winograd look at."""

import torch
from torch import nn

from papernets.papers.lr_winograd import LowRankWinograd, WinogradConv


def conv(Ci=6, Co=8, padding=1, bias=True, dtype=torch.float32):
    return nn.Conv3d(Ci, Co, 3, padding=padding, bias=bias, dtype=dtype)


def layer(mode="factor", rank=27, m=2, dtype=torch.float64, **options):
    return WinogradConv(conv(dtype=dtype, **options), LowRankWinograd(m=m, mode=mode, rank=rank))


def run(seed):
    def arm(base):
        return {"dense": base + 0.001 * seed, "kept": {0.25: base - 0.1 + 0.002 * seed, 0.5: base - 0.3},
                "random": {0.25: base - 0.2, 0.5: base - 0.5}}
    return {"seed": seed, "arms": {"low rank": arm(0.9), "vanilla": arm(0.8), "spatial": arm(0.85)}}
