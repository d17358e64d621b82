"""Bad input as a person would give it: a damaged file among the training images, and what may be done about it;
runs and data that do not fit together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.records import Status
from drumbeat.data.order import Stream
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.verify import verify
from tests.tiny import drumbeat, latest, write_config
from tests.trainers.saved_runs import IMAGES, PHASES, TEXTS, draw_images, run_of, write_texts

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("warm_programs")]


def write_pictures(folder: Path) -> list[Path]:
    """Forty tiny pictures of two classes, in the order of the set."""
    dice = np.random.default_rng(0)
    paths = [folder / name / f"{number:02d}.png" for name in ("bottom", "top") for number in range(20)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(dice.integers(0, 256, (8, 8), dtype=np.uint8)).save(path)
    return paths


def attempts(run: RunDir) -> list[str]:
    return sorted(path.name for path in run.attempts.iterdir())


def test_a_corrupted_file_ends_a_run_that_resumes_once_it_is_fixed(tmp_path: Path) -> None:
    """The verdict names the file although a loader worker read it. The run does not resume without it, nor with another
    in its place, unless data.allow_change is true."""
    paths = write_pictures(tmp_path / "pictures")
    number = int(Stream(40, 0, 0).indices(np.array([39]))[0])
    damaged = paths[number]  # the epoch's last: in the fourth step
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:len(whole) // 2])
    config = str(write_config(tmp_path))

    failed = drumbeat(tmp_path, config, "--procs", "2", "data.train={_target_: drumbeat.data.ImageFolder, "
                      f"root: {tmp_path / 'pictures'}, channels: 1}}", "data.workers=1", expect=1)
    run = latest(tmp_path)
    verdict = Status.require(run.status).verdict
    assert verdict.startswith(f"sample {number} of data.train: cannot read the image {damaged}: ")
    assert verdict.endswith("; the last checkpoint is at step 3; not retried: it would fail the same way")
    assert str(damaged) in failed.stdout
    assert attempts(run) == ["000"]

    damaged.unlink()
    drumbeat(tmp_path, "--resume", "tiny", "--procs", "3", expect=1)
    assert Status.require(run.status).verdict == (
        "the training set has changed since the checkpoint; the last checkpoint is at step 3; not retried: it "
        "would fail the same way")
    assert attempts(run) == ["000", "001"]
    assert "40 samples at the checkpoint, 39 now" in run.attempt(1).errors()[0].message

    damaged.write_bytes(whole)
    rejected = drumbeat(tmp_path, "--debug", "--resume", "tiny", expect=2)
    assert "the same number of samples, but" in rejected.stderr
    done = drumbeat(tmp_path, "--debug", "--resume", "tiny", "data.allow_change=true")
    assert ("note: files of the training set have changed since the checkpoint, as data.allow_change allows"
            in done.stdout)
    assert Status.require(run.status).state == "finished"
    report = verify(run)
    assert report.faults == 0
    assert {span.attempt: span.world_size for phase in report.phases for span in phase.spans} == {0: 2, 3: 1}


def test_runs_and_data_that_do_not_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                               capfd: pytest.CaptureFixture[str]) -> None:
    """One screen and exit code 2 for each, as typed."""
    monkeypatch.chdir(tmp_path)
    draw_images(tmp_path)
    write_texts(tmp_path)
    (tmp_path / "of_texts").mkdir()
    images, texts = run_of(tmp_path, IMAGES), run_of(tmp_path / "of_texts", TEXTS.replace("ROOT/", f"{tmp_path}/"))
    whole = images.config.read_text()

    def said(line: str) -> str:
        assert main(line.split()) == 2
        screen = capfd.readouterr().err
        assert "Traceback" not in screen
        assert screen.count("error: ") == 1
        return " ".join(screen.split())

    images.config.write_text(whole.replace("classes: from_data", "classes: from_data\n  width: 6"))
    assert "the checkpoint does not fit the architecture" in said(f"evaluate {images.path}")
    assert "the checkpoint does not fit the architecture" in said(f"predict {images.path} test")
    images.config.write_text(whole)

    (tmp_path / "test" / "dog").rename(tmp_path / "test" / "wolf")
    assert "only in the run: dog only in the data: wolf" in said(f"evaluate {images.path}")
    (tmp_path / "test" / "cat").rename(tmp_path / "cats")
    shutil.rmtree(tmp_path / "test" / "wolf")
    assert "the folder test is empty" in said(f"evaluate {images.path}")

    (tmp_path / "test.csv").write_text("content,Sports\na story,1\n")
    assert "there is no column 'World'" in said(f"evaluate {texts.path}")
    lines = texts.config.read_text().split("  test:")
    texts.config.write_text("  test:".join([lines[0], lines[1].replace("labels:", "labels: null #", 1)]))
    assert "data.test has no labels to compare with" in said(f"evaluate {texts.path}")
    assert "the run's model takes texts, and this is an image" in said(f"predict {texts.path} train/cat/0.jpeg")

    (tmp_path / "wrong.yaml").write_text(
        "{name: wrong, batch_size: 2, model: {_target_: drumbeat.models.LSTM, vocab_size: from_data, classes: 2}, "
        "data: {train: {_target_: drumbeat.data.ImageFolder, root: train}}, " + PHASES.strip() + "}")
    assert "the training set has no fact 'vocab_size'" in said("run wrong.yaml --debug")
