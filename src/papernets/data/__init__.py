"""Data: small real sets that ship inside packages, and readers of the published formats of the large ones."""

from papernets.data._cifar import CIFAR10, CIFAR100, read_cifar
from papernets.data._digits import digits
from papernets.data._fetch import SOURCES, cache_folder, fetch
from papernets.data._folders import ImageFolder
from papernets.data._patches import PHOTOGRAPHS, photograph_patches, photographs
from papernets.data._split import Split

__all__ = ["CIFAR10", "CIFAR100", "PHOTOGRAPHS", "SOURCES", "ImageFolder", "Split", "cache_folder", "digits", "fetch",
           "photograph_patches", "photographs", "read_cifar"]
