"""`drumbeat cache`: what it fills, what it prints, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from drumbeat.configs.errors import PreflightError
from drumbeat.configs.load import load
from drumbeat.launch.commands.main import main
from drumbeat.trainers.commands.cache import fill
from tests.tiny import write_config
from tests.trainers.saved_runs import IMAGES, draw_images


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


def test_without_a_folder_there_is_nothing_to_fill(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"data\.cache is not set"):
        fill(load(write_config(tmp_path)).config)


def test_a_config_without_image_files_has_nothing_to_cache(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match="the config's datasets have no image files to cache"):
        fill(load(write_config(tmp_path), [f"data.cache={tmp_path / 'cache'}"]).config)
    assert not (tmp_path / "cache").exists()


def test_each_set_of_images_has_a_line(tmp_path: Path) -> None:
    """Sets that the config leaves out are not listed. A cache that is full already is described in the same words."""
    draw_images(tmp_path)
    (tmp_path / "saved.yaml").write_text(IMAGES.replace("ROOT", str(tmp_path)))
    folder = tmp_path / "cache"
    first, second = (fill(load(tmp_path / "saved.yaml", [f"data.cache={folder}"]).config) for _ in range(2))
    assert re.findall(rf"(?m)^(\w+) +([\d,]+) images, 0 MB, in {folder}", first) == [("train", "3"), ("test", "11")]
    assert len(first.splitlines()) == 2
    assert second == first
