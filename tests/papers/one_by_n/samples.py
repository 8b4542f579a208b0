"""What several tests of 1xN sparsity look at."""

import torch

from papernets.papers.one_by_n import MaskedConv2d, mask

HAND = torch.tensor([[1, -4], [3, 0.5], [-2, 1], [0.25, 2]])[:, :, None, None]


def masked(conv, p=0.5, N=4):
    return MaskedConv2d(conv, mask(conv.weight, p, N), torch.arange(conv.out_channels), N)
