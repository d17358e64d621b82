"""Caches of decoded images that no run uses."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from drumbeat.configs.errors import UserError
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.caches import orphaned
from tests.launch.runs.finished import finished_run
from tests.runs import write_state


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A finished run, trained on the folder birds/train, with a cache of it and one of a dataset called fish."""
    monkeypatch.chdir(tmp_path)
    run = finished_run(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa", [40], best=None)
    text = run.config.read_text().replace("data:\n", f"data:\n  cache: {tmp_path / 'cache'}\n", 1)
    run.config.write_text(text.replace("n: 100}", "n: 100, parts: [{root: /data/birds/train}]}"))
    for name in ("train-0123abcd", "fish-0123abcd"):
        cache = tmp_path / "cache" / name
        cache.mkdir(parents=True)
        (cache / "pixels.bin").write_bytes(bytes(2_000_000))
        for file in ("index.npy", "lock"):
            (cache / file).touch()
    return run


def caches(run: RunDir) -> list[str]:
    return [one.path.name for one in orphaned([run])]


def test_a_cache_of_a_dataset_that_no_config_names(run: RunDir, tmp_path: Path,
                                                  capsys: pytest.CaptureFixture[str]) -> None:
    assert caches(run) == ["fish-0123abcd"]
    assert main(["clean", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    assert main(["clean", "--yes", "--caches"]) == 0
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()[1:]] == [
        "cache 1 cache of decoded images 2.0 MB", "total 2.0 MB", "removed 2.0 MB"]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["train-0123abcd"]


def test_one_that_is_being_filled_stays(run: RunDir, tmp_path: Path) -> None:
    with open(tmp_path / "cache" / "fish-0123abcd" / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert caches(run) == []
    assert caches(run) == ["fish-0123abcd"]


def test_all_stay_while_a_run_that_uses_their_folder_has_not_ended(run: RunDir) -> None:
    write_state(run, "preempted")
    assert caches(run) == []


def test_a_folder_with_other_files_is_not_a_cache(run: RunDir, tmp_path: Path) -> None:
    (tmp_path / "cache" / "fish-0123abcd" / "notes.txt").touch()
    (tmp_path / "cache" / "fish").mkdir()
    (tmp_path / "cache" / "empty-0123abcd").mkdir()
    (tmp_path / "cache" / "link-0123abcd").symlink_to("fish-0123abcd")
    assert caches(run) == []


def test_a_config_that_cannot_be_read_may_use_any(run: RunDir) -> None:
    run.config.write_text("data: [")
    with pytest.raises(UserError):
        caches(run)
