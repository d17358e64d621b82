"""Sets of small pictures that lie in a few files: CIFAR-10 and Fashion-MNIST, as their authors hand them out.

Their pictures are kept as one array, so a batch is one look-up: no loader process is needed to keep up. Torchvision's
own classes for these sets work in a config too; they read picture by picture.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drumbeat.data.cache import Pixels
from drumbeat.data.order import Integers

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot")
RECORD = 1 + 3 * 32 * 32
"""Bytes of a picture in CIFAR-10's binary version: its class, then red, green and blue row by row."""


class Pictures:
    """Pictures of one size in memory, (PIL image, class number) by index; and whole batches where nothing is done to
    them one by one: (uint8 [b, C, H, W], int64 [b])."""

    def __init__(self, pictures: Tensor, labels: Integers, classes: Sequence[str]) -> None:
        self.pictures = pictures
        """uint8 [n, C, H, W], one channel or three."""
        self.labels = labels
        """int64 [n]."""
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), int(self.labels[index])

    def pixels(self, index: int) -> Pixels:
        """The picture alone, uint8 [H, W] or [H, W, 3]."""
        channels_last = self.pictures[index].permute(1, 2, 0).contiguous().numpy()
        return channels_last if channels_last.shape[2] == 3 else channels_last[:, :, 0]

    def fetch(self, indices: Integers) -> tuple[Tensor, Tensor]:
        """The samples at these indices, int64 [b], as one batch."""
        return self.pictures[torch.from_numpy(indices)], torch.from_numpy(self.labels[indices])

    def fingerprint(self) -> dict[str, str]:
        """A digest of what the set holds."""
        content = blake2b(self.pictures.numpy().tobytes() + self.labels.tobytes(), digest_size=8)
        return {"files": content.hexdigest(), "times": ""}


class Cifar10(Pictures):
    """CIFAR-10 in its binary version: 50,000 pictures of 32x32 to train on, or with `train=False` 10,000 to test.

    `root` holds data_batch_1.bin to data_batch_5.bin and test_batch.bin. Raises `FileNotFoundError` for one that is not
    there, and `ValueError` for one that holds something else.
    """

    def __init__(self, *, root: str, train: bool = True) -> None:
        names = [f"data_batch_{number}.bin" for number in range(1, 6)] if train else ["test_batch.bin"]
        records = np.concatenate([_records(_found(root, name)) for name in names])
        super().__init__(torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)), records[:, 0].astype(np.int64),
                         CIFAR10)


class FashionMnist(Pictures):
    """Fashion-MNIST: 60,000 gray pictures of 28x28 to train on, or with `train=False` 10,000 to test.

    `root` holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., each as it is or with .gz. MNIST itself, in
    the same files, can be read with its own `classes`. Raises `FileNotFoundError` and `ValueError` as `Cifar10`.
    """

    def __init__(self, *, root: str, train: bool = True, classes: Sequence[str] = FASHION) -> None:
        part = "train" if train else "t10k"
        pictures = _idx(_found(root, f"{part}-images-idx3-ubyte", ".gz"), dimensions=3)
        labels = _idx(_found(root, f"{part}-labels-idx1-ubyte", ".gz"), dimensions=1)
        if len(pictures) != len(labels):
            raise ValueError(f"{root} holds {len(pictures):,} pictures in {part}-images and {len(labels):,} labels in "
                             f"{part}-labels; fetch both again")
        if labels.max(initial=0) >= len(classes):
            raise ValueError(f"{root} has a label {labels.max()}, and there are {len(classes)} classes; "
                             "name them: classes: [...]")
        super().__init__(torch.from_numpy(pictures[:, None]), labels.astype(np.int64), classes)


def _found(root: str, name: str, also: str = "") -> Path:
    paths = [Path(root) / (name + ending) for ending in dict.fromkeys(("", also))]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(f"the file {paths[0]}{f' (or {also})' if also else ''} is not there")


def _records(path: Path) -> Pixels:
    """uint8 [n, RECORD], from a file of CIFAR-10."""
    values = np.fromfile(path, np.uint8)
    if not len(values) or len(values) % RECORD or values[::RECORD].max() >= len(CIFAR10):
        raise ValueError(f"{path} is not a batch of CIFAR-10's binary version ({len(values):,} bytes; each picture "
                         f"takes {RECORD:,}, its class first); fetch it again")
    return values.reshape(-1, RECORD)


def _idx(path: Path, *, dimensions: int) -> Pixels:
    """Values uint8 of so many dimensions from an IDX file: two zeros, 8 for bytes, the number of dimensions, each of
    them as a big-endian number of 32 bits, then the values (yann.lecun.com/exdb/mnist)."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}; fetch it again") from error
    head = 4 + 4 * dimensions
    shape = np.frombuffer(content[4:head], ">u4").tolist() if len(content) >= head else []
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - head != np.prod(shape, dtype=np.int64):
        raise ValueError(f"{path} is not an IDX file of bytes in {dimensions} dimensions; fetch it again")
    return np.frombuffer(bytearray(content), np.uint8, offset=head).reshape(shape)
