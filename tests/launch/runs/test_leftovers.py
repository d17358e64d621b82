"""Which files of a run may go."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import checkpoint_path
from drumbeat.configs.run.view import View
from drumbeat.launch.runs.leftovers import OLD_SECONDS, essential, of_commands, of_run, why_kept
from tests.launch.runs.finished import finished_run, write_checkpoint
from tests.runs import AS_ANOTHER, shared_folder
from tests.warm import run_for_real


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa"


def names(run: RunDir, *, all_but_best: bool = False) -> list[str]:
    return [str(one.path.relative_to(run.path)) for one in of_run(View.read(run), all_but_best=all_but_best)]


def steps(*some: int) -> list[str]:
    return [f"checkpoints/step-{step:08d}" for step in some]


def test_what_the_config_keeps_stays_unless_only_the_best_is_wanted(path: Path) -> None:
    run = finished_run(path, kept=[10])
    assert names(run) == steps(30)
    assert names(run, all_but_best=True) == [*steps(10, 30), "checkpoints/step-00000040/manifest.json",
                                             "checkpoints/step-00000040/model.safetensors"]


def test_without_an_evaluation_the_newest_is_the_best(path: Path) -> None:
    run = finished_run(path, best=None)
    assert names(run) == names(run, all_but_best=True) == steps(10, 20, 30)


def test_the_newest_may_be_the_best(path: Path) -> None:
    run = finished_run(path, best=40)
    assert names(run) == names(run, all_but_best=True) == steps(10, 20, 30)
    assert essential(View.read(run), all_but_best=False) == {40}


@pytest.mark.parametrize("step", [20, 40])
def test_nothing_goes_if_the_best_or_the_newest_is_missing(path: Path, step: int) -> None:
    run = finished_run(path)
    checkpoint_path(run, step).rename(path / "away")
    assert names(run) == []


def test_nothing_goes_if_the_newest_is_not_the_last_step(path: Path) -> None:
    run = finished_run(path)
    write_checkpoint(run, 50, Progress(step=50))
    assert names(run) == names(run, all_but_best=True) == []


def test_what_was_quarantined_or_not_completed_goes(path: Path) -> None:
    run = finished_run(path, [20, 40])
    for name in ("quarantined-step-00000030", ".step-00000050.4711.tmp", "step-00000010 (copy)", "step-00000030"):
        (run.checkpoints / name).mkdir()
    (run.checkpoints / ".last.4711.tmp").symlink_to("step-00000040")
    for name in (".status.json.4711.a1b2c3.tmp", "attempts/000/.profile-7-rank0.json.gz.tmp.gz", "notes.tmp"):
        (run.path / name).touch()
    assert sorted(names(run)) == [
        ".status.json.4711.a1b2c3.tmp", "attempts/000/.profile-7-rank0.json.gz.tmp.gz",
        "checkpoints/.last.4711.tmp", "checkpoints/.step-00000050.4711.tmp",
        "checkpoints/quarantined-step-00000030", "checkpoints/step-00000030"]


def test_records_traces_and_step_logs_of_earlier_attempts_stay(path: Path) -> None:
    run = finished_run(path, [40], best=None, attempts=3)
    for name in ("rank1.error.json", "profile-7.json", "profile-7-rank0.json.gz", "secret",
                 "nccl-flight-recorder-rank3"):
        (run.attempt(0).path / name).touch()
    logs = ["node0.log", "rank0.log", "rank0.stacks", "rank1.log"]
    assert names(run) == [*(f"attempts/000/{name}" for name in ["nccl-flight-recorder-rank3", *logs]
                            ), *(f"attempts/001/{name}" for name in logs)]


def test_temporary_files_beside_the_runs_go_when_they_are_old(path: Path) -> None:
    runs = path.parent.parent
    runs.mkdir(parents=True)
    for name in (".index.cells.0.json.17.aabbcc.tmp", ".index.facts.0.json.18.aabbcc.tmp", "mine.tmp"):
        (runs / name).touch()
    old = (runs / ".index.cells.0.json.17.aabbcc.tmp").stat().st_mtime - OLD_SECONDS - 60
    for name in (".index.cells.0.json.17.aabbcc.tmp", "mine.tmp"):
        os.utime(runs / name, (old, old))
    assert [one.path.name for one in of_commands(runs)] == [".index.cells.0.json.17.aabbcc.tmp"]


def test_runs_of_others_stay() -> None:
    with shared_folder() as folder:
        run = finished_run(folder / "tiny" / "20260101-100000-aaaaa")
        assert why_kept(View.read(run)) == ""
        for part in [run.path, *run.path.rglob("*")]:
            if not part.is_symlink():
                part.chmod(0o755 if part.is_dir() else 0o644)
        program = f"""
import sys
from pathlib import Path
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.backend import BACKENDS
from drumbeat.launch.runs.leftovers import why_kept
{AS_ANOTHER}
print(why_kept(View.read(RunDir(Path(sys.argv[1])))))
"""
        done = run_for_real([sys.executable, "-c", program, str(run.path)], capture_output=True, text=True, check=True)
    assert done.stdout == ("it belongs to another user\n" if os.geteuid() == 0 else "\n")
