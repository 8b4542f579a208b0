"""A small folder of images a class: order, sizes, the middle and the random part, and images that cannot be read."""

import numpy as np
import pytest
import torch
from PIL import Image

from papernets.data import ImageFolder, image_folders

MEAN, STD = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))


def save(path, size=(29, 23), colour=(255, 0, 51), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


def standardised(colour):
    return (torch.tensor(colour) / 255 - MEAN) / STD


@pytest.fixture
def root(tmp_path):
    """Three classes of 1, 3 and 2 images, one in a folder of its own, and files that are no images."""
    folder = tmp_path / "images"
    for name in ("bee/1.png", "ant/2.PNG", "ant/1.jpg", "ant/deep/0.jpeg", "cat/1.png", "cat/2.png"):
        save(folder / name)
    (folder / "ant" / "notes.txt").write_text("no image")
    save(folder / "stray.png")  # in no class
    return folder


def test_classes_and_files_are_in_the_order_of_their_names(root):
    data = ImageFolder(root, train=False)
    assert data.classes == ("ant", "bee", "cat")
    assert [(path.relative_to(root).as_posix(), label) for path, label in data.files] == [
        ("ant/1.jpg", 0), ("ant/2.PNG", 0), ("ant/deep/0.jpeg", 0), ("bee/1.png", 1), ("cat/1.png", 2),
        ("cat/2.png", 2)]
    assert len(data) == 6


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("size", [(29, 23), (23, 29), (17, 17), (1, 31), (97, 3)])
def test_one_colour_stays_that_colour_in_any_shape(train, size, tmp_path):
    save(tmp_path / "only" / "a.png", size, (255, 0, 51))
    image, label = ImageFolder(tmp_path, train, size=17)[0]
    assert image.shape == (3, 17, 17)
    assert image.dtype == torch.float32
    assert label == 0
    torch.testing.assert_close(image, standardised((255., 0., 51.))[:, None, None].expand(3, 17, 17), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("mode", "colour", "seen"), [
    ("L", 102, (102.,) * 3), ("RGBA", (255, 0, 51, 255), (255., 0., 51.)), ("1", 1, (255.,) * 3)])
def test_other_modes_become_colour(mode, colour, seen, tmp_path):
    save(tmp_path / "only" / "a.png", (23, 29), colour, mode)
    image, _ = ImageFolder(tmp_path, False, size=17)[0]
    torch.testing.assert_close(image[:, 8, 8], standardised(seen), atol=1e-5, rtol=0)


@pytest.mark.parametrize("lying", [True, False])
def test_the_middle_is_the_middle_of_the_whole_image_made_smaller(lying, tmp_path):
    """Of 80 × 64 pixels: the whole at 40 × 32, of it the middle 28 × 28 (28 is 224 / 256 of 32)."""
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3) if lying else (80, 64, 3), dtype=np.uint8)
    (tmp_path / "only").mkdir()
    whole = Image.fromarray(pixels)
    whole.save(tmp_path / "only" / "a.png")
    small = whole.resize((40, 32) if lying else (32, 40), Image.Resampling.BILINEAR)
    middle = np.array(small.crop((6, 2, 34, 30) if lying else (2, 6, 30, 34)))
    image, _ = ImageFolder(tmp_path, False, size=28)[0]
    expected = (torch.tensor(middle) / 255 - MEAN) / STD
    torch.testing.assert_close(image, expected.permute(2, 0, 1), atol=1e-5, rtol=0)


def test_the_middle_is_upright_and_unscaled_where_sizes_agree(tmp_path):
    """From 16 × 16 the middle 14 × 14, pixel for pixel."""
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    (tmp_path / "only").mkdir()
    Image.fromarray(pixels).save(tmp_path / "only" / "a.png")
    image, _ = ImageFolder(tmp_path, False, size=14)[0]
    expected = (torch.tensor(pixels[1:15, 1:15]) / 255 - MEAN) / STD
    torch.testing.assert_close(image, expected.permute(2, 0, 1), atol=1e-5, rtol=0)


def test_the_random_part_follows_the_seed(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (31, 37, 3), dtype=np.uint8)
    (tmp_path / "only").mkdir()
    Image.fromarray(pixels).save(tmp_path / "only" / "a.png")
    train, test = ImageFolder(tmp_path, True, size=17), ImageFolder(tmp_path, False, size=17)

    def drawn(data, seed):
        torch.manual_seed(seed)
        return data[0][0]

    assert torch.equal(drawn(train, 1), drawn(train, 1))
    assert not torch.equal(drawn(train, 1), drawn(train, 2))
    assert torch.equal(drawn(test, 1), drawn(test, 2))


def test_the_random_part_is_8_to_100_percent_and_mirrored_half_the_time(tmp_path):
    """Red counts columns and green rows: the span of a part is its share of the image, the slope its direction."""
    side = 200
    column, row = np.meshgrid(np.arange(side), np.arange(side))
    (tmp_path / "only").mkdir()
    Image.fromarray(np.stack([column, row, row], 2).astype(np.uint8)).save(tmp_path / "only" / "a.png")
    data = ImageFolder(tmp_path, True, size=16)
    torch.manual_seed(0)
    areas, mirrored = [], 0
    for _ in range(200):
        image = (data[0][0] * STD[:, None, None] + MEAN[:, None, None]) * 255
        slope, fall = (image[0, :, -1] - image[0, :, 0]).mean(), (image[1, -1] - image[1, 0]).mean()
        assert fall > 0  # never upside down
        mirrored += bool(slope < 0)
        areas.append(float(slope.abs() * fall) / side**2 * (16 / 15) ** 2)
    assert 70 < mirrored < 130
    assert 0.05 < min(areas) < 0.2
    assert 0.8 < max(areas) < 1.05


def test_pictures_are_changed_in_training_only(root):
    sizes = []

    def change(image):
        sizes.append(image.size)
        return Image.new("RGB", image.size, (0, 51, 255))

    changed, _ = ImageFolder(root, True, 17, change=change)[0]
    kept, _ = ImageFolder(root, False, 17, change=change)[0]
    assert sizes == [(17, 17)]
    torch.testing.assert_close(changed[:, 8, 8], standardised((0., 51., 255.)), atol=1e-5, rtol=0)
    torch.testing.assert_close(kept[:, 8, 8], standardised((255., 0., 51.)), atol=0.05, rtol=0)  # a JPEG


@pytest.mark.parametrize("train", [True, False])
def test_images_are_made_smaller_as_told(train, tmp_path):
    """Of a sharp edge a cubic overshoots, which a straight line does not."""
    picture = np.zeros((64, 64, 3), np.uint8) + 100
    picture[:, 32:] = 150
    (tmp_path / "only").mkdir()
    Image.fromarray(picture).save(tmp_path / "only" / "a.png")
    torch.manual_seed(0)
    ranges = []
    for resampling in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        data = ImageFolder(tmp_path, train, 32, resampling=resampling)
        images = torch.stack([data[0][0] for _ in range(8)]) * STD[:, None, None] + MEAN[:, None, None]
        ranges.append((round(float(images.min()) * 255), round(float(images.max()) * 255)))
    assert ranges[0] == (100, 150) and ranges[1][0] < 100 and ranges[1][1] > 150


def test_what_is_hidden_is_no_class_and_no_image(tmp_path):
    """Jupyter leaves a folder where a picture was opened, systems of other vendors a second file for each."""
    for name in ("cat/0.png", "dog/0.png", ".ipynb_checkpoints/0.png", "cat/.ipynb_checkpoints/0.png", "dog/._0.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20)).save(tmp_path / name)
    found = ImageFolder(tmp_path, train=False, size=32)
    assert found.classes == ("cat", "dog")
    assert [path.relative_to(tmp_path).as_posix() for path, _ in found.files] == ["cat/0.png", "dog/0.png"]


@pytest.mark.parametrize(("part", "other"), [("train", "val"), ("val", "train")])
def test_other_classes_to_test_than_to_train_are_refused(part, other, tmp_path):
    for where, names in ((part, ("cat", "cow", "dog")), (other, ("cat", "dog"))):
        for name in names:
            (tmp_path / where / name).mkdir(parents=True)
            Image.new("RGB", (20, 20)).save(tmp_path / where / name / "0.png")
    with pytest.raises(ValueError, match=f"only {part} has the class 'cow'; train and val must have the same classes"):
        image_folders(tmp_path, "imagenet")


def test_the_two_folders_of_a_data_set(root, tmp_path):
    for part in ("train", "val"):
        save(tmp_path / "both" / part / "only" / f"{part}.png")
    train, test = image_folders(tmp_path / "both", "imagenet", 13, resampling=Image.Resampling.BICUBIC)
    assert (train.train, test.train, train.size, test.size) == (True, False, 13, 13)
    assert [data.files[0][0].name for data in (train, test)] == ["train.png", "val.png"]
    assert train.resampling == test.resampling == Image.Resampling.BICUBIC
    with pytest.raises(ValueError, match=r"imagenet cannot be fetched; give its folder with --data \(it holds train and val\)"):
        image_folders(None, "imagenet")
    with pytest.raises(ValueError, match="train is not a folder"):
        image_folders(root, "imagenet")


BROKEN = {
    "empty": b"",
    "text": b"this is no image",
    "header only": b"\x89PNG\r\n\x1a\n",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_image_is_refused_by_name(kind, root):
    path = root / "bee" / "1.png"
    path.write_bytes(BROKEN[kind])
    data = ImageFolder(root, train=True)
    with pytest.raises(ValueError, match=r"bee.1\.png: not a readable image \(.*\); fetch it again"):
        data[3]
    data[0]  # the others are read


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_an_image_cut_short_is_refused_by_name(ending, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (29, 31, 3), dtype=np.uint8)
    path = tmp_path / "only" / f"a.{ending}"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf"a\.{ending}: not a readable image"):
        ImageFolder(tmp_path, train=False)[0]


@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_a_damaged_image_is_refused_by_name_or_read(ending, tmp_path):
    """Whatever byte is wrong, there is an image or a refusal with its name; no other error."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 13, 3), dtype=np.uint8)
    path = tmp_path / "only" / f"a.{ending}"
    path.parent.mkdir()
    Image.fromarray(pixels).save(path)
    data, content, others = ImageFolder(tmp_path, train=False, size=17), path.read_bytes(), {}
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 0xFF
        path.write_bytes(damaged)
        try:
            data[0]
        except Exception as error:
            if not (isinstance(error, ValueError) and f"a.{ending}: not a readable image" in str(error)):
                others[place] = f"{type(error).__name__}: {error}"
    assert not others


def test_a_root_that_is_no_folder_is_refused(tmp_path):
    for path in (tmp_path / "absent", save(tmp_path / "a.png")):
        with pytest.raises(ValueError, match="is not a folder; it must hold one folder of images a class"):
            ImageFolder(path, train=True)


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"holds no folder with \.jpeg, \.jpg, \.png images"):
        ImageFolder(tmp_path, train=True)
    (tmp_path / "class").mkdir()
    save(tmp_path / "stray.png")  # images, but none in a class
    with pytest.raises(ValueError, match="holds no folder with"):
        ImageFolder(tmp_path, train=True)


def test_a_class_without_images_is_refused(root):
    (root / "dog").mkdir()
    with pytest.raises(ValueError, match="dog"):
        ImageFolder(root, train=True)
