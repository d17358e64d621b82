"""`drumbeat doctor` on sets with planted faults of every kind, and on healthy ones, of which it has nothing to say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.configs.errors import WIDTH
from drumbeat.launch.commands.main import main

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_programs")]


def test_the_doctor(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "pictures.yaml", "--all", "--sheet", "seen.png"]) == 1
    output = capfd.readouterr().out
    assert "samples    train      12: cat 11 (92%), dog 1 (8%)\n" in output
    assert "images     train      11 of 12 read: 40-50 x 50 px, L\n" in output
    assert ("problem    1 of 12 samples of train cannot be read\n"
            "             train/cat/3.png: the PNG file is truncated\n"
            "           Restore or remove them. To use the next sample in place of each:\n"
            "           data.on_error=skip\n") in output
    assert ("problem    1 of 2 samples of validation is also in train, byte for byte\n"
            "             validation/cat/0.png = train/cat/5.png\n"
            "           Remove them from one of the sets: the metrics are too good.\n") in output
    assert ("note       the rarest class of train, dog, has 1 sample, and cat has 11\n"
            "           data.sampling={_target_: drumbeat.data.ClassBalanced} draws all\n") in output
    assert output.count("ClassBalanced") == 1
    assert "note       the pixels have mean 0." in output
    assert "and the config normalizes with 0.900 and 0.050 Training may be slower." in " ".join(output.split())
    assert "one loader worker reads " in output
    assert "phase only trains " in output
    assert " in steps of 4 samples " in " ".join(output.split())
    assert "sheet      seen.png\n" in output
    assert output.endswith("\n\nverdict    2 problems, see above\n")
    assert max(map(len, output.splitlines())) <= WIDTH
    with Image.open(here / "seen.png") as sheet:
        assert sheet.size[0] > 400


def test_the_doctor_finds_no_problems(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Two sets of images that differ, with statistics near those of the config."""
    (here / "train" / "cat" / "3.png").unlink()
    (here / "validation" / "cat" / "0.png").unlink()
    shutil.copy(here / "train" / "cat" / "5.png", here / "train" / "dog" / "1.png")
    (here / "train" / "cat" / "5.png").unlink()
    Image.fromarray(np.random.default_rng(9).integers(0, 256, (50, 40), dtype=np.uint8)).save(
        here / "validation" / "cat" / "0.png")
    normalize = "data.transforms.batch=[{_target_: drumbeat.data.Normalize, mean: [0.5], std: [0.05]}]"
    assert main(["doctor", "pictures.yaml", normalize, "batch_size=4"]) == 0
    output = capfd.readouterr()
    assert "problem " not in output.out
    assert "warning " not in output.out
    assert "note " not in output.out
    assert output.out.endswith("verdict    no problems found\n")
    assert "skipped" not in output.err


def test_a_config_or_a_run(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 2
    assert "a config is required" in capfd.readouterr().err
    assert main(["doctor", "pictures.yaml", "--run", "x"]) == 2
    assert "a config and --run are mutually exclusive" in capfd.readouterr().err


@pytest.mark.parametrize(("pattern", "message"), [
    ("(", "--group is not a regular expression"), (r"\d+", "--group must have one group in parentheses")])
def test_a_wrong_pattern(here: Path, capfd: pytest.CaptureFixture[str], pattern: str, message: str) -> None:
    assert main(["doctor", "pictures.yaml", "--group", pattern]) == 2
    assert message in capfd.readouterr().err
