"""Planted faults in folders of images, each named with its number and examples; a healthy folder has none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from PIL import Image

from drumbeat.configs.layers import Layer
from drumbeat.configs.load import build_config
from drumbeat.configs.schema import Data
from drumbeat.data.images import ImageFolder
from drumbeat.data.memory import Arrays
from drumbeat.trainers.doctor.images import image_facts, left_out, pixel_facts, sample_findings
from drumbeat.trainers.doctor.sample_checks import SampleCheck
from tests.trainers.doctor.sets import folder_subject, healthy, kinds, photo, subject, write


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    healthy(tmp_path / "train", 0)
    return tmp_path / "train"


def test_a_healthy_folder(folder: Path) -> None:
    one = folder_subject("train", folder)
    assert list(sample_findings(one)) == []
    assert list(left_out([one])) == []
    assert image_facts(one) == ("images", "train      all 12 read: 48 x 64 px, RGB")


def test_a_damaged_file(folder: Path) -> None:
    (folder / "dog" / "2.png").write_bytes((folder / "dog" / "2.png").read_bytes()[:200])
    found = kinds(sample_findings(folder_subject("train", folder)))
    assert list(found) == ["unreadable"]
    assert found["unreadable"].severity == "problem"
    assert found["unreadable"].text == "1 of 12 samples of train cannot be read"
    assert found["unreadable"].examples == ["train/dog/2.png: the PNG file is truncated"]


@pytest.mark.parametrize(("data", "advice"), [
    (Data(max_skipped=0.1), "To use the next sample in place of each: data.on_error=skip"),
    (Data(max_skipped=0.1, on_error="skip"), "Until then, the next sample is used in place of each."),
    (Data(), "To use the next sample in place of each: data.on_error=skip data.max_skipped=0.17"),
    (Data(on_error="skip"), "data.on_error=skip would skip more than data.max_skipped allows: data.max_skipped=0.17"),
])
def test_the_advice_about_damaged_files_is_enough(folder: Path, data: Data, advice: str) -> None:
    for number in range(1 if data.max_skipped == 0.1 else 2):
        (folder / "dog" / f"{number}.png").write_bytes(b"nothing")
    one = folder_subject("train", folder)
    assert kinds(sample_findings(one, data))["unreadable"].advice == f"Restore or remove them. {advice}"
    assert image_facts(one)[1].startswith(f"train      {len(one.good)} of 12 read: ")


def test_a_sample_whose_error_does_not_name_it_is_named(folder: Path) -> None:
    one = replace(folder_subject("train", folder), checks=[SampleCheck(0, error="RuntimeError: no")])
    example, = kinds(sample_findings(one))["unreadable"].examples
    assert example == f"{one.sample(0)}: RuntimeError: no"


def test_a_constant_image(folder: Path) -> None:
    write(folder, {"cat/black.png": Image.new("RGB", (64, 48)), "cat/gray.png": Image.new("RGB", (64, 48), "gray")})
    found = kinds(sample_findings(folder_subject("train", folder)))
    assert found["constant"].text == "2 of 14 images of train have the same value everywhere"
    assert found["constant"].examples == ["train/cat/black.png", "train/cat/gray.png"]


def test_a_long_image(folder: Path) -> None:
    write(folder, {"cat/wide.png": photo(1, (400, 40)), "dog/tall.png": photo(2, (40, 1000)),
                   "dog/panorama.png": photo(3, (160, 40))})
    found = kinds(sample_findings(folder_subject("train", folder)))
    assert list(found) == ["long_images"]
    assert found["long_images"].examples == ["train/dog/tall.png  40 x 1,000", "train/cat/wide.png  400 x 40"]


@pytest.mark.parametrize(("top", "levels", "severity"), [(4096, "16", "problem"), (65536, "256", "warning")])
def test_sixteen_bits_that_are_lost(folder: Path, top: int, levels: str, severity: str) -> None:
    """An X-ray of 12 bits keeps 16 gray levels of 4,096."""
    ramp = (np.arange(256 * 256).reshape(256, 256) % top).astype(np.uint16)
    write(folder, {"dog/ray.png": Image.fromarray(ramp)})
    images = subject("train", ImageFolder(root=str(folder), channels=1, depth=8), [Same()])
    one = kinds(sample_findings(images))["lost_depth"]
    assert one.severity == severity
    assert one.text == (f"1 of 13 images of train has 16 bits and is read with 8: {levels} different values are left")


class Same:
    """A transform that keeps the image."""

    def __call__(self, image: Image.Image) -> Image.Image:
        return image


def test_gray_images_among_colored_ones(folder: Path) -> None:
    """A note; and a warning if a class can be told by it."""
    write(folder, {"cat/gray.png": photo(50, mode="L")})
    found = kinds(sample_findings(folder_subject("train", folder)))["mixed_colors"]
    assert (found.severity, found.examples) == ("note", ["train/cat/gray.png"])
    assert found.text == "1 of 13 images of train is grayscale, and the others have color"
    write(folder, {f"dog/{number}.png": photo(60 + number, mode="L") for number in range(5)})
    found = kinds(sample_findings(folder_subject("train", folder)))["mixed_colors"]
    assert (found.severity, found.examples) == ("warning", ["cat: 14% grayscale", "dog: 83% grayscale"])


def test_files_that_are_left_out(folder: Path) -> None:
    """Hidden files and those of file systems are not counted."""
    write(folder, {"beside.png": photo(71)})
    for name in ("cat/a.heic", "dog/scan", "dog/Thumbs.db", "dog/.hidden.png"):
        (folder / name).write_bytes(b"x")
    one = folder_subject("train", folder)
    likely, other = left_out([one, one])
    assert likely.severity == "warning"
    assert likely.text == "2 files that may be images in train are left out: 1 .png, 1 .heic"
    assert likely.examples == ["train/beside.png", "train/cat/a.heic"]
    assert (other.severity, other.examples) == ("note", ["train/dog/scan"])


def test_a_table_with_nan() -> None:
    import torch

    rows = torch.zeros(20, 3)
    rows[4, 1], rows[9, 0] = float("nan"), float("inf")
    targets = torch.zeros(20)
    targets[11] = float("nan")
    found = kinds(sample_findings(subject("train", Arrays(rows, targets), [])))
    assert list(found) == ["nonfinite"]
    assert found["nonfinite"].text == "3 of 20 samples of train have a NaN or Inf"
    assert found["nonfinite"].examples == ["train sample 4", "train sample 9", "train sample 11"]


def test_the_statistics_of_the_pixels(folder: Path) -> None:
    checks = folder_subject("train", folder).checks

    def normalized(mean: float, initialize: Mapping[str, str] = MappingProxyType({}), **model: str
                   ) -> tuple[str, list[str]]:
        values = [mean] * 3
        text, found = pixel_facts(build_config([Layer(origin="test", values={
            "name": "x", "batch_size": 4, "model": {"_target_": "x", **model}, "initialize": dict(initialize),
            "data": {"transforms": {"batch": [{"_target_": "drumbeat.data.Normalize", "mean": values,
                                               "std": [0.22] * 3}]}}})]), checks)
        return text, [one.kind for one in found]

    assert normalized(0.9)[1] == ["normalization"]
    assert normalized(0.9, weights="IMAGENET1K_V1")[1] == normalized(0.5)[1] == []
    assert normalized(0.9, initialize={"weights": "ResNet18_Weights.IMAGENET1K_V1"})[1] == []
    assert "; the config normalizes with 0.500/0.500/0.500 and 0.220/0.220/0.220" in normalized(0.5)[0]
