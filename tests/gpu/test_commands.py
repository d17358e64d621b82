"""Commands on a GPU: evaluation and inference give nearly the same results as on a CPU."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.folder import RunDir
from tests.gpu.conftest import FLAGSHIP

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

WITHOUT_GPUS = {"CUDA_VISIBLE_DEVICES": ""}


def output_of(folder: Path, *arguments: str, environment: dict[str, str] | None = None) -> str:
    """The output of `drumbeat ARGUMENTS` in `folder`."""
    done = subprocess.run([sys.executable, "-m", "drumbeat", *arguments], cwd=folder, capture_output=True, text=True,
                          env=os.environ | (environment or {}))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def numbers(table: Path, *columns: str) -> list[float]:
    """The values of these columns of a table, row by row."""
    with open(table, newline="") as file:
        return [float(row[column]) for row in csv.DictReader(file) for column in columns]


def test_evaluate(reporting: RunDir, home: Path, one_rank: list[str]) -> None:
    """In fp32."""
    losses = []
    for ranks in (one_rank, ["--procs", "1"]):
        output_of(home, "evaluate", str(reporting.path), "--split", "validation", *ranks)
        (table,) = reporting.path.glob("evaluation/validation-*/predictions.csv")
        losses.append(numbers(table, "loss"))
    assert len(losses[0]) == 30
    assert losses[0] == pytest.approx(losses[1], rel=1e-3, abs=1e-4)


def test_predict(flagship: RunDir, home: Path) -> None:
    """In bf16 if the device supports it."""
    found = []
    for name, environment in {"here": {}, "cpu": WITHOUT_GPUS}.items():
        file = home / f"{name}.csv"
        output_of(home, "predict", str(flagship.path), "datasets/xray_demo/val", "--out", str(file),
              environment=environment)
        found.append(numbers(file, "NORMAL", "PNEUMONIA"))
    assert len(found[0]) == 16
    assert found[0] == pytest.approx(found[1], abs=0.1)


def test_show(home: Path) -> None:
    text = output_of(home, "show", FLAGSHIP, "--sheet", "sheet.png")
    assert "ResNet50ConcatPool" in text
    assert "not shown" not in text
    assert (home / "sheet.png").stat().st_size > 0
