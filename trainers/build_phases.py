"""Builds the phases of a run from the config."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from torch import nn

from drumbeat.configs.schema import Config
from drumbeat.data.ahead import Ahead
from drumbeat.data.loader import Batch, BatchFetcher, batches
from drumbeat.data.order import Schedule
from drumbeat.trainers.build import (
    Sets,
    build_batch_sampler,
    build_mixing,
    build_optimizer,
    build_scheduler,
    build_stream,
    frozen_modules,
    set_trainable,
    trainable,
)
from drumbeat.trainers.forward import Forward
from drumbeat.trainers.loop import TrainingPhase
from drumbeat.trainers.phase_runner import PhaseRunner
from drumbeat.trainers.tasks import Task
from drumbeat.trainers.world import World


def build_schedules(config: Config, n: int) -> list[Schedule]:
    """The steps and epoch boundaries of each phase on a set of n samples."""
    return [Schedule(n, phase.batch_size or config.batch_size, phase.epochs)
            for phase in config.phases.values() if phase is not None]


def build_phases(config: Config, sets: Sets, *, model: nn.Module, task: Task, world: World, forward: Forward,
                 workers: int) -> list[TrainingPhase]:
    """The phases of a run on this rank, with `workers` loader workers each."""
    phases = [phase for phase in config.phases.values() if phase is not None]
    parameters = trainable(model)
    return [TrainingPhase(
        schedule=schedule, start_from=phase.start_from,
        make_runner=partial(build_phase_runner, config, number, model, task, world, forward, parameters),
        make_batches=partial(build_batches, config, sets, number, schedule, world=world, workers=workers),
    ) for number, (phase, schedule) in enumerate(zip(phases, build_schedules(config, len(sets.train)), strict=True))]


def build_phase_runner(config: Config, number: int, model: nn.Module, task: Task, world: World, forward: Forward,
                       parameters: Sequence[nn.Parameter] | None = None) -> PhaseRunner:
    """Phase `number` on this rank. The model trains those of `parameters` that the phase does not freeze; by default,
    of those that it trains now. Raises `PreflightError`."""
    name, phase = list(config.phases.items())[number]
    assert phase is not None
    frozen = frozen_modules(model, phase, name)
    set_trainable(model, trainable(model) if parameters is None else parameters, frozen)
    return PhaseRunner(
        name=name, number=number, seed=config.seed, model=model, frozen=frozen, task=task, world=world,
        forward=forward, batch_size=phase.batch_size or config.batch_size,
        make_optimizer=partial(build_optimizer, phase, name), make_scheduler=partial(build_scheduler, phase, name),
        scheduler_every=phase.scheduler_every, clip_norm=phase.clip_norm, micro_batch_size=config.micro_batch_size,
        mixes=bool(config.data.mix), checks_finite=config.on_nonfinite != "ignore")


def build_batches(config: Config, sets: Sets, number: int, schedule: Schedule, first: int, *, world: World,
                  workers: int) -> Iterable[Batch]:
    """This rank's batches of phase `number`, starting at its step `first`. Raises `PreflightError`."""
    stream = build_stream(config, sets.train, number)
    fetch = BatchFetcher(sets.train, indices=Ahead(stream.indices, schedule.batch_size), seed=config.seed, phase=number,
                         transforms=sets.train_transforms, mixing=build_mixing(config),
                         skip_unreadable=config.data.on_error == "skip")
    sampler = build_batch_sampler(config, sets.train, schedule, stream, rank=world.rank, world_size=world.size,
                                  first=first)
    return batches(fetch, sampler, workers=workers, pin_memory=world.device.type == "cuda")
