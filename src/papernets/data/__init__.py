"""Data: small real sets that ship inside packages, and readers of the published formats of the large ones."""

from papernets.data._cifar import CIFAR10, CIFAR100, read_cifar
from papernets.data._clips import MOVES, ClipFolder, clip_folders, moving_digits
from papernets.data._digits import digits
from papernets.data._fetch import SOURCES, cache_folder, fetch, fetch_unpacked
from papernets.data._folders import ImageFolder, image_folders
from papernets.data._patches import PHOTOGRAPHS, photograph_patches, photographs
from papernets.data._rooms import ROOM_CLASSES, Room, Rooms, corner_room, points, room
from papernets.data._scans import SCANNET_CLASSES, Scans, read_ply, scan_splits
from papernets.data._split import Split
from papernets.data._voc import VOC_CLASSES, VOID, VOCDetection, VOCSegmentation

__all__ = ["CIFAR10", "CIFAR100", "MOVES", "PHOTOGRAPHS", "ROOM_CLASSES", "SCANNET_CLASSES", "SOURCES", "VOC_CLASSES", "VOID",
           "ClipFolder", "ImageFolder", "Room", "Rooms", "Scans", "Split", "VOCDetection", "VOCSegmentation", "cache_folder",
           "clip_folders", "corner_room", "digits", "fetch", "fetch_unpacked", "image_folders", "moving_digits",
           "photograph_patches", "photographs", "points", "read_cifar", "read_ply", "room", "scan_splits"]
