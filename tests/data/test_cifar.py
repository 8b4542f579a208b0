"""CIFAR archives in the published binary format, made small; then damaged in every way that has been seen."""

import gzip
import io
import re
import tarfile

import numpy as np
import pytest
import torch

from papernets.data import CIFAR10, CIFAR100, read_cifar

FOLDERS = {"cifar10": "cifar-10-batches-bin", "cifar100": "cifar-100-binary"}
SETS = {"cifar10": CIFAR10, "cifar100": CIFAR100}


def record(label, pixels):
    return bytes([*label, *pixels])


def random_batch(rng, labels):
    return b"".join(record(label, rng.integers(0, 256, 3072, dtype=np.uint8)) for label in labels)


def good(name):
    """Members of a good archive of either set, with two records a batch."""
    rng = np.random.default_rng(0)
    if name == "cifar10":
        batches = {f"data_batch_{index}.bin": random_batch(rng, [(index,), (0,)]) for index in range(1, 6)}
        batches |= {"test_batch.bin": random_batch(rng, [(9,), (3,)]),
                    "batches.meta.txt": b"\n".join(b"name%d" % index for index in range(10)) + b"\n\n"}
    else:  # a coarse label, then the fine one
        batches = {"train.bin": random_batch(rng, [(19, 99), (3, 7), (0, 50)]),
                   "test.bin": random_batch(rng, [(5, 42), (7, 0)]),
                   "coarse_label_names.txt": b"\n".join(b"coarse%d" % index for index in range(20)),
                   "fine_label_names.txt": b"\n".join(b"fine%d" % index for index in range(100)) + b"\n"}
    return {f"{FOLDERS[name]}/{file}": content for file, content in batches.items()}


def refused(path, name, *words):
    """A refusal names the file and says what to do."""
    with pytest.raises(ValueError, match=re.escape(str(path))) as caught:
        read_cifar(name, path)
    message = str(caught.value)
    assert f"papernets data fetch {name}" in message
    for word in words:
        assert word in message, message


def same(first, second):
    return all(torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.classes == b.classes
               for a, b in zip(first, second))


def test_cifar10(write_archive):
    train, test = read_cifar("cifar10", write_archive(good("cifar10").items()))
    assert train.labels.tolist() == [1, 0, 2, 0, 3, 0, 4, 0, 5, 0]
    assert test.labels.tolist() == [9, 3]
    assert train.images.shape == (10, 3, 32, 32)
    assert train.images.dtype == torch.float32
    assert train.labels.dtype == torch.int64
    assert train.classes == test.classes == tuple(f"name{index}" for index in range(10))


def test_cifar100_reads_the_fine_label(write_archive):
    train, test = read_cifar("cifar100", write_archive(good("cifar100").items()))
    assert train.labels.tolist() == [99, 7, 50]
    assert test.labels.tolist() == [42, 0]
    assert train.images.shape == (3, 3, 32, 32)
    assert train.classes == tuple(f"fine{index}" for index in range(100))


@pytest.mark.parametrize("name", SETS)
def test_every_pixel_has_its_place_and_statistics(name, write_archive):
    """Red, green, blue, each row by row; pixel by pixel against the record's bytes."""
    members, chosen = good(name), SETS[name]
    test = members[f"{FOLDERS[name]}/{chosen.test[0]}"]
    _, found = read_cifar(name, write_archive(members.items()))
    size = chosen.label_bytes + 3072
    for index, image in enumerate(found.images):
        body = test[index * size + chosen.label_bytes:(index + 1) * size]
        expected = [[[(body[1024 * colour + 32 * row + column] / 255 - chosen.mean[colour]) / chosen.std[colour]
                      for column in range(32)] for row in range(32)] for colour in range(3)]
        torch.testing.assert_close(image, torch.tensor(expected), atol=1e-5, rtol=0)


def test_a_record_by_hand(write_archive):
    """Black but for one red pixel in row 2, column 5, and a blue last pixel."""
    pixels = [0] * 3072
    pixels[2 * 32 + 5] = 255
    pixels[3071] = 51
    members = good("cifar10")
    members["cifar-10-batches-bin/test_batch.bin"] = record((7,), pixels)
    _, test = read_cifar("cifar10", write_archive(members.items()))
    image = test.images[0]
    black = torch.tensor([-0.4914 / 0.2470, -0.4822 / 0.2435, -0.4465 / 0.2616])
    torch.testing.assert_close(image[:, 0, 0], black, atol=1e-5, rtol=0)
    torch.testing.assert_close(image[0, 2, 5], torch.tensor((1 - 0.4914) / 0.2470), atol=1e-5, rtol=0)
    torch.testing.assert_close(image[2, 31, 31], torch.tensor((0.2 - 0.4465) / 0.2616), atol=1e-5, rtol=0)
    assert ((image - black[:, None, None]).abs() > 1e-3).sum() == 2


def test_other_members_and_their_order_do_not_matter(write_archive):
    members = good("cifar10")
    mixed = [("cifar-10-batches-bin/readme.html", b"<p>"), ("other/test_batch.bin", b"x"), *reversed(members.items())]
    assert same(read_cifar("cifar10", write_archive(members.items(), "plain.tar.gz")),
                read_cifar("cifar10", write_archive(mixed, "mixed.tar.gz")))


def test_nothing_is_unpacked(write_archive, tmp_path, monkeypatch):
    path = write_archive(good("cifar10").items())
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    read_cifar("cifar10", path)
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["archive.tar.gz", "cwd"]


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="no set 'cifar1000'; choose cifar10 or cifar100"):
        read_cifar("cifar1000")


def test_an_absent_file_is_refused(tmp_path):
    refused(tmp_path / "absent.tar.gz", "cifar10", "no such file")


@pytest.mark.parametrize("content", [b"", b"no archive at all", gzip.compress(b"no tar inside" * 100), bytes(2000)],
                         ids=["empty", "text", "gzip without tar", "zeros"])
def test_another_kind_of_file_is_refused(content, tmp_path):
    path = tmp_path / "archive.tar.gz"
    path.write_bytes(content)
    refused(path, "cifar10")


def test_a_tar_that_is_not_compressed_is_refused(write_archive, tmp_path):
    path = tmp_path / "plain.tar"
    path.write_bytes(gzip.decompress(write_archive(good("cifar10").items()).read_bytes()))
    refused(path, "cifar10", "damaged")


@pytest.mark.parametrize("share", [0.01, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(share, write_archive):
    path = write_archive(good("cifar10").items())
    content = path.read_bytes()
    path.write_bytes(content[:int(share * len(content))])
    refused(path, "cifar10", "damaged or cut short", "delete it")


def test_a_damaged_stream_is_refused(write_archive):
    path = write_archive(good("cifar10").items())
    content = bytearray(path.read_bytes())
    content[len(content) // 2:len(content) // 2 + 1000] = bytes(1000)
    path.write_bytes(content)
    refused(path, "cifar10")


@pytest.mark.parametrize("name", SETS)
def test_one_wrong_bit_anywhere_is_refused(name, write_archive):
    """Whatever bit of the file is wrong, the archive is refused by name, or what was written is read all the same."""
    path = write_archive(good(name).items())
    content, expected = path.read_bytes(), read_cifar(name, path)
    silent, nameless = [], {}
    for place in np.linspace(0, len(content) - 1, 151).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        try:
            if not same(read_cifar(name, path), expected):
                silent.append(int(place))
        except ValueError as error:
            if str(path) not in str(error):
                nameless[int(place)] = str(error)
    assert not silent, f"wrong pixels or labels without complaint: {len(silent)} of 151 places, such as {silent[:5]}"
    assert not nameless


@pytest.mark.parametrize("size", [0, 1, 3072, 3074, 2 * 3073 - 1])
def test_a_partial_record_is_refused(size, write_archive):
    members = good("cifar10")
    members["cifar-10-batches-bin/data_batch_3.bin"] = bytes(size)
    refused(write_archive(members.items()), "cifar10", f"data_batch_3.bin has {size} bytes", "records of 3073",
            "delete it")


def test_a_partial_record_of_cifar100_is_refused(write_archive):
    members = good("cifar100")
    members["cifar-100-binary/test.bin"] = bytes(3073)  # a whole record of the other set
    refused(write_archive(members.items()), "cifar100", "test.bin has 3073 bytes", "records of 3074")


@pytest.mark.parametrize(("name", "file", "label"), [("cifar10", "data_batch_5.bin", (10,)),
                                                     ("cifar10", "test_batch.bin", (255,)),
                                                     ("cifar100", "train.bin", (0, 100))])
def test_a_label_out_of_range_is_refused(name, file, label, write_archive):
    members = good(name)
    members[f"{FOLDERS[name]}/{file}"] += record(label, bytes(3072))
    classes = {"cifar10": 10, "cifar100": 100}[name]
    refused(write_archive(members.items()), name, f"{file} holds label {label[-1]}, but there are {classes} classes")


@pytest.mark.parametrize("name", SETS)
def test_a_missing_member_is_refused(name, write_archive):
    chosen = SETS[name]
    for file in (*chosen.train, *chosen.test, chosen.names):
        members = good(name)
        del members[f"{FOLDERS[name]}/{file}"]
        refused(write_archive(members.items()), name, f"{file} is missing", "delete it")


def test_a_folder_in_place_of_a_batch_is_refused(write_archive):
    members = good("cifar10")
    del members["cifar-10-batches-bin/test_batch.bin"]
    folder = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    folder.type = tarfile.DIRTYPE
    refused(write_archive([*members.items(), (folder, b"")]), "cifar10", "test_batch.bin is missing")


def test_the_archive_of_the_other_set_is_refused(write_archive):
    refused(write_archive(good("cifar100").items()), "cifar10", "not the cifar10 archive")


def test_class_names_that_are_not_text_are_refused(write_archive):
    members = good("cifar10")
    members["cifar-10-batches-bin/batches.meta.txt"] = bytes(range(128, 148))
    refused(write_archive(members.items()), "cifar10", "batches.meta.txt")


def leaving(kind, tmp_path):
    target = str(tmp_path / "evil")
    member = tarfile.TarInfo({"up": "../../evil", "up from inside": "cifar-10-batches-bin/../../evil",
                              "absolute": target}.get(kind, "cifar-10-batches-bin/evil"))
    if kind in ("symlink", "hard link"):
        member.type = tarfile.SYMTYPE if kind == "symlink" else tarfile.LNKTYPE
        member.linkname = target
    return member


@pytest.mark.parametrize("first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("kind", ["up", "up from inside", "absolute", "symlink", "hard link"])
def test_a_member_that_leaves_the_folder_is_refused(kind, first, write_archive, tmp_path, monkeypatch):
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    evil = (leaving(kind, tmp_path), b"evil" if kind not in ("symlink", "hard link") else b"")
    members = [*good("cifar10").items()]
    path = write_archive([evil, *members] if first else [*members, evil])
    refused(path, "cifar10", "leaves the archive's own folder", evil[0].name, "delete it")
    assert sorted(file.name for file in tmp_path.rglob("*")) == ["a", "archive.tar.gz", "b"]


def test_a_batch_that_is_a_link_is_refused(write_archive, tmp_path):
    """The label byte and pixels of a file elsewhere must not be read as a batch."""
    (tmp_path / "secret").write_bytes(bytes(3073))
    members = good("cifar10")
    del members["cifar-10-batches-bin/test_batch.bin"]
    link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
    refused(write_archive([*members.items(), (link, b"")]), "cifar10", "leaves the archive's own folder")


def test_the_fixture_writes_what_the_publisher_does(write_archive):
    """Each record of 3073 bytes, in a gzipped tar."""
    with tarfile.open(fileobj=io.BytesIO(write_archive(good("cifar10").items()).read_bytes()), mode="r:gz") as archive:
        sizes = {member.name: member.size for member in archive}
    assert sizes["cifar-10-batches-bin/test_batch.bin"] == 2 * 3073
