"""A labelled set of images held in memory."""

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Split:
    """``images`` (N, channels, height, width) float32, ``labels`` (N,) int64, and the names of the classes."""

    images: torch.Tensor
    labels: torch.Tensor
    classes: tuple[str, ...]

    def __post_init__(self):
        if len(self.images) != len(self.labels):
            raise ValueError(f"{len(self.images)} images and {len(self.labels)} labels: the numbers must be equal")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index):
        """Images and labels of one index, a slice or a list of indices."""
        return self.images[index], self.labels[index]
