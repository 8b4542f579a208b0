"""Downloads, each with its checksum, into a cache folder; a file that does not fit its checksum is not kept.

Archives of many images are unpacked beside the downloads, once; small ones are read where they lie.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from papernets.data._archive import unpack


@dataclass(frozen=True)
class Source:
    """A file to download. ``unpacks`` says that it is an archive of many files, which is unpacked."""

    url: str
    checksum: str
    megabytes: int
    unpacks: bool = False

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


_VOC = "http://host.robots.ox.ac.uk/pascal/VOC"
#: Data sets and trained weights that can be fetched. The binary forms of CIFAR hold records of fixed length and nothing that
#: can be executed; weights are loaded as tensors and nothing else.
SOURCES = {
    "cifar10": Source("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                      "md5:c32a1d4ab5d03f1284b67883e8d87530", 170),
    "cifar100": Source("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                       "md5:03b5dce01913d631647c71ecec9e9cb8", 169),
    "voc2007-trainval": Source(f"{_VOC}/voc2007/VOCtrainval_06-Nov-2007.tar",
                               "md5:c52e279531787c972589f7e41ab4ae64", 460, True),
    "voc2007-test": Source(f"{_VOC}/voc2007/VOCtest_06-Nov-2007.tar", "md5:b6e924de25625d8de591ea690078ad9f", 451, True),
    "voc2012-trainval": Source(f"{_VOC}/voc2012/VOCtrainval_11-May-2012.tar",
                               "md5:6cd6e144f989b92b3379bac3b3de84fd", 2000, True),
    "sbd": Source("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
                  "md5:82b4d87ceb2ed10f6038a1cba92111cb", 1420, True),
    "vgg16": Source("https://download.pytorch.org/models/vgg16-397923af.pth",
                    "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0", 553),
    "resnet50-deep": Source("https://github.com/bubbliiiing/pspnet-pytorch/releases/download/v1.0/resnet50s-a75c83cf.pth",
                            "sha1:a75c83cfc89a56a4e8ba71b14f1ec67e923787b3", 103),
}


def cache_folder() -> Path:
    """Where downloads lie: ``PAPERNETS_DATA``, or the user's cache folder of this system."""
    return Path(os.environ.get("PAPERNETS_DATA") or platformdirs.user_cache_path("papernets"))


def source(name: str) -> Source:
    if name not in SOURCES:
        raise ValueError(f"no data set {name!r} to fetch; choose one of {', '.join(SOURCES)}")
    return SOURCES[name]


def fetch(name: str, progress: bool = False) -> Path:
    """The file of a data set, downloaded once; refuses a file whose checksum does not fit and leaves nothing behind."""
    import pooch  # here: importing it takes a tenth of a second
    wanted = source(name)
    path = cache_folder() / wanted.file
    if path.exists() and not pooch.hashes.hash_matches(str(path), wanted.checksum):
        raise ValueError(f"{path} is damaged: its checksum is not {wanted.checksum}; delete it and fetch {name} again")
    try:
        return Path(pooch.retrieve(wanted.url, wanted.checksum, wanted.file, cache_folder(), progressbar=progress))
    except ValueError:
        raise ValueError(f"the download of {wanted.file} does not have checksum {wanted.checksum} and was thrown away; "
                         f"try again, or put the file into {cache_folder()} by hand") from None
    except OSError as error:
        raise ValueError(f"{wanted.file} could not be downloaded ({type(error).__name__}); put the file into "
                         f"{cache_folder()} by hand, or try again with a network") from None


def fetch_unpacked(*names: str, progress: bool = False) -> Path:
    """The folder in which the archives of ``names`` lie unpacked; each is downloaded and unpacked once."""
    folder = cache_folder() / "unpacked"
    for name in names:
        if not source(name).unpacks:
            raise ValueError(f"{name} is one file and is not unpacked; fetch it instead")
        done = folder / f".{name}"
        if not done.exists():
            path = fetch(name, progress)
            unpack(path, folder, f"delete it and run: papernets data fetch {name}")
            done.touch()
    return folder
