"""Archives: everything in them arrives whole or not at all, and nothing outside the folder."""

import tarfile

import pytest

from papernets.data._archive import unpack

AGAIN = "delete it and fetch it again"


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_arrive_beside_what_is_there(write_archive, tmp_path):
    (tmp_path / "out" / "kit").mkdir(parents=True)
    (tmp_path / "out" / "kit" / "old.txt").write_bytes(b"old")
    unpack(write_archive([("kit/a/1.txt", b"one"), ("kit/2.txt", b"two")]), tmp_path / "out", AGAIN)
    assert files(tmp_path / "out") == {"kit/a/1.txt": b"one", "kit/2.txt": b"two", "kit/old.txt": b"old"}
    unpack(write_archive([("kit/2.txt", b"newer")], "second.tar.gz"), tmp_path / "out", AGAIN)
    assert files(tmp_path / "out")["kit/2.txt"] == b"newer"


def link(name, target, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


@pytest.mark.parametrize("evil", [("../out.txt", b"x"), ("/tmp/papernets-evil.txt", b"x"), ("kit/../../out.txt", b"x"),
                                  link("kit/link", "/etc/passwd"), link("kit/hard", "kit/1.txt", tarfile.LNKTYPE),
                                  link("kit/pipe", "", tarfile.FIFOTYPE)])
def test_what_leaves_the_folder_is_refused_before_anything_is_written(evil, write_archive, tmp_path):
    archive = write_archive([("kit/1.txt", b"one"), evil])
    with pytest.raises(ValueError, match=rf"refused, .* leaves the archive's own folder; {AGAIN}"):
        unpack(archive, tmp_path / "out", AGAIN)
    assert list((tmp_path / "out").iterdir()) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["archive.tar.gz", "out"]


@pytest.mark.parametrize("keep", [0, 40, 0.5, 0.95])
def test_a_damaged_archive_leaves_nothing(keep, write_archive, tmp_path):
    import random
    noise = random.Random(0).randbytes(50_000)
    archive = write_archive([("kit/1.txt", noise), ("kit/2.txt", noise)])
    whole = archive.read_bytes()
    archive.write_bytes(whole[:int(keep * len(whole)) if isinstance(keep, float) else keep])
    with pytest.raises(ValueError, match=rf"archive.tar.gz: damaged or cut short .*; {AGAIN}"):
        unpack(archive, tmp_path / "out", AGAIN)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_missing_archive_is_named(tmp_path):
    with pytest.raises(ValueError, match=f"none.tar: no such file; {AGAIN}"):
        unpack(tmp_path / "none.tar", tmp_path / "out", AGAIN)
