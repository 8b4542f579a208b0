"""Clips: digits that move, made from the real ones, and folders of real clips in a published form."""

from pathlib import Path

import numpy as np
import torch

from papernets.data._digits import digits
from papernets.data._split import Split

#: One pixel a frame, down, up, right and left; the label of a clip.
MOVES = ((1, 0), (-1, 0), (0, 1), (0, -1))


def moving_digits(train: int = 480, test: int = 400, seed: int = 0, frames: int = 8, side: int = 16,
          noise: float = 0.3) -> tuple[Split, Split]:
    """Clips (1, ``frames``, ``side``, ``side``) of one digit that moves over a torus in one of four directions, with noise.

    No digit is both in a clip for training and in one for the test.
    """
    draw = np.random.default_rng([seed, 20230126])
    names, found = ("down", "up", "right", "left"), []
    for split, number in zip(digits(1000, seed), (train, test)):
        which, labels = draw.integers(0, len(split), number), draw.integers(0, 4, number)
        corner = draw.integers(0, side, (number, 2))
        videos = draw.normal(0, noise, (number, 1, frames, side, side)).astype(np.float32)
        for video, one, label, at in zip(videos, which, labels, corner):
            for frame in range(frames):
                y, x = at + frame * np.array(MOVES[label])
                video[0, frame][np.ix_((y + np.arange(8)) % side, (x + np.arange(8)) % side)] += split.images[one, 0].numpy()
        found.append(Split(torch.from_numpy(videos), torch.from_numpy(labels.astype(np.int64)), names))
    return found[0], found[1]


class ClipFolder:
    """Clips of a folder: a folder for each class, with files ``.npy`` of uint8 (frames, height, width, 3).

    Of each file 16 frames are read, of 112 × 112 points from its middle; for training they begin anywhere, and half of them are
    mirrored.
    """

    def __init__(self, folder: Path, train: bool, frames: int = 16, side: int = 112):
        if not folder.is_dir():
            raise ValueError(f"{folder} is not there; it holds a folder for each class with clips as .npy files")
        self.classes = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir()))
        self.files = [(path, label) for label, name in enumerate(self.classes)
                      for path in sorted((folder / name).glob("*.npy"))]
        self.train, self.frames, self.side = train, frames, side
        if not self.files:
            raise ValueError(f"{folder} has no .npy file in a folder of a class")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        path, label = self.files[index]
        video = np.load(path, mmap_mode="r")
        spare = [video.shape[0] - self.frames, video.shape[1] - self.side, video.shape[2] - self.side]
        if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or min(spare) < 0:
            raise ValueError(f"{path} holds {video.dtype} of shape {video.shape}; a clip is uint8 of at least "
                             f"({self.frames}, {self.side}, {self.side}, 3)")
        first = int(torch.randint(spare[0] + 1, ())) if self.train else spare[0] // 2
        y, x = spare[1] // 2, spare[2] // 2
        part = torch.from_numpy(video[first:first + self.frames, y:y + self.side, x:x + self.side].copy())
        clip = part.permute(3, 0, 1, 2).float() / 127.5 - 1
        return (clip.flip(3) if self.train and torch.rand(()) < 0.5 else clip), label


def clip_folders(data: Path | None) -> tuple[ClipFolder, ClipFolder]:
    if data is None:
        raise ValueError("video clips cannot be fetched; give their folder with --data. It holds train and val, each with a "
                         "folder for each class, with clips as .npy files of uint8 (frames, height, width, 3), at least 16 "
                         "frames of 112 x 112")
    return ClipFolder(Path(data) / "train", True), ClipFolder(Path(data) / "val", False)
