"""Downloads, each with its checksum, into a cache folder; a file that does not fit its checksum is not kept."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs
import pooch


@dataclass(frozen=True)
class Source:
    url: str
    checksum: str
    megabytes: int

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


#: Data sets that can be fetched. The binary forms of CIFAR hold records of fixed length and nothing that can be executed.
SOURCES = {
    "cifar10": Source("https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
                      "md5:c32a1d4ab5d03f1284b67883e8d87530", 170),
    "cifar100": Source("https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
                       "md5:03b5dce01913d631647c71ecec9e9cb8", 169),
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
