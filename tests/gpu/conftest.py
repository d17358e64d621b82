"""Two runs that the tests share: one of resnet50_xray_demo, and one that reports the state of its rank."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.folder import RunDir
from drumbeat.data.demo.xray import write_radiographs
from tests.gpu.subjects import CONFIG
from tests.tiny import drumbeat, latest

FLAGSHIP = str(ROOT / "configs" / "resnet50_xray_demo.yaml")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How long the flagship is trained: enough to learn on a GPU, and to test the tests themselves on a CPU."""

    images: int
    changes: tuple[str, ...]
    kill_at: int
    """The rank is killed at its training loss of this number. By then it has saved a checkpoint."""


SIZES = {
    "cuda": Size(images=160, changes=("phases.head.epochs=2", "phases.finetune.epochs=4"), kill_at=30),
    "cpu": Size(images=32, changes=("phases.head.epochs=1", "phases.finetune.epochs=3", "batch_size=8"), kill_at=10),
}


@pytest.fixture(scope="session")
def one_rank(device: str) -> list[str]:
    """The flags that start one rank on the device."""
    return ["--gpus", "1"] if device == "cuda" else ["--procs", "1"]


@pytest.fixture(scope="session")
def home(device: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a small demo set where the flagship's demo config looks for it."""
    folder = tmp_path_factory.mktemp("gpu")
    write_radiographs(folder / "datasets" / "xray_demo", train=SIZES[device].images, test=16, val=8)
    return folder


@pytest.fixture(scope="session")
def flagship_arguments(device: str, one_rank: list[str]) -> list[str]:
    """The arguments of `drumbeat run` for a short run of the flagship's demo."""
    return [FLAGSHIP, *SIZES[device].changes, *one_rank, "tracking.every_steps=1", "launch.cpus_per_rank=2"]


@pytest.fixture(scope="session")
def flagship(home: Path, flagship_arguments: list[str]) -> RunDir:
    """A short run of the flagship's demo."""
    drumbeat(home, *flagship_arguments)
    return latest(home, "resnet50_xray_demo")


@pytest.fixture(scope="session")
def reporting(home: Path, one_rank: list[str]) -> RunDir:
    """A run in fp32 whose task reports the state of its rank."""
    file = home / "reporting.yaml"
    file.write_text(CONFIG)
    drumbeat(home, str(file), f"task.folder={home}", *one_rank)
    return latest(home, "reporting")


@pytest.fixture(scope="session")
def reported(home: Path, reporting: RunDir) -> dict[str, Any]:
    """The report of that run."""
    found: dict[str, Any] = json.loads((home / "report.json").read_text())
    return found
