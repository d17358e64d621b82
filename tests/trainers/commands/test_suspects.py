"""`drumbeat doctor --run RUN`: swapped labels are among the training samples with the largest losses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.evaluate import build_job
from drumbeat.trainers.commands.suspects import SHOWN, suspects
from drumbeat.trainers.tasks import Results
from tests.trainers.saved_runs import REGRESSION, draw_images, run_of, write_table


def results(images: RunDir) -> tuple[object, Results]:
    """A model that is sure of the right class of each sample but two, which it is sure are wrong. They are those of the
    test set, of which there are more."""
    job = build_job(images, "test", None)
    targets = torch.tensor(job.samples.labels)  # type: ignore[attr-defined]
    outputs = torch.nn.functional.one_hot(targets, 2) * 8.0
    outputs[[2, 5]] = outputs[[2, 5]].flip(1) * torch.tensor([[0.5], [1.0]])
    losses = torch.nn.functional.cross_entropy(outputs, targets, reduction="none")
    return job, Results(losses, outputs, targets)


def test_the_largest_losses_come_first(images: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(images.path)
    job, found = results(images)
    (one,) = suspects(job, found)  # type: ignore[arg-type]
    names = [job.samples.file(index) for index in (5, 2)]  # type: ignore[attr-defined]
    label = ["cat", "dog"][int(found.targets[5])]
    other = {"cat": "dog", "dog": "cat"}[label]
    assert one.text.startswith(f"2 of {len(found.losses)} training samples are predicted differently by the best ")
    assert one.examples[0] == f"loss 8  predicted {other}, actual {label}  {names[0]}"
    assert one.examples[1].startswith("loss 4.02  predicted ")
    assert one.examples[1].endswith(names[1])
    assert (one.kind, one.shown) == ("suspect_labels", SHOWN)


def test_losses_are_means_as_their_order_is(images: RunDir) -> None:
    """A sample of many elements has a large sum."""
    job, found = results(images)
    weighted = replace(found, losses=found.losses * 100, weights=torch.full_like(found.losses, 100))
    assert suspects(job, weighted)[0].examples == suspects(job, found)[0].examples  # type: ignore[arg-type]


def test_a_model_without_errors_suspects_none(images: RunDir) -> None:
    job, found = results(images)
    right = replace(found, outputs=torch.nn.functional.one_hot(found.targets, 2) * 8.0)
    assert suspects(job, right) == []  # type: ignore[arg-type]


def test_the_command(images: RunDir, tmp_path: Path, capfd: pytest.CaptureFixture[str],
                     monkeypatch: pytest.MonkeyPatch) -> None:
    """A list, and a sheet of the same samples."""
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--run", str(images.path), "--json"]) == 0
    output = json.loads(capfd.readouterr().out)
    assert output["facts"] == {"sheet": ["suspects.png"]}
    (finding,) = output["findings"]
    assert finding["count"] == len(finding["examples"]) > 0
    assert all(example.startswith("loss ") and "train/" in example for example in finding["examples"])
    with Image.open(tmp_path / "suspects.png") as sheet:
        assert min(sheet.size) > 100
    assert main(["doctor", "--run", str(images.path), "--checkpoint", "77"]) == 2
    assert "77" in capfd.readouterr().err


def test_a_regression_has_the_worst_predictions(tmp_path: Path) -> None:
    draw_images(tmp_path)
    write_table(tmp_path)
    job = build_job(run_of(tmp_path, REGRESSION), "train", None)
    n = len(job.samples)
    targets = torch.zeros(n, 2)
    (one,) = suspects(job, Results(torch.arange(float(n)), targets, targets))
    assert one.text == "the largest losses on training samples, best checkpoint, step 3"
    assert one.examples[0].startswith(f"loss {n - 1}  predicted 0, 0, actual 0, 0  ")
