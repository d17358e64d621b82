"""`drumbeat show`: layers, FLOPs and memory, with and without data, against numbers computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.trainers.commands.show import show
from tests.trainers.saved_runs import IMAGES, TEXTS, Small, draw_images, write_texts

TRANSFORMS = """  transforms:
    train: [{_target_: torchvision.transforms.v2.RandomResizedCrop, size: 16}]
"""


def shown(folder: Path, text: str, *changes: str, sheet: str = "show.png") -> str:
    (folder / "saved.yaml").write_text(text.replace("ROOT", str(folder)))
    return "\n".join(show(load(folder / "saved.yaml", changes).config, folder / sheet))


def test_a_small_network(tmp_path: Path) -> None:
    """One 3x3 convolution from 1 to 4 channels on 16 x 16, and a linear layer from 16 to 2."""
    draw_images(tmp_path)
    text = shown(tmp_path, IMAGES.replace("  transforms:\n", TRANSFORMS))
    parameters = 4 * 9 + 4 + 2 * 4 + 16 * 2 + 2
    assert f": {parameters} parameters\n" in text
    assert "input      1 x 16 x 16, float32\n" in text
    flops = 2 * (14 * 14 * 4 * 9 + 16 * 2)
    assert f"forward    {flops / 1000:.2f} kFLOPs for each sample\n" in text
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["body"] == ["Sequential", "4", "x", "2", "x", "2", "48", "trained"]
    assert rows["head"] == ["Linear", "2", "34", "trained"]
    with Image.open(tmp_path / "show.png") as sheet:
        assert min(sheet.size) > 100
    assert "virtual ranks" not in text
    text = shown(tmp_path, IMAGES.replace("  transforms:\n", TRANSFORMS), "virtual_ranks=2")
    assert "Gradients: with their sum over 2 virtual ranks, 8 bytes for each value." in " ".join(text.split())
    assert f"  {12 * parameters} B  " in text


def test_without_the_data(tmp_path: Path) -> None:
    text = shown(tmp_path, IMAGES.replace("  transforms:\n", TRANSFORMS), "model.classes=2")
    assert "input      1 x 16 x 16, float32, derived from the transforms, because there is no data\n" in text
    assert "kFLOPs" in text
    assert text.splitlines()[-1].startswith("not shown  samples: the image folder ")
    with pytest.raises(PreflightError, match=r"does\s+not\s+exist"):  # a long path wraps
        shown(tmp_path, IMAGES)


def test_a_sheet_that_cannot_be_drawn_or_written(tmp_path: Path) -> None:
    draw_images(tmp_path)
    made = IMAGES.replace("  transforms:\n", TRANSFORMS)
    with pytest.raises(PreflightError, match="the sheet cannot be written: unknown file extension"):
        shown(tmp_path, made, sheet="show.cat")
    for file in (tmp_path / "train").rglob("*.*"):
        file.write_bytes(b"nothing")
    text = shown(tmp_path, made)
    assert "not shown  samples: none of the 3 samples of data.train from number " in text


def test_frozen_layers_and_a_model_that_reads_values(tmp_path: Path) -> None:
    """An LSTM reads the lengths of its texts."""
    write_texts(tmp_path)
    text = shown(tmp_path, TEXTS, "phases.only.freeze=[embedding]")
    rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
    assert rows["embedding"][-1] == "frozen"
    assert rows["lstm"][-1] == "trained"
    assert rows["forward"][1] == "kFLOPs"
    assert "not shown  samples: they are not images" in text


def test_parameters_of_the_task_are_a_layer_and_can_be_frozen(tmp_path: Path) -> None:
    draw_images(tmp_path)
    task = "task: {_target_: tests.trainers.test_model_and_task.Faces, loss: {_target_: " \
           "tests.trainers.test_model_and_task.ArcFace, features: 2, classes: 2}}\n"
    made = IMAGES.replace("  transforms:\n", TRANSFORMS) + task
    for freeze, said in (("[]", "trained"), ("[task]", "frozen")):
        text = shown(tmp_path, made, f"phases.only.freeze={freeze}")
        rows = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line}
        assert rows["task"] == ["Module", "4", said]
        assert rows["head"] == ["Linear", "2", "34", "trained"]
        assert "unknown" not in text


def test_the_weights_that_a_run_would_start_from(tmp_path: Path) -> None:
    """What is taken and what is new; or why that is unknown, and the rest all the same."""
    draw_images(tmp_path)
    torch.save({f"module.{name}": value for name, value in Small(classes=9).state_dict().items()}, tmp_path / "w.pth")
    text = shown(tmp_path, IMAGES, f"initialize.weights={tmp_path}/w.pth")
    assert "/w.pth\n  taken     body: 7 tensors\n  left out  head: 2 tensors\n  new       head: 2 tensors" in text
    text = shown(tmp_path, IMAGES, f"initialize.weights={tmp_path}/gone.pth")
    assert f"not shown  weights: the weights file {tmp_path}/gone.pth does not exist" in text
    assert "\nbody " in text
