"""Which steps a replay computes, and its folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.load import read
from drumbeat.configs.run.checkpoint_records import CheckpointState, ConfigChange, Manifest, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.replay_records import ReplayRequest
from drumbeat.configs.run.step_log import StepLog, header, record_bytes
from drumbeat.launch.replay.scratch import Interval, interval, scratch
from tests.runs import write_plan, write_state

CHANGE = ConfigChange(key="batch_size", old=8, new=4, step=6, attempt=1, user="me", time=0.0)


def write_steps(run: RunDir, first: int, last: int, ranks: int) -> None:
    run.claim_attempt().steps.write_bytes(header(first, ranks) + b"\7" * record_bytes(ranks) * (last + 1 - first))


def save(run: RunDir, step: int, **progress: object) -> Path:
    folder = checkpoint_path(run, step)
    folder.mkdir(parents=True)
    CheckpointState(progress=Progress(step=step, **progress)).write(folder / "state.json")  # type: ignore[arg-type]
    Manifest(format=FORMAT, step=step, attempt=0, files={}).write(folder / "manifest.json")
    return folder


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    """A run of 12 steps on two ranks, resumed at step 6 with another batch size, whose checkpoint at 9 is corrupted."""
    run = RunDir(tmp_path / "runs" / "one" / "20260101-000000-abcde")
    write_plan(run)
    run.config.write_text("name: one\nbatch_size: 4\nmodel: {_target_: x}\ndata: {train: {_target_: x}}\n"
                          "phases: {only: {epochs: 1, optimizer: {_target_: x}}}\n")
    write_state(run, "finished")
    write_steps(run, 1, 7, ranks=2)
    write_steps(run, 7, 12, ranks=2)
    save(run, 3)
    save(run, 6, best={"step": 3})
    (save(run, 9, changes=[CHANGE]) / "manifest.json").unlink()
    save(run, 12, changes=[CHANGE])
    return run


@pytest.mark.parametrize(("step", "start", "undone"), [(1, 0, (CHANGE,)), (3, 0, (CHANGE,)), (4, 3, (CHANGE,)),
                                                       (6, 3, (CHANGE,)), (7, 6, ()), (12, 6, ())])
def test_steps_are_computed_from_the_nearest_whole_checkpoint(run: RunDir, step: int, start: int,
                                                              undone: tuple[ConfigChange, ...]) -> None:
    assert interval(run, step, StepLog.read(run)) == Interval(run=run, start=start, step=step, ranks=2, undone=undone)


def test_a_step_behind_the_log_is_only_for_the_debugger(run: RunDir) -> None:
    with pytest.raises(RunError, match="there is no step 13"):
        interval(run, 13, StepLog.read(run))
    assert interval(run, 13, StepLog.read(run), beyond=True).start == 12


def test_a_change_whose_checkpoint_is_gone_is_refused(run: RunDir) -> None:
    checkpoint_path(run, 6).rename(run.path / "gone")
    with pytest.raises(RunError, match="batch_size has changed between steps 3 and 8, and the checkpoint"):
        interval(run, 8, StepLog.read(run))
    write_steps(run, 6, 9, ranks=3)
    with pytest.raises(RunError, match="the number of ranks has changed between steps 3 and 6"):
        interval(run, 6, StepLog.read(run))


def test_the_folder_has_the_config_and_the_checkpoints_of_that_step(run: RunDir) -> None:
    with scratch(interval(run, 6, StepLog.read(run))) as folder:
        assert folder.all_runs.parent == run.all_runs / ".replays"
        assert read(folder.config).batch_size == 8
        assert [path.name for path in folder.checkpoints.iterdir()] == ["step-00000003"]
        plan = JobPlan.require(folder.plan)
        assert (plan.topology.world_size, plan.backend, plan.run_dir) == (2, "local", str(folder.path))
        assert ReplayRequest.require(folder.replay) == ReplayRequest(step=6, ranks=2)
    assert not folder.all_runs.parent.exists()
    with scratch(interval(run, 8, StepLog.read(run)), debugs=True, rank=1) as folder:
        assert read(folder.config).batch_size == 4
        assert sorted(path.name for path in folder.checkpoints.iterdir()) == ["step-00000003", "step-00000006"]
        assert JobPlan.require(folder.plan).topology.world_size == 1
        assert json.loads(folder.replay.read_text())["rank"] == 1


def test_the_folder_stays_after_an_error(run: RunDir) -> None:
    with pytest.raises(RuntimeError), scratch(interval(run, 4, StepLog.read(run))) as folder:
        raise RuntimeError
    assert folder.plan.exists()
