"""Rehearses the resume of a run whose config has changed: where it continues in its data, and a step from its newest
checkpoint."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from drumbeat.configs.errors import Fault, PreflightError, RunError
from drumbeat.configs.run.changes import taken
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress, Span
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import checkpoint_path, damage, saved_steps
from drumbeat.configs.schema import Config
from drumbeat.data.loader import Batch
from drumbeat.trainers.build import build_forward, build_model
from drumbeat.trainers.build_phases import build_earlier, build_phase_runner
from drumbeat.trainers.checkpoints.manager import Checkpoint
from drumbeat.trainers.checkpoints.state import load_weights
from drumbeat.trainers.commands.rehearsal import with_few
from drumbeat.trainers.commands.smoke_test import error_place, error_text
from drumbeat.trainers.contact_sheet import CPU
from drumbeat.trainers.model_and_task import with_task
from drumbeat.trainers.position import build_schedules, with_phase_values
from drumbeat.trainers.tasks import Task


def newest_checkpoint(run: Path) -> Checkpoint | None:
    """The newest intact checkpoint of a run, in which nothing is changed; None without one."""
    folder = RunDir(run)
    intact = (path for step in saved_steps(folder) if not damage(path := checkpoint_path(folder, step)))
    found = next((Checkpoint(path, CheckpointState.require(path / "state.json")) for path in intact), None)
    return _at_step_of_fork(found, Fork.read(folder.fork)) if found else None


def _at_step_of_fork(checkpoint: Checkpoint, fork: Fork | None) -> Checkpoint | None:
    """The checkpoint as it will be at the step of a fork that is still to be reached, with the weights that it has now;
    None if that is in another phase, of which it has no state."""
    part, progress = fork and fork.part(checkpoint.progress.step), checkpoint.progress
    if not fork or not part:
        return checkpoint
    if fork.phase != progress.phase:
        return None
    steps = fork.step - progress.step
    span = Span(phase=fork.phase, first_step=progress.phase_step, steps=steps, samples=0, digest="0", attempt=0,
                world_size=1)
    moved = replace(progress, step=fork.step, phase_step=progress.phase_step + steps,
                    ledger=(*progress.ledger, span))
    return replace(checkpoint, state=replace(checkpoint.state, progress=moved, config=fork.parts[-1].config))


def progress_with(config: Config, checkpoint: Checkpoint) -> Progress:
    """The progress from which a run with this config would continue."""
    return taken(checkpoint.progress, checkpoint.state.config, config, attempt=0, user="", time=time.time())


def rehearse_resume(config: Config, task: Task, batch: Batch, checkpoint: Checkpoint, n: int) -> None:
    """Loads the checkpoint into the phase that it was saved in, and takes a step on `batch`, a few training samples of
    the set of `n`, on the CPU. Raises `PreflightError` if that fails."""
    progress = progress_with(config, checkpoint)
    number, name = progress.phase, list(config.phases)[progress.phase]
    schedules = build_schedules(config, n, progress)
    schedule = schedules[number]
    if not progress.phase_step or progress.phase_step == schedule.steps:
        return  # the next phase begins, which the rehearsal of new runs covers
    few, samples = with_few(with_phase_values(config, schedules), batch)
    try:
        model = with_task(build_model(few), task)
        load_weights(model, checkpoint.model(), checkpoint.path, str(config.model.get("_target_")))
        runner = build_phase_runner(few, number, model, task, CPU, build_forward(few, CPU.device), None,
                                    build_earlier(few, number, model, schedule, progress, checkpoint.state.config))
        runner.start([samples], checkpoint)
        runner.train_mode()
        runner.backward([samples], progress.phase_step)
        runner.settle(runner.update())
    except (PreflightError, RunError) as error:
        raise PreflightError(*error.faults) from error
    except Exception as error:
        raise PreflightError(Fault(
            what=f"the run cannot continue from {checkpoint.path.name} with these changes: {error_text(error)}",
            where=f"phases.{name}", given=error_place(error),
            remedy="Leave the change out that the saved state does not fit.")) from error
