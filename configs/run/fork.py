"""A fork: the run that a run was forked from, and the configs of the steps that it shares with it.

A fork is a run of its own, with the checkpoint of its parent from which it starts. Up to its step it trains with what
the parent's config was there, from then on with its own: an attempt trains one part, and the next one the next, as if
the run had been stopped at that step and resumed with the changes. Which part is due follows from the newest
checkpoint, so it does not matter where an attempt was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from drumbeat.configs.layers import Layer, leaves, nest
from drumbeat.configs.load import build_config, plain
from drumbeat.configs.run.changes import kept, merge
from drumbeat.configs.run.checkpoint_records import CheckpointState, Progress
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.record import Record
from drumbeat.configs.schema import Config


@dataclass(frozen=True, kw_only=True)
class Part(Record):
    """Consecutive steps that a run trains with another config than its own."""

    until: int
    """The step after which another part, or the run's own config, begins."""
    config: dict[str, Any]
    """What of the config a resume may change and the result depends on (`changes.kept`)."""


@dataclass(frozen=True, kw_only=True)
class Fork(Record):
    """fork.json: the run that a run was forked from, and the configs of the steps that it shares with it. Written by
    the command that starts the fork."""

    parent: str
    """The id of the run that it was forked from."""
    folder: str
    """The parent's folder."""
    step: int
    """The last step that it shares with its parent: later ones are taken with its own config."""
    start: int
    """The step of the parent's checkpoint that it starts from; 0 without one."""
    phase: int
    """The number of the phase in which the step is."""
    parts: tuple[Part, ...]
    """The configs up to the step, in order. The last one ends at it."""
    curves: dict[str, int] = field(default_factory=dict)
    """The event files that it has from its parent, by name, and the last step of each that belongs to the fork: its
    parent may have gone on from there."""
    data: dict[str, Any] = field(default_factory=dict)
    """The parent's training set, as its progress describes it. A fork that starts from the beginning needs the same."""

    @property
    def text(self) -> str:
        """For users: "20261128-183143-m2aug at step 600"."""
        return f"{self.parent} at step {self.step:,}"

    def part(self, step: int) -> Part | None:
        """The part in which the run takes the step after this one; None if that is taken with the run's own config."""
        return next((part for part in self.parts if step < part.until), None)


def part_of(run: RunDir, step: int) -> Part | None:
    """The part in which a run resumes from a checkpoint of this step (-1 without one); None in the run's own config."""
    fork = Fork.read(run.fork)
    return fork.part(step) if fork else None


def with_kept(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other `values` for all that `changes.kept` holds."""
    mine = dict(leaves(kept(config)))
    found: dict[str, Any] = {}
    for key, value in leaves(plain(config)):
        if key not in mine:
            merge(found, nest(key, value))
    merge(found, values)
    return build_config([Layer(values=found, origin="the config of a run")])


def kept_before(config: Config, state: CheckpointState, step: int) -> dict[str, Any]:
    """What `changes.kept` held when a run with this config and this newest state reached an earlier step: without what
    resumes at that step and after it have changed."""
    later = [change for change in state.progress.changes if change.step >= step and change.old != change.new]
    found = dict(leaves(state.config or kept(config)))
    for change in reversed(later):
        found.pop(change.key, None)
        if change.old is not None:
            found[change.key] = change.old
    missing = {change.key for change in later if change.key not in found}
    if not missing:
        return _nested(found)
    optimizers = {key.split(".")[1] for key in found if key.startswith("phases.") and ".optimizer" in key}
    found = {key: value for key, value in found.items()
             if not key.startswith("phases.") or key.split(".")[1] in optimizers}  # later phases that were added
    defaults = dict(leaves(kept(with_kept(config, _nested(found)))))
    return _nested({**found, **{key: None for key in missing if defaults.get(key) is not None}})


def parts_until(config: Config, state: CheckpointState, step: int) -> tuple[Part, ...]:
    """The parts of a run from its beginning to a step, each with one config: `config` and `state` are its config and
    its newest state."""
    ends = sorted({change.step for change in state.progress.changes if change.step < step} | {step})
    return tuple(Part(until=end, config=kept_before(config, state, end)) for end in ends)


def progress_at_step(progress: Progress, step: int) -> Progress:
    """The phase in which a run was at an earlier step, from its ledger. At a boundary it is the phase that ends."""
    taken, phases = 0, sorted({span.phase for span in progress.ledger})
    for phase in phases:
        mine = sum(span.steps for span in progress.ledger if span.phase == phase)
        if step <= taken + mine:
            return replace(progress, step=step, phase=phase, phase_step=step - taken) if step < progress.step else (
                progress)
        taken += mine
    return progress


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        merge(found, nest(key, value))
    return found


