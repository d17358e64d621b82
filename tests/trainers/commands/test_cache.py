"""`drumbeat cache`: what it fills, what it prints, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.cache import fill


@pytest.mark.slow
@pytest.mark.usefixtures("warm_programs")
def test_a_cache_is_filled_ahead_of_a_run_and_used_by_it(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "pictures.yaml"]) == 2
    assert capfd.readouterr().err.startswith("error: data.cache is not set\n")
    assert main(["cache", "pictures.yaml", "data.cache=cache"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("train      12 images, 0 MB, in ")
    (here / "train" / "cat" / "3.png").unlink()
    for extra in ([], ["data.cache=cache"]):
        assert main(["run", "pictures.yaml", "--debug", *extra]) == 0
    results = [path.read_text() for path in sorted((here / "runs" / "pictures").glob("2*/result.json"))]
    assert len(results) == 2
    assert results[0] == results[1]
