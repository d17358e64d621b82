"""When a run evaluates, saves and ends, and what it keeps: as its config says, also if it was killed anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from drumbeat.configs.load import load
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.manifest import saved_steps
from drumbeat.configs.run.records import Result
from drumbeat.trainers import stopping
from drumbeat.trainers.build import build_sets
from drumbeat.trainers.checkpoints.state import weights_sha256
from drumbeat.trainers.loop import Training
from drumbeat.trainers.report.events import read_events
from drumbeat.trainers.worker import build
from tests.tiny import drumbeat, latest, write_config
from tests.trainers.in_process import ALONE, attempted, new_run

EPOCH = 3
"""Steps: 12 samples in batches of 4."""
NEVER = ["checkpoints.every_steps=null"]
SLOW = ["evaluation.monitor=loss", "evaluation.mode=min"]
"""A metric that gets better; the metric of the config never does."""
EARLY = ["phases.head.epochs=9", "phases.head.patience=2", "phases.all.target=0.5", *NEVER]
"""The first phase ends after its third evaluation, the second one after its first."""


class KilledError(Exception):
    """Stands for SIGKILL: nothing is saved after it."""


def until(run: RunDir, step: int, changes: Sequence[str] = ()) -> None:
    """One attempt, which is killed after a step."""
    attempt = run.claim_attempt()
    config = load(run.path / "rows.yaml", changes).config
    training = build(run, attempt, config, build_sets(config), ALONE, threads=1, debug=True)
    log_step = training.log.step

    def killed(*values: object, **named: object) -> None:
        log_step(*values, **named)  # type: ignore[arg-type]
        if training.progress.step == step:
            raise KilledError

    training.log.step = killed  # type: ignore[method-assign]
    try:
        with pytest.raises(KilledError):
            training.run()
    finally:
        training.checkpoints.close()
        training.saver.tracker.close()
        training.watchdog.close()


def trained(folder: Path, *changes: str) -> tuple[RunDir, Training]:
    run = new_run(folder)
    return run, attempted(run, None, changes)[0]


def same(progress: Progress) -> Progress:
    """What must not depend on how often a run was killed."""
    return replace(progress, ledger=(), seconds={}, data={})


def ends(training: Training) -> list[tuple[int, int, str]]:
    return [(end.phase, end.steps, end.reason) for end in training.progress.ended]


def curve(run: RunDir, name: str = "validation/macro_f1") -> list[int]:
    return [step for step, _ in read_events(run.tensorboard).curves[name]]


def test_a_phase_ends_when_its_metric_is_not_better_or_good_enough(tmp_path: Path) -> None:
    run, training = trained(tmp_path / "run", *EARLY)
    assert [end.text for end in training.progress.ended] == [
        "phase head ended after 9 steps: macro_f1 has not been better in 2 evaluations",
        "phase all ended after 3 steps: macro_f1 has reached 0.5"]
    assert training.progress.step == training.log.total_steps == 4 * EPOCH
    assert curve(run) == [3, 6, 9, 12]
    assert saved_steps(run) == [12, 9, 3], "the ends of the phases, and the best one"


@pytest.mark.parametrize("kills", [(9,), (2, 5, 8)])
def test_a_run_that_is_killed_ends_at_the_same_steps(tmp_path: Path, kills: Sequence[int]) -> None:
    """Also where the checkpoint is older than evaluations, which are then repeated, and are in the curves once."""
    changes = [*EARLY, "phases.head.patience=4", "evaluation.every_steps=2", "checkpoints.keep_best=2"]
    straight_run, straight = trained(tmp_path / "straight", *changes)
    assert ends(straight) == [(0, 8, "patience"), (1, 2, "target")]
    run = new_run(tmp_path / "killed")
    for step in kills:
        until(run, step, changes)
    again, _ = attempted(run, None, changes)
    assert weights_sha256(again.model.state_dict()) == weights_sha256(straight.model.state_dict())
    assert same(again.progress) == same(straight.progress)
    assert curve(run) == curve(straight_run) == [2, 3, 4, 6, 8, 10]


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    run, training = trained(tmp_path / "run", *EARLY)
    again, losses = attempted(run, None, EARLY)
    assert (losses, again.progress.step, again.log.total_steps) == ([], training.progress.step, training.progress.step)


def test_a_phase_that_its_patience_has_ended_continues_with_more(tmp_path: Path) -> None:
    """As if it had had it from the start."""
    short, more = [*EARLY, "phases.all=null"], [*EARLY, "phases.all=null", "phases.head.patience=4"]
    run, training = trained(tmp_path / "run", *short)
    assert training.progress.step == 3 * EPOCH
    continued, _ = attempted(run, None, more)
    _, straight = trained(tmp_path / "straight", *more)
    assert (continued.progress.step, straight.progress.step) == (5 * EPOCH, 5 * EPOCH)
    assert ends(continued) == ends(straight) == [(0, 5 * EPOCH, "patience")]
    assert weights_sha256(continued.model.state_dict()) == weights_sha256(straight.model.state_dict())


@pytest.mark.parametrize(("short", "long"), [
    (["phases.all.epochs=2"], ["phases.all.epochs=4"]),
    (["phases.all.epochs=4", "budget.steps=8"], ["phases.all.epochs=4", "budget.steps=null"]),
])
def test_a_finished_run_continues_as_if_it_had_been_longer(tmp_path: Path, short: list[str], long: list[str]) -> None:
    """Also from within an epoch, where a scheduler that advances at the end of each epoch must not have advanced."""
    common = ["phases.all.scheduler_every=epoch"]
    run, _ = trained(tmp_path / "run", *common, *short)
    continued, _ = attempted(run, None, [*common, *long])
    _, straight = trained(tmp_path / "straight", *common, *long)
    assert continued.progress.step == straight.progress.step == 18
    assert weights_sha256(continued.model.state_dict()) == weights_sha256(straight.model.state_dict())


@pytest.mark.parametrize(("steps", "reached"), [(4, ["head"]), (6, ["head"]), (7, ["head", "all"])])
def test_a_budget_of_steps_shortens_the_run(tmp_path: Path, steps: int, reached: list[str]) -> None:
    run, training = trained(tmp_path / "run", f"budget.steps={steps}")
    assert training.progress.step == training.log.total_steps == steps
    assert training.progress.last["step"] == training.progress.step == saved_steps(run)[0]
    assert len(training.phases) == len(reached)
    assert training.progress.ended == ()


def test_a_budget_of_hours_ends_the_run_after_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is evaluated and saved; with more hours, it continues."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)
    run, training = trained(tmp_path / "run", "budget.hours=1e-9")
    assert ends(training) == [(0, 1, "hours")]
    assert training.progress.step == training.progress.last["step"] == training.log.total_steps == 1
    again, losses = attempted(run, None, ["budget.hours=1e-9"])
    assert (losses, again.progress.step) == ([], 1)
    longer, _ = attempted(run, None, ["budget.hours=1"])
    assert (longer.progress.step, longer.progress.ended) == (12, ())
    _, straight = trained(tmp_path / "straight")
    assert weights_sha256(longer.model.state_dict()) == weights_sha256(straight.model.state_dict())


@pytest.mark.parametrize("killed", [False, True])
def test_what_a_phase_leaves_of_the_budget_is_for_the_next(tmp_path: Path, killed: bool) -> None:
    """The first phase could use all of it, and ends after 9 steps; also if the run is killed then."""
    changes = [*EARLY, "phases.all.target=null", "phases.all.epochs=9", "budget.steps=16"]
    run = new_run(tmp_path / "run")
    if killed:
        until(run, 11, changes)
    training, _ = attempted(run, None, changes)
    assert training.progress.step == training.log.total_steps == 16
    assert [phase.schedule.steps for phase in training.phases] == [9, 7]


def test_hours_and_a_save_or_a_stop_before_one_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is not written twice, so the run ends, and that is saved, after a later step."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_CHECKS", 0.0)
    run, hours = new_run(tmp_path / "run"), ["budget.hours=1e-9", "checkpoints.every_minutes=1e-9"]
    stopped, _ = attempted(run, 1, ["checkpoints.every_minutes=9"])
    assert saved_steps(run) == [stopped.progress.step]
    ended, _ = attempted(run, None, hours)
    assert ended.progress.step == stopped.progress.step + 1
    state = CheckpointState.require(run.checkpoints / "last" / "state.json")
    assert state.progress.ended == ended.progress.ended
    assert [end.reason for end in state.progress.ended] == ["hours"]
    assert state.progress.last["step"] == ended.progress.step


def test_hours_that_end_with_a_phase_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping.StopCoordinator, "hours_are_used_up", lambda self: True)
    _, training = trained(tmp_path / "run")
    assert (training.progress.step, training.progress.phase, training.progress.ended) == (6, 0, ())


@pytest.mark.parametrize(("changes", "steps"), [
    ([], [3, 6, 9, 12]),
    (["evaluation.at_start=true"], [0, 3, 6, 9, 12]),
    (["evaluation.every_epochs=2"], [6, 12]),
    (["evaluation.every_epochs=0.5"], [2, 3, 5, 6, 8, 9, 11, 12]),
    (["evaluation.every_epochs=9", "evaluation.every_steps=4"], [4, 6, 8, 12]),
])
def test_when_the_validation_set_is_evaluated(tmp_path: Path, changes: list[str], steps: list[int]) -> None:
    """It changes nothing in the training."""
    run, training = trained(tmp_path / "run", *changes)
    assert curve(run) == steps
    assert training.progress.best["step"] == next(filter(None, steps)), "the first one after a step"
    _, straight = trained(tmp_path / "straight")
    assert weights_sha256(training.model.state_dict()) == weights_sha256(straight.model.state_dict())


def test_short_epochs_are_not_all_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first, which is the best, and the ends of the phases."""
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_SAVES", 1e9)  # on a slow machine, too
    run, _ = trained(tmp_path / "run", *NEVER, "phases.head.epochs=5", "checkpoints.keep=99")
    assert saved_steps(run) == [21, 15, 3]


def test_epochs_that_are_longer_than_saves_are_all_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(stopping, "SAVING", 0)
    run, _ = trained(tmp_path / "run", *NEVER, "checkpoints.keep=99")
    assert saved_steps(run) == [12, 9, 6, 3]


def test_what_is_kept(tmp_path: Path) -> None:
    """The loss gets better with each epoch."""
    run, training = trained(tmp_path / "run", *NEVER, *SLOW, "phases.head.epochs=6", "checkpoints.keep=1",
                            "checkpoints.keep_best=3", "checkpoints.keep_every_epochs=2.5")
    best = [int(one["step"]) for one in training.progress.top]
    assert best[0] == training.progress.best["step"]
    assert sorted(best, reverse=True) == best, "each one is better"
    assert training.progress.kept == (8, 15, 18, 24)
    assert saved_steps(run) == sorted({*best, 8, 15, 18, 24}, reverse=True)


def test_a_trial_takes_few_steps_in_each_phase_and_evaluates_few_samples(tmp_path: Path) -> None:
    run, training = trained(tmp_path / "run", "limit_batches=2", "evaluation.batch_size=2")
    assert [phase.schedule.steps for phase in training.phases] == [2, 2]
    assert curve(run) == [2, 4]
    validation = training.evaluator.sets.validation
    assert validation is not None
    assert len(validation) == 4, "of 6, in batches of 2"


@pytest.mark.slow
def test_ranks_killed_in_both_phases_end_at_the_same_steps(tmp_path: Path) -> None:
    """Two ranks, of which one is killed three times: before and after the first phase has ended early."""
    changes = ["--procs", "2", "phases.head.epochs=12", "phases.head.patience=2", "phases.finetune.patience=1",
               "evaluation.every_steps=4", "evaluation.at_start=true", "checkpoints.keep_best=3",
               "checkpoints.keep_every_epochs=2", *NEVER]
    results = {}
    for name in ("straight", "killed"):
        (folder := tmp_path / name).mkdir()
        fuse = ["task._target_=tests.tiny.Fuse", f"task.folder={folder}", "task.at=[9,30,40]", "task.rank=1"]
        drumbeat(folder, str(write_config(folder)), *changes, *(fuse if name == "killed" else []))
        run = latest(folder)
        results[name] = Result.require(run.result), saved_steps(run), curve(run, "validation/loss")
    assert results["straight"] == results["killed"]
    assert len(latest(tmp_path / "killed").all_attempts()) == 4
    assert [end.reason for end in results["straight"][0].ended] == ["patience", "patience"]
