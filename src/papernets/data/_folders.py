"""Images in one folder a class, as ImageNet is published once unpacked."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

_KINDS = {".jpg", ".jpeg", ".png"}
_MEAN = torch.tensor((0.485, 0.456, 0.406)).view(3, 1, 1)
_STD = torch.tensor((0.229, 0.224, 0.225)).view(3, 1, 1)


class ImageFolder(Dataset):
    """Images below ``root/<class>/``; classes in the order of their names. What is hidden (``.ipynb_checkpoints``) is left out.

    For training, a random part of 8 to 100 % of the area and a random mirror image, and then ``change``; otherwise the middle
    of the image whose short side was brought to 256/224 of ``size``. Gives (3, size, size) float32, standardised, and the
    label.
    """

    def __init__(self, root: str | Path, train: bool, size: int = 224, *,
                 change: Callable[[Image.Image], Image.Image] | None = None,
                 resampling: Image.Resampling = Image.Resampling.BILINEAR):
        self.root, self.train, self.size, self.change, self.resampling = Path(root), train, size, change, resampling
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is not a folder; it must hold one folder of images a class")
        self.classes = tuple(sorted(path.name for path in self.root.iterdir() if path.is_dir() and not _hidden(path.name)))
        self.files = [(path, label) for label, name in enumerate(self.classes)
                      for path in sorted((self.root / name).rglob("*"))
                      if path.suffix.lower() in _KINDS and not any(map(_hidden, path.relative_to(self.root).parts))]
        if not self.files:
            raise ValueError(f"{self.root} holds no folder with {', '.join(sorted(_KINDS))} images")
        present = {label for _, label in self.files}
        for label, name in enumerate(self.classes):
            if label not in present:
                raise ValueError(f"{self.root / name} holds no {', '.join(sorted(_KINDS))} image; every class needs one")

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        path, label = self.files[index]
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            raise ValueError(f"{path}: not a readable image ({error}); fetch it again") from None
        image = self._random_part(image) if self.train else self._middle(image)
        if self.train and self.change is not None:
            image = self.change(image)
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, size, size)
        return (pixels - _MEAN) / _STD, label

    def _random_part(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        box = (0, 0, width, height)
        for _ in range(10):  # as the field does it: ten tries for a part that fits, else the whole image
            area = width * height * float(torch.empty(()).uniform_(0.08, 1))
            ratio = float(torch.empty(()).uniform_(np.log(3 / 4), np.log(4 / 3)).exp())
            w, h = round((area * ratio) ** 0.5), round((area / ratio) ** 0.5)
            if 0 < w <= width and 0 < h <= height:
                left = int(torch.randint(0, width - w + 1, ()))
                top = int(torch.randint(0, height - h + 1, ()))
                box = (left, top, left + w, top + h)
                break
        image = image.resize((self.size, self.size), self.resampling, box=box)
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if torch.rand(()) < 0.5 else image

    def _middle(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        side = min(width, height) * 224 / 256
        left, top = (width - side) / 2, (height - side) / 2
        return image.resize((self.size, self.size), self.resampling, box=(left, top, left + side, top + side))


def image_folders(folder: str | Path | None, name: str, size: int = 224, **options) -> tuple[ImageFolder, ImageFolder]:
    """The training and the test set ``name``, which lie in ``train`` and ``val`` below ``folder``.

    ``options`` are those of ``ImageFolder``. Raises ``ValueError`` where no folder is given, since these data cannot be
    fetched, or where the two have other classes: their labels would not mean the same.
    """
    if folder is None:
        raise ValueError(f"{name} cannot be fetched; give its folder with --data (it holds train and val)")
    train, val = (ImageFolder(Path(folder) / part, part == "train", size, **options) for part in ("train", "val"))
    if train.classes != val.classes:
        only = sorted(set(train.classes) ^ set(val.classes))
        where = "train" if only[0] in train.classes else "val"
        raise ValueError(f"{folder}: only {where} has the class {only[0]!r}; train and val must have the same classes")
    return train, val


def _hidden(name: str) -> bool:
    return name.startswith(".")
