"""Builds the phases of a run from the config."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

from torch import nn

from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.ends import ends_of
from drumbeat.configs.schema import Config
from drumbeat.data.ahead import Ahead
from drumbeat.data.loader import Batch, BatchFetcher, batches
from drumbeat.data.sampling import InTurn
from drumbeat.data.schedule import Schedule
from drumbeat.trainers.build import (
    Sets,
    build_batch_sampler,
    build_mixing,
    build_stream,
)
from drumbeat.trainers.build_optimizer import build_average, build_scheduler, optimizer_maker
from drumbeat.trainers.changed_optimizer import Earlier
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.freezing import frozen_parts, set_trainable, trainable
from drumbeat.trainers.loop import TrainingPhase
from drumbeat.trainers.marks import Marks
from drumbeat.trainers.micro_batches import MicroBatches
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.position import build_schedules, check_position, earlier_phase, with_phase_values
from drumbeat.trainers.recompute import recompute
from drumbeat.trainers.replica import wrap
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.virtual_ranks import Division
from drumbeat.trainers.world import World

OPTIMIZER_KEYS = ("optimizer", "groups", "layers", "layer_decay", "scheduler", "scheduler_every")
"""The keys of a phase that its optimizer and its scheduler are built from."""


def build_phases(config: Config, sets: Sets, *, model: nn.Module, task: Task, world: World, forward: Forward,
                 workers: int, parameters: Sequence[nn.Parameter], progress: Progress | None = None,
                 saved: Mapping[str, Any] = MappingProxyType({}), micro_batches: MicroBatches | None = None
                 ) -> list[TrainingPhase]:
    """The phases of a run on this rank, with `workers` loader workers each. They train those of `parameters` that they
    do not freeze. A run that resumes gives its progress, and the part of its config with which the checkpoint was
    `saved`. Raises `PreflightError` if it cannot continue there."""
    schedules = build_schedules(config, len(sets.train), progress)
    config = with_phase_values(config, schedules)
    phases = [phase for phase in config.phases.values() if phase is not None]
    if progress:
        check_position(config, schedules, progress)
    return [TrainingPhase(
        schedule=schedule, ends=ends_of(config, number), start_from=phase.start_from,
        marks=Marks(schedule=schedule, evaluate_epochs=config.evaluation.every_epochs,
                    evaluate_steps=config.evaluation.every_steps, save_steps=config.checkpoints.every_steps,
                    keep_epochs=config.checkpoints.keep_every_epochs),
        make_runner=partial(build_phase_runner, config, number, model, task, world, forward, parameters,
                            build_earlier(config, number, model, schedule, progress, saved) if progress else None,
                            schedule.steps if phase.scheduler_every == "step" else math.ceil(schedule.epochs),
                            partial(average_due, schedule, phase.average_every), micro_batches),
        make_batches=partial(build_batches, config, sets, number, schedule, world=world, workers=workers),
    ) for number, (phase, schedule) in enumerate(zip(phases, schedules, strict=False))]


def build_phase_runner(config: Config, number: int, model: nn.Module, task: Task, world: World, forward: Forward,
                       parameters: Sequence[nn.Parameter] | None = None, earlier: Earlier | None = None,
                       scheduler_steps: int = 0, average_due: Callable[[int], bool] = lambda step: True,
                       micro_batches: MicroBatches | None = None) -> PhaseRunner:
    """Phase `number` on this rank. The model trains those of `parameters` that the phase does not freeze; by default,
    of those that it trains now. For `earlier`, `scheduler_steps` and `average_due` see `PhaseRunner`; `micro_batches`
    are those of the run, which all phases share. Raises `PreflightError`."""
    name, phase = list(config.phases.items())[number]
    assert phase is not None
    micro_batches = micro_batches or MicroBatches(config.micro_batch_size, world)
    recompute(model, config.recompute)
    frozen = frozen_parts(model, phase, name)
    set_trainable(model, trainable(model) if parameters is None else parameters, frozen)
    return PhaseRunner(
        name=name, number=number, seed=config.seed, model=model, frozen=frozen.modules, task=task, world=world,
        forward=forward, batch_size=phase.batch_size or config.batch_size,
        make_optimizer=optimizer_maker(phase, name, model), make_scheduler=partial(build_scheduler, phase, name),
        make_average=partial(build_average, phase, name), average_due=average_due,
        scheduler_every=phase.scheduler_every, clip_norm=phase.clip_norm, micro_batches=micro_batches,
        mixes=bool(config.data.mix), checks_finite=config.on_nonfinite != "ignore", earlier=earlier,
        scheduler_steps=scheduler_steps,
        virtual_ranks=config.virtual_ranks,
        make_replica=partial(wrap, find_unused=config.find_unused_parameters, averages=config.virtual_ranks is None,
                             arguments=config.compile, reduce_late=micro_batches.reduces_late))


def average_due(schedule: Schedule, every: int | None, step: int) -> bool:
    """Whether the average of a phase's weights is updated after its first `step` steps: each time that many are taken,
    or at the ends of epochs and of the phase if that is None."""
    return step % every == 0 if every else schedule.next_mark(step - 1) == step


def build_earlier(config: Config, number: int, model: nn.Module, schedule: Schedule, progress: Progress,
                  saved: Mapping[str, Any]) -> Earlier | None:
    """The optimizer and scheduler that phase `number` had when its checkpoint was saved; None if they are the same, or
    if the checkpoint is of another phase. The config has its `with_phase_values`."""
    name, phase = list(config.phases.items())[number]
    assert phase is not None
    if number != progress.phase or not progress.phase_step or name not in saved.get("phases", {}):
        return None
    before = earlier_phase(config, number, progress, saved, schedule.n)
    old = replace(phase, **{key: getattr(before, key) for key in OPTIMIZER_KEYS})
    if old == phase:
        return None
    return Earlier(make_optimizer=optimizer_maker(old, name, model),
                   make_scheduler=partial(build_scheduler, old, name),
                   same_schedule=old.scheduler == phase.scheduler,
                   same_unit=old.scheduler_every == phase.scheduler_every,
                   scheduler_steps=progress.phase_step if phase.scheduler_every == "step"
                   else schedule.epochs_after(progress.phase_step))


def build_batches(config: Config, sets: Sets, number: int, schedule: Schedule, first: int, *, world: World,
                  workers: int) -> Iterable[Batch]:
    """This rank's parts of each step of phase `number`, starting at its step `first`. Raises `PreflightError`."""
    stream = build_stream(config, sets.train, number)
    fetch = BatchFetcher(sets.train, indices=Ahead(stream.indices, schedule.batch_size), seed=config.seed, phase=number,
                         transforms=sets.transforms_in(number), mixing=build_mixing(config),
                         skip_unreadable=config.data.on_error == "skip", collate=sets.collate, name="data.train")
    division = Division.of(world, config.virtual_ranks)
    samplers = [build_batch_sampler(config, sets.train, schedule, stream, rank=part, world_size=division.count,
                                    first=first) for part in division.own]
    return batches(fetch, InTurn(samplers), workers=workers, pin_memory=world.device.type == "cuda")
