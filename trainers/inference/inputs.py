"""Inputs of `drumbeat predict`: folders, files and tables, as samples for a model of images or of texts.

    photos/             every image in it; the names of sub-folders are labels if they are the run's classes
    photo.jpg           an image
    list.csv            for images: a column `file`; for texts: the run's column of texts. It may also have labels
    texts.txt           a text on each line
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.layers import short
from drumbeat.configs.preconditions import innermost
from drumbeat.configs.schema import Config
from drumbeat.data.cache import Pixels
from drumbeat.data.image_files import is_data, is_image, suffixes
from drumbeat.data.pixels import as_image, pixels_of, pixels_of_array, read_pixels
from drumbeat.data.regular import lines_of, open_regular
from drumbeat.data.structure import pixels_as_tensor
from drumbeat.data.tables import BLOCK, FORMATS, Table
from drumbeat.data.text import Texts
from drumbeat.data.vocabulary import Vocabulary
from drumbeat.trainers.inference.tables import text_of
from drumbeat.trainers.tasks import Task

FILE_COLUMNS = ("file", "path", "image", "filename")
LABEL_COLUMNS = ("label", "class", "target", "actual")


class Item(NamedTuple):
    """One input."""

    name: str
    value: Any
    """A path, a PIL image, pixels or a tensor; or a text."""
    actual: str = ""
    """The label, if it is known, as `Task.to_text` writes it."""
    frame: int | None = None
    """The frame of an image file, if the table tells it."""


@dataclass(frozen=True)
class ImageFormat:
    """How images are read; see `drumbeat.data.pixels.read_pixels`."""

    channels: int
    short_side: int | None = None
    tensors: bool = False
    """Whether the training set returns tensors, uint8 [C, H, W], and not PIL images."""
    depth: int | None = 8
    value_range: tuple[float, float] | None = None
    frame: int | None = None


@dataclass(frozen=True)
class TextFormat:
    """How texts are read; see `drumbeat.data.text.Texts`."""

    vocabulary: Vocabulary
    length: int | None = None
    limit: int | None = None


@dataclass(frozen=True)
class TableFormat:
    """The columns that the run's own set reads of its table. Tables for inference may have them too."""

    sample: str = ""
    """The image files or the texts."""
    labels: tuple[str, ...] = ()
    separator: str | None = None
    name: str = ""
    frame: str = ""
    root: str = ""
    """The folder in which the set looks for its files."""

    @classmethod
    def of(cls, config: Config) -> TableFormat:
        """The format of the training set, as the config tells it."""
        node = innermost(config.data.train)
        kind = str(node.get("_target_")).rpartition(".")[2]
        if kind not in ("ImageTable", "Texts"):
            return cls()
        labels, frame = node.get("labels") or (), node.get("frame")
        return cls(sample=str(node.get("image", "file") if kind == "ImageTable" else node.get("text", "text")),
                   labels=(labels,) if isinstance(labels, str) else tuple(map(str, labels)),
                   separator=node.get("separator"), name=str(node.get("id") or ""),
                   frame=frame if isinstance(frame, str) else "", root=str(node.get("root") or ""))


class Images:
    """Items as a dataset of images: a PIL image, or float32 [C, H, W] if it has 16 bits."""

    def __init__(self, items: Sequence[Item], how: ImageFormat) -> None:
        self.items = items
        self.how = how

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return as_image(self.pixels(index)), self.target(index)

    def target(self, index: int) -> int:
        return 0

    def pixels(self, index: int) -> Pixels:
        """[H, W] or [H, W, 3]. Raises `ValueError` for an image that cannot be read."""
        how, item = self.how, self.items[index]
        value = item.value
        if isinstance(value, str | Path):
            return read_pixels(str(value), channels=how.channels, short_side=how.short_side, depth=how.depth,
                               value_range=how.value_range, frame=how.frame if item.frame is None else item.frame)
        if isinstance(value, Tensor):
            value = value.cpu().numpy()
            value = value.transpose(1, 2, 0) if value.ndim == 3 else value
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            value = Image.fromarray(value[:, :, 0] if value.ndim == 3 and value.shape[2] == 1 else value)
        of = pixels_of_array if isinstance(value, np.ndarray) else pixels_of
        return of(value, channels=how.channels, short_side=how.short_side, depth=how.depth, value_range=how.value_range)


class ImageTensors(Images):
    """The same for a run whose own dataset returns tensors: uint8 [C, H, W]."""

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return pixels_as_tensor(self.pixels(index)).clone(), self.target(index)


def texts(items: Sequence[Item], like: TextFormat, folder: Path) -> Texts:
    """Items as a dataset of texts, split into words and cut as `like` does it; its files are written to `folder`."""
    file = folder / "texts.jsonl"
    with open(file, "w", encoding="utf-8") as lines:
        lines.writelines(json.dumps({"text": str(item.value)}) + "\n" for item in items)
    return Texts(file=str(file), vocabulary=like.vocabulary, labels=None, text="text", length=like.length,
                 max_length=None if like.length is not None else like.limit, cache=str(folder))


def read_images(paths: Iterable[Path], task: Task, columns: TableFormat = TableFormat()) -> list[Item]:
    """The images in files, folders and tables. Raises `RunError`."""
    return _all(paths, lambda path: _folder(path, task) if path.is_dir()
                else _table_of_images(path, task, columns) if path.suffix.lower() in FORMATS else [_image(path)])


def read_texts(paths: Iterable[Path], task: Task, columns: TableFormat) -> list[Item]:
    """The texts in tables and text files. Raises `RunError`."""
    return _all(paths, lambda path: _texts_of(path, task, columns))


def _all(paths: Iterable[Path], read: Any) -> list[Item]:
    items: list[Item] = []
    for path in paths:
        try:
            items += read(path)
        except ValueError as error:  # raised by `Table`
            raise RunError(Fault(what=str(error), where=short(path))) from None
    return items


def _image(path: Path) -> Item:
    if path.suffix.lower() == ".txt":
        raise RunError(Fault(what="the run's model takes images, and this is a text file", where=short(path),
                             remedy="Name images, folders of images, or a table with a column `file`."))
    return Item(str(path), path)


def _folder(folder: Path, task: Task) -> Iterator[Item]:
    """Every image below a folder, labelled by its sub-folder if that is one of the run's classes."""
    found = sorted(path for path in folder.rglob("*") if all(map(is_data, path.relative_to(folder).parts))
                   and not path.is_dir() and is_image(path))
    if not found:
        raise RunError(Fault(what="there are no images in this folder", where=short(folder),
                             remedy=f"Images have the suffix {', '.join(suffixes())}."))
    inside = {path.relative_to(folder).parts[0] for path in found if path.parent != folder}
    known = set(task.output_names) if task.kind == "classification" else set()
    if inside & known and inside - known:
        raise RunError(Fault(what="some sub-folders are classes of the run, and some are not", where=short(folder),
                             given=f"not classes: {', '.join(sorted(inside - known)[:8])}",
                             remedy=f"The run's classes: {', '.join(task.output_names[:12])}. To predict without "
                                    "labels, name each sub-folder."))
    for path in found:
        top = path.relative_to(folder).parts[0]
        yield Item(str(path), path, top if top in known else "")


def _table_of_images(path: Path, task: Task, own: TableFormat) -> Iterator[Item]:
    table = Table(path, joined=own.separator)
    columns = table.columns()
    file = next((name for name in (own.sample, *FILE_COLUMNS) if name and name in columns), "")
    if not file:
        raise RunError(Fault(what="no column of this table names image files", where=short(path),
                             given=f"columns: {', '.join(columns)}",
                             remedy=f"Call the column `file` (or {', '.join(FILE_COLUMNS[1:])}). The run's model takes "
                                    "images."))
    labels = _label_columns(task, columns, own)
    frames = [own.frame] if own.frame and own.frame in columns else []
    folders = [path.parent, *([Path(own.root)] if own.root else [])]
    for name, *values in _rows(table, [file, *frames, *labels]):
        places = [folder / one for folder in folders for one in (name, text_of(name))]
        frame = int(float(values.pop(0))) if frames else None
        yield Item(name, next((place for place in places if place.exists()), places[1]), _actual(task, values, own),
                   frame)


def _texts_of(path: Path, task: Task, own: TableFormat) -> Iterator[Item]:
    if path.suffix.lower() in suffixes():
        raise RunError(Fault(what="the run's model takes texts, and this is an image", where=short(path),
                             remedy=f"Name a table with a column '{own.sample}', or a .txt file with a text on each "
                                    "line."))
    if path.suffix.lower() == ".txt":
        with open_regular(path) as file:
            lines = [line.decode(errors="replace").rstrip("\r\n") for line in lines_of(file, BLOCK)]
        yield from (Item(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
        return
    table = Table(path, joined=own.separator)
    columns = table.columns()
    labels, name = _label_columns(task, columns, own), [own.name] if own.name and own.name in columns else []
    for number, (text, *values) in enumerate(_rows(table, [own.sample, *name, *labels]), 1):
        yield Item(values.pop(0) if name else f"{path}:{number}", text, _actual(task, values, own))


def _rows(table: Table, columns: Sequence[str]) -> Iterator[tuple[str, ...]]:
    return chain.from_iterable(zip(*block, strict=True) for block in table.blocks(columns))


def _label_columns(task: Task, columns: Sequence[str], own: TableFormat) -> list[str]:
    """The columns with the labels: those of the run's own set, one with the name of the class, or one for each label or
    value."""
    if own.labels and set(own.labels) <= set(columns):
        return list(own.labels)
    if task.kind != "classification":
        return task.output_names if task.output_names and set(task.output_names) <= set(columns) else []
    return [name for name in LABEL_COLUMNS if name in columns][:1]


def _actual(task: Task, values: Sequence[str], own: TableFormat) -> str:
    """The labels of a row as `Task.to_text` writes them."""
    if own.separator and task.kind != "classification" and len(values) == 1:
        names = {name.strip() for name in values[0].split(own.separator)}
        return task.to_text(torch.tensor([float(name in names) for name in task.output_names]))
    if task.kind == "classification" or not values:
        return (values[0] if values[0] in task.output_names else text_of(values[0])) if values else ""
    numbers = [{"true": 1.0, "false": 0.0}.get(value.strip().lower()) for value in values]
    return task.to_text(torch.tensor([float(value) if number is None else number
                                    for number, value in zip(numbers, values, strict=True)]))
