"""Datasets of small images in a few files: CIFAR-10 and Fashion-MNIST, in the format of their authors.

All images are kept in one array, so a whole batch is one indexing operation and needs no loader workers. Torchvision's
classes for these datasets also work in a config; they read one image at a time.
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from drumbeat.data.cache import Pixels
from drumbeat.data.order import Integers
from drumbeat.data.regular import open_regular

CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FASHION_CLASSES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag",
                   "Ankle boot")
MOST_BYTES = 8 << 30
"""No file of these datasets is larger, decompressed."""
RECORD = 1 + 3 * 32 * 32
"""Bytes per image in CIFAR-10's binary version: its class, then red, green and blue row by row."""


class ImageArrays:
    """Images of one size in memory: (PIL image, class number) by index, or whole batches (uint8 [b, C, H, W], int64
    [b]) if there are no transforms for single samples."""

    def __init__(self, images: Tensor, labels: Integers, classes: Sequence[str]) -> None:
        self.images = images
        """uint8 [n, C, H, W] with 1 or 3 channels."""
        self.labels = labels
        """int64 [n]."""
        self.classes = list(classes)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), self.target(index)

    def target(self, index: int) -> int:
        return int(self.labels[index])

    def pixels(self, index: int) -> Pixels:
        """The image without its label, uint8 [H, W], which must not be changed, or [H, W, 3]."""
        values = self.images.numpy()[index]
        return values[0] if len(values) == 1 else np.ascontiguousarray(values.transpose(1, 2, 0))

    def fetch(self, indices: Integers) -> tuple[Tensor, Tensor]:
        """The samples at these indices, int64 [b], as one batch."""
        return self.images.index_select(0, torch.from_numpy(indices)), torch.from_numpy(self.labels[indices])

    def fingerprint(self) -> dict[str, str]:
        """A digest of the images and labels."""
        content = blake2b(self.images.numpy().tobytes() + self.labels.tobytes(), digest_size=8)
        return {"files": content.hexdigest(), "times": ""}


class CIFAR10(ImageArrays):
    """CIFAR-10 in its binary version: 50,000 training images of 32x32, or 10,000 test images with `train=False`.

    `root` holds data_batch_1.bin to data_batch_5.bin and test_batch.bin. Raises `FileNotFoundError` if a file is
    missing, and `ValueError` if a file is not in this format.
    """

    def __init__(self, *, root: str, train: bool = True) -> None:
        names = [f"data_batch_{number}.bin" for number in range(1, 6)] if train else ["test_batch.bin"]
        records = np.concatenate([_records(_found(root, name)) for name in names])
        super().__init__(torch.from_numpy(records[:, 1:].reshape(-1, 3, 32, 32)), records[:, 0].astype(np.int64),
                         CIFAR10_CLASSES)


class FashionMNIST(ImageArrays):
    """Fashion-MNIST: 60,000 grayscale training images of 28x28, or 10,000 test images with `train=False`.

    `root` holds train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-..., with or without .gz. MNIST has the same
    file names and can be read with its own `classes`. Raises `FileNotFoundError` and `ValueError` like `CIFAR10`.
    """

    def __init__(self, *, root: str, train: bool = True, classes: Sequence[str] = FASHION_CLASSES) -> None:
        part = "train" if train else "t10k"
        images = _idx(_found(root, f"{part}-images-idx3-ubyte", ".gz"), dimensions=3)
        labels = _idx(_found(root, f"{part}-labels-idx1-ubyte", ".gz"), dimensions=1)
        if len(images) != len(labels):
            raise ValueError(f"{root} holds {len(images):,} images in {part}-images and {len(labels):,} labels in "
                             f"{part}-labels; download both again")
        if labels.max(initial=0) >= len(classes):
            raise ValueError(f"{root} has a label {labels.max()}, but there are only {len(classes)} classes; "
                             "name all of them: classes: [...]")
        super().__init__(torch.from_numpy(images[:, None]), labels.astype(np.int64), classes)


def _found(root: str, name: str, also: str = "") -> Path:
    paths = [Path(root) / (name + ending) for ending in dict.fromkeys(("", also))]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(f"the file {paths[0]}{f' (or {also})' if also else ''} does not exist")


def _records(path: Path) -> NDArray[np.uint8]:
    """uint8 [n, RECORD], from one of CIFAR-10's files."""
    values = np.fromfile(path, np.uint8) if path.stat().st_size <= MOST_BYTES else np.empty(0, np.uint8)
    if not len(values) or len(values) % RECORD or values[::RECORD].max() >= len(CIFAR10_CLASSES):
        raise ValueError(f"{path} is not a batch of CIFAR-10's binary version ({path.stat().st_size:,} bytes; each "
                         f"image takes {RECORD:,}, its class first); download it again")
    return values.reshape(-1, RECORD)


def _idx(path: Path, *, dimensions: int) -> NDArray[np.uint8]:
    """The uint8 values of an IDX file with that many dimensions. The file starts with two zeros, 8 for "bytes" and the
    number of dimensions; then come the size of each as a big-endian 32-bit integer, and the values
    (yann.lecun.com/exdb/mnist)."""
    wrong = f"{path} is not an IDX file of bytes in {dimensions} dimensions; download it again"
    try:
        with open_regular(path) as file, gzip.open(file) if path.suffix == ".gz" else file as content:
            head = content.read(4 + 4 * dimensions)
            shape = np.frombuffer(head[4:], ">u4").tolist() if len(head) == 4 + 4 * dimensions else []
            size = math.prod(shape)
            if head[:4] != bytes([0, 0, 8, dimensions]) or not shape or size > MOST_BYTES:
                raise ValueError(wrong)
            values = bytearray()
            while len(values) <= size and (more := content.read(min(1 << 20, size + 1 - len(values)))):
                values += more  # piece by piece: the file may be shorter, and a compressed one far longer
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read: {error}; download it again") from error
    if len(values) != size:
        raise ValueError(wrong)
    return np.frombuffer(values, np.uint8).reshape(shape)
