"""Images: files as a dataset, a folder as a dataset, and normalizing a batch on the device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from drumbeat.data import dicom
from drumbeat.data.cache import TOP, PixelCache, Pixels
from drumbeat.data.image_files import Scan, is_image, suffixes
from drumbeat.data.order import Integers
from drumbeat.data.packed import PackedStrings
from drumbeat.data.pixels import as_image, read_header, read_pixels
from drumbeat.data.regular import open_regular

LOOKED_AT = 16
"""Files whose headers tell how many bits a set has."""
DECODED = 8
"""Files that are read to see which values they have."""
ALWAYS_8_BITS = (".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".bmp", ".gif")
AT_ONCE = 16
"""Threads that ask a file server for the state of files."""


class ImageFiles:
    """Image files as a dataset: (image, target) by index. `ImageFolder` and `ImageTable` tell which files and targets.

    An image is a PIL image if its values have 8 bits, and float32 [C, H, W] in 0..1 if they have 16. Transforms that
    are fused, and so the device, get the pixels as they are: uint8 or uint16.

    Args:
        channels: 1 for grayscale and 3 for RGB; all files are converted (see `read_pixels`).
        short_side: the size at which images are read: null reads them in full size, and "auto" lets a run choose the
            size from its transforms (`data/fused.py`).
        depth: 8 or 16 bits for each value; with "auto" 16 if one of a few files that are looked at has more than 8. A
            file that has more bits than the set is then an error, and with `depth: 8` it is read with 8.
        value_range: the two values that become black and white in files of more than 8 bits: `[0, 4095]` for 12 bits in
            a file of 16. Null: all that the file's type holds, or the window of a DICOM file.
        frame: which image, from 0, is read of files that hold several. Null: such a file is an error.

    Raises `ValueError` for arguments that are none of these, and for DICOM files if pydicom is missing.
    """

    def __init__(self, *, root: str, paths: Iterable[str], channels: Literal[1, 3] = 3,
                 short_side: int | Literal["auto"] | None = "auto", depth: Literal["auto", 8, 16] = "auto",
                 value_range: Sequence[float] | None = None, frame: int | None = None) -> None:
        if channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grayscale) or 3 (RGB), not {channels}")
        if depth not in ("auto", 8, 16):
            raise ValueError(f"depth must be 8, 16 or auto, not {depth}")
        if value_range is not None and (len(value_range) != 2 or not value_range[0] < value_range[1]):
            raise ValueError(f"value_range must be the two values that become black and white, as in "
                             f"[0, 4095], not {value_range}")
        self.root = root
        self.paths = paths if isinstance(paths, PackedStrings) else PackedStrings(paths)
        """Relative to the root, or absolute."""
        self.channels: int = channels
        self.short_side = short_side
        self.value_range = None if value_range is None else (float(value_range[0]), float(value_range[1]))
        self.frame = frame
        self.frames: Integers | None = None
        """The frame of each sample, int64 [n], if they differ."""
        self.cache: PixelCache | None = None
        """If set, pixels are read from it instead of the files."""
        self.depth: int | None = self._found_depth() if depth == "auto" else depth
        """8, 16, or None for 8 with an error for files that have more."""

    def _found_depth(self) -> int | None:
        """16 if one of a few files has more than 8 bits; otherwise None."""
        for index in np.unique(np.linspace(0, len(self.paths) - 1, LOOKED_AT).astype(int)) if len(self.paths) else ():
            if not (file := self.file(index)).lower().endswith(ALWAYS_8_BITS):
                with suppress(ValueError):
                    if read_header(file).depth > 8:
                        return 16
                if file.lower().endswith(dicom.SUFFIXES):
                    dicom.check_installed()
        return None

    @property
    def bits(self) -> int:
        """8 or 16 bits per value."""
        return self.depth or 8

    @property
    def facts(self) -> dict[str, int]:
        """What inference must know to read images in the same way: the depth if it is not 8."""
        return {"depth": 16} if self.bits == 16 else {}

    @property
    def stamps(self) -> Integers:
        """[n, 2]: size in bytes, and modification time in nanoseconds; or [n, 3] with the frame. Raises `OSError`."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Image.Image | Tensor, Any]:
        """Raises `ValueError`, which names the file, if it cannot be decoded."""
        return as_image(self.pixels(index)), self.target(index)

    def target(self, index: int) -> Any:
        """The target of a sample."""
        raise NotImplementedError

    def pixels(self, index: int) -> Pixels:
        """The image without its target, possibly read-only. Raises `ValueError` like `decode`."""
        cached = self.cache.pixels(index) if self.cache is not None else None
        return self.decode(index) if cached is None else cached

    def decode(self, index: int) -> Pixels:
        """The image, read from its file. Raises `ValueError`, which names the file, if it cannot be decoded."""
        return read_pixels(self.file(index), channels=self.channels, depth=self.depth, value_range=self.value_range,
                           frame=self.frame if self.frames is None else int(self.frames[index]),
                           short_side=None if self.short_side == "auto" else self.short_side)

    def file(self, index: int) -> str:
        """The path of an image."""
        path = self.paths[index]
        return path if path.startswith("/") else f"{self.root}/{path}"

    def names(self) -> Sequence[str]:
        """The name of each sample: its path below the root."""
        return self.paths

    def groups(self) -> Sequence[str]:
        """The patient of each DICOM file, read from its header; the name of a file that is none, or has no PatientID.

        Raises `ValueError` if no file has one.
        """
        with ThreadPoolExecutor(AT_ONCE) as threads:
            patients = PackedStrings(threads.map(self._patient, range(len(self))))
        if not any(patients):
            raise ValueError("no file has a PatientID, as DICOM files have, so the groups are not known; tell them by "
                             "group: (a regular expression for the names), or by a column of a table")
        return PackedStrings(patient or name for patient, name in zip(patients, self.paths, strict=True))

    def _patient(self, index: int) -> str:
        file = self.file(index)
        try:
            with open_regular(file) as stream:
                return dicom.patient(stream) if dicom.is_dicom(file, stream) else ""
        except (OSError, ValueError):
            return ""

    def notes(self) -> list[str]:
        """What the user should know about the set."""
        if self.bits == 8 or self.value_range is not None:
            return []
        most = looked = 0
        for index in np.unique(np.linspace(0, len(self) - 1, DECODED).astype(int)):
            with suppress(ValueError):
                most, looked = max(most, int(self.decode(index).max())), looked + 1
        if not 0 < most < TOP[16] / 4:
            return []
        return [f"the brightest value of {looked} images that were looked at is {most:,} of {TOP[16]:,}; if files hold "
                f"{most.bit_length()} bits, value_range: [0, {2**most.bit_length() - 1}] uses the whole range"]

    def recipe(self) -> str:
        """How pixels are computed from a file. A cache depends on it, and on the files."""
        more = {"bits": 16 if self.bits == 16 else None, "depth": 8 if self.depth == 8 else None,
                "range": self.value_range, "frame": self.frame}
        told = "".join(f", {name} {value}" for name, value in more.items() if value is not None)
        return f"pixels 1, channels {self.channels}, short side {self.short_side}{told}"


class ImageFolder(ImageFiles):
    """A folder with one subfolder per class: (image, class number) by index, with classes and files in sorted order.

    The other arguments are those of `ImageFiles`. Hidden folders and files are ignored, and so are those that file
    servers and archives add (`image_files.NOT_DATA`). Raises `FileNotFoundError` if the folder does not exist, and
    `ValueError` if it has no classes, a class has no images, or an image is a pipe or a broken link.
    """

    def __init__(self, *, root: str, channels: Literal[1, 3] = 3, short_side: int | Literal["auto"] | None = "auto",
                 depth: Literal["auto", 8, 16] = "auto", value_range: Sequence[float] | None = None,
                 frame: int | None = None) -> None:
        folder = Path(root)
        if not folder.is_dir():
            raise FileNotFoundError(f"the image folder {root} does not exist")
        self.scan = Scan()
        self.classes = sorted(entry.name for entry in self.scan.visible(folder) if entry.is_dir())
        if not self.classes:
            raise ValueError(f"the image folder {root} has no class folders (expected {root}/<class>/<image>"
                             + _instead(folder) + ")")
        files: list[tuple[str, int, int]] = []
        labels: list[int] = []
        for number, name in enumerate(self.classes):
            before = self.scan.left_out.copy()
            found = sorted(self.scan.images(folder / name, name))
            if not found:
                there = Scan(self.scan.left_out - before)
                raise ValueError(f"the class folder {folder / name} has no images ("
                                 + (f"it has {there}, and images are " if there.left_out else "")
                                 + f"{', '.join(suffixes())})")
            files += found
            labels += [number] * len(found)
        self._stamps = np.array([stamps for _, *stamps in files], dtype=np.int64)
        self.labels: Integers = np.array(labels, dtype=np.int64)
        super().__init__(root=str(folder), paths=(path for path, *_ in files), channels=channels,
                         short_side=short_side, depth=depth, value_range=value_range, frame=frame)

    @property
    def stamps(self) -> Integers:
        return self._stamps

    def target(self, index: int) -> int:
        return int(self.labels[index])

    def fingerprint(self) -> dict[str, str]:
        """Digests of the paths and sizes of the files, and of their modification times."""
        sizes, times = np.ascontiguousarray(self.stamps.T)
        names = blake2b("\0".join(self.paths).encode("utf-8", "surrogateescape"), digest_size=8)
        names.update(sizes.tobytes())
        return {"files": names.hexdigest(), "times": blake2b(times.tobytes(), digest_size=8).hexdigest()}

    def notes(self) -> list[str]:
        return [*super().notes(), *([f"left out {self.scan}"] if self.scan.left_out else [])]


def _instead(folder: Path) -> str:
    """A hint for a folder that holds images and no folders of classes."""
    images = sum(1 for entry in Scan().visible(folder) if is_image(entry.path))
    return f"; {images:,} images are in the folder itself, and a table can give their classes: " \
           "drumbeat.data.ImageTable" if images else ""


class Normalize(nn.Module):
    """Images [N, C, H, W] -> float32 [N, len(mean), H, W]: scaled to 0..1, minus `mean`, divided by `std`.

    White is 255 in uint8 images, 65535 in uint16 images, and 1 in images of floats. A single channel is expanded to all
    channels, so a grayscale image is copied to the device with one value per pixel.
    """

    def __init__(self, *, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        if len(mean) != len(std) or min(std) <= 0:
            raise ValueError(f"mean and std must have the same length, and std must be positive, not {mean} and {std}")
        scale = 1 / (255 * torch.tensor(std))
        self.register_buffer("scale", scale.view(1, -1, 1, 1), persistent=False)
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std)).view(1, -1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        if images.dtype == torch.uint16:
            scale = scale * (255 / 65535)
        elif images.is_floating_point():
            scale = scale * 255
        values = images.to(scale.dtype)
        if images.device.type == "cpu" and images.shape[1] == 1:  # the same bits in 2/3 of the time
            normalized = values.new_empty(len(images), scale.shape[1], *images.shape[2:])
            for c in range(scale.shape[1]):
                torch.add(shift[:, c], values[:, 0], alpha=float(scale[0, c]), out=normalized[:, c])
            return normalized
        return torch.addcmul(shift, values, scale)
