"""`drumbeat clean`: what it removes, when it does not, and that nothing is lost by it."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.lock import changing
from drumbeat.configs.run.manifest import checkpoint_path, damage
from drumbeat.configs.run.records import Result
from drumbeat.launch.commands.main import main
from drumbeat.launch.runs.clean import clean
from tests.launch.runs.finished import checkpoints, finished_run, write_checkpoint
from tests.runs import write_plan, write_state
from tests.tiny import drumbeat, latest, write_config
from tests.warm import run_python

LEFT = ["best", "last", "step-00000020", "step-00000040"]

PLAN = """\
of          what                          frees
tiny/aaaaa  2 checkpoints, steps 10, 30  2.0 MB
tiny/aaaaa  4 logs                       0.0 MB
total                                    2.0 MB
"""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A finished run of two attempts, with checkpoints of steps 10, 20 (the best one), 30 and 40."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return finished_run(tmp_path / "runs" / "tiny" / "20260101-100000-aaaaa", attempts=2)


def files(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_without_a_terminal_it_says_what_would_go_and_changes_nothing(run: RunDir,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    before = files(run.path)
    assert main(["clean"]) == 0
    said = capsys.readouterr().out
    assert said == f"{PLAN}\nnothing is removed; to remove it, add --yes\n"
    assert max(map(len, said.splitlines())) <= 80
    assert files(run.path) == before


def test_what_goes_and_what_stays(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--yes"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "removed    2.0 MB"
    assert checkpoints(run) == LEFT
    old, new = (sorted(path.name for path in run.attempt(number).path.iterdir()) for number in (0, 1))
    assert old == ["steps.bin", "verdict.json"]
    assert {"node0.log", "rank0.log", "rank1.log", "rank0.stacks", "steps.bin", "verdict.json"} < {*new}
    assert main(["clean", "--yes"]) == 0
    assert capsys.readouterr().out == "nothing to remove\n"
    for options in ([], ["--all"]):
        assert main(["logs", run.id, "--attempt", "0", *options]) == 2
        assert capsys.readouterr().err.startswith("error: attempt 0 has no logs any more\n")


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_it_asks(run: RunDir, answer: str) -> None:
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run([sys.executable, "-m", "drumbeat", "clean"], stdin=theirs, capture_output=True, text=True,
                          check=True)
    for handle in (ours, theirs):
        os.close(handle)
    assert "remove it? (y/N)" in done.stdout
    assert (checkpoints(run) == LEFT) is (answer == "y")


def test_a_named_run_that_is_not_finished_is_refused_and_nothing_is_removed(
        run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    other = finished_run(run.path.with_name("20260102-100000-bbbbb"))
    write_state(other, "stopped")
    before = files(run.all_runs)
    assert main(["clean", "--yes", run.id, other.id]) == 2
    assert capsys.readouterr().err == f"""\
error: run {other.id} cannot be cleaned: it is stopped, not finished
  where  runs/tiny/{other.id}
  fix    Only finished runs that nobody changes are cleaned. To delete a run,
         delete its folder.
"""
    assert files(run.all_runs) == before


@pytest.mark.parametrize("state", ["running", "preempted", "pending", "stopped", "failed", "cancelled"])
def test_runs_that_are_not_finished_stay(run: RunDir, capsys: pytest.CaptureFixture[str], state: str) -> None:
    write_state(run, state)  # type: ignore[arg-type]
    before = files(run.path)
    assert main(["clean", "--yes", "--all-but-best"]) == 0
    output = capsys.readouterr()
    assert (output.out, output.err) == ("nothing to remove\n",
                                        "kept       1 of 1 runs: not finished, or may not be changed now\n")
    assert files(run.path) == before


def test_a_run_with_processes_stays(run: RunDir, debug_here: Callable[[RunDir], None],
                                    capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its status.json says."""
    debug_here(run)
    before = files(run.path)
    done = subprocess.run([sys.executable, "-m", "drumbeat", "clean", "--yes"], capture_output=True, text=True,
                          check=False)
    assert done.returncode == 1
    assert re.search(rf"not done +runs/tiny/{run.id}: process {os.getpid()}", done.stderr)
    assert files(run.path) == before | {run.lock: run.lock.read_bytes()}


def test_a_run_that_another_command_changes_stays(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    with changing(run, "resume"):
        assert main(["clean", "--yes"]) == 0
        assert main(["clean", "--yes", run.id]) == 2
    output = capsys.readouterr()
    assert output.out == "nothing to remove\n"
    assert "cannot be cleaned: another command is changing it" in " ".join(output.err.split())
    assert len(checkpoints(run)) == 6


def test_a_trial_that_its_sweep_may_resume_stays(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    options = {"all_but_best": True, "caches": False, "yes": True, "busy": {run.path}}
    assert clean([], run.all_runs, **options) == 0  # type: ignore[arg-type]
    assert capsys.readouterr().out == "nothing to remove\n"
    with pytest.raises(RunError, match="its sweep may resume it"):
        clean([run], run.all_runs, **options)  # type: ignore[arg-type]
    assert len(checkpoints(run)) == 6


@pytest.mark.parametrize("step", [20, 40])
def test_older_checkpoints_stay_if_the_best_or_the_newest_is_damaged(run: RunDir, step: int,
                                                                     capsys: pytest.CaptureFixture[str]) -> None:
    """It is trained again from them."""
    weights = checkpoint_path(run, step) / "model.safetensors"
    weights.write_bytes(bytes(weights.stat().st_size))
    assert main(["clean", "--yes"]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"its checkpoints stay, because that of step {step} is damaged: the digest of model" in said
    assert len(checkpoints(run)) == 6
    assert not run.attempt(0).log(0).exists()


def test_all_but_best_leaves_the_state_of_the_newest(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    run.compiled.mkdir()
    assert main(["clean", "--yes", "--all-but-best"]) == 0
    assert "2 files of the newest checkpoint, step 40" in capsys.readouterr().out
    assert checkpoints(run) == LEFT
    assert [path.name for path in checkpoint_path(run, 40).iterdir()] == ["state.json"]
    assert damage(checkpoint_path(run, 20)) == ""
    assert not run.compiled.exists()
    assert main(["checkpoints", run.id]) == 0
    assert [line.split("  ")[-1].strip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "no weights, last", "ok, best"]
    for options in ([], ["--all-but-best"]):
        assert main(["clean", "--yes", *options]) == 0
        assert capsys.readouterr().out == "nothing to remove\n"


def test_a_clean_that_was_killed_is_finished_by_the_next(run: RunDir) -> None:
    for step in (10, 40):  # the manifest goes first
        (checkpoint_path(run, step) / "manifest.json").unlink()
    assert main(["clean", "--yes", "--all-but-best"]) == 0
    assert checkpoints(run) == LEFT
    assert [path.name for path in checkpoint_path(run, 40).iterdir()] == ["state.json"]


def test_links_are_not_followed(run: RunDir, tmp_path: Path) -> None:
    away = finished_run(tmp_path / "away" / "tiny" / "20260101-100000-zzzzz")
    before = files(away.path)
    (run.checkpoints / "step-00000005").symlink_to(away.checkpoints)
    assert main(["clean", "--yes"]) == 0
    assert checkpoints(run) == LEFT
    run.attempt(0).path.rename(run.attempt(2).path)
    run.attempt(0).path.symlink_to(away.attempt(0).path)
    assert main(["clean", "--yes"]) == 0
    assert files(away.path) == before


def test_replays_that_were_killed_go(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is running has its folder locked."""
    folders = [run.all_runs / ".replays" / name for name in ("dead", "alive")]
    for folder in folders:
        replay = RunDir(folder / "tiny" / "20260101-120000-abcde")
        write_plan(replay)
        write_state(replay, "stopped")
    (run.all_runs / ".replays" / "begun").mkdir()
    RunDir(folders[0]).lock.touch()
    with changing(RunDir(folders[1]), "replay"):
        assert main(["clean", "--yes"]) == 0
    assert ".replays    1 replay " in capsys.readouterr().out
    assert sorted(path.name for path in (run.all_runs / ".replays").iterdir()) == ["alive", "begun"]
    assert main(["clean", "--yes", run.id]) == 0
    assert folders[1].exists()


def test_a_checkpoint_from_which_another_run_is_to_start_stays(run: RunDir) -> None:
    waiting = RunDir(run.path.with_name("20260102-100000-bbbbb"))
    write_plan(waiting)
    write_state(waiting, "pending")
    text = f"{run.config.read_text()}initialize: {{weights: {checkpoint_path(run, 10)}}}\n"
    waiting.config.write_text(text)
    assert main(["clean", "--yes"]) == 0
    assert checkpoints(run) == sorted([*LEFT, "step-00000010"])


def test_ls_of_many_runs_notices_it(run: RunDir, monkeypatch: pytest.MonkeyPatch,
                                    capsys: pytest.CaptureFixture[str]) -> None:
    """Although only the folder of an earlier attempt has changed."""
    monkeypatch.setattr("drumbeat.launch.runs.listing.MANY", 1)
    monkeypatch.setattr("drumbeat.launch.runs.index.SETTLED_SECONDS", -60.0)
    run.attempt(0).log(0).write_bytes(bytes(3_000_000))
    for size in ("7.0 MB", "2.0 MB"):
        capsys.readouterr()
        assert main(["ls", "--size"]) == 0
        assert capsys.readouterr().out.splitlines()[1].endswith(size)
        assert main(["clean", "--yes"]) == 0


def test_caches_are_of_all_runs(run: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["clean", "--caches", run.id]) == 2
    assert capsys.readouterr().err.startswith("error: --caches looks at all runs\n")


@pytest.mark.slow
def test_nothing_is_lost_and_the_last_weights_can_be_trained_again(tmp_path: Path) -> None:
    drumbeat(tmp_path, str(write_config(tmp_path)), "--debug", "checkpoints.keep=9")
    run = latest(tmp_path)
    straight = Result.require(run.result)
    assert straight.best["step"] < straight.steps, "otherwise there is nothing to train again"

    def said(line: str) -> tuple[int, str, str]:
        done = run_python([sys.executable, "-m", "drumbeat", *line.split()], cwd=tmp_path, text=True,
                          capture_output=True, check=False)
        return done.returncode, done.stdout, done.stderr

    before = said(f"verify {run.id}")
    assert said("clean --yes --all-but-best")[0] == 0
    assert said(f"verify {run.id}") == before
    assert [said(f"{command} {run.id}")[0] for command in ("report", "evaluate")] == [0, 0]
    code, _, error = said(f"evaluate {run.id} --checkpoint last")
    assert (code, "its weights have been removed" in " ".join(error.split())) == (2, True)
    drumbeat(tmp_path, "--resume", run.id, "--debug")
    assert Result.require(run.result) == straight
    assert damage(checkpoint_path(run, straight.steps)) == ""


def test_checkpoints_of_a_fork_free_nothing_before_the_last_name_goes(run: RunDir,
                                                                      capsys: pytest.CaptureFixture[str]) -> None:
    fork = finished_run(run.path.with_name("20260102-100000-bbbbb"), (20, 40))
    for name in ("model.safetensors", "state.json", "manifest.json"):
        target = checkpoint_path(fork, 10) / name
        target.parent.mkdir(exist_ok=True)
        os.link(checkpoint_path(run, 10) / name, target)
    assert main(["clean", "--yes", run.id]) == 0
    assert "removed    1.0 MB" in capsys.readouterr().out
    assert main(["clean", "--yes", fork.id]) == 0
    assert "removed    1.0 MB" in capsys.readouterr().out


def test_a_newer_checkpoint_than_the_result_keeps_all(run: RunDir) -> None:
    """The run was continued, and its folder is not as expected."""
    from drumbeat.configs.run.checkpoint_records import Progress

    write_checkpoint(run, 50, Progress(step=50))
    assert main(["clean", "--yes"]) == 0
    assert len(checkpoints(run)) == 7
