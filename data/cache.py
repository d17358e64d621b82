"""Decoded images in one memory-mapped file: each is decoded and shrunk once, by whoever comes first.

    FOLDER/<name of the set's folder>-<digest of its path and of how pixels are made>/
        pixels.bin     the images one behind the other, 8 bits a value; it only ever grows
        index.npy      for each image its key and its place; replaced whole, after the pixels are on the disk
        lock           held by the one process that fills it

An image's key is a hash of its path below the set's folder, its size and the time of its last change. So a changed file
is a new image, a removed one is not asked for any more, and what is in the index is good, whoever was killed when. What
old images take is given back by deleting the folder, which no run needs but those that read from it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from drumbeat.data.fork import FORK
from drumbeat.data.order import Integers
from drumbeat.data.packed import PackedStrings
from drumbeat.data.shared_folder import check_owner, open_lock

Pixels = NDArray[np.uint8]
"""One image: [H, W] gray or [H, W, 3] in RGB."""
Progress = Callable[[int, int], None]
"""Called with the number of images done and of all that were missing."""

PLACE = np.dtype([("key", "<u8"), ("offset", "<i8"), ("height", "<i4"), ("width", "<i4")])
"""A line of the index. An image that cannot be read has no height: whoever asks for it learns why from its file."""

CHUNK = 16
"""Images that a worker decodes at a time."""

PUBLISH_BYTES = 1 << 30
"""A build that is killed loses at most so much."""


class Images(Protocol):
    """What can be cached: a set of image files."""

    root: str
    channels: int
    paths: PackedStrings
    stamps: Integers

    def decode(self, index: int) -> Pixels: ...

    def recipe(self) -> str: ...


class DiskFullError(OSError):
    """The folder's disk has no room for the images. `str()` of it says how much there is and how much it takes."""


class PixelCache:
    """The pixels of a set of images, read from the file. `open_cache` makes one."""

    def __init__(self, folder: Path, places: NDArray[np.void], channels: int) -> None:
        self.folder = folder
        self.offsets = np.ascontiguousarray(places["offset"])
        self.shapes = np.stack([places["height"], places["width"]], axis=1)
        self.channels = channels
        self.bytes = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r") if self.nbytes else (
            np.empty(0, np.uint8))

    def pixels(self, index: int) -> Pixels | None:
        """An image, gray [H, W] or RGB [H, W, 3], read only; None for one that could not be decoded."""
        height, width = self.shapes[index].tolist()
        if not height:
            return None
        shape = (height, width) if self.channels == 1 else (height, width, self.channels)
        start = int(self.offsets[index])
        pixels: Pixels = self.bytes[start:start + height * width * self.channels].reshape(shape)
        return pixels

    @property
    def nbytes(self) -> int:
        """What the set's images take in the file."""
        return int(self.shapes.prod(axis=1, dtype=np.int64).sum()) * self.channels


def open_cache(images: Images, folder: Path, *, workers: int, progress: Progress = lambda done, total: None
               ) -> PixelCache:
    """The set's pixels from `folder`, after decoding those that it does not hold yet in so many processes.

    Processes that come at once wait for the first, and find its work done. Raises `DiskFullError`, and `OSError` where
    the folder cannot be written.
    """
    identity = blake2b(f"{images.root}\0{images.recipe()}".encode("utf-8", "surrogateescape"), digest_size=4)
    home = folder / f"{Path(images.root).name}-{identity.hexdigest()}"
    keys = image_keys(images)
    places = _find(_index(home, images.channels), keys)
    if places is None:
        home.mkdir(parents=True, exist_ok=True)
        check_owner(home)  # before anything is written to files whose names anybody can work out
        with _locked(home / "lock"):
            places = _find(_index(home, images.channels), keys)
            if places is None:
                _fill(home, images, keys, workers, progress)
                places = _find(_index(home, images.channels), keys)
                assert places is not None
    return PixelCache(home, places, images.channels)


def image_keys(images: Images) -> NDArray[np.uint64]:
    """A hash of each image's path, size and time, uint64 [n]. Of a million, two are alike with a chance of 3e-8."""
    stamps = np.ascontiguousarray(images.stamps, dtype="<i8")
    digests = (blake2b(stamp.tobytes() + path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
               for stamp, path in zip(stamps, images.paths, strict=True))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _index(home: Path, channels: int) -> NDArray[np.void]:
    """What the cache holds, sorted by key; empty if it does not exist or is invalid."""
    try:
        with open(home / "index.npy", "rb") as file:
            index: NDArray[np.void] = np.lib.format.read_array(file, allow_pickle=False)
        size = (home / "pixels.bin").stat().st_size
    except (OSError, ValueError):
        return np.empty(0, PLACE)
    whole = index.dtype == PLACE and index.ndim == 1 and _end(index, channels) <= size
    return index if whole else np.empty(0, PLACE)


def _end(index: NDArray[np.void], channels: int) -> int:
    """The size of the file of pixels as far as the index tells of it."""
    sizes = index["height"].astype(np.int64) * index["width"] * channels
    return int((index["offset"] + sizes).max(initial=0))


def _find(index: NDArray[np.void], keys: NDArray[np.uint64]) -> NDArray[np.void] | None:
    """The places of these images; None if one is missing."""
    if not len(index):
        return None if len(keys) else index
    rows = np.minimum(np.searchsorted(index["key"], keys), len(index) - 1)
    return index[rows] if bool((index["key"][rows] == keys).all()) else None


def _fill(home: Path, images: Images, keys: NDArray[np.uint64], workers: int, progress: Progress) -> None:
    """Decodes what is missing, and publishes it every now and then."""
    index = _index(home, images.channels)
    missing = np.flatnonzero(~np.isin(keys, index["key"]))
    chunks = [missing[start:start + CHUNK] for start in range(0, len(missing), CHUNK)]
    decoded = DataLoader(_Decoding(images, chunks), batch_size=None, num_workers=min(workers, len(chunks)),
                         collate_fn=_as_it_is, multiprocessing_context=FORK if workers else None,
                         generator=torch.Generator())  # of its own: drawing from torch's would change what comes next
    # What was lost is begun anew, under a new inode, so that no reader's map shrinks. The old index goes first, or it
    # would be believed once there are as many new pixels.
    if not len(index):
        (home / "index.npy").unlink(missing_ok=True)
        (home / "pixels.bin").unlink(missing_ok=True)
    done: list[tuple[int, int, int, int]] = []
    count = 0
    try:
        with open(home / "pixels.bin", "ab") as file:
            file.truncate(_end(index, images.channels))  # what a killed build had not published
            published = file.seek(0, os.SEEK_END)
            for chunk, pictures in zip(chunks, decoded, strict=True):
                if count == 0:
                    _check_room(home, sum(map(_size, pictures)) / len(pictures) * len(missing))
                for row, picture in zip(chunk.tolist(), pictures, strict=True):
                    height, width = (0, 0) if picture is None else picture.shape[:2]
                    done.append((int(keys[row]), file.tell(), height, width))
                    if picture is not None:
                        file.write(picture.data)
                count += len(chunk)
                progress(count, len(missing))
                if file.tell() - published > PUBLISH_BYTES or count == len(missing):
                    _publish(home, file.fileno(), file.flush, index, done)
                    published = file.tell()
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT) or isinstance(error, DiskFullError):
            raise
        raise DiskFullError(errno.ENOSPC, f"the disk is full after {count} of {len(missing)} images", str(home)
                            ) from None


def _publish(home: Path, file: int, flush: Callable[[], None], index: NDArray[np.void],
             done: Sequence[tuple[int, int, int, int]]) -> None:
    """Puts the images into the index, once their pixels are on the disk."""
    flush()
    os.fsync(file)
    whole = np.concatenate([index, np.array(done, dtype=PLACE)])
    whole = whole[np.argsort(whole["key"], kind="stable")]
    temporary = home / f".index.{os.getpid()}.tmp"
    with open(temporary, "wb") as out:
        np.save(out, whole)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, home / "index.npy")


def _check_room(home: Path, needed: float) -> None:
    free = shutil.disk_usage(home).free
    if needed > free:
        raise DiskFullError(errno.ENOSPC, f"the images take about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
                                          "free", str(home))


def _as_it_is(pictures: list[Pixels | None]) -> list[Pixels | None]:
    return pictures


def _size(picture: Pixels | None) -> int:
    return 0 if picture is None else picture.nbytes


class _Decoding(Dataset[list[Pixels | None]]):
    """Chunks of images, decoded in loader workers."""

    def __init__(self, images: Images, chunks: Sequence[Integers]) -> None:
        self.images = images
        self.chunks = chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, number: int) -> list[Pixels | None]:
        return [self._decoded(index) for index in self.chunks[number].tolist()]

    def _decoded(self, index: int) -> Pixels | None:
        try:
            return np.ascontiguousarray(self.images.decode(index))
        except ValueError:
            return None


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Alone in the folder. The lock goes with the process, however it ends."""
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process, which fills the cache {path.parent}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
