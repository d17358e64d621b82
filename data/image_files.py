"""Which files of a folder are images: by their suffix, or, if they have none, by their first bytes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from PIL import features

from drumbeat.data import dicom
from drumbeat.data.regular import kind_of, open_regular

SUFFIXES = (".apng", ".bmp", ".dib", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm",
            ".tga", ".tif", ".tiff", *dicom.SUFFIXES)
OPTIONAL = {"avif": (".avif",), "webp": (".webp",), "jpg_2000": (".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx")}
"""Suffixes that Pillow reads only if it was built with a feature."""

SIGNATURES = {b"\xff\xd8\xff": "JPEG", b"\x89PNG": "PNG", b"II*\x00": "TIFF", b"MM\x00*": "TIFF", b"RIFF": "WebP",
              b"GIF8": "GIF", b"BM": "BMP", b"\x00\x00\x00\x0cjP  ": "JPEG 2000", b"\xffO\xffQ": "JPEG 2000"}
"""The first bytes of image files."""

NOT_DATA = frozenset({"@eaDir", "#recycle", "__MACOSX", "$RECYCLE.BIN", "System Volume Information", "lost+found",
                      "Thumbs.db", "ehthumbs.db", "desktop.ini"})
"""Folders and files that file servers, archives and desktops put beside the data."""


@cache
def suffixes() -> tuple[str, ...]:
    """The suffixes of the images that can be read here."""
    return (*SUFFIXES, *(suffix for feature, several in OPTIONAL.items() if features.check(feature)
                         for suffix in several))


def suffix_of(name: str) -> str:
    """The suffix in lower case; '' for none, and for a number, as in names of DICOM files such as 1.2.840.113."""
    suffix = Path(name).suffix.lower()
    return "" if suffix[1:].isdecimal() else suffix


def is_image(file: str | Path) -> bool:
    """Whether a file is an image, as far as its suffix tells; if it has none, its first bytes are read."""
    suffix = suffix_of(str(file))
    return suffix in suffixes() if suffix else _has_signature(file)


def is_data(name: str) -> bool:
    """Whether a file or folder may belong to a set: it is not hidden, and not one of `NOT_DATA`."""
    return not name.startswith(".") and name not in NOT_DATA


def _has_signature(file: str | Path) -> bool:
    try:
        with open_regular(file) as stream:
            start = stream.read(dicom.MAGIC_AT + len(dicom.MAGIC))
    except (OSError, ValueError):
        return False
    return start.startswith(tuple(SIGNATURES)) or start[dicom.MAGIC_AT:] == dicom.MAGIC


@dataclass
class Scan:
    """Finds the images below a folder, and counts what it leaves out."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Files that are no images, by suffix; and files and folders of `NOT_DATA`, by name."""

    def visible(self, folder: Path | str) -> Iterator[os.DirEntry[str]]:
        """What is in a folder, without what is hidden and what is no data."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_data(entry.name):
                    yield entry
                elif entry.name in NOT_DATA:
                    self.left_out[entry.name] += 1

    def images(self, folder: Path | str, below: str, above: tuple[str, ...] = ()) -> Iterator[tuple[str, int, int]]:
        """Path, size and modification time of each image in a folder and its subfolders. `above` are the folders around
        it, without links. Raises `ValueError` for a link to a folder around it, and for an image that is no file."""
        above = (*above, os.path.realpath(folder))
        if above[-1] in above[:-1]:
            raise ValueError(f"the folder {folder} is a link to a folder that contains it; remove the link")
        for entry in self.visible(folder):
            path = f"{below}/{entry.name}"
            if entry.is_dir():
                yield from self.images(entry.path, path, above)
            elif is_image(entry.path):
                if not entry.is_file():
                    raise ValueError(f"{entry.path} is {kind_of(entry.path)}, and not a regular file; remove or rename "
                                     "it")
                stat = entry.stat()
                yield path, stat.st_size, stat.st_mtime_ns
            else:
                self.left_out[suffix_of(entry.name) or "without suffix"] += 1

    def __str__(self) -> str:
        """What was left out, as in "12 .jxl, 3 .txt"; '' for nothing."""
        return listed(self.left_out)


def listed(counts: Counter[str], most: int = 8) -> str:
    """Counts as in "12 .jxl, 3 .txt"."""
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    shown = [f"{count:,} {name}" for name, count in ordered[:most]]
    return ", ".join([*shown, *(["..."] if len(counts) > most else [])])
