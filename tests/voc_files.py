"""PASCAL VOC and SBD in their published formats, made small: grey pictures with a red rectangle."""

import numpy as np
from PIL import Image
from scipy.io import savemat

from papernets.data import VOID

BOX = (10, 12, 30, 40)
XML = """<annotation><folder>VOC{year}</folder><filename>{name}.jpg</filename>
<size><width>{width}</width><height>{height}</height><depth>3</depth></size><segmented>1</segmented>{objects}</annotation>"""
OBJECT = """<object><name>{name}</name><pose>Left</pose><truncated>0</truncated><difficult>{difficult}</difficult>
<bndbox><xmin>{box[0]}</xmin><ymin>{box[1]}</ymin><xmax>{box[2]}</xmax><ymax>{box[3]}</ymax></bndbox>
<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part></object>"""


def picture(width, height, box=BOX):
    """Grey, with a red rectangle."""
    pixels = np.full((height, width, 3), 60, np.uint8)
    pixels[box[1]:box[3], box[0]:box[2]] = (250, 10, 10)
    return Image.fromarray(pixels)


def write(root, year, name, size=(50, 60), objects=(("dog", 0, BOX),), mask=None):
    folder = root / "VOCdevkit" / f"VOC{year}"
    for part in ("JPEGImages", "Annotations", "SegmentationClass", "ImageSets/Main", "ImageSets/Segmentation"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    picture(*size, objects[0][2] if objects else (0, 0, 0, 0)).save(folder / "JPEGImages" / f"{name}.jpg", quality=95)
    rows = "".join(OBJECT.format(name=kind, difficult=hard, box=box) for kind, hard, box in objects)
    (folder / "Annotations" / f"{name}.xml").write_text(
        XML.format(year=year, name=name, width=size[0], height=size[1], objects=rows))
    if mask is not None:
        image = Image.new("P", size)
        image.putdata(mask.astype(int).flatten().tolist())
        image.putpalette([value for index in range(256) for value in (index, 255 - index, index // 2)])
        image.save(folder / "SegmentationClass" / f"{name}.png")
    return folder


def lists(folder, kind, **names):
    for part, rows in names.items():
        (folder / "ImageSets" / kind / f"{part}.txt").write_text("".join(f"{name}\n" for name in rows))


def mask_of(width, height, box, kind):
    mask = np.zeros((height, width))
    mask[box[1] - 1:box[3] + 1, box[0] - 1:box[2] + 1] = VOID  # a border that does not count
    mask[box[1]:box[3], box[0]:box[2]] = kind
    return mask


def write_boxes(root):
    """VOC 2007 with an image to train on and one to test on, and VOC 2012 with one that shows nothing."""
    first = write(root, 2007, "000005", (50, 60), [("dog", 0, BOX), ("chair", 1, (2, 3, 9, 20))])
    write(root, 2007, "000007", (80, 40), [("tvmonitor", 0, (40, 10, 70, 30))])
    lists(first, "Main", trainval=["000005"], test=["000007"])
    second = write(root, 2012, "2008_000001", (64, 64), [])
    lists(second, "Main", trainval=["2008_000001"])
    return root


def write_masks(root):
    """VOC 2012 with two images to train on and one to test on; SBD with these, and one of its own in each list."""
    for name, kind in (("2007_000032", 1), ("2007_000039", 20), ("2007_000033", 12)):
        folder = write(root, 2012, name, (50, 60), [("dog", 0, BOX)], mask_of(50, 60, BOX, kind))
    lists(folder, "Segmentation", train=["2007_000032", "2007_000039"], val=["2007_000033"])
    more = root / "benchmark_RELEASE" / "dataset"
    for part in ("img", "cls"):
        (more / part).mkdir(parents=True)
    for name, kind in (("2008_000002", 5), ("2008_000003", 6), ("2007_000032", 7), ("2007_000033", 8)):
        picture(50, 60, BOX).save(more / "img" / f"{name}.jpg")
        marked = {"Boundaries": np.zeros((20, 1)), "Segmentation": mask_of(50, 60, BOX, kind).astype(np.uint8),
                  "CategoriesPresent": np.array([[kind]])}
        savemat(more / "cls" / f"{name}.mat", {"GTcls": marked})
    (more / "train.txt").write_text("2008_000002\n2007_000033\n")
    (more / "val.txt").write_text("2007_000032\n2008_000003\n")
    return root
