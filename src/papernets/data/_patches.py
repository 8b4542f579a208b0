"""Which photograph is this patch from? Ten colour photographs that ship with scikit-image and scikit-learn.

Patches of 32×32 pixels; those for training come from the left 65 % of each photograph, those for testing from the rest,
so no pixel is shared. Real image statistics, ten classes, no download: a small stand-in for CIFAR-10.
"""

import functools

import numpy as np
import torch

from papernets.data._sklearn_files import sklearn_file
from papernets.data._split import Split

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "hubble", "ihc", "retina", "rocket", "motorcycle", "china", "flower")
LEFT = 0.65
SIZE = 32

@functools.cache
def photographs() -> dict[str, np.ndarray]:
    """The ten photographs by name, each (height, width, 3) uint8."""
    from PIL import Image
    from skimage import data  # here: importing it takes a second

    def photograph(name: str) -> np.ndarray:
        return np.asarray(Image.open(sklearn_file(f"images/{name}.jpg")))

    named = {"hubble": data.hubble_deep_field, "ihc": data.immunohistochemistry,
             "motorcycle": lambda: data.stereo_motorcycle()[0], "china": lambda: photograph("china"),
             "flower": lambda: photograph("flower")}
    found = {name: np.ascontiguousarray((named.get(name) or getattr(data, name))()) for name in PHOTOGRAPHS}
    for image in found.values():
        image.flags.writeable = False
    return found


def photograph_patches(train: int = 2000, test: int = 1000, seed: int = 0) -> tuple[Split, Split]:
    """``train`` and ``test`` patches, the classes in equal share, standardised by the training patches' statistics.

    Images are (N, 3, 32, 32), with mean 0 and standard deviation 1 per colour over the training set.
    """
    for name, size in (("train", train), ("test", test)):
        if size < 10 or size % 10:
            nearest = max(10, round(size / 10) * 10)
            raise ValueError(f"{name} is {size}; ten classes in equal share need a multiple of 10, such as {nearest}")
    rng = np.random.default_rng([seed, 20210731])
    halves = []
    for size, part in ((train, "left"), (test, "right")):
        images = np.empty((size, 3, SIZE, SIZE), np.float32)
        labels = np.arange(size) % 10
        for index, label in enumerate(labels):
            photo = photographs()[PHOTOGRAPHS[label]]
            height, width = photo.shape[:2]
            border = int(width * LEFT)
            low, high = (0, border) if part == "left" else (border, width)
            top = rng.integers(0, height - SIZE + 1)
            left = rng.integers(low, high - SIZE + 1)
            images[index] = photo[top:top + SIZE, left:left + SIZE].transpose(2, 0, 1) / 255
        halves.append((images, labels))
    mean = halves[0][0].mean((0, 2, 3), keepdims=True)
    std = halves[0][0].std((0, 2, 3), keepdims=True)
    first, second = (Split(torch.from_numpy((images - mean) / std), torch.from_numpy(labels), PHOTOGRAPHS)
                     for images, labels in halves)
    return first, second
