"""Which checkpoints of a run are complete and undamaged. Does not need torch.

A checkpoint's manifest.json is written last, and lists its files with sizes and digests. Without it, the checkpoint is
incomplete.
"""

from __future__ import annotations

import hashlib
import os
import re
from contextlib import suppress
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.checkpoint_records import CheckpointFormat, CheckpointState, Manifest, Progress
from drumbeat.configs.run.files import DamagedError, open_file
from drumbeat.configs.run.folder import RunDir

FORMAT = 3
"""Version of the checkpoint format."""

STEP = re.compile("step-([0-9]{8,})")
"""The name of a checkpoint's folder."""
QUARANTINED = "quarantined-"
"""What comes before the name of a damaged checkpoint's folder, which no run resumes from."""
REMAINS = "state.json"
"""What `drumbeat clean --all-but-best` leaves of a finished run's newest checkpoint: its ledger and its metrics."""


def checkpoint_path(run: RunDir, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run.checkpoints / f"step-{step:08d}"


def saved_steps(run: RunDir) -> list[int]:
    """The steps that have a folder, newest first. Folders with other names, such as copies, are ignored."""
    names = (STEP.fullmatch(path.name) for path in run.checkpoints.glob("step-*"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def newest_checkpoint(run: RunDir) -> int:
    """The step of the newest complete checkpoint; -1 if there is none."""
    complete = (step for step in saved_steps(run) if (checkpoint_path(run, step) / "manifest.json").exists())
    return next(complete, -1)


def linked_checkpoint(run: RunDir, name: str) -> Path | None:
    """The folder of the checkpoint that the link `last` or `best` leads to; None if there is no link to one."""
    try:
        target = str((run.checkpoints / name).readlink())
    except OSError:
        return None
    return run.checkpoints / target if STEP.fullmatch(target) else None


def checkpoint_text(run: RunDir) -> str:
    """The checkpoint that a run resumes from, as text."""
    step = newest_checkpoint(run)
    return f"the last checkpoint is at step {step}" if step >= 0 else "there is no checkpoint"


def written_format(path: Path) -> int:
    """The format version of a checkpoint's folder; the current one if it is unknown."""
    try:
        found = CheckpointFormat.read(path / "manifest.json")
    except DamagedError:
        return FORMAT
    return found.format if found else FORMAT


def progress_at(path: Path) -> Progress | None:
    """The progress of the run at a checkpoint; None if its state.json is missing or damaged (`damage` says which)."""
    try:
        state = CheckpointState.read(path / "state.json")
    except DamagedError:
        return None
    return state.progress if state else None


def has_no_weights(path: Path) -> bool:
    """Whether a checkpoint's weights were removed on purpose, and its `REMAINS` are left."""
    try:
        return [entry.name for entry in os.scandir(path)] == [REMAINS]
    except OSError:
        return False


def newest_state(run: RunDir) -> CheckpointState | None:
    """The state in the newest checkpoint in which it can be read; None without one."""
    for step in saved_steps(run):
        with suppress(DamagedError):
            if state := CheckpointState.read(checkpoint_path(run, step) / "state.json"):
                return state
    return None


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; '' if all files have the sizes and digests in its manifest."""
    if has_no_weights(path):
        return "its weights have been removed (drumbeat clean --all-but-best)"
    if (found := written_format(path)) != FORMAT:
        return f"format {found}, this version reads {FORMAT}"
    try:
        manifest = Manifest.read(path / "manifest.json")
    except DamagedError as error:
        return f"manifest.json cannot be read: {error.reason}"
    if manifest is None:
        return "no manifest"
    for name, written in manifest.files.items():
        if Path(name).name != name:
            return f"manifest.json lists {name!r}, which is not in this folder"
        try:
            with open_file(path / name, None) as file:
                if (size := os.fstat(file.fileno()).st_size) != written.bytes:
                    return f"{name} has {size} bytes, not {written.bytes}"
                if hashlib.file_digest(file, "sha256").hexdigest() != written.sha256:
                    return f"the digest of {name} differs"
        except FileNotFoundError:
            return f"{name} is missing"
        except DamagedError as error:
            return f"{name} cannot be read: {error.reason}"
    return ""


def find_checkpoint(run: RunDir, which: str | None) -> Path:
    """The folder of the checkpoint `which`: best, last or a step. None is the best one, or the last one if the run has
    no evaluation. Raises `RunError` if there is no such checkpoint."""
    steps = saved_steps(run)
    if not steps:
        raise RunError(Fault(what="there are no checkpoints yet", where=str(run.checkpoints),
                             remedy="Find out how far the run is: drumbeat why RUN"))
    which = which or ("best" if (run.checkpoints / "best").exists() else "last")
    path = (checkpoint_path(run, int(which)) if which.isdecimal()
            else linked_checkpoint(run, which) if which in ("best", "last") else None)
    if path is None or not path.is_dir():
        existing = ", ".join(f"{step}" for step in steps[:8]) + (", ..." if len(steps) > 8 else "")
        reason = " of a run without a validation set" if which == "best" else ""
        raise RunError(Fault(what=f"there is no checkpoint '{which}'{reason}", where=str(run.checkpoints),
                             given=f"--checkpoint {which}", remedy=f"Name best, last or a step: {existing}."))
    return path
