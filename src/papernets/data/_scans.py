"""Scans of rooms as ScanNet publishes them: a mesh of coloured vertices, and the same mesh with a label each.

A scan ``scene0000_00`` is two files in binary PLY: ``scene0000_00_vh_clean_2.ply`` (positions in metres and colours) and
``scene0000_00_vh_clean_2.labels.ply`` (the number of a class among the 40 of NYU). The benchmark counts 20 of them.
"""

from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

#: The 20 classes of the benchmark, by their numbers among NYU's 40.
SCANNET_CLASSES = {
    1: "wall", 2: "floor", 3: "cabinet", 4: "bed", 5: "chair", 6: "sofa", 7: "table", 8: "door", 9: "window",
    10: "bookshelf", 11: "picture", 12: "counter", 14: "desk", 16: "curtain", 24: "refrigerator", 28: "shower curtain",
    33: "toilet", 34: "sink", 36: "bathtub", 39: "other furniture",
}  # fmt: skip
IGNORED = -100
_MESH, _LABELS = "_vh_clean_2.ply", "_vh_clean_2.labels.ply"
_TYPES = {"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
          "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
          "double": "f8", "float64": "f8"}


def read_ply(path: str | Path) -> np.ndarray:
    """The vertices of a binary PLY file, as a structured array with the properties' own names."""
    path = Path(path)
    content = path.read_bytes()
    end = content.find(b"end_header")
    if not content.startswith(b"ply") or end < 0:
        raise ValueError(f"{path} is not a PLY file: it begins with 'ply' and its head ends with 'end_header'; fetch it again")
    body = content.index(b"\n", end) + 1 if b"\n" in content[end:] else len(content)
    order, count, fields, inside = None, None, [], False
    for line in content[:end].decode("ascii", "replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(words[1])
        elif words[:1] == ["element"]:
            if words[1] != "vertex" and count is None:
                raise ValueError(f"{path} has {words[1]!r} before its vertices; vertices come first in a scan")
            inside = words[1] == "vertex"
            count = int(words[2]) if inside else count
        elif words[:1] == ["property"] and inside:
            if words[1] not in _TYPES:
                raise ValueError(f"{path} has a vertex property of type {words[1]!r}; numbers are expected")
            fields.append((words[2], words[1]))
    if order is None:
        raise ValueError(f"{path} is not binary PLY; scans are published as binary_little_endian")
    kind = np.dtype([(name, order + _TYPES[type_]) for name, type_ in fields])
    if count is None or len(content) - body < count * kind.itemsize:
        raise ValueError(f"{path} is cut short: {count} vertices of {kind.itemsize} bytes are promised, "
                         f"{len(content) - body} bytes follow; fetch it again")
    return np.frombuffer(content, kind, count, body)


class Scans(Dataset):
    """The scans of a folder, brought to voxels of ``size`` metres.

    A scan gives its points (N, 7), each a batch number of 0, z, y, x and a colour from -1 to 1, and labels (N,) from 0 to 19,
    or -100 where a vertex belongs to no class of the benchmark. Of the vertices in a voxel the first one counts. In training
    a scan is turned about the vertical and mirrored at random.
    """

    def __init__(self, root: str | Path, train: bool, size: float = 0.02):
        self.root, self.train, self.size = Path(root), train, size
        self.classes = tuple(SCANNET_CLASSES.values())
        if not self.root.is_dir():
            raise ValueError(f"{self.root} is not a folder; it must hold scans such as scene0000_00{_MESH}")
        self.files = sorted(self.root.rglob(f"*{_MESH}"))
        if not self.files:
            raise ValueError(f"{self.root} holds no scan; one is scene0000_00{_MESH} with scene0000_00{_LABELS} beside it")
        for file in self.files:
            if not self._labels(file).exists():
                raise ValueError(f"{self._labels(file)} is missing beside {file.name}; fetch it again")

    @staticmethod
    def _labels(file: Path) -> Path:
        return file.with_name(file.name.removesuffix(_MESH) + _LABELS)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        file = self.files[index]
        mesh, names = read_ply(file), read_ply(self._labels(file))
        for name, found, wanted in ((file, mesh, "xyz"), (self._labels(file), names, ("label",))):
            if missing := [field for field in wanted if field not in found.dtype.names]:
                raise ValueError(f"{name} has no vertex property {missing[0]!r}; it has {', '.join(found.dtype.names)}")
        if len(mesh) != len(names):
            raise ValueError(f"{file.name} has {len(mesh)} vertices and its labels {len(names)}; fetch both again")
        place = np.stack([mesh["z"], mesh["y"], mesh["x"]], 1).astype(np.float64)
        if self.train:
            angle = float(torch.rand(())) * 2 * np.pi
            turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
            place[:, 1:] = place[:, 1:] @ turn * (1, -1 if torch.rand(()) < 0.5 else 1)
        cells = np.floor(place / self.size).astype(np.int64)
        cells -= cells.min(0)
        cells, first = np.unique(cells, axis=0, return_index=True)
        colour = np.stack([mesh[name][first] for name in ("red", "green", "blue")], 1) / 127.5 - 1
        rows = np.concatenate([np.zeros((len(cells), 1)), cells, colour], 1).astype(np.float32)
        number = np.full(1 + max(40, int(names["label"].max())), IGNORED)
        number[list(SCANNET_CLASSES)] = np.arange(len(SCANNET_CLASSES))
        return torch.from_numpy(rows), torch.from_numpy(number[names["label"][first]])


class _Batches(Dataset):
    """Scans as a loader takes them: a list of numbers gives one batch. Files are read one by one."""

    def __init__(self, scans: Scans):
        self.images, self.classes = scans, scans.classes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self.images[i] for i in np.atleast_1d(index)]
        for number, (rows, _) in enumerate(parts):
            rows[:, 0] = number
        return torch.cat([rows for rows, _ in parts]), torch.cat([labels for _, labels in parts])


def scan_splits(root: str | Path | None) -> tuple[Dataset, Dataset]:
    """The scans of ``root/train`` and ``root/val``, ready for a loader."""
    if root is None:
        raise ValueError("scannet cannot be fetched, its owners ask for a signature (www.scan-net.org); give its folder with "
                         f"--data: it holds train and val, and these the scans, such as scene0000_00{_MESH}")
    return _Batches(Scans(Path(root) / "train", True)), _Batches(Scans(Path(root) / "val", False))
