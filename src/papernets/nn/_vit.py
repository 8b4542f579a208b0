"""Vision transformers."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int, bias: bool):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(width, 3 * width, bias), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        B, T, D = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, D // self.heads).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, T, D))


class _Encoder(nn.Module):
    def __init__(self, width: int, heads: int, ratio: int, bias: bool, drop: float):
        super().__init__()
        self.norm1, self.attn, self.norm2 = nn.LayerNorm(width, 1e-6), _Attention(width, heads, bias), nn.LayerNorm(width, 1e-6)
        self.fc1, self.fc2, self.drop = nn.Linear(width, ratio * width), nn.Linear(ratio * width, width), drop

    def _sometimes(self, branch: torch.Tensor) -> torch.Tensor:
        """Stochastic depth: in training the branch is left out for a share of the images, and is stronger for the others."""
        if not self.drop or not self.training:
            return branch
        kept = torch.rand(len(branch), 1, 1, device=branch.device) >= self.drop
        return branch * kept / (1 - self.drop)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._sometimes(self.attn(self.norm1(x)))
        return x + self._sometimes(self.fc2(F.gelu(self.fc1(self.norm2(x)))))


class DeiT(nn.Module):
    """A vision transformer: DeiT-small without the distillation token, or of another size; input (B, 3, pixels, pixels).

    ``ratio`` is the width of the hidden layer of an MLP in widths, ``bias`` that of queries, keys and values, ``drop`` the
    share of images for which a branch is left out in training (Huang, Sun, Liu, Sedra, Weinberger, arXiv 1603.09382): one
    number, or one for each of the ``depth`` blocks.

    Touvron, Cord, Douze, Massa, Sablayrolles, Jégou, "Training data-efficient image transformers & distillation through
    attention", arXiv 2012.12877.
    """

    def __init__(self, width: int = 384, depth: int = 12, heads: int = 6, pixels: int = 224, patch: int = 16,
                 classes: int = 1000, *, ratio: int = 4, bias: bool = True, drop: float | Sequence[float] = 0.0):
        super().__init__()
        if width % heads:
            near = max((n for n in range(1, width + 1) if width % n == 0), key=lambda n: -abs(n - heads))
            raise ValueError(f"{heads} heads do not divide a width of {width}; the nearest number is {near}")
        drops = list(drop) if isinstance(drop, Sequence) else [drop] * depth
        if len(drops) != depth:
            raise ValueError(f"drop has {len(drops)} numbers for {depth} blocks; give {depth}, or one for all")
        for one in drops:
            if not 0 <= one < 1:
                raise ValueError(f"drop {one} is outside [0, 1); the nearest is {0 if one < 0 else 0.99}")
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.token = nn.Parameter(torch.empty(1, 1, width))
        self.places = nn.Parameter(torch.empty(1, (pixels // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_Encoder(width, heads, ratio, bias, one) for one in drops))
        self.norm, self.classifier = nn.LayerNorm(width, 1e-6), nn.Linear(width, classes)
        for tensor in (self.token, self.places, *(m.weight for m in self.modules() if isinstance(m, nn.Linear))):
            nn.init.trunc_normal_(tensor, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)  # (B, T, width)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.classifier(self.norm(self.blocks(x))[:, 0])
