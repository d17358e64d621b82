"""Where a run is in its data: the steps of each phase, from its config and from the steps that it has taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from functools import partial, reduce
from typing import Any

from drumbeat.configs.errors import Fault, PreflightError
from drumbeat.configs.phase_values import EXAMPLE, resolved
from drumbeat.configs.run.changes import differences, kept
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.ends import end_of
from drumbeat.configs.schema import Budget, Config, Group, Phase
from drumbeat.data.schedule import Schedule


def build_schedules(config: Config, n: int, progress: Progress | None = None) -> list[Schedule]:
    """The steps and epoch boundaries of each phase on a set of n samples, without the phases that the run does not
    reach because it ends before them. The steps that the run has taken before `progress` stay as they were; the rest
    follows from the config."""
    found: list[Schedule] = []
    left = config.budget.steps
    for number, (name, phase) in enumerate(config.phases.items()):
        if phase is None:
            continue
        end, taken = end_of(progress, number) if progress else None, _taken(progress, number)
        schedule = Schedule(n, phase.batch_size or config.batch_size, phase.epochs,
                            _earlier(config, number, name, progress) if progress and progress.changes else ())
        limits = [max(most, taken) for most in (end.steps if end else None, config.limit_batches, left)
                  if most is not None]
        found.append(schedule := _ended(schedule, limits))
        left = left if left is None else left - schedule.steps
        if (left is not None and left <= 0) or (end and end.reason == "hours"):
            break
    return found


def _taken(progress: Progress | None, number: int) -> int:
    """The steps that a run has taken in a phase."""
    return sum(span.steps for span in progress.ledger if span.phase == number) if progress else 0


def with_phase_values(config: Config, schedules: Sequence[Schedule] = (), *, least: int = 1) -> Config:
    """The config with numbers for what its phases refer to (`configs/phase_values.py`); without a schedule, because the
    length of a phase or the training set is not known, with examples of numbers. `least` is the smallest number of
    steps. Raises `PreflightError`."""
    faults: list[Fault] = []
    phases: dict[str, Phase | None] = {}
    for number, (name, phase) in enumerate((name, phase) for name, phase in config.phases.items() if phase is not None):
        values = values_of(schedules[number]) if number < len(schedules) else EXAMPLE
        values = {**values, "steps": max(least, values["steps"])}
        numbers = partial(resolved, values=values, faults=faults)
        key = f"phases.{name}"
        groups = {one: group and replace(group, optimizer=numbers(group.optimizer, key=f"{key}.groups.{one}.optimizer"))
                  for one, group in phase.groups.items()}
        phases[name] = replace(phase, optimizer=numbers(phase.optimizer, key=f"{key}.optimizer"), groups=groups,
                               scheduler=numbers(phase.scheduler, key=f"{key}.scheduler"),
                               average=numbers(phase.average, key=f"{key}.average"))
    if faults:
        raise PreflightError(*faults)
    return replace(config, phases=phases)


def values_of(schedule: Schedule) -> dict[str, float]:
    """What a phase knows about itself, by name."""
    values = {"steps": schedule.steps, "epochs": math.ceil(schedule.epochs),
              "steps_per_epoch": schedule.n / schedule.batch_size}
    return {name: int(value) if value == int(value) else value for name, value in values.items()}


def earlier_phase(config: Config, number: int, progress: Progress, saved: Mapping[str, Any], n: int) -> Phase:
    """Phase `number` as it was in the part of the config with which the checkpoint of `progress` was `saved`, with the
    numbers that it referred to on a set of n samples."""
    name, phase = list(config.phases.items())[number]
    before = dict(saved["phases"][name])
    if "groups" in before:
        before["groups"] = {one: Group(**group) for one, group in before["groups"].items()}
    new = {key for key, *_ in differences(saved, kept(config))}
    then = replace(progress, changes=tuple(change for change in progress.changes if not (
        change.key in new and change.step == progress.step)))
    known = {key: before[key] for key in (field.name for field in fields(Phase)) if key in before}
    past = replace(config, batch_size=saved.get("batch_size", config.batch_size),
                   budget=Budget(**saved.get("budget", {})),
                   phases={**config.phases, name: replace(phase, **known)})  # type: ignore[type-var]
    found = with_phase_values(past, build_schedules(past, n, then)).phases[name]
    assert found is not None
    return found


def _ended(schedule: Schedule, limits: Sequence[int]) -> Schedule:
    """The schedule, cut to these steps. If the phase was at its end when its batch size changed, its last size stays
    its present one."""
    def cut(one: Schedule) -> Schedule:
        return reduce(Schedule.cut, limits, one)

    if schedule.earlier:
        *earlier, (_, size) = schedule.earlier
        ended = cut(replace(schedule, batch_size=size, earlier=tuple(earlier)))
        if ended.steps == schedule.changed_at:
            return ended
    return cut(schedule)


def _earlier(config: Config, number: int, name: str, progress: Progress) -> tuple[tuple[int, int], ...]:
    """The steps that a phase has taken with other batch sizes than the config's, from what resumes have changed."""
    taken = [_taken(progress, one) for one in range(number + 1)]
    first, last = sum(taken[:-1]), sum(taken)
    keys = ["batch_size", f"phases.{name}.batch_size"]
    phase = config.phases[name]
    sizes = [config.batch_size, phase.batch_size if phase else None]
    found: list[tuple[int, int]] = []
    end, size = last, sizes[1] or sizes[0]
    for change in reversed(progress.changes):
        if change.key in keys and change.step > first:
            step = min(change.step, last)
            found.append((end - step, sizes[1] or sizes[0]))  # type: ignore[arg-type]
            sizes[keys.index(change.key)], end = change.old, step
    found.append((end - first, sizes[1] or sizes[0]))  # type: ignore[arg-type]
    earlier = [(steps, one) for steps, one in reversed(found) if steps]
    while earlier and earlier[-1][1] == size:
        earlier.pop()
    return tuple(earlier)


def check_position(config: Config, schedules: list[Schedule], progress: Progress) -> None:
    """Raises `PreflightError` if the phase of `progress` cannot continue there with this config, because it would be
    over, or because its samples were dealt to the steps in another way."""
    budget = config.budget.steps
    if budget is not None and progress.step > budget:
        raise PreflightError(Fault(what=f"the run has already taken {progress.step:,} steps", where="budget.steps",
                                   given=f"steps: {budget}", remedy="Give it more steps than that, or null."))
    if progress.phase >= len(schedules):
        return
    name, schedule = list(config.phases)[progress.phase], schedules[progress.phase]
    step, read = progress.phase_step, schedule.start(progress.phase_step)
    longer = any((change.step, change.key) == (progress.step, f"phases.{name}.epochs") for change in progress.changes)
    if longer and read >= schedule.samples:
        raise PreflightError(Fault(
            what=f"phase {name} has already trained for {read / schedule.n:.4g} epochs",
            where=f"phases.{name}.epochs", given=f"epochs: {float(schedule.epochs):g}",
            remedy="Give it more epochs than that, or leave this out."))
    resized = bool(schedule.earlier) and schedule.changed_at == step
    if config.data.bucket_batches is not None and (resized or longer) and 0 < read < schedule.samples:
        raise PreflightError(Fault(
            what=f"{'batch_size' if resized else 'epochs'} cannot change within a phase whose batches are sorted by "
                 "length (data.bucket_batches): samples would be left out or used twice",
            where=f"phases.{name}.{'batch_size' if resized else 'epochs'}", given=f"step {step:,} of phase {name}",
            remedy="Leave it out. It may change for a phase that has not begun."))
