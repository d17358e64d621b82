"""Which checkpoints of a run are good: read from their folders, without torch.

A checkpoint's manifest.json, written last, names its files with their sizes and digests. Without it, there is none.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from drumbeat.configs.errors import Fault, RunError
from drumbeat.configs.run.checkpoint_records import CheckpointFormat, CheckpointState, Manifest, Progress
from drumbeat.configs.run.files import DamagedError
from drumbeat.configs.run.folder import RunDir

FORMAT = 1
"""Version of what a checkpoint's folder holds."""

STEP = re.compile("step-([0-9]{8,})")
"""The name of a checkpoint's folder."""
QUARANTINED = "quarantined-"
"""What comes before the name of a damaged checkpoint's folder, which no run resumes from."""


def checkpoint_path(run: RunDir, step: int) -> Path:
    """The folder of a step's checkpoint."""
    return run.checkpoints / f"step-{step:08d}"


def saved_steps(run: RunDir) -> list[int]:
    """The steps that have a folder, the newest first. A folder of another name, such as a copy, is no checkpoint."""
    names = (STEP.fullmatch(path.name) for path in run.checkpoints.glob("step-*"))
    return sorted((int(name[1]) for name in names if name), reverse=True)


def newest_checkpoint(run: RunDir) -> int:
    """The step of the newest complete checkpoint; -1 where there is none."""
    complete = (step for step in saved_steps(run) if (checkpoint_path(run, step) / "manifest.json").exists())
    return next(complete, -1)


def checkpoint_text(run: RunDir) -> str:
    """Which checkpoint a run resumes from, in words."""
    step = newest_checkpoint(run)
    return f"the last checkpoint is at step {step}" if step >= 0 else "there is no checkpoint"


def written_format(path: Path) -> int:
    """The version that a checkpoint's folder was written in; ours where it does not tell."""
    try:
        found = CheckpointFormat.read(path / "manifest.json")
    except DamagedError:
        return FORMAT
    return found.format if found else FORMAT


def progress_at(path: Path) -> Progress | None:
    """How far the run had come at a checkpoint; None where its state.json is not there, or is damaged, which `damage`
    tells."""
    try:
        state = CheckpointState.read(path / "state.json")
    except DamagedError:
        return None
    return state.progress if state else None


def damage(path: Path) -> str:
    """What is wrong with a checkpoint; '' where all files have the size and digest they were written with."""
    if (found := written_format(path)) != FORMAT:
        return f"format {found}, this version reads {FORMAT}"
    try:
        manifest = Manifest.read(path / "manifest.json")
    except DamagedError as error:
        return f"manifest.json cannot be read: {error.reason}"
    if manifest is None:
        return "no manifest"
    for name, written in manifest.files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != written.bytes:
            return f"{name} has {file.stat().st_size} bytes, not {written.bytes}"
        with open(file, "rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != written.sha256:
                return f"the digest of {name} differs"
    return ""


def find_checkpoint(run: RunDir, which: str | None) -> Path:
    """The folder of the checkpoint that `which` names: best, last or a step. None means the best; the last of a run
    that has judged none. Raises `RunError` where there is no such checkpoint."""
    steps = saved_steps(run)
    if not steps:
        raise RunError(Fault(what="there are no checkpoints yet", where=str(run.checkpoints)))
    which = which or ("best" if (run.checkpoints / "best").exists() else "last")
    path = (run.checkpoints / which).resolve()
    if which.isdecimal():
        path = checkpoint_path(run, int(which))
    elif which not in ("best", "last"):
        path = run.checkpoints / "nothing"
    if not path.is_dir():
        there = ", ".join(f"{step}" for step in steps[:8]) + (", ..." if len(steps) > 8 else "")
        reason = " of a run without a validation set" if which == "best" else ""
        raise RunError(Fault(what=f"there is no checkpoint '{which}'{reason}", where=str(run.checkpoints),
                             given=f"--checkpoint {which}", remedy=f"Name best, last or a step: {there}."))
    return path
