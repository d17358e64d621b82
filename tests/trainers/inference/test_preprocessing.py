"""How inference reads and transforms samples: as the run's evaluation, with its data and without them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.schema import Config
from drumbeat.trainers.inference.inputs import ImageFormat, TextFormat
from drumbeat.trainers.inference.preprocessing import build_preprocessing
from tests.trainers.saved_runs import IMAGES, REGRESSION, TEXTS, draw_images, write_table, write_texts


def config_of(folder: Path, text: str, *changes: str) -> Config:
    (folder / "saved.yaml").write_text(text.replace("ROOT", str(folder)))
    return load(folder / "saved.yaml", changes).config


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The part of a checkpoint that describes the training set."""
    path = tmp_path / "run" / "checkpoints" / "0"
    path.mkdir(parents=True)
    data = {"samples": 3, "classes": ["cat", "dog"]}
    CheckpointState(progress=Progress(data=data)).write(path / "state.json")
    return path


class Samples:
    """A dataset of one value."""

    def __init__(self, *, kind: str) -> None:
        self.value = {"L": Image.new("L", (4, 4)), "palette": Image.new("P", (4, 4)), "row": torch.zeros(5),
                      "bytes": torch.zeros(3, 4, 4, dtype=torch.uint8), "floats": torch.zeros(3, 4, 4)}[kind]

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[object, int]:
        return self.value, 0


@pytest.mark.parametrize(("side", "pixels"), [("auto", 20), ("24", 24), ("null", None)])
def test_it_is_the_same_without_the_training_set(tmp_path: Path, checkpoint: Path, side: str,
                                                 pixels: int | None) -> None:
    """Training needs a short side of 18 pixels and evaluation of 20, so `auto` is 20."""
    draw_images(tmp_path)
    config = config_of(tmp_path, IMAGES, f"data.train.short_side={side}",
                       "data.transforms.train=[{_target_: torchvision.transforms.v2.Resize, size: 18}]")
    found = build_preprocessing(config, checkpoint)
    shutil.rmtree(tmp_path / "train")
    again = build_preprocessing(config, checkpoint)
    picture = Image.effect_noise((40, 60), 90)
    for one in (found, again):
        assert one.task.output_names == ["cat", "dog"]
        value = picture
        for transform in one.transforms:
            value = transform(value)
        assert value.size == (16, 16)
        assert one.sample_format == ImageFormat(1, pixels, depth=None)
    assert list(map(repr, again.transforms)) == list(map(repr, found.transforms))


def test_images_with_values(tmp_path: Path, checkpoint: Path) -> None:
    draw_images(tmp_path)
    write_table(tmp_path)
    found = build_preprocessing(config_of(tmp_path, REGRESSION), checkpoint)
    assert (found.sample_format, found.task.output_names) == (ImageFormat(1, depth=None), ["x", "y"])


def test_texts_need_their_vocabulary(tmp_path: Path, checkpoint: Path) -> None:
    """Which the run has kept."""
    write_texts(tmp_path)
    config = config_of(tmp_path, TEXTS)
    found = build_preprocessing(config, checkpoint).sample_format
    assert isinstance(found, TextFormat)
    (tmp_path / "train.csv").unlink()
    with pytest.raises(PreflightError, match=r"train\.csv"):
        build_preprocessing(config, checkpoint)
    found.vocabulary.save(str(checkpoint.parent.parent / "vocabulary.json"))
    again = build_preprocessing(config, checkpoint).sample_format
    assert isinstance(again, TextFormat)
    assert again.vocabulary.words() == found.vocabulary.words()
    assert (again.length, again.limit) == (found.length, found.limit)


@pytest.mark.parametrize(("kind", "expected"), [
    ("L", ImageFormat(1)), ("palette", ImageFormat(3)), ("bytes", ImageFormat(3, tensors=True)),
])
def test_other_datasets_are_known_by_their_first_sample(tmp_path: Path, checkpoint: Path, kind: str,
                                                        expected: ImageFormat) -> None:
    draw_images(tmp_path)
    config = config_of(tmp_path, IMAGES, f"data.train={{_target_: {__name__}.Samples, kind: {kind}}}")
    assert build_preprocessing(config, checkpoint).sample_format == expected


@pytest.mark.parametrize("kind", ["row", "floats"])
def test_other_samples_are_refused(tmp_path: Path, checkpoint: Path, kind: str) -> None:
    draw_images(tmp_path)
    config = config_of(tmp_path, IMAGES, f"data.train={{_target_: {__name__}.Samples, kind: {kind}}}")
    with pytest.raises(PreflightError, match="predict takes images or texts") as raised:
        build_preprocessing(config, checkpoint)
    assert raised.value.faults[0].given == "Tensor"
