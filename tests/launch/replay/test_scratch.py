"""Which steps a replay computes, and its folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drumbeat.configs.errors import RunError
from drumbeat.configs.load import read
from drumbeat.configs.run.changes import kept
from drumbeat.configs.run.checkpoint_records import CheckpointState, ConfigChange, Manifest, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import FORMAT, checkpoint_path
from drumbeat.configs.run.plan import JobPlan
from drumbeat.configs.run.replay_records import ReplayRequest
from drumbeat.configs.run.step_log import StepLog, header, record_bytes
from drumbeat.launch.replay.scratch import Interval, interval, scratch
from tests.runs import write_plan, write_state

CHANGE = ConfigChange(key="batch_size", old=8, new=4, step=6, attempt=1, user="me", time=0.0)


def write_steps(run: RunDir, first: int, last: int, ranks: int) -> None:
    run.claim_attempt().steps.write_bytes(header(first, ranks) + b"\7" * record_bytes(ranks) * (last + 1 - first))


def save(run: RunDir, step: int, config: dict[str, Any] | None = None, **progress: object) -> Path:
    folder = checkpoint_path(run, step)
    folder.mkdir(parents=True, exist_ok=True)
    state = CheckpointState(progress=Progress(step=step, **progress), config=config or {})  # type: ignore[arg-type]
    state.write(folder / "state.json")
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


@pytest.mark.parametrize(("step", "start", "size"), [(1, 0, 8), (3, 0, 8), (4, 3, 8), (6, 3, 8), (7, 6, 4), (12, 6, 4)])
def test_steps_are_computed_from_the_nearest_whole_checkpoint(run: RunDir, step: int, start: int, size: int) -> None:
    work = interval(run, step, StepLog.read(run))
    assert work == Interval(run=run, start=start, step=step, ranks=2)
    with scratch(work) as folder:
        assert read(folder.config).batch_size == size


def test_what_was_added_later_is_left_out(run: RunDir) -> None:
    """A phase, and a note that the best weights were lost, which changes no key; also by a resume that has saved
    nothing yet."""
    text = run.config.read_text()
    run.config.write_text(text.replace("{only:", "{more: {epochs: 1, optimizer: {_target_: x}}, only:"))
    phases = [replace(CHANGE, key=f"phases.more.{key}", old=None, new=new)
              for key, new in (("epochs", 1.0), ("optimizer._target_", "x"))]
    lost = replace(CHANGE, key="the best weights, of step 3, were lost", old=None, new=None)
    save(run, 12, changes=[CHANGE, lost, *phases])
    for step in (6, 12):
        with scratch(interval(run, step, StepLog.read(run))) as folder:
            assert [*read(folder.config).phases] == ["more", "only"][1 - step // 12:]
    saved = kept(read(run.config)) | {"batch_size": 8}
    save(run, 12, config=saved)
    with scratch(interval(run, 12, StepLog.read(run))) as folder:
        assert read(folder.config).batch_size == 8
    assert read(run.config).batch_size == 4


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


def test_with_virtual_ranks_their_number_may_change(run: RunDir) -> None:
    """A replay has the ranks of its last step, and their threads."""
    with run.config.open("a") as file:
        file.write("virtual_ranks: 4\n")
    plan = JobPlan.require(run.plan)
    replace(plan, topology=replace(plan.topology, threads_per_rank=1, cpus_per_rank=2, min_nodes=1)).write(run.plan)
    checkpoint_path(run, 6).rename(run.path / "gone")
    write_steps(run, 5, 9, ranks=3)
    for step, ranks in ((4, 2), (6, 3)):
        work = interval(run, step, StepLog.read(run))
        assert (work.start, work.ranks) == (3, ranks)
        with scratch(work) as folder:
            topology = JobPlan.require(folder.plan).topology
            assert (topology.threads, topology.world_size, topology.min_nodes) == (1, ranks, None)


def test_a_step_that_only_the_parent_of_a_fork_has_logged(run: RunDir) -> None:
    for attempt in run.all_attempts():
        attempt.steps.unlink()
    write_steps(run, 7, 9, ranks=2)
    Fork(parent="20250101-000000-first", folder="", step=8, start=6, phase=0, parts=()).write(run.fork)
    with pytest.raises(RunError) as caught:
        interval(run, 5, StepLog.read(run))
    assert str(caught.value).splitlines()[0] == "error: step 5 is not in the run's log"
    assert " ".join(str(caught.value).split()).endswith(
        "Choose one from 7 to 9, or replay that of the run that it was forked from: 20250101-000000-first")
    assert interval(run, 8, StepLog.read(run)).start == 6


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
