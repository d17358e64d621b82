"""The config of a run that is resumed: its own, with the changes that are given on the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, RunError
from drumbeat.configs.load import Loaded, reload
from drumbeat.configs.run.changes import changes_text, differences, kept, refusals
from drumbeat.configs.run.checkpoint_records import Progress
from drumbeat.configs.run.ends import continues, end_of, ended_between
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork
from drumbeat.configs.run.manifest import newest_state
from drumbeat.launch.backends.typed import command


def changed_config(run: RunDir, assignments: Sequence[str], layout: Mapping[str, Any], *, finished: bool
                   ) -> tuple[Loaded, bool]:
    """The config with `assignments` (KEY=VALUE) and `layout` (dotted key to value), and whether the result depends on
    what has changed since the newest checkpoint. A run that has `finished` needs something to train.

    Raises `ConfigError` with all keys that may not change, and `RunError` for a finished run."""
    before, loaded = reload(run.config, (), layout).config, reload(run.config, assignments, layout)
    state, fork = newest_state(run), Fork.read(run.fork)
    step = state.progress.step if state else -1
    # what differs from a fork's parent belongs to the fork; and what changes before its step holds from there on
    shared = fork if fork and fork.part(step) else None
    begun = Progress(step=shared.step, phase=shared.phase) if shared else state.progress if state else None
    if faults := refusals(before, loaded.config, begun):
        raise ConfigError(*map(loaded.located, faults))
    if finished and not continues(before, loaded.config, state.progress if state else None):
        *_, last = before.phases
        ended = end_of(state.progress, state.progress.phase) if state else None
        key = "budget.steps" if state and state.progress.step == before.budget.steps else "budget.hours" if state and (
            ended.reason == "hours" if ended else ended_between(before, state.progress)) else (
            f"phases.{last}.{ended.reason if ended else 'epochs'}")
        longer = [one for one in assignments if one.startswith(("budget.", "phases."))]
        trained = f"{state.progress.step:,} steps are trained" if state else ""
        raise RunError(Fault(what=f"run {run.id} is finished", where=str(run.path),
                             given="; ".join([*longer, ended.text if ended else trained]),
                             remedy=f"Train it for longer: {command('resume', run)} {key}=N\n"
                                    f"Or start it again as a new run: {command('rerun', run)} KEY=VALUE"))
    changes = differences((not shared and state and state.config) or kept(before), kept(loaded.config))
    if not changes or begun is None:
        return loaded, bool(changes)
    note = f"{changes_text(changes).removesuffix(' by resume')}; the run is exact up to step {begun.step:,}"
    return dataclasses.replace(loaded, notes=[*loaded.notes, note]), True
