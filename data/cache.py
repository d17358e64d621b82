"""A cache of decoded images in one memory-mapped file: each image is decoded and shrunk once.

    FOLDER/<name of the dataset's folder>-<digest of its path and of how pixels are made>/
        pixels.bin     the images one after another, 8 or 16 bits per value; it only grows
        index.npy      the key and position of each image; replaced as a whole, after the pixels are on the disk
        lock           held by the one process that fills the cache

An image's key is a hash of its path below the dataset's folder, its size and its modification time. So a changed file
is a new image, a removed one is never looked up, and everything in the index is valid even if a process was killed. To
free the space of old images, delete the folder while no run reads from it.
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
from drumbeat.data.shared_folder import check_owner, open_lock, owners_of, without_links

Pixels = NDArray[np.uint8 | np.uint16]
"""One image: [H, W] grayscale or [H, W, 3] RGB. Black is 0, and white is the greatest value of the type."""
TOP = {8: 2**8 - 1, 16: 2**16 - 1}
"""White, for each number of bits per value."""
Progress = Callable[[int, int], None]
"""Called with the number of images decoded so far, and the number of all that were missing."""

ENTRY = np.dtype([("key", "<u8"), ("offset", "<i8"), ("height", "<i4"), ("width", "<i4")])
"""An entry of the index. An unreadable image has height 0: it is decoded from its file again, which gives the error."""

CHUNK = 16
"""Images that a worker decodes at a time."""

PUBLISH_BYTES = 1 << 30
"""The index is written after this many bytes of pixels: a process that is killed loses at most so much work."""


class Images(Protocol):
    """A dataset of image files that can be cached."""

    root: str
    channels: int
    paths: PackedStrings

    @property
    def bits(self) -> int:
        """8 or 16 bits per value."""

    @property
    def stamps(self) -> Integers: ...

    def decode(self, index: int) -> Pixels: ...

    def recipe(self) -> str: ...


class DiskFullError(OSError):
    """The disk has too little space for the images. The message says how much is free and how much is needed."""


class PixelCache:
    """The pixels of a dataset, read from the cache. `open_cache` creates it."""

    def __init__(self, folder: Path, places: NDArray[np.void], channels: int, bits: int) -> None:
        self.folder = folder
        self.offsets = np.ascontiguousarray(places["offset"])
        self.shapes = np.stack([places["height"], places["width"]], axis=1)
        self.channels = channels
        self.bits = bits
        self.bytes = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r") if self.nbytes else (
            np.empty(0, np.uint8))

    def pixels(self, index: int) -> Pixels | None:
        """An image, grayscale [H, W] or RGB [H, W, 3], read-only; None if it could not be decoded."""
        height, width = self.shapes[index].tolist()
        if not height:
            return None
        shape = (height, width) if self.channels == 1 else (height, width, self.channels)
        start = int(self.offsets[index])
        values = self.bytes[start:start + height * width * self.channels * self.bits // 8]
        return (values if self.bits == 8 else values.view(np.uint16)).reshape(shape)

    @property
    def nbytes(self) -> int:
        """The bytes that the dataset's images take in the file."""
        return int(self.shapes.prod(axis=1, dtype=np.int64).sum()) * self.channels * self.bits // 8


def open_cache(images: Images, folder: Path, *, workers: int, progress: Progress = lambda done, total: None
               ) -> PixelCache:
    """The dataset's pixels from `folder`. Images that are missing there are decoded first, in `workers` processes.

    If several processes start at the same time, one decodes and the others wait. Raises `DiskFullError`, and `OSError`
    if the folder cannot be written.
    """
    identity = blake2b(f"{images.root}\0{images.recipe()}".encode("utf-8", "surrogateescape"), digest_size=4)
    home = folder / f"{Path(images.root).name}-{identity.hexdigest()}"
    keys = image_keys(images)
    owners = owners_of(Path(images.root))  # who may change the images may also change their pixels
    if home.exists():
        check_owner(home, *owners)
    places = _find(_index(home, images), keys)
    if places is None:
        home.mkdir(parents=True, exist_ok=True)
        check_owner(home, *owners)
        with _locked(home / "lock"):
            places = _find(_index(home, images), keys)
            if places is None:
                _fill(home, images, keys, workers, progress)
                places = _find(_index(home, images), keys)
                assert places is not None
    return PixelCache(home, places, images.channels, images.bits)


def image_keys(images: Images) -> NDArray[np.uint64]:
    """A hash of each image's path and stamps (size, modification time, and frame if there are several), uint64 [n]. The
    probability that two of a million images have the same hash is 3e-8."""
    stamps = np.ascontiguousarray(images.stamps, dtype="<i8")
    digests = (blake2b(stamp.tobytes() + path.encode("utf-8", "surrogateescape"), digest_size=8).digest()
               for stamp, path in zip(stamps, images.paths, strict=True))
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def _bytes_each(images: Images) -> int:
    """Bytes of each pixel."""
    return images.channels * images.bits // 8


def _index(home: Path, images: Images) -> NDArray[np.void]:
    """The index, sorted by key; empty if it does not exist or is invalid."""
    try:
        # Mapped, because a damaged header may claim any size, and copied.
        index: NDArray[np.void] = np.array(np.lib.format.open_memmap(home / "index.npy", mode="r"))
        size = (home / "pixels.bin").stat().st_size
    except Exception:  # of a damaged header NumPy raises almost anything
        return np.empty(0, ENTRY)
    valid = index.dtype == ENTRY and index.ndim == 1 and _is_within(index, _bytes_each(images), size)
    return index if valid else np.empty(0, ENTRY)


def _end(index: NDArray[np.void], each: int) -> int:
    """The end of the last indexed image in the file of pixels, in bytes."""
    sizes = index["height"].astype(np.int64) * index["width"] * each
    return int((index["offset"] + sizes).max(initial=0))


def _is_within(index: NDArray[np.void], each: int, size: int) -> bool:
    """Whether all indexed images are within a file of pixels of `size` bytes."""
    offset, height, width = (index[name].astype(np.float64) for name in ("offset", "height", "width"))  # no overflow
    return bool(((offset >= 0) & (height >= 0) & (width >= 0) & (offset + height * width * each <= size)).all())


def _find(index: NDArray[np.void], keys: NDArray[np.uint64]) -> NDArray[np.void] | None:
    """The entries of these images; None if one is missing."""
    if not len(index):
        return None if len(keys) else index
    rows = np.minimum(np.searchsorted(index["key"], keys), len(index) - 1)
    return index[rows] if bool((index["key"][rows] == keys).all()) else None


def _fill(home: Path, images: Images, keys: NDArray[np.uint64], workers: int, progress: Progress) -> None:
    """Decodes the missing images, and updates the index after every `PUBLISH_BYTES`."""
    index = _index(home, images)
    missing = np.flatnonzero(~np.isin(keys, index["key"]))
    chunks = [missing[start:start + CHUNK] for start in range(0, len(missing), CHUNK)]
    decoded = DataLoader(_Decoding(images, chunks), batch_size=None, num_workers=min(workers, len(chunks)),
                         collate_fn=_unchanged, multiprocessing_context=FORK if workers else None,
                         generator=torch.Generator())  # its own generator, so that torch's state does not change
    # A cache without a valid index starts with a new file (a new inode, so that no reader's map shrinks). The old index
    # is removed first: otherwise it would be valid again once there are as many new pixels.
    if not len(index):
        (home / "index.npy").unlink(missing_ok=True)
        (home / "pixels.bin").unlink(missing_ok=True)
    done: list[tuple[int, int, int, int]] = []
    count = 0
    try:
        with open(home / "pixels.bin", "ab", opener=without_links) as file:
            file.truncate(_end(index, _bytes_each(images)))  # removes pixels that a killed process had not indexed
            published = file.seek(0, os.SEEK_END)
            for chunk, decoded_images in zip(chunks, decoded, strict=True):
                if count == 0:
                    _check_space(home, sum(map(_size, decoded_images)) / len(decoded_images) * len(missing))
                for row, pixels in zip(chunk.tolist(), decoded_images, strict=True):
                    height, width = (0, 0) if pixels is None else pixels.shape[:2]
                    done.append((int(keys[row]), file.tell(), height, width))
                    if pixels is not None:
                        file.write(pixels.data)
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
    """Adds the images to the index once their pixels are on the disk."""
    flush()
    os.fsync(file)
    whole = np.concatenate([index, np.array(done, dtype=ENTRY)])
    whole = whole[np.argsort(whole["key"], kind="stable")]
    temporary = home / f".index.{os.getpid()}.tmp"
    with open(temporary, "wb", opener=without_links) as out:
        np.save(out, whole)
        out.flush()
        os.fsync(out.fileno())
    os.replace(temporary, home / "index.npy")


def _check_space(home: Path, needed: float) -> None:
    free = shutil.disk_usage(home).free
    if needed > free:
        raise DiskFullError(errno.ENOSPC, f"the images take about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are "
                                          "free", str(home))


def _unchanged(decoded: list[Pixels | None]) -> list[Pixels | None]:
    return decoded


def _size(pixels: Pixels | None) -> int:
    return 0 if pixels is None else pixels.nbytes


class _Decoding(Dataset[list[Pixels | None]]):
    """Chunks of images, for decoding in loader workers."""

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
    """Holds the lock. The kernel releases it when the process ends, in whatever way."""
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that fills the cache {path.parent}", file=sys.stderr, flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
