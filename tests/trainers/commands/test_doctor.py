"""`drumbeat doctor` on a folder of images with every kind of problem, and `drumbeat cache`."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.launch.commands.main import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_programs")]

CONFIG = """
name: pictures
batch_size: 4
precision: fp32
model: {_target_: tests.tiny.Net}
data:
  train: {_target_: drumbeat.data.ImageFolder, root: train, channels: 1}
  validation: {_target_: drumbeat.data.ImageFolder, root: validation, channels: 1}
  transforms:
    train: [{_target_: torchvision.transforms.v2.RandomResizedCrop, size: 8, scale: [0.5, 1.0]}]
    evaluate: [{_target_: torchvision.transforms.v2.Resize, size: [8, 8]}]
    batch: [{_target_: drumbeat.data.Normalize, mean: [0.9], std: [0.05]}]
phases: {only: {epochs: 1, optimizer: {_target_: torch.optim.SGD, lr: 0.1}}}
launch: {gpus: 0}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Fourteen images in two classes; one cannot be read, and one is in both sets."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    for split, label, count in (("train", "cat", 11), ("train", "dog", 1), ("validation", "cat", 1),
                                ("validation", "dog", 1)):
        (folder := tmp_path / split / label).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = random.integers(0, 256, (40 + number, 50), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    broken = tmp_path / "train" / "cat" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    shutil.copy(tmp_path / "train" / "cat" / "5.png", tmp_path / "validation" / "cat" / "0.png")
    (tmp_path / "pictures.yaml").write_text(CONFIG)
    return tmp_path


def test_the_doctor(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "pictures.yaml", "--all", "--sheet", "seen.png"]) == 1
    output = capfd.readouterr().out
    assert "samples    train      12: cat 11 (92%), dog 1 (8%)\n" in output
    assert "the rarest class has 1; drumbeat.data.ClassBalanced helps\n" in output
    assert "images     train      all read: 40-50 x 50 px, L\n" in output
    assert "unreadable train      cannot read the image" in output
    assert "train/cat/3.png" in output
    assert "the config normalizes with 0.900 and 0.050, which differ from the data: training may be slower\n" in output
    assert "leakage    validation/cat/0.png\n           is the same file as train/cat/5.png\n" in output
    assert "one loader worker reads " in output
    assert "phase only trains " in output
    assert output.endswith("sheet      seen.png\nverdict    2 problems, see above\n")
    with Image.open(here / "seen.png") as sheet:
        assert sheet.size[0] > 400


def test_the_doctor_finds_no_problems(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (here / "train" / "cat" / "3.png").unlink()
    (here / "validation" / "cat" / "0.png").unlink()
    Image.new("L", (50, 40)).save(here / "validation" / "cat" / "0.png")
    assert main(["doctor", "pictures.yaml"]) == 0
    assert capfd.readouterr().out.endswith("verdict    no problems found\n")


def test_a_cache_is_filled_ahead_of_a_run_and_used_by_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "pictures.yaml"]) == 2
    assert capfd.readouterr().err.startswith("error: data.cache is not set\n")
    assert main(["cache", "pictures.yaml", "data.cache=cache"]) == 0
    output = capfd.readouterr().out
    assert output.startswith("train      12 images, 0 MB, in ")
    (here / "train" / "cat" / "3.png").unlink()
    for extra in ([], ["data.cache=cache"]):
        assert main(["run", "pictures.yaml", "--debug", *extra]) == 0
    results = [path.read_text() for path in sorted((here / "runs" / "pictures").glob("2*/result.json"))]
    assert len(results) == 2
    assert results[0] == results[1]
