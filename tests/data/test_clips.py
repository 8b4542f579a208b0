"""Clips: digits that move, and folders of clips."""

import numpy as np
import pytest
import torch

from papernets.data import MOVES, ClipFolder, clip_folders, moving_digits


def test_clips_move_as_their_labels_say():
    train, test = moving_digits(12, 8, 3, noise=0)
    assert train.images.shape == (12, 1, 8, 16, 16) and len(test) == 8
    for video, label in zip(train.images[:, 0], train.labels.tolist()):
        shift = MOVES[label]
        for frame in range(7):
            torch.testing.assert_close(video[frame].roll(shift, (0, 1)), video[frame + 1])
    assert float(moving_digits(4, 2, 3)[0].images.std()) > float(train.images.std())


def test_the_seed_decides_the_clips():
    one, again, other = (moving_digits(6, 4, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(one.images, again.images) and torch.equal(one.labels, again.labels)
    assert not torch.equal(one.images, other.images)


def test_clips_are_read_from_a_folder(tmp_path):
    for name, shade in (("b", 255), ("a", 0)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "clip.npy", np.full((18, 113, 120, 3), shade, np.uint8))
    clips = ClipFolder(tmp_path, False)
    clip, label = clips[1]
    assert clips.classes == ("a", "b") and len(clips) == 2 and label == 1
    assert clip.shape == (3, 16, 112, 112) and float(clip.min()) == 1
    np.save(tmp_path / "a" / "clip.npy", np.zeros((9, 113, 120, 3), np.uint8))
    with pytest.raises(ValueError, match="a clip is uint8 of at least"):
        clips[0]


def test_a_clip_for_training_begins_anywhere_and_may_be_mirrored(tmp_path):
    (tmp_path / "a").mkdir()
    frames, columns = np.arange(20, dtype=np.uint8), np.arange(112, dtype=np.uint8)
    video = np.broadcast_to((frames[:, None, None, None] + columns[:, None]).astype(np.uint8), (20, 112, 112, 3))
    np.save(tmp_path / "a" / "clip.npy", video)
    torch.manual_seed(0)
    pixels = [((clip + 1) * 127.5).round() for clip, _ in (ClipFolder(tmp_path, True)[0] for _ in range(40))]
    assert {int(clip[0, 0].min()) for clip in pixels} == {0, 1, 2, 3, 4}  # the first frame
    assert {bool(clip[0, 0, 0, 0] > clip[0, 0, 0, -1]) for clip in pixels} == {True, False}
    middle = ((ClipFolder(tmp_path, False)[0][0] + 1) * 127.5).round()
    assert int(middle[0, 0, 0, 0]) == 2 and int(middle[0, 0, 0, -1]) == 2 + 111


@pytest.mark.parametrize(("call", "message"), [
    (lambda folder: clip_folders(None), "give their folder with --data"),
    (lambda folder: clip_folders(folder), "train is not there; it holds a folder for each class"),
    (lambda folder: ClipFolder(folder, False), "has no .npy file in a folder of a class")])
def test_refusals(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)
