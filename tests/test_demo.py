"""`make demo` without the installation: resnet50_xray_demo learns from scratch, in both phases."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.load import ROOT
from drumbeat.configs.run.records import Result
from drumbeat.data.demo.xray import write_radiographs
from tests.tiny import drumbeat, latest

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]  # which share its data
CONFIG = str(ROOT / "configs" / "resnet50_xray_demo.yaml")
NAME = "resnet50_xray_demo"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in, with the demo's data where its config looks for them."""
    here = tmp_path_factory.mktemp("demo")
    write_radiographs(here / "datasets" / "xray_demo")
    return here


def test_it_trains_the_same_in_debug_and_on_one_rank(folder: Path) -> None:
    short = ["phases.head.epochs=0.1", "phases.finetune.epochs=0.1", "launch.gpus=0"]
    results = []
    for flags in (["--debug"], ["--procs", "1"]):
        drumbeat(folder, CONFIG, *flags, *short)
        results.append(Result.require(latest(folder, NAME).result))
    assert results[0] == results[1]


def test_it_learns_on_two_ranks(folder: Path) -> None:
    """Chance is 0.5 on the 60 held-out images; 0.85 and 0.88 were seen."""
    drumbeat(folder, CONFIG, "--procs", "2")
    best = Result.require(latest(folder, NAME).result).best
    assert best["phase"] == "finetune"
    assert best["accuracy"] >= 0.7
