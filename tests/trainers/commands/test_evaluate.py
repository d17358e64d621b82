"""`drumbeat evaluate`: the same metrics on any number of ranks, metrics that agree with each other, and one screen for
each error."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.images import ImageFolder
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.evaluate import build_job, run_job, write_report
from drumbeat.trainers.tasks import Results
from drumbeat.trainers.world import join
from tests.trainers.saved_runs import IMAGES, REGRESSION, TEXTS, draw_images, run_of, write_table, write_texts


def evaluated(run: RunDir, split: str = "test") -> tuple[str, Results]:
    job = build_job(run, split, None)
    with join("cpu") as world:
        results = run_job(job, world)
    return write_report(job, results), results


def folder_of(run: RunDir) -> Path:
    return run.path / "evaluation" / "test-3"


def test_classification(images: RunDir) -> None:
    text, results = evaluated(images)
    found = json.loads((folder_of(images) / "metrics.json").read_text())
    assert found["samples"] == 11
    assert [row["name"] for row in found["classes"]] == ["cat", "dog"]
    assert [row["samples"] for row in found["classes"]] == [5, 6]
    correct = int((results.outputs.argmax(1) == results.targets).sum())
    assert sum(row["correct"] for row in found["classes"]) == correct
    assert found["metrics"]["accuracy"] == correct / 11
    assert [sum(row) for row in found["confusion"]] == [5, 6]
    cat = found["classes"][0]
    assert f"cat    {cat['correct'] / 5:.0%} ({cat['correct']}/5)" in text
    assert text.startswith("test set of 20260101-000000-aaaaa, best checkpoint, step 3: 11 samples\n")
    with open(folder_of(images) / "predictions.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["actual"] for row in table] == ["cat"] * 5 + ["dog"] * 6
    assert sum(row["actual"] == row["prediction"] for row in table) == correct
    assert sum(float(table[0][f"probability of {name}"]) for name in ("cat", "dog")) == pytest.approx(1, abs=2e-6)
    assert table[0]["sample"] == "cat/0.jpeg"
    for name in ("confusion", "roc", "precision_recall", "worst_samples"):
        with Image.open(folder_of(images) / f"{name}.png") as picture:
            assert min(picture.size) > 100
    assert list((images.tensorboard / "evaluation").glob("events*"))


def test_labels(tmp_path: Path) -> None:
    write_texts(tmp_path)
    text, results = evaluated(run := run_of(tmp_path, TEXTS))
    found = json.loads((folder_of(run) / "metrics.json").read_text())
    correct = ((results.outputs >= 0) == results.targets.bool()).sum(0).tolist()
    assert [row["correct"] for row in found["classes"]] == correct
    assert f"Sports  {correct[0] / 6:.0%} ({correct[0]}/6)" in text
    assert sorted(path.name for path in folder_of(run).glob("*.png")) == ["precision_recall.png", "roc.png"]


def test_values(tmp_path: Path) -> None:
    draw_images(tmp_path)
    write_table(tmp_path)
    text, results = evaluated(run := run_of(tmp_path, REGRESSION))
    rows = json.loads((folder_of(run) / "metrics.json").read_text())["classes"]
    assert [row["name"] for row in rows] == ["x", "y"]
    errors = (results.outputs - results.targets).abs()
    assert [row["mae"] for row in rows] == pytest.approx(errors.mean(0).tolist())
    assert [row["largest_error"] for row in rows] == pytest.approx(errors.amax(0).tolist())
    assert (folder_of(run) / "scatter.png").exists()
    assert "plots      scatter.png, worst_samples.png" in text


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_the_same_on_two_ranks(images: RunDir, capfd: pytest.CaptureFixture[str]) -> None:
    evaluated(images)
    files = ("metrics.json", "metrics.txt", "predictions.csv", "samples.safetensors")
    alone = [(folder_of(images) / name).read_bytes() for name in files]
    shutil.rmtree(folder_of(images))
    assert main(["evaluate", str(images.path), "--procs", "2"]) == 0
    assert [(folder_of(images) / name).read_bytes() for name in files] == alone
    assert "class  correct" in capfd.readouterr().out


def _another_architecture(run: RunDir, folder: Path) -> None:
    run.config.write_text(run.config.read_text().replace("classes: from_data", "classes: from_data\n  width: 6"))


def _another_class(run: RunDir, folder: Path) -> None:
    (folder / "test" / "dog").rename(folder / "test" / "wolf")


def _damaged(run: RunDir, folder: Path) -> None:
    (run.checkpoints / "best" / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(("break_it", "which", "messages"), [
    (lambda run, folder: None, "7", ["error: there is no checkpoint '7'", "Name best, last or a step: 3."]),
    (lambda run, folder: None, "beast", ["error: there is no checkpoint 'beast'"]),
    (_damaged, "best", ["error: the checkpoint is corrupted: model.safetensors has 0 bytes"]),
    (_another_architecture, None, ["error: the checkpoint does not fit the architecture",
                                   "body.0.bias: expected [6], found [4]"]),
    (_another_class, None, ["the classes of data.test differ from those of the training", "only in the run: dog",
                            "only in the data: wolf"]),
], ids=["no such step", "no such name", "damaged", "architecture", "classes"])
def test_errors_are_one_screen_and_write_nothing(images: RunDir, tmp_path: Path,
                                                 break_it: Callable[[RunDir, Path], None], which: str | None,
                                                 messages: list[str]) -> None:
    break_it(images, tmp_path)
    with pytest.raises(UserError) as raised:
        build_job(images, "test", which)
    screen = str(raised.value)
    assert all(message in screen for message in messages), screen
    assert len(screen.splitlines()) <= 24
    assert not (images.path / "evaluation").exists()


def test_a_sample_that_cannot_be_read(images: RunDir, tmp_path: Path) -> None:
    """It is reported while the set is evaluated, by this process and by a loader worker."""
    damaged = tmp_path / "test" / "dog" / "5.png"
    damaged.write_bytes(b"nothing")
    text = images.config.read_text()
    for workers in (0, 1):
        images.config.write_text(text.replace("workers: 0", f"workers: {workers}"))
        job = build_job(images, "test", None)
        with pytest.raises(UserError) as raised, join("cpu") as world:
            run_job(job, world)
        assert f" of data.test: cannot read the image {damaged}" in " ".join(str(raised.value).split())
        assert len(str(raised.value).splitlines()) <= 8
    assert not (images.path / "evaluation").exists()


def test_a_set_that_the_run_does_not_have(images: RunDir) -> None:
    with pytest.raises(UserError) as raised:
        build_job(images, "validation", None)
    assert "error: the run has no validation set" in str(raised.value)
    assert "It has: train, test." in str(raised.value)


def test_texts_without_labels(tmp_path: Path) -> None:
    write_texts(tmp_path)
    run = run_of(tmp_path, TEXTS)
    lines = run.config.read_text().split("  test:")
    lines[1] = lines[1].replace("labels:", "labels: null #", 1)
    run.config.write_text("  test:".join(lines))
    with pytest.raises(UserError, match=r"data\.test has no labels to compare with"):
        build_job(run, "test", None)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_one_screen_and_exit_code_2(images: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(images.path), "--checkpoint", "7"]) == 2
    assert capfd.readouterr().err.startswith("error: there is no checkpoint '7'\n")
    assert main(["evaluate", str(images.path), "--gpus", "99"]) == 2
    assert "this machine has" in capfd.readouterr().err
    (images.path / "evaluation").write_text("in the way")
    assert main(["evaluate", str(images.path), "--procs", "2"]) == 2
    assert capfd.readouterr().err.strip().startswith("error: a file cannot be read or written: Not a directory\n")
    (tmp_path / "test" / "dog" / "5.png").write_bytes(b"nothing")
    assert main(["evaluate", str(images.path), "--procs", "2"]) == 2
    assert capfd.readouterr().err.strip().startswith("error: sample 10 of data.test: cannot read the image\n")


class Unlabelled(ImageFolder):
    """Pictures of which the first one has a label that does not count."""

    def __init__(self, *, root: str) -> None:
        super().__init__(root=root, channels=1)

    def target(self, index: int) -> int:
        return -100 if index == 0 else super().target(index)


def test_the_first_sample_may_have_a_label_that_does_not_count(tmp_path: Path) -> None:
    draw_images(tmp_path)
    text = IMAGES.replace("test: {_target_: drumbeat.data.ImageFolder, root: ROOT/test, channels: 1}",
                          "test: {_target_: tests.trainers.commands.test_evaluate.Unlabelled, root: ROOT/test}")
    loss = "task: {_target_: drumbeat.trainers.tasks.Classification, loss: {_target_: torch.nn.CrossEntropyLoss}}\n"
    _, results = evaluated(run_of(tmp_path, text + loss))
    assert results.targets[:2].tolist() == [-100, 0]
