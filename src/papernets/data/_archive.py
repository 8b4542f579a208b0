"""Archives: nothing in them may reach outside their own folder, and nothing half unpacked may be taken for whole."""

import gzip
import os
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

#: What reading a damaged archive can raise.
DAMAGED = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, OSError)


def check_members(path: Path, members: Iterable[tarfile.TarInfo], again: str) -> None:
    """``ValueError`` if a member would be written outside the archive's own folder, or is a link or a device."""
    for member in members:
        inside = PurePosixPath(member.name)
        if inside.is_absolute() or ".." in inside.parts or not (member.isfile() or member.isdir()):
            raise ValueError(f"{path}: refused, {member.name!r} leaves the archive's own folder; {again}")


def unpack(path: Path, folder: Path, again: str) -> None:
    """Unpack a .tar or .tgz into ``folder``, beside what is there already.

    Everything is unpacked elsewhere first, and then moved. ``ValueError`` names a damaged or refused archive, and ``folder`` is
    then as it was.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=".part-", dir=folder))
    try:
        try:
            with tarfile.open(path) as archive:
                members = archive.getmembers()
                check_members(path, members, again)
                archive.extraction_filter = getattr(tarfile, "data_filter", None)  # a second guard, where Python has it
                archive.extractall(part, members)
        except FileNotFoundError:
            raise ValueError(f"{path}: no such file; {again}") from None
        except DAMAGED as error:
            raise ValueError(f"{path}: damaged or cut short ({' '.join(str(error).split())}); {again}") from None
        for file in sorted(one for one in part.rglob("*") if one.is_file()):
            wanted = folder / file.relative_to(part)
            wanted.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, wanted)
    finally:
        shutil.rmtree(part, ignore_errors=True)
