"""The full-size runs of AccSS3D on the real data."""

from collections.abc import Callable

from papernets.data import SCANNET_CLASSES, scan_splits
from papernets.papers.accss3d.networks import UNet
from papernets.training import Recipe, cosine


def _scannet() -> Recipe:
    """A submanifold U-Net of seven levels on scans at 2 cm. Ours: the abstract says no more than that scenes are segmented."""
    def build():
        return UNet(tuple(16 * i for i in range(1, 8)), 3, len(SCANNET_CLASSES), repeats=2)

    return Recipe(data="scannet", build=build, epochs=200, batch=4, test_batch=1, lr=cosine(0.1, 200), weight_decay=1e-4,
                  read=scan_splits)


RECIPES: dict[str, Callable[[], Recipe]] = {"unet-scannet": _scannet}
