"""A fork of a run: the config from its step on, and what of the run's folder the fork starts with.

The fork becomes a run of its own: the files of a checkpoint are linked (hard links, which cost no space) or copied, so
it does not matter what happens to its parent later, nor that the parent prunes its checkpoints meanwhile.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

from drumbeat.configs.errors import ConfigError, Fault, RunError
from drumbeat.configs.load import Loaded, reload
from drumbeat.configs.run.changes import kept, refusals
from drumbeat.configs.run.checkpoint_records import CheckpointState, Manifest, Progress
from drumbeat.configs.run.ends import continues
from drumbeat.configs.run.files import DamagedError, open_file
from drumbeat.configs.run.folder import RunDir
from drumbeat.configs.run.fork import Fork, kept_before, parts_until, progress_at_step, with_kept
from drumbeat.configs.run.manifest import checkpoint_path, damage, newest_state, progress_at, saved_steps
from drumbeat.configs.run.view import View
from drumbeat.launch.backends.typed import command

AT = re.compile(r"([0-9]{1,15})|([0-9]{1,3}(?:\.[0-9]{1,6})?)%")
"""A step, or a percentage of the run's steps."""


@dataclass(frozen=True)
class Prefix:
    """What a fork has from its parent."""

    parent: RunDir
    fork: Fork
    """Without the checkpoint that it starts from, which is chosen when it is linked."""

    def make(self, run: RunDir) -> None:
        """Links the newest intact checkpoint up to the step whose best weights are there, too, into the folder of a new
        run, together with the curves so far; nothing if there is none. Writes fork.json. Removes first what a killed
        command has linked there. Raises `OSError`."""
        shutil.rmtree(run.checkpoints, ignore_errors=True)
        steps = [step for step in saved_steps(self.parent) if step <= self.fork.step]
        start = next((step for step in steps if self._taken(run, step)), 0)
        before, curves = Fork.read(self.parent.fork), dict[str, int]()
        if start:
            events = [*self.parent.tensorboard.glob("*tfevents*")]
            curves = {path.name: min(start, before.curves.get(path.name, start) if before else start)
                      for path in events}
            for path in [self.parent.vocabulary, *self.parent.nondeterministic.glob("*.json"), *events]:
                with suppress(FileNotFoundError, DamagedError):
                    _copy(path, run.path / path.relative_to(self.parent.path))
        with suppress(FileNotFoundError, DamagedError):
            _copy(self.parent.starting_weights, run.starting_weights)
        dataclasses.replace(self.fork, start=start, curves=curves).write(run.fork)

    def _taken(self, run: RunDir, step: int) -> bool:
        """Links a checkpoint and those that it keeps into another run. Returns whether it and its best weights are
        intact; otherwise nothing is left of them."""
        if not _link(checkpoint_path(self.parent, step), checkpoint_path(run, step)):
            return False
        progress = progress_at(checkpoint_path(run, step)) or Progress()
        missing = {one for one in progress.kept_steps - {step} if not _link(checkpoint_path(self.parent, one),
                                                                            checkpoint_path(run, one))}
        best = int(progress.best.get("step", step))
        if best in missing:
            shutil.rmtree(run.checkpoints)
            return False
        (run.checkpoints / "last").symlink_to(checkpoint_path(run, step).name)
        if progress.best:
            (run.checkpoints / "best").symlink_to(checkpoint_path(run, best).name)
        return True


def forked(parent: RunDir, at: str, assignments: Sequence[str], layout: Mapping[str, Any]) -> tuple[Loaded, Prefix]:
    """The config of a fork of a run from the step `at` on, a step or a percentage of the run's steps: what the run had
    there, with `assignments` (KEY=VALUE) and `layout` (dotted key to value) on top.

    Raises `RunError` if the run has not reached the step, or nothing is left to train after it, and `ConfigError` with
    all keys that may not change there."""
    view, state = View.read(parent), newest_state(parent)
    step = _step(view, at, state)
    assert state
    own = reload(parent.config, (), layout)
    then = kept_before(own.config, state, step)
    base = with_kept(own.config, then) if then != kept(own.config) else None
    before, loaded = (reload(parent.config, words, layout, base=base) for words in ((), assignments))
    there = progress_at_step(state.progress, step)
    if faults := refusals(before.config, loaded.config, there):
        raise ConfigError(*map(loaded.located, faults))
    budget = loaded.config.budget.steps
    if (budget is not None and budget <= step) or (view.state == "finished" and step == state.progress.step
                                                   and not continues(before.config, loaded.config, there)):
        raise RunError(Fault(what=f"nothing is left to train after step {step:,} of run {parent.id}",
                             where=str(parent.path), given=f"--at {at}",
                             remedy="Fork it at an earlier step, or train the fork for longer: phases.NAME.epochs=N"))
    fork = Fork(parent=parent.id, folder=str(parent.path), step=step, start=0, phase=there.phase,
                parts=parts_until(own.config, state, step), data=state.progress.data)
    return dataclasses.replace(loaded, notes=[*loaded.notes, *_notes(parent, step, state)]), Prefix(parent, fork)


def _step(view: View, at: str, state: CheckpointState | None) -> int:
    """The step that --at names. Raises `RunError` if the run has not saved it."""
    run, beat = view.run, view.heartbeat
    found, given, reached = AT.fullmatch(at), f"--at {at}", state.progress.step if state else 0
    if found is None:
        raise RunError(Fault(what="--at is a step of the run, or a percentage of its steps", where="command line",
                             given=given, remedy="For example 600 or 60%."))
    if found[2] and not (beat and beat.steps):
        raise RunError(Fault(what=f"the number of steps of run {run.id} is not known", where=str(run.path),
                             given=given, remedy="Name the step: --at STEP"))
    step = int(found[1]) if found[1] else round(float(found[2]) / 100 * (beat.steps if beat else 0))
    if step == 0:
        raise RunError(Fault(what="a fork shares at least one step with its run", where="command line", given=given,
                             remedy=f"Start a new run: {command('rerun', run)} KEY=VALUE"))
    if step > reached:
        wait = f"resume it first: {command('resume', run)}" if view.ended else "wait until it has."
        more = "" if view.state == "finished" else f"\nOr {wait}" if reached else f"{wait[0].upper()}{wait[1:]}"
        raise RunError(Fault(what=f"run {run.id} has not reached step {step:,}", where=str(run.path),
                             given=f"{given}; it has saved {reached:,} steps",
                             remedy=f"Fork it at step {reached:,} at most.{more}" if reached else more))
    return step


def _notes(parent: RunDir, step: int, state: CheckpointState) -> list[str]:
    """What the fork computes again, and which changes of its parent it does not have."""
    complete = (one for one in saved_steps(parent) if one <= step and _has_best(parent, one))
    start = next(complete, 0)
    source = f"from its checkpoint of step {start:,}" if start else "from its beginning: it has no older checkpoint"
    notes = [f"the fork computes {step - start:,} of the {step:,} steps that it shares with run {parent.id} again, "
             f"{source}"] if start < step else []
    later = [change for change in state.progress.changes if change.step >= step and change.old != change.new]
    if later:
        keys = ", ".join(dict.fromkeys(change.key for change in later))
        notes.append(f"run {parent.id} was changed at step {later[0].step:,} and later: the fork has the values of "
                     f"before ({keys})")
    return notes


def _has_best(run: RunDir, step: int) -> bool:
    """Whether a checkpoint and its best weights are complete. Their digests are not checked."""
    progress = progress_at(checkpoint_path(run, step))
    needed = {step, int(progress.best.get("step", step))} if progress else {step}
    return all((checkpoint_path(run, one) / "manifest.json").exists() for one in needed)


def _link(source: Path, target: Path) -> bool:
    """Links or copies a checkpoint into another run. Returns whether its files are intact there; otherwise nothing is
    left of it. The run of `source` may remove it meanwhile."""
    intact = False
    with suppress(FileNotFoundError, DamagedError):
        manifest = Manifest.require(source / "manifest.json")
        for name in (*manifest.files, "manifest.json"):
            if Path(name).name == name:
                _link_file(source / name, target / name)
        intact = not damage(target)
    if not intact:
        shutil.rmtree(target, ignore_errors=True)
    return intact


def _link_file(source: Path, target: Path) -> None:
    """Links a file of this user, and copies one of another user, who could change it later, or of another disk."""
    status = source.lstat()
    if S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        with suppress(OSError):  # another file system, or one without hard links
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, target, follow_symlinks=False)
            return
    _copy(source, target)


def _copy(source: Path, target: Path) -> None:
    """Copies a file of a run. Raises like `open_file`, and `OSError`."""
    with open_file(source, None) as file:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(target, "wb") as copy:
            shutil.copyfileobj(file, copy)
