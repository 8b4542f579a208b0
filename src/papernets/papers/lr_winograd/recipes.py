"""The full-size runs of LR-Winograd on the real data."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from papernets.papers.lr_winograd.layers import LowRankWinograd, compact, prune_, transform_
from papernets.papers.lr_winograd.method import rate_at
from papernets.papers.lr_winograd.networks import C3D
from papernets.training import Recipe, steps


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


def _read(data: Path | None) -> tuple[ClipFolder, ClipFolder]:
    if data is None:
        raise ValueError("video clips cannot be fetched; give their folder with --data. It holds train and val, each with a "
                         "folder for each class, with clips as .npy files of uint8 (frames, height, width, 3), at least 16 "
                         "frames of 112 x 112")
    return ClipFolder(Path(data) / "train", True), ClipFolder(Path(data) / "val", False)


#: Where a recipe finds the trained spatial network: the folder that ``papernets train`` writes to by itself.
RUNS = Path("runs") / "lr-winograd"


def _recipe(config: LowRankWinograd | None, rho: float = 0.0, epochs: int = 40) -> Recipe:
    """The spatial network, or a transformed one that starts from it and loses its columns over the first half of the run."""
    def build() -> nn.Module:
        model = C3D()
        if config is not None:
            path = RUNS / "c3d-spatial-ucf101" / "best.pt"
            if not path.exists():
                raise ValueError(f"{path} is not there; the transform starts from a trained network. It is made by: "
                                 "papernets train lr-winograd --config c3d-spatial-ucf101 --data FOLDER")
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
            transform_(model, config)
        return model

    def before(model: nn.Module, epoch: int, total: int) -> None:
        if rho:
            prune_(model, rate_at(epoch, total / 2, rho), config)

    lr = steps(0.01 if config is None else 0.001, (epochs // 2, 3 * epochs // 4))
    return Recipe(data="ucf101", build=build, epochs=epochs, batch=16, lr=lr, weight_decay=5e-4 if config is None else 0.0,
                  read=_read, test_batch=16, before_epoch=before, export=None if config is None else compact)


RECIPES: dict[str, Callable[[], Recipe]] = {
    "c3d-spatial-ucf101": lambda: _recipe(None),
    "c3d-ucf101": lambda: _recipe(LowRankWinograd()),
    "c3d-vanilla-ucf101": lambda: _recipe(LowRankWinograd(mode="vanilla")),
    "c3d-half-ucf101": lambda: _recipe(LowRankWinograd(), 0.5),
    "c3d-vanilla-half-ucf101": lambda: _recipe(LowRankWinograd(mode="vanilla"), 0.5),
}
