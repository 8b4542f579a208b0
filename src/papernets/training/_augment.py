"""Changing training images at random: crops, AutoAugment, RandAugment, erased rectangles, mixtures of two images.

Functions on batches change tensors where they are; AutoAugment and RandAugment change pictures one by one, in the workers that
read them.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from papernets.data import Split


def crop_and_flip(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """A random crop after padding by ``pad`` zeros, and a random mirror image; each image of the batch its own."""
    count, _, height, width = images.shape
    padded = F.pad(images, (pad,) * 4)
    top = torch.randint(0, 2 * pad + 1, (count, 1), device=images.device)
    left = torch.randint(0, 2 * pad + 1, (count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)  # (B, h)
    columns = left + torch.arange(width, device=images.device)  # (B, w)
    flip = torch.rand(count, 1, device=images.device) < 0.5
    columns = torch.where(flip, columns.flip(1), columns)
    batch = torch.arange(count, device=images.device)[:, None, None]
    return padded[batch, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)  # (B, c, h, w)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures
# ---------------------------------------------------------------------------------------------------------------------

_GREY = (128, 128, 128)


def _moved(image: Image.Image, *matrix: float) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=_GREY)


#: The operations, by name: what they do to a picture at a strength from 0 to 9, ``sign`` being 1 or -1.
OPERATIONS: dict[str, Callable[[Image.Image, float, int], Image.Image]] = {
    "shear x": lambda image, m, sign: _moved(image, 1, sign * 0.3 * m / 9, 0, 0, 1, 0),
    "shear y": lambda image, m, sign: _moved(image, 1, 0, 0, sign * 0.3 * m / 9, 1, 0),
    "move x": lambda image, m, sign: _moved(image, 1, 0, sign * 150 / 331 * m / 9 * image.width, 0, 1, 0),
    "move y": lambda image, m, sign: _moved(image, 1, 0, 0, 0, 1, sign * 150 / 331 * m / 9 * image.height),
    "rotate": lambda image, m, sign: image.rotate(sign * 30 * m / 9, Image.Resampling.BICUBIC, fillcolor=_GREY),
    "colour": lambda image, m, sign: ImageEnhance.Color(image).enhance(1 + sign * 0.9 * m / 9),
    "brightness": lambda image, m, sign: ImageEnhance.Brightness(image).enhance(1 + sign * 0.9 * m / 9),
    "contrast": lambda image, m, sign: ImageEnhance.Contrast(image).enhance(1 + sign * 0.9 * m / 9),
    "sharpness": lambda image, m, sign: ImageEnhance.Sharpness(image).enhance(1 + sign * 0.9 * m / 9),
    "posterise": lambda image, m, sign: ImageOps.posterize(image, 8 - round(4 * m / 9)),
    "solarise": lambda image, m, sign: ImageOps.solarize(image, round(255 - 255 * m / 9)),
    "autocontrast": lambda image, m, sign: ImageOps.autocontrast(image),
    "equalise": lambda image, m, sign: ImageOps.equalize(image),
    "invert": lambda image, m, sign: ImageOps.invert(image),
}

#: Pairs of operations, each with its probability and its strength, that were found by search on CIFAR-10. Cubuk, Zoph, Mané,
#: Vasudevan, Le, "AutoAugment: Learning Augmentation Policies from Data", arXiv 1805.09501, appendix.
CIFAR10_POLICY = (
    (("invert", 0.1, 0), ("contrast", 0.2, 6)), (("rotate", 0.7, 2), ("move x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)), (("shear y", 0.5, 8), ("move y", 0.7, 9)),
    (("autocontrast", 0.5, 0), ("equalise", 0.9, 0)), (("shear y", 0.2, 7), ("posterise", 0.3, 7)),
    (("colour", 0.4, 3), ("brightness", 0.6, 7)), (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalise", 0.6, 0), ("equalise", 0.5, 0)), (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("colour", 0.7, 7), ("move x", 0.5, 8)), (("equalise", 0.3, 0), ("autocontrast", 0.4, 0)),
    (("move y", 0.4, 3), ("sharpness", 0.2, 6)), (("brightness", 0.9, 6), ("colour", 0.2, 8)),
    (("solarise", 0.5, 2), ("invert", 0.0, 0)), (("equalise", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalise", 0.2, 0), ("equalise", 0.6, 0)), (("colour", 0.9, 9), ("equalise", 0.6, 0)),
    (("autocontrast", 0.8, 0), ("solarise", 0.2, 8)), (("brightness", 0.1, 3), ("colour", 0.7, 0)),
    (("solarise", 0.4, 5), ("autocontrast", 0.9, 0)), (("move y", 0.9, 9), ("move y", 0.7, 9)),
    (("autocontrast", 0.9, 0), ("solarise", 0.8, 3)), (("equalise", 0.8, 0), ("invert", 0.1, 0)),
    (("move y", 0.7, 9), ("autocontrast", 0.9, 0)),
)  # fmt: skip


def auto_augment(image: Image.Image, policy=CIFAR10_POLICY) -> Image.Image:
    """A random pair of ``policy``, each of its two operations with its own probability, either way round at random."""
    for name, chance, strength in policy[int(torch.randint(len(policy), ()))]:
        draw, sign = torch.rand(2).tolist()
        if draw < chance:
            image = OPERATIONS[name](image, strength, 1 if sign < 0.5 else -1)
    return image


#: The operations of ``rand_augment``: those of AutoAugment, with two that go further at the same strength.
RANDOM_OPERATIONS = OPERATIONS | {
    "posterise": lambda image, m, sign: image.point(3 * [v & -16 << int(4 * m / 9) for v in range(256)]),  # 4 to 0 bits
    "solarise a part": lambda image, m, sign: image.point(3 * [v + int(110 * m / 9) if v < 128 else v for v in range(256)]),
}


def rand_augment(image: Image.Image, count: int = 2, strength: float = 9.0, spread: float = 0.5,
                 chance: float = 0.5) -> Image.Image:
    """``count`` random operations, each of which happens with probability ``chance``; ``strength`` is out of 10.

    The strength is drawn anew for each, from a normal distribution with the standard deviation ``spread``. The two
    probabilities are those with which vision transformers are trained; the paper has neither. Cubuk, Zoph, Shlens, Le,
    "RandAugment: Practical automated data augmentation with a reduced search space", arXiv 1909.13719.
    """
    names = list(RANDOM_OPERATIONS)
    for index in torch.randint(len(names), (count,)).tolist():
        draw, sign = torch.rand(2).tolist()
        drawn = min(max(strength + spread * float(torch.randn(())), 0), 10)
        if draw < chance:
            image = RANDOM_OPERATIONS[names[index]](image, 0.9 * drawn, 1 if sign < 0.5 else -1)
    return image


class Pictures(Dataset):
    """The images of ``data``, standardised by ``mean`` and ``std`` per colour, each changed as a picture when it is read."""

    def __init__(self, data: Split, mean, std, change: Callable[[Image.Image], Image.Image] = auto_augment):
        self.data, self.change = data, change
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        pixels, label = self.data[index]
        pixels = ((pixels * self.std + self.mean) * 255).round().clamp(0, 255).to(torch.uint8)
        picture = self.change(Image.fromarray(pixels.permute(1, 2, 0).numpy()))
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255
        return (pixels - self.mean) / self.std, label


class RepeatedSampler(Sampler[int]):
    """A random part of ``data`` with every index ``repeats`` times in a row; as many indices in all as there are data.

    A batch then holds an image in several random forms. Hoffer, Ben-Nun, Hubara, Giladi, Hoefler, Soudry, "Augment your batch",
    CVPR 2020.
    """

    def __init__(self, data: Dataset, repeats: int):
        if repeats < 1:
            raise ValueError(f"repeats is {repeats}; the smallest is 1")
        self.length, self.repeats = len(data), repeats

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.length).repeat_interleave(self.repeats)
        return iter(order[:self.length].tolist())


# ---------------------------------------------------------------------------------------------------------------------
# Batches
# ---------------------------------------------------------------------------------------------------------------------


def erase(images: torch.Tensor, chance: float = 0.25, areas: tuple[float, float] = (0.02, 0.4),
          ratio: float = 0.3, noise: bool = False) -> torch.Tensor:
    """Rectangles of 0, the mean colour of standardised images, in a share ``chance`` of ``images`` (B, c, h, w).

    With ``noise`` they are filled with numbers from a standard normal distribution instead. Their share of the image lies in
    ``areas`` and their height over their width between ``ratio`` and 1 / ``ratio``. Zhong, Zheng, Kang, Li, Yang, "Random
    Erasing Data Augmentation", arXiv 1708.04896.
    """
    images, (height, width) = images.clone(), images.shape[2:]
    for at in torch.where(torch.rand(len(images)) < chance)[0].tolist():
        for _ in range(100):  # as in the paper: until one fits
            area = height * width * float(torch.empty(()).uniform_(*areas))
            shape = float(torch.empty(()).uniform_(ratio, 1 / ratio))
            h, w = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
            if 0 < h < height and 0 < w < width:
                top, left = int(torch.randint(height - h + 1, ())), int(torch.randint(width - w + 1, ()))
                part = images[at, :, top:top + h, left:left + w]
                part.copy_(torch.randn_like(part) if noise else torch.zeros_like(part))
                break
    return images


_COLOURS = torch.tensor([[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]])
_SPREAD, _STD = torch.tensor([0.2175, 0.0188, 0.0045]), torch.tensor([0.229, 0.224, 0.225])


def lighting(images: torch.Tensor, strength: float = 0.1) -> torch.Tensor:
    """A random constant colour added to each standardised image (B, 3, h, w), along the principal colours of ImageNet.

    Krizhevsky, Sutskever, Hinton, "ImageNet Classification with Deep Convolutional Neural Networks", NIPS 2012, section 4.1.
    """
    draw = torch.randn(len(images), 3) * strength  # (B, 3)
    colour = (draw * _SPREAD) @ _COLOURS.T / _STD
    return images + colour.to(images)[:, :, None, None]


def mixup(images: torch.Tensor, order: torch.Tensor, share: float) -> torch.Tensor:
    """``share`` of every image, and the rest of the image that stands at its place in ``order`` (B,).

    Zhang, Cissé, Dauphin, Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", arXiv 1710.09412.
    """
    return share * images + (1 - share) * images[order]


def cutmix(images: torch.Tensor, order: torch.Tensor, share: float) -> tuple[torch.Tensor, float]:
    """Images with a rectangle, of an area of 1 - ``share``, from those in ``order`` (B,); and the share that is left in fact.

    The rectangle's centre is drawn anywhere in the image, so a part of it may lie outside. Yun, Han, Oh, Chun, Choe, Yoo,
    "CutMix: Regularization Strategy to Train Strong Classifiers with Localizable Features", arXiv 1905.04899.
    """
    height, width = images.shape[2:]
    side = math.sqrt(1 - share)
    sides = []
    for whole in (height, width):
        middle, cut = int(torch.randint(whole, ())), int(whole * side)
        sides.append((max(middle - cut // 2, 0), min(middle + cut // 2, whole)))
    (top, bottom), (left, right) = sides
    images = images.clone()
    images[:, :, top:bottom, left:right] = images[order][:, :, top:bottom, left:right]
    return images, 1 - (bottom - top) * (right - left) / (height * width)


def mixed(images: torch.Tensor, labels: torch.Tensor, chance: float = 0.5,
          alpha: tuple[float, float] = (1.0, 1.0)) -> tuple[torch.Tensor, torch.Tensor, float]:
    """A batch of which, with probability ``chance``, every image is mixed with another: by ``mixup`` or by ``cutmix``.

    Returns the images, the labels (B,) of the others, and the share that is left of the first. The share of the one and of the
    other kind is drawn from a symmetric beta distribution with these ``alpha``; at 1 it is drawn evenly.
    """
    order = torch.randperm(len(images), device=images.device)
    how, whether = torch.rand(2).tolist()
    share = float(torch.distributions.Beta(*[alpha[how >= 0.5]] * 2).sample())
    if whether >= chance:
        return images, labels, 1.0
    if how < 0.5:
        return mixup(images, order, share), labels[order], share
    images, share = cutmix(images, order, share)
    return images, labels[order], share


def mixing(loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], chance: float = 0.5,
           alpha: tuple[float, float] = (1.0, 1.0)) -> Callable[[nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]:
    """A training step on ``mixed`` images: ``loss(outputs, labels)`` of the one and of the other labels, by their shares."""
    def step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        images, others, share = mixed(images, labels, chance, alpha)
        outputs = model(images)
        return share * loss(outputs, labels) + (1 - share) * loss(outputs, others)

    return step
