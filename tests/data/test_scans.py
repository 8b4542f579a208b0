"""Scans in the published format, made small: vertices, voxels, classes, and damaged files by name."""

import numpy as np
import pytest
import torch

from papernets.data import SCANNET_CLASSES, Scans, read_ply, scan_splits

MESH = [(name, "f4") for name in "xyz"] + [(name, "u1") for name in ("red", "green", "blue", "alpha")]
PLACES = np.array([[0.001, 0.0, 0.0], [0.005, 0.001, 0.003], [0.05, 0.0, 0.0], [0.0, 0.03, 0.0], [0.0, 0.0, 0.071]])
LABELS = [1, 2, 39, 0, 13]  # wall, floor, other furniture, none, none of the benchmark


def write_ply(path, vertices, order="little", faces=2):
    kinds = {"f4": "float", "u1": "uchar", "u2": "ushort"}
    head = ["ply", f"format binary_{order}_endian 1.0", "comment made for a test", f"element vertex {len(vertices)}"]
    head += [f"property {kinds[vertices.dtype[name].str[1:]]} {name}" for name in vertices.dtype.names]
    head += [f"element face {faces}", "property list uchar int vertex_indices", "end_header\n"]
    body = vertices.astype(vertices.dtype.newbyteorder("<" if order == "little" else ">")).tobytes()
    path.write_bytes("\n".join(head).encode() + body + b"\x03" + bytes(12) * faces)


def write_scan(folder, name="scene0000_00", order="little", labels=LABELS):
    folder.mkdir(parents=True, exist_ok=True)
    mesh = np.zeros(len(PLACES), MESH)
    for axis, values in zip("xyz", PLACES.T):
        mesh[axis] = values
    mesh["red"], mesh["green"], mesh["blue"] = [255, 0, 0, 51, 0], [0, 255, 0, 102, 0], [0, 0, 255, 204, 0]
    write_ply(folder / f"{name}_vh_clean_2.ply", mesh, order)
    marked = np.zeros(len(labels), [*MESH, ("label", "u2")])
    marked["label"] = labels
    write_ply(folder / f"{name}_vh_clean_2.labels.ply", marked, order)


@pytest.mark.parametrize("order", ["little", "big"])
def test_a_scan_becomes_voxels(tmp_path, order):
    write_scan(tmp_path, order=order)
    rows, labels = Scans(tmp_path, train=False)[0]
    # the first two vertices share a voxel, and the first one counts; by z, y, x
    assert rows[:, :4].tolist() == [[0, 0, 0, 0], [0, 0, 0, 2], [0, 0, 1, 0], [0, 3, 0, 0]]
    classes = list(SCANNET_CLASSES.values())
    assert [classes[i] if i >= 0 else i for i in labels.tolist()] == ["wall", "other furniture", -100, -100]
    torch.testing.assert_close(rows[0, 4:], torch.tensor([1.0, -1, -1]))
    torch.testing.assert_close(rows[2, 4:], torch.tensor([51.0, 102, 204]) / 127.5 - 1)
    assert len(set(SCANNET_CLASSES.values())) == 20


def test_training_turns_about_the_vertical(tmp_path):
    write_scan(tmp_path)
    torch.manual_seed(0)
    found = [Scans(tmp_path, train=True)[0][0] for _ in range(8)]
    assert len({str(rows[:, 1:4].tolist()) for rows in found}) > 3
    assert all(sorted(set(rows[:, 1].tolist())) == [0, 3] and (rows[:, 1:4] >= 0).all() for rows in found)


def test_batches_number_their_scans(tmp_path):
    for part in ("train", "val"):
        write_scan(tmp_path / part, "scene0000_00")
        write_scan(tmp_path / part, "scene0001_00")
    _, val = scan_splits(tmp_path)
    rows, labels = val[[0, 1]]
    assert len(val) == 2 and rows[:, 0].tolist() == [0] * 4 + [1] * 4 and len(labels) == 8


def test_refusals(tmp_path):
    with pytest.raises(ValueError, match=r"scannet cannot be fetched, .* give its folder with --data"):
        scan_splits(None)
    with pytest.raises(ValueError, match="train is not a folder"):
        scan_splits(tmp_path)
    with pytest.raises(ValueError, match=r"holds no scan; one is scene0000_00_vh_clean_2\.ply"):
        Scans(tmp_path, True)
    write_scan(tmp_path, labels=LABELS[:4])
    with pytest.raises(ValueError, match="has 5 vertices and its labels 4"):
        Scans(tmp_path, False)[0]
    labels = tmp_path / "scene0000_00_vh_clean_2.labels.ply"
    mesh = tmp_path / "scene0000_00_vh_clean_2.ply"
    labels.write_bytes(mesh.read_bytes())
    with pytest.raises(ValueError, match=r"labels\.ply has no vertex property 'label'; it has x, y, z"):
        Scans(tmp_path, False)[0]
    labels.unlink()
    with pytest.raises(ValueError, match=r"labels\.ply is missing beside"):
        Scans(tmp_path, False)


def test_damaged_files_are_refused_by_name(tmp_path):
    write_scan(tmp_path)
    path = tmp_path / "scene0000_00_vh_clean_2.ply"
    whole = path.read_bytes()
    body = whole.index(b"end_header\n") + 11
    for content, message in (
        (whole[:body + 30], "cut short: 5 vertices of 16 bytes are promised, 30 bytes follow"),
        (whole[:20], "not a PLY file"), (b"solid " + whole, "not a PLY file"),
        (whole.replace(b"binary_little_endian", b"ascii"), "not binary PLY"),
        (whole.replace(b"property float x", b"property list x y z"), "vertex property of type 'list'"),
        (whole.replace(b"element vertex", b"element edge 0\nelement vertex"), "has 'edge' before its vertices"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read_ply(path)
        assert path.name in str(caught.value)
