"""Sheets of training samples and of the worst predictions: which samples are on them, and where they are written."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.data.memory import Arrays
from drumbeat.trainers import contact_sheet as module
from drumbeat.trainers.build import Sets
from drumbeat.trainers.contact_sheet import draw_sheet, save_sheet, training_fetcher, worst_samples_sheet
from drumbeat.trainers.tasks import Classification, Results

CONFIG = build_config([Layer(origin="test", values={
    "name": "x", "batch_size": 4, "model": {"_target_": "x"}, "precision": "fp32", "data": {"shuffle": False},
    "task": {"_target_": "drumbeat.trainers.tasks.Classification"},
    "phases": {"only": {"epochs": 1, "optimizer": {"_target_": "x"}}}})])
GRAYS = torch.tensor([0, 60, 120, 180], dtype=torch.uint8)
"""The gray of each image of the set."""


def sets_of(inputs: Tensor) -> Sets:
    return Sets(train=Arrays(inputs, torch.arange(len(inputs)) % 2), validation=None, test=None, train_transforms=[],
                evaluate_transforms=[])


IMAGES = sets_of(GRAYS.view(4, 1, 1, 1).repeat(1, 1, 8, 8))


class Damaged(Arrays):
    """Images of which the second one cannot be read."""

    fetch = None  # type: ignore[assignment]

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if index == 1:
            raise OSError("it is damaged")
        return super().__getitem__(index)


def test_samples_are_read_in_the_order_of_the_first_phase(capfd: pytest.CaptureFixture[str]) -> None:
    """The next sample takes the place of a damaged one."""
    assert training_fetcher(CONFIG, IMAGES).__getitems__([0, 2, 5]).indices.tolist() == [0, 2, 1]
    train = Damaged(IMAGES.train.inputs, IMAGES.train.targets)  # type: ignore[attr-defined]
    batch = training_fetcher(CONFIG, replace(IMAGES, train=train)).__getitems__([0, 1])
    assert batch.inputs[:, 0, 0, 0].tolist() == [0, 120]
    assert batch.replaced.tolist() == [False, True]
    assert capfd.readouterr().err.startswith("skipped sample 1 of data.train: OSError: it is damaged (tests/trainers/")


def test_only_images_are_drawn(tmp_path: Path) -> None:
    """A row of up to six images of 192 pixels, each with a title and a border of 6."""
    file = tmp_path / "new" / "sheet.png"
    batch = training_fetcher(CONFIG, IMAGES).__getitems__([0, 1, 2, 3])
    assert draw_sheet(CONFIG, IMAGES, batch, file)
    with Image.open(file) as sheet:
        assert sheet.size == (4 * 198 + 6, 192 + 18 + 12)
        assert len(np.unique(np.asarray(sheet.convert("L"))[100])) >= 4
    rows = sets_of(torch.zeros(4, 3))
    assert not draw_sheet(CONFIG, rows, training_fetcher(CONFIG, rows).__getitems__([0, 1]), tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


@pytest.mark.parametrize(("name", "reason"), [
    ("sheet.cat", "unknown file extension: .cat"), ("file/sheet.png", "File exists"), ("folder.png", "Is a directory"),
])
def test_a_sheet_that_cannot_be_written(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PreflightError) as raised:
        save_sheet(Image.new("L", (4, 4)), tmp_path / name)
    (fault,) = raised.value.faults
    assert fault.what == f"the sheet cannot be written: {reason}"
    assert fault.where.endswith(name)


def results(outputs: list[list[float]], subset: Tensor | None = None) -> Results:
    """Of samples that are all of the first class."""
    values, targets = torch.tensor(outputs), torch.zeros(len(outputs), dtype=torch.long)
    return Results(Classification().losses(values, targets), values, targets, subset)


def middles(sheet: Image.Image, count: int) -> list[int]:
    """The gray in the middle of each of the images in the first row."""
    gray = sheet.convert("L")
    return [int(gray.getpixel((6 + 96 + 198 * number, sheet.height - 6 - 96))) for number in range(count)]  # type: ignore[arg-type]


def test_the_worst_samples_are_the_misclassified_ones_with_the_largest_losses() -> None:
    """Their order in the set does not matter, and samples that could not be read are counted."""
    task, images = Classification(classes=["a", "b"]), IMAGES.train
    few = worst_samples_sheet(task, images, [], results([[0, 1], [1, 0], [0, 9], [0, 3]]), most=2, columns=4)
    assert few is not None
    assert middles(few, 2) == [120, 180]
    assert few.width == 2 * 198 + 6
    found = worst_samples_sheet(task, images, [], results([[0, 1], [0, 2]], torch.tensor([1, 3])), most=9, columns=4)
    assert found is not None
    assert middles(found, 2) == [180, 60]


def test_there_is_no_sheet_without_mistakes_or_without_images() -> None:
    task, wrong = Classification(), results([[0, 1]] * 4)
    assert worst_samples_sheet(task, IMAGES.train, [], results([[1, 0]] * 4), most=9, columns=4) is None
    assert worst_samples_sheet(task, IMAGES.train, [], wrong, most=0, columns=4) is None
    assert worst_samples_sheet(task, sets_of(torch.zeros(4, 3)).train, [], wrong, most=9, columns=4) is None


class ReadIn:
    """Images that remember the process that has read them."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.mine: list[int] = []

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if os.getpid() == self.process:
            self.mine.append(index)
        return IMAGES.train[index]


@pytest.mark.parametrize("workers", [0, 2])
def test_with_workers_this_process_reads_no_samples(workers: int) -> None:
    """A file that a dataset opens when it is first read would then be shared by workers that are forked later."""
    samples = ReadIn()
    sheet = worst_samples_sheet(Classification(), samples, [], results([[0, 1], [1, 0], [0, 9], [0, 3]]), most=2,
                                columns=4, workers=workers)
    assert sheet is not None
    assert bool(samples.mine) is (workers == 0)


class Several(Classification):
    """Each image has two targets."""

    def to_text(self, value: Any) -> str:
        return f"{int(value['label'])} of {value['name']}"


def test_targets_of_any_structure_are_titles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a task draws is one sample's part of them."""
    titled: list[list[str]] = []
    monkeypatch.setattr(module, "contact_sheet", lambda images, titles, **options: titled.append(titles) or Image.new(
        "L", (4, 4)))
    config = replace(CONFIG, task={"_target_": "tests.trainers.test_contact_sheet.Several"})
    targets = {"label": torch.tensor([1, 0]), "name": ["x", "y"]}
    batch = training_fetcher(CONFIG, IMAGES).__getitems__([0, 1])._replace(targets=targets)
    assert draw_sheet(config, IMAGES, batch, tmp_path / "sheet.png")
    assert titled == [["1 of x", "0 of y"]]
