"""Whose a run is: what executes another user's run asks for --trust, and says whose it is."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.code_records import CodeSnapshot, CodeTree
from drumbeat.configs.run.files import write_text
from drumbeat.configs.run.folder import RunDir
from drumbeat.launch.commands.main import main
from tests.runs import write_plan, write_state
from tests.tiny import CONFIG

NOBODY = 65534
EXECUTING = ["evaluate tiny", "predict tiny photo.png", "resume tiny --dry-run", "rerun tiny --dry-run",
             "fork tiny --at 3 --dry-run", "run --resume tiny --dry-run"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDir:
    """A stopped run with a checkpoint and a copy of its code."""
    monkeypatch.chdir(tmp_path)
    run = RunDir(tmp_path / "runs" / "tiny" / "20260101-000000-abcde")
    write_plan(run)
    write_text(run.config, CONFIG)
    run.claim_attempt()
    write_state(run, "stopped")
    (run.checkpoints / "step-00000003").mkdir(parents=True)
    CheckpointState(progress=Progress(step=3)).write(run.checkpoints / "step-00000003" / "state.json")
    (run.checkpoints / "last").symlink_to("step-00000003")
    code = run.path / "code" / "theirs"
    (code / "drumbeat" / "launch" / "backends").mkdir(parents=True)
    (code / "drumbeat" / "launch" / "backends" / "task.py").write_text("")
    (code / "drumbeat" / "configs" / "run").mkdir(parents=True)
    (code / "drumbeat" / "configs" / "run" / "fork.py").write_text("")
    CodeSnapshot(trees=(CodeTree(name="theirs", folder="/theirs"),), home="theirs", folder="theirs").write(
        run.path / "code" / "snapshot.json")
    (tmp_path / "photo.png").write_bytes(b"")
    monkeypatch.setattr("drumbeat.launch.runs.programs.module", started)
    return run


def started(*words: str, **options: Any) -> Any:
    raise AssertionError(f"started: {words}")


def executes(command: str) -> bool:
    """Whether a command gets past the question, to the program or the plan that it is about."""
    try:
        return main(shlex.split(command)) == 0
    except AssertionError as error:
        return str(error).startswith("started: ")


@as_root
@pytest.mark.parametrize("path", ["", "config.yaml", "plan.json", "code", "code/theirs/drumbeat/launch/backends"])
@pytest.mark.parametrize("command", EXECUTING)
def test_the_run_of_another_user_is_executed_only_with_trust(run: RunDir, path: str, command: str,
                                                             capsys: pytest.CaptureFixture[str]) -> None:
    os.chown(run.path / path, NOBODY, NOBODY)
    assert main(shlex.split(command)) == 2
    screen = capsys.readouterr().err
    place = f"runs/tiny/{run.id}/{path}".removesuffix("/")
    assert [line.strip() for line in screen.splitlines()] == [
        f"error: this command would execute the code and config of {run.id},",
        "and another user has written them", f"where  {place}", f"given  owner: nobody (uid {NOBODY})",
        f"fix    If you trust them: drumbeat {command} --trust"]
    assert executes(f"{command} --trust")


@pytest.mark.parametrize("command", EXECUTING)
def test_a_run_that_every_user_may_write_counts_as_another_users(run: RunDir, command: str,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    """But not one that its group may write, as with the umask 002 of many systems."""
    for path in (run.path, run.config):
        path.chmod(0o664 | path.stat().st_mode)
    assert executes(command)
    run.config.chmod(0o666)
    assert main(shlex.split(command)) == 2
    assert "given  every user may write it (mode o+w)" in capsys.readouterr().err


@as_root
def test_looking_at_the_run_of_another_user_asks_nothing(run: RunDir) -> None:
    for folder, _, files in os.walk(run.path):
        for path in (folder, *(Path(folder, name) for name in files)):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    for command in ("ls", "status tiny", "why tiny", "checkpoints tiny"):
        assert main(shlex.split(command)) == 0
    for command in ("verify tiny", "report tiny", "export tiny out.pt"):
        with pytest.raises(AssertionError, match="started: "):
            main(shlex.split(command))


@as_root
@pytest.mark.parametrize("data", ["bucket_batches: 4", "sampling: {_target_: drumbeat.data.ClassBalanced}"])
def test_verify_asks_if_the_order_depends_on_a_set_that_the_config_describes(run: RunDir, data: str) -> None:
    write_text(run.config, CONFIG.replace("data:\n", f"data:\n  {data}\n"))
    os.chown(run.config, NOBODY, NOBODY)
    assert main(["verify", "tiny"]) == 2
    assert executes("verify tiny --trust")


def test_verify_runs_this_drumbeat(run: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the targets of the run's copy if it needs them, and otherwise with nothing of the run."""
    found: list[dict[str, str]] = []

    def module(name: str, *words: str, variables: dict[str, str], **options: Any) -> Any:
        found.append(variables)
        raise AssertionError

    monkeypatch.setattr("drumbeat.launch.runs.programs.module", module)
    for data in ("workers: 0", "bucket_batches: 4"):
        write_text(run.config, CONFIG.replace("  workers: 0\n", f"  {data}\n"))
        with pytest.raises(AssertionError):
            main(["verify", "tiny"])
    assert [str(run.path / "code") in one["PYTHONPATH"] for one in found] == [False, False]
    assert [str(run.path / "code") in one["DRUMBEAT_USER_PATH"] for one in found] == [False, True]
