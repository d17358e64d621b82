"""`drumbeat doctor` on a folder of images with every kind of problem."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from drumbeat.launch.commands.main import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_programs")]


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
