"""PASCAL VOC, with boxes or with a class for every pixel, and the further masks of SBD, as they are published.

Everingham, Van Gool, Williams, Winn, Zisserman, "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010; Hariharan,
Arbeláez, Bourdev, Maji, Malik, "Semantic Contours from Inverse Detectors", ICCV 2011.

``VOCdevkit/VOC2007`` and ``VOCdevkit/VOC2012`` hold ``JPEGImages``, ``Annotations`` (boxes, XML), ``SegmentationClass``
(masks, PNG with a palette) and ``ImageSets`` (lists of names). ``benchmark_RELEASE/dataset`` holds SBD: ``img``, ``cls``
(masks, MATLAB) and the lists ``train.txt`` and ``val.txt``.
"""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch.utils.data import Dataset

VOC_CLASSES = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
               "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor")
#: The value of a pixel that no score counts: the border of an object.
VOID = 255
_GREY = (128, 128, 128)


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _open(path: Path, mode: str | None = "RGB") -> Image.Image:
    try:
        with Image.open(path) as opened:
            return opened.convert(mode) if mode else opened.copy()
    except FileNotFoundError:
        raise ValueError(f"{path} is not there, but is in the list of images; unpack the data set again") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: not a readable image ({error}); unpack the data set again") from None


def _names(path: Path) -> list[str]:
    try:
        found = path.read_text(encoding="ascii").split()
    except FileNotFoundError:
        raise ValueError(f"{path} is not there; the folder above VOCdevkit is needed, with the sets unpacked into it") from None
    if not found:
        raise ValueError(f"{path} is empty; unpack the data set again")
    return found


def _devkit(root: str | Path) -> Path:
    """VOCdevkit itself, given it or the folder above."""
    root = Path(root)
    return root if root.name == "VOCdevkit" else root / "VOCdevkit"


def _tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # (3, h, w)


class _Place:
    """Where an image comes to lie in a square of ``size``: its new width and height, its corner, and whether it is mirrored.

    In training the size is 0.25 to 2 times that of the square, the ratio of the sides changes by up to 0.7 / 1.3 either way,
    and the place is drawn at random; what lies outside is cut off. Otherwise the image is as large as fits, and in the middle.
    """

    def __init__(self, width: int, height: int, size: int, train: bool):
        self.size, self.mirrored = size, False
        if train:
            ratio = width / height * _uniform(0.7, 1.3) / _uniform(0.7, 1.3)
            long = _uniform(0.25, 2) * size
            self.width, self.height = (int(long * ratio), int(long)) if ratio < 1 else (int(long), int(long / ratio))
            self.width, self.height = max(self.width, 1), max(self.height, 1)
            self.left, self.top = (int(_uniform(0, size - side)) for side in (self.width, self.height))
            self.mirrored = bool(torch.rand(()) < 0.5)
        else:
            scale = min(size / width, size / height)
            self.width, self.height = max(int(width * scale), 1), max(int(height * scale), 1)
            self.left, self.top = (size - self.width) // 2, (size - self.height) // 2

    def put(self, image: Image.Image, fill, resample: Image.Resampling) -> Image.Image:
        made = Image.new(image.mode, (self.size, self.size), fill)
        made.paste(image.resize((self.width, self.height), resample), (self.left, self.top))
        return made.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.mirrored else made

    def boxes(self, boxes: torch.Tensor, width: int, height: int) -> torch.Tensor:
        """``boxes`` (N, 4) of the image of that width and height, moved with it and cut off at the square's border."""
        scale = boxes.new_tensor([self.width / width, self.height / height]).repeat(2)
        boxes = boxes * scale + boxes.new_tensor([self.left, self.top]).repeat(2)
        if self.mirrored:
            boxes = torch.stack([self.size - boxes[:, 2], boxes[:, 1], self.size - boxes[:, 0], boxes[:, 3]], 1)
        return boxes.clamp(0, self.size)


def _jitter(image: Image.Image, hue: float = 0.1, saturation: float = 0.7, value: float = 0.4) -> Image.Image:
    """Hue, saturation and value times a random factor each, up to so much away from 1."""
    by = [1 + _uniform(-one, one) for one in (hue, saturation, value)]
    steps = np.arange(256)
    table = np.concatenate([steps * by[0] % 256, np.clip(steps * by[1], 0, 255), np.clip(steps * by[2], 0, 255)])
    return image.convert("HSV").point(table.astype(np.uint8).tolist()).convert("RGB")


class VOCDetection(Dataset):
    """Images and the boxes of their objects, of the sets ``parts``, each a year and one of train, val, trainval and test.

    In training an image is scaled, stretched, moved, mirrored and tinted at random in a square of ``size``, and objects that
    are marked as difficult are left out. Otherwise its short side becomes ``size``. Gives the image (3, h, w), from 0 to 1, and
    ``boxes`` (N, 4) in its pixels, ``labels`` (N,) and ``difficult`` (N,).
    """

    def __init__(self, root: str | Path, parts: Sequence[tuple[str, str]], train: bool, size: int = 600):
        self.root, self.train, self.size, self.classes = _devkit(root), train, size, VOC_CLASSES
        self.files = [(self.root / f"VOC{year}", name) for year, part in parts
                       for name in _names(self.root / f"VOC{year}" / "ImageSets" / "Main" / f"{part}.txt")]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        folder, name = self.files[index]
        image = _open(folder / "JPEGImages" / f"{name}.jpg")
        boxes, labels, difficult = self._objects(folder / "Annotations" / f"{name}.xml")
        if self.train:
            place = _Place(*image.size, self.size, True)
            moved = place.boxes(boxes, *image.size)
            image = _jitter(place.put(image, _GREY, Image.Resampling.BICUBIC))
            kept = ~difficult & (moved[:, 2] - moved[:, 0] > 1) & (moved[:, 3] - moved[:, 1] > 1)
            return _tensor(image), {"boxes": moved[kept], "labels": labels[kept], "difficult": difficult[kept]}
        scale = self.size / min(image.size)
        width, height = (self.size if side == min(image.size) else int(side * scale) for side in image.size)
        boxes = boxes * boxes.new_tensor([width / image.width, height / image.height]).repeat(2)
        image = image.resize((width, height), Image.Resampling.BICUBIC)
        return _tensor(image), {"boxes": boxes, "labels": labels, "difficult": difficult}

    @staticmethod
    def _objects(path: Path) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        try:
            tree = ElementTree.parse(path)
            rows = [(VOC_CLASSES.index(one.findtext("name")), one.findtext("difficult") == "1",
                     [float(one.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")])
                    for one in tree.iter("object")]
        except FileNotFoundError:
            raise ValueError(f"{path} is not there, but is in the list of images; unpack the data set again") from None
        except (ElementTree.ParseError, ValueError, TypeError) as error:
            raise ValueError(f"{path}: not a readable list of objects ({error}); unpack the data set again") from None
        return (torch.tensor([box for _, _, box in rows]).view(-1, 4), torch.tensor([kind for kind, _, _ in rows]).long(),
                torch.tensor([hard for _, hard, _ in rows], dtype=torch.bool))

    @staticmethod
    def collate(batch: list) -> tuple[torch.Tensor, list[dict[str, torch.Tensor]]]:
        images, truth = zip(*batch)
        return torch.stack(images), list(truth)


class VOCSegmentation(Dataset):
    """Images and the class of every pixel: 0 the background, 1 to 20 the classes, 255 not counted.

    In training the images are those of VOC 2012 and, with ``sbd``, those of SBD, without any that belongs to ``val``: 10 582 if
    the sets are whole. They are scaled, stretched, moved, mirrored and tinted at random in a square of ``size``; the mask of
    what lies outside an image is background. Otherwise they are those of ``val``, as large as fits and in the middle of the
    square. Gives the image (3, size, size), from 0 to 1, and in training its mask (size, size); otherwise ``mask`` (h, w) of
    the image as it is, and ``window``, the rows and columns of the square in which it lies (top, bottom, left, right).
    """

    def __init__(self, root: str | Path, train: bool, size: int = 473, sbd: bool = True):
        self.root, self.train, self.size, self.classes = _devkit(root), train, size, ("background", *VOC_CLASSES)
        folder = self.root / "VOC2012"
        lists = folder / "ImageSets" / "Segmentation"
        val = _names(lists / "val.txt")
        mine = _names(lists / "train.txt") if train else val
        self.files = [(folder / "JPEGImages" / f"{name}.jpg", folder / "SegmentationClass" / f"{name}.png") for name in mine]
        if train and sbd:
            more = self.root.parent / "benchmark_RELEASE" / "dataset"
            names = sorted({*_names(more / "train.txt"), *_names(more / "val.txt")} - {*val, *mine})
            self.files += [(more / "img" / f"{name}.jpg", more / "cls" / f"{name}.mat") for name in names]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int):
        path, marked = self.files[index]
        image, mask = _open(path), self._mask(marked)
        if mask.size != image.size:
            raise ValueError(f"{marked} has {mask.size[0]} by {mask.size[1]} pixels and its image {image.size[0]} by "
                             f"{image.size[1]}; unpack the data set again")
        place = _Place(*image.size, self.size, self.train)
        image = place.put(image, _GREY, Image.Resampling.BICUBIC)
        if self.train:
            mask = np.array(place.put(mask, 0, Image.Resampling.NEAREST))
            return _tensor(_jitter(image, value=0.3)), torch.from_numpy(mask).long()
        window = (place.top, place.top + place.height, place.left, place.left + place.width)
        return _tensor(image), {"mask": torch.from_numpy(np.array(mask)).long(), "window": window}

    @staticmethod
    def _mask(path: Path) -> Image.Image:
        if path.suffix == ".png":
            mask = _open(path, None)
            if mask.mode not in ("P", "L"):
                raise ValueError(f"{path} has mode {mask.mode}; a mask is a PNG whose palette's numbers are the classes")
            mask = Image.fromarray(np.array(mask))
        else:
            if not path.exists():
                raise ValueError(f"{path} is not there, but is in the list of images; unpack the data set again")
            from scipy.io import loadmat  # here: importing it takes half a second
            try:
                mask = Image.fromarray(loadmat(path)["GTcls"]["Segmentation"][0, 0].astype(np.uint8))
            except Exception as error:  # a damaged file can make loadmat raise anything
                raise ValueError(f"{path}: not a readable mask ({error}); unpack the data set again") from None
        values = np.array(mask)
        high = values[values != VOID].max(initial=0)
        if high > len(VOC_CLASSES):
            raise ValueError(f"{path} holds class {high}; there are {len(VOC_CLASSES)}, and {VOID} for what does not count")
        return mask

    @staticmethod
    def collate(batch: list) -> tuple[torch.Tensor, torch.Tensor | list[dict]]:
        images, truth = zip(*batch)
        return torch.stack(images), torch.stack(truth) if isinstance(truth[0], torch.Tensor) else list(truth)
