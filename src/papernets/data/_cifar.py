"""CIFAR-10 and CIFAR-100 from their published binary archives.

Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009. An archive is read in place and never unpacked:
a record is one label byte (CIFAR-100: a coarse and a fine one) and 3072 bytes of pixels, red, green, blue, row by row.
"""

import gzip
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from papernets.data._archive import DAMAGED, check_members
from papernets.data._fetch import fetch
from papernets.data._split import Split


@dataclass(frozen=True)
class CIFAR:
    """One of the two sets: the folder inside its archive, the batches, the label bytes, and the pixel statistics."""

    name: str
    folder: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    names: str
    label_bytes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


CIFAR10 = CIFAR("cifar10", "cifar-10-batches-bin", tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
                ("test_batch.bin",), "batches.meta.txt", 1,
                (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
CIFAR100 = CIFAR("cifar100", "cifar-100-binary", ("train.bin",), ("test.bin",), "fine_label_names.txt", 2,
                 (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762))
_SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def read_cifar(name: str, archive: Path | None = None) -> tuple[Split, Split]:
    """Training and test set of ``"cifar10"`` or ``"cifar100"``, standardised by the usual statistics per colour.

    Without ``archive`` the file is fetched and its checksum checked. An archive that is damaged, cut short or holds a
    path that leaves its folder is refused with a ``ValueError`` that names it.
    """
    if name not in _SETS:
        raise ValueError(f"no set {name!r}; choose cifar10 or cifar100")
    chosen = _SETS[name]
    path = fetch(name) if archive is None else Path(archive)
    files = _members(path, chosen)
    try:
        classes = tuple(files[chosen.names].decode("ascii").split())
    except UnicodeDecodeError:
        raise ValueError(f"{path}: damaged, {chosen.names} is not text; "
                         f"delete it and run: papernets data fetch {chosen.name}") from None
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (chosen.mean, chosen.std))
    splits = []
    for batches in (chosen.train, chosen.test):
        records = np.concatenate([_records(files[batch], batch, path, chosen, len(classes)) for batch in batches])
        labels = torch.from_numpy(records[:, chosen.label_bytes - 1].astype(np.int64))
        pixels = torch.from_numpy(records[:, chosen.label_bytes:]).view(-1, 3, 32, 32)
        splits.append(Split((pixels.float().div_(255) - mean) / std, labels, classes))
    return splits[0], splits[1]


def _members(path: Path, chosen: CIFAR) -> dict[str, bytes]:
    """The files we need out of the archive, in memory. Every name in it is checked before any is read."""
    again = f"delete it and run: papernets data fetch {chosen.name}"
    wanted = {f"{chosen.folder}/{file}": file for file in (*chosen.train, *chosen.test, chosen.names)}
    found = {}
    try:
        with gzip.open(path) as packed:
            raw = packed.read()  # to its end: only there does gzip compare its checksum
        with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
            members = archive.getmembers()
            check_members(path, members, again)
            for member in members:
                if member.name in wanted and member.isfile():
                    found[wanted[member.name]] = archive.extractfile(member).read()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; run: papernets data fetch {chosen.name}") from None
    except DAMAGED as error:
        raise ValueError(f"{path}: damaged or cut short ({error}); {again}") from None
    missing = sorted(set(wanted.values()) - set(found))
    if missing:
        raise ValueError(f"{path}: {missing[0]} is missing, so this is not the {chosen.name} archive; {again}")
    return found


def _records(raw: bytes, batch: str, path: Path, chosen: CIFAR, classes: int) -> np.ndarray:
    size = chosen.label_bytes + 3072
    if not raw or len(raw) % size:
        raise ValueError(f"{path}: {batch} has {len(raw)} bytes, not a whole number of records of {size}; "
                         f"delete it and run: papernets data fetch {chosen.name}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    highest = int(records[:, chosen.label_bytes - 1].max())
    if highest >= classes:
        raise ValueError(f"{path}: {batch} holds label {highest}, but there are {classes} classes; "
                         f"delete it and run: papernets data fetch {chosen.name}")
    return records
